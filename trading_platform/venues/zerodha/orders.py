"""Sending orders: place, change, cancel, convert. One request each, one typed answer, nothing sent twice.

    desk = OrderDesk(transport)
    sent = await desk.place(order)                       # Acknowledged, or why not
    await desk.change(order_id, Change(price=...), ...)
    await desk.cancel(order_id, "regular")

An acknowledgement says that the broker took a request, not that anything happened: an order number is no order at the
exchange, and an accepted change may leave the order as it was. Read the order afterwards. What the rules forbid is denied
before anything is sent, with the nearest value that would pass.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, cast
from urllib.parse import quote

from trading_platform.identifiers import VenueOrderId
from trading_platform.markets.denials import Denial
from trading_platform.markets.kite_orders import (
    KiteOrder,
    Surroundings,
    Variety,
    check,
    check_at_exchange,
    check_modification,
    variety_in_url,
)
from trading_platform.markets.quantities import FreezeTable
from trading_platform.markets.sessions import IST, Segment, amo_window
from trading_platform.venues.port import Ambiguous, AuthLost, IpNotAllowed, Refused, Throttled
from trading_platform.venues.zerodha.errors import Where, as_result, found_state
from trading_platform.venues.zerodha.transport import Failure, Fields, KiteTransport

NotSent = Refused | Throttled | AuthLost | IpNotAllowed | Ambiguous
MOST_SLICES = 10
"""More than a second's limit takes at once (Kite Connect forum 15912)."""
PRODUCTS_BY_SHARES = frozenset({"CNC", "MIS", "MTF"})


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker took the request for this order."""

    order_id: VenueOrderId


@dataclass(frozen=True, slots=True)
class Slice:
    """How one child of a sliced order went; the broker's answer does not tell its size."""

    answer: Acknowledged | NotSent


@dataclass(frozen=True, slots=True)
class Sliced:
    """A sliced order. It is not atomic: some children may be at the exchange and others refused."""

    parent_id: VenueOrderId
    """The broker's name for the group."""
    children: tuple[Slice, ...]

    @property
    def complete(self) -> bool:
        return all(isinstance(child.answer, Acknowledged) for child in self.children)


@dataclass(frozen=True, slots=True)
class Change:
    """What an order shall become; None stays. `quantity` is the new total, not what is left."""

    quantity: int | None = None
    price: Decimal | None = None
    trigger_price: Decimal | None = None
    order_type: str | None = None
    validity: str | None = None
    disclosed_quantity: int | None = None
    market_protection: Decimal | None = None


@dataclass
class OrderDesk:
    """The writing side of one account."""

    transport: KiteTransport

    async def place(self, order: KiteOrder, *, reducing: bool = False) -> Acknowledged | NotSent:
        """Send an order that has passed `denied`. `reducing`: it leaves a position, so it may use the reserve."""
        path = f"/orders/{order.variety}"
        return await self._acknowledged("POST", path, "place", form=order.form(), reducing=reducing)

    async def place_autosliced(self, order: KiteOrder, around: Surroundings) -> Sliced | Denial | NotSent:
        """Let the broker slice. Only above the freeze quantity: within it the broker has answered with errors."""
        if denial := check_autoslice(order, around):
            return denial
        answer = await self.transport.call(
            "POST", f"/orders/{order.variety}", form=replace(order, autoslice=True).form()
        )
        if isinstance(answer, Failure):
            return as_result(answer, "place")
        try:
            return _children(answer.data)
        except (KeyError, TypeError):
            return Ambiguous(f"the answer to a sliced order cannot be read: {answer.data!r}")

    async def change(
        self, order_id: VenueOrderId, order: KiteOrder, change: Change, around: Surroundings, *, done_before: int
    ) -> Acknowledged | Denial | NotSent:
        """Change a working order. `order`: as it is now; `done_before`: how often it was changed already.

        Prices that the order type uses are always restated: the broker answers success to an SL order that is sent a
        quantity alone, and leaves it unchanged.
        """
        wanted = changed(order, change)
        if denial := check_modification(order, done_before):
            return denial
        variety = variety_in_url(order.variety, _released(order, around))
        if denial := denied(replace(wanted, variety=variety), around):
            return denial
        path = f"/orders/{variety}/{_name(order_id)}"
        return await self._acknowledged("PUT", path, "modify", form=_change_form(order, wanted))

    async def cancel(
        self, order_id: VenueOrderId, variety: Variety, *, parent_id: VenueOrderId | None = None
    ) -> Acknowledged | NotSent:
        """Cancel an order; with `parent_id`, leave the position of a cover order by cancelling its second leg.

        `variety` as the URL wants it: an after-market order that was released is `regular` (`variety_in_url`).
        """
        query = {"parent_order_id": parent_id} if parent_id else None
        path = f"/orders/{variety}/{_name(order_id)}"
        return await self._acknowledged("DELETE", path, "cancel", query=query, reducing=True)

    async def convert(
        self, *, exchange: str, tradingsymbol: str, side: str, overnight: bool, quantity: int, old: str, new: str
    ) -> Denial | NotSent | None:
        """Change the product of a position; None when it is done. `overnight`: a position of an earlier day."""
        if denial := check_conversion(exchange, quantity, old, new):
            return denial
        form: Fields = {
            "exchange": exchange, "tradingsymbol": tradingsymbol, "transaction_type": side, "quantity": quantity,
            "position_type": "overnight" if overnight else "day", "old_product": old, "new_product": new,
        }  # fmt: skip
        answer = await self.transport.call("PUT", "/portfolio/positions", form=form)
        return as_result(answer, "modify") if isinstance(answer, Failure) else None

    async def _acknowledged(
        self, method: str, path: str, where: Where, *, form: Fields | None = None, query: Fields | None = None,
        reducing: bool = False,
    ) -> Acknowledged | NotSent:  # fmt: skip
        answer = await self.transport.call(method, path, form=form, query=query, reducing=reducing)
        if isinstance(answer, Failure):
            return as_result(answer, where)
        try:
            return Acknowledged(_order_id(answer.data))
        except (KeyError, TypeError):
            return Ambiguous(f"the broker said success and named no order: {answer.data!r}")


def denied(order: KiteOrder, around: Surroundings) -> Denial | None:
    """The first rule of the broker or of the exchange behind it that would refuse the order."""
    return check(order, around) or check_at_exchange(order, around)


def changed(order: KiteOrder, change: Change) -> KiteOrder:
    """The order as it shall be: a new type takes with it the prices that it does not use."""
    given = {name: getattr(change, name) for name in Change.__slots__ if getattr(change, name) is not None}
    after = replace(order, **given)
    if after.order_type in ("MARKET", "SL-M") and change.price is None:
        after = replace(after, price=None)
    if after.order_type in ("MARKET", "LIMIT") and change.trigger_price is None and after.variety != "co":
        after = replace(after, trigger_price=None)
    if after.order_type in ("LIMIT", "SL"):
        after = replace(after, market_protection=None)
    return after


def check_autoslice(order: KiteOrder, around: Surroundings) -> Denial | None:
    """Whether the broker's own slicing may be asked for: regular orders above the freeze quantity, ten slices at most."""
    if order.variety != "regular":
        return Denial("SLICE_VARIETY", f"the broker slices regular orders alone, not {order.variety}")
    freeze, day = around.freeze or FreezeTable(), around.now.astimezone(IST).date()
    largest = freeze.max_order(around.contract, day)
    if largest is None or order.quantity <= largest:
        return Denial("SLICE_NEEDLESS", f"{order.quantity} is within the freeze quantity: send it as one order")
    if order.quantity > largest * MOST_SLICES:
        return Denial(
            "QUANTITY_SLICES",
            f"{order.quantity} would be more than {MOST_SLICES} slices",
            Decimal(largest * MOST_SLICES),
        )
    return denied(replace(order, autoslice=True), around)


def check_conversion(exchange: str, quantity: int, old: str, new: str) -> Denial | None:
    """Whether a position may change its product that way."""
    allowed = PRODUCTS_BY_SHARES if exchange in ("NSE", "BSE") else frozenset({"MIS", "NRML"})
    for product in (old, new):
        if product not in allowed:
            names = ", ".join(sorted(allowed))
            return Denial("CONVERT_PRODUCT", f"{exchange} positions are {names}, not {product}")
    if old == new:
        return Denial("CONVERT_SAME", f"the position is {old} already")
    if quantity < 1:
        return Denial("CONVERT_QUANTITY", f"quantity must be positive, got {quantity}", Decimal(1))
    return None


def _change_form(before: KiteOrder, after: KiteOrder) -> Fields:
    """What changed, and every price that the type uses."""
    restated = {"LIMIT": ("price",), "SL": ("price", "trigger_price"), "SL-M": ("trigger_price",)}.get(
        after.order_type, ()
    )
    was, now = before.form(), after.form()
    names = (
        "quantity", "price", "trigger_price", "order_type", "validity", "disclosed_quantity", "market_protection",
    )  # fmt: skip
    return {name: now[name] for name in names if name in now and (name in restated or now[name] != was.get(name))}


def _released(order: KiteOrder, around: Surroundings) -> bool:
    """Whether an after-market order has gone to the exchange: its window is over."""
    segment = cast(Segment, {"NCO": "MCX"}.get(order.exchange, order.exchange))
    return order.variety == "amo" and not amo_window(segment, around.now)


def _children(data: Any) -> Sliced:
    slices = []
    for child in data["children"]:
        if "error" in child:
            error = child["error"]
            failure = Failure(int(error["code"]), error.get("error_type"), str(error.get("message")))
            answer: Acknowledged | NotSent = as_result(failure, "place")
            if isinstance(answer, Refused) and answer.code == "UNCLASSIFIED":
                answer = Refused(found_state("autoslice_child_failed").code, answer.text)
            slices.append(Slice(answer))
        else:
            slices.append(Slice(Acknowledged(_order_id(child))))
    return Sliced(_order_id(data), tuple(slices))


def _order_id(data: Any) -> VenueOrderId:
    """An opaque string: new ones exceed 2**53."""
    found = data["order_id"]
    if not found:
        raise KeyError("order_id")
    return VenueOrderId(str(found))


def _name(order_id: str) -> str:
    return quote(order_id, safe="")
