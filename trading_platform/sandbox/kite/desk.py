"""The broker's order desk: its own checks, the exchange's refusals, and what follows from an order by itself.

What the broker's check refuses is HTTP 400 and leaves no row. What the exchange refuses is a row: REJECTED, with the
exchange's code in its text. A protected market order becomes a limit order around the last price at once. From there an
order is the matching engine's; iceberg legs and the stop of a cover order are placed when their turn comes.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from trading_platform.markets.contracts import Contract, ContractBook, UnknownContractError
from trading_platform.markets.kite_orders import (
    STOPS,
    UNPROTECTED,
    KiteOrder,
    Surroundings,
    Variety,
    check,
    check_modification,
)
from trading_platform.markets.price_ranges import check_stop_range
from trading_platform.markets.quantities import FreezeTable
from trading_platform.markets.sessions import Phase
from trading_platform.markets.ticks import round_price
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.bands import Bands
from trading_platform.sandbox.kite.errors import KiteError, bad_input, denied
from trading_platform.sandbox.kite.forms import changed, terms_of
from trading_platform.sandbox.kite.listing import INDEX_NAMES
from trading_platform.sandbox.kite.rows import number_of
from trading_platform.sandbox.orders import Order, OrderRequest
from trading_platform.sandbox.rules import Refusal, RefusedError

IST = ZoneInfo("Asia/Kolkata")
OWN_BANDS = ((Decimal(100), Decimal(2)), (Decimal(500), Decimal(1)))
LAST_OWN_BAND = Decimal("0.5")
"""The broker's own protection in percent: 2 below 100 rupees, 1 up to 500, a half above (from general knowledge)."""
ENTERS_AUCTION = frozenset({Phase.CAS_ENTRY, Phase.CAS_LIMIT_ONLY})
BEFORE_OPEN = frozenset({Phase.PRE_OPEN_ENTRY, Phase.PRE_OPEN_LIMIT_ONLY})
HALTED = "Trading in the market is halted.|16388 : The market is halted"
STOP_RANGE = "Stop order price range check failed.|16448 : Difference between limit price and trigger price is beyond permissible range"  # fmt: skip
SELF_TRADE = "The order could have resulted in self trade.|17071 : The order could have resulted in self trade"
BASIC = frozenset({"regular", "amo"})


@dataclass
class Desk:
    """`halted`: why the whole market stands still, empty while it trades. `flat`: no new intraday orders, by exchange."""

    exchange: Exchange
    book: ContractBook
    bands: Bands
    freeze: FreezeTable = field(default_factory=FreezeTable)
    halted: str = ""
    flat: dict[str, str] = field(default_factory=dict)
    auctions: dict[str, str] = field(default_factory=dict)
    """{auction number: symbol}: what may be offered in the exchange's auctions today."""
    following: dict[int, Order] = field(default_factory=dict)
    """Orders that something follows from when they are done."""
    contracts: dict[str, Contract] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.contracts = {contract.tradingsymbol: contract for contract in self.book}
        for order in self.exchange.books.orders.values():
            self._watch(order)

    # --- commands ----------------------------------------------------------------------------------------------------

    def place(self, account: Account, order: KiteOrder, **terms: str) -> Order:
        """Raises `KiteError` for what the broker refuses; what the exchange refuses comes back REJECTED."""
        contract = self.contract(order.exchange, order.tradingsymbol)
        self._check(order, contract)
        self._check_variety(order)
        if order.variety == "iceberg":
            size = order.quantity // (order.iceberg_legs or 1)
            if size % contract.lot_size:
                raise bad_input("Invalid `iceberg_quantity`: every leg must be a multiple of the lot size.")
            terms["iceberg"] = f"1/{order.iceberg_legs}/{size}/{order.quantity}"
            order = replace(order, quantity=size)
        if order.variety == "co":
            terms |= {"product": "CO", "co_trigger": f"{order.trigger_price:f}"}
        return self.send(account, self.request(order, contract, **terms))

    def place_slices(self, account: Account, order: KiteOrder, contract: Contract) -> dict[str, object]:
        """An order above the freeze quantity, in pieces of their own fates: {order_id, children}."""
        day = self.bands.now.astimezone(IST).date()
        parent = f"{self.bands.now.astimezone(IST):%y%m%d}9{self.exchange.books.last_order_id + 1:08d}"
        children: list[dict[str, object]] = []
        for quantity in self.freeze.slices(order.quantity, contract, day):
            try:
                piece = replace(order, quantity=quantity, autoslice=False)
                children.append({"order_id": number_of(self.place(account, piece, autoslice=parent))})
            except (KiteError, RefusedError) as problem:
                refused = problem if isinstance(problem, KiteError) else in_words(problem)
                error = {
                    "code": refused.status,
                    "error_type": refused.error_type,
                    "message": refused.message,
                    "data": None,
                }
                children.append({"error": error})
        return {"order_id": parent, "children": children}

    def modify(self, order: Order, fields: dict[str, str]) -> Order:
        """Raises `KiteError`, `RefusedError`."""
        was = order.request.terms
        kite = changed(order, fields)
        contract = self.contract(kite.exchange, kite.tradingsymbol)
        modified = int(was.get("modified", "0"))
        if denial := check_modification(kite, modified):
            raise KiteError(400, "NetworkException", f"Maximum allowed order modifications exceeded. {denial.message}")
        now: Variety = "amo" if was["variety"] == "amo" and order.working_since is None else "regular"
        trigger = kite.trigger_price if kite.order_type in STOPS else None
        self._check(
            replace(
                kite, variety=now, product="MIS" if was["product"] == "CO" else kite.product, trigger_price=trigger
            ),
            contract,
        )
        request = self.request(replace(kite, trigger_price=trigger), contract)
        kept = {name: was[name] for name in ("iceberg", "co_trigger", "parent", "autoslice", "by") if name in was}
        terms = {**request.terms, **kept, "product": was["product"], "modified": str(modified + 1)}
        return self.exchange.amend_order(
            order,
            replace(
                request, client_order_id=order.client_order_id, at_open=order.request.at_open,
                queued=order.request.queued, terms=terms,
            ),
        )  # fmt: skip

    def cancel(self, order: Order) -> None:
        """Cancel; for the stop of a cover order that is its exit, at the market. Raises `RefusedError`."""
        self.exchange.cancel_order(order)
        if "parent" in order.request.terms and order.request.terms["variety"] == "co":
            self.close_out(order, order.remaining, order.request.terms["product"], variety="co", parent=order.request.terms["parent"])  # fmt: skip

    def send(self, account: Account, request: OrderRequest) -> Order:
        """On to the exchange. Raises `RefusedError` for what is not there to pay or deliver with."""
        request = self.exchange.checked(account, request)
        contract = self.contract(request.terms["exchange"], request.symbol)
        if reason := self._exchange_refuses(account, request, contract):
            return self.exchange.reject_order(account, request, reason)
        return self._watch(self.exchange.place_order(account, request))

    def close_out(self, like: Order, quantity: Decimal, product: str, **terms: str) -> Order:
        """Sell or buy back at the market what an order stood for: `like` has the side."""
        request = self.market_request(
            like.request.terms["exchange"], like.symbol, like.side, quantity, product, **terms
        )
        return self.send(self.exchange.books.accounts[like.account_id], request)

    def market_request(
        self, exchange: str, symbol: str, side: str, quantity: Decimal, product: str, **terms: str
    ) -> OrderRequest:
        """A market order of the broker's own making: as far as the price band goes."""
        contract = self.contract(exchange, symbol)
        order = KiteOrder(
            exchange, symbol, side, int(quantity), "MIS", "MARKET", market_protection=Decimal(5)  # type: ignore[arg-type]
        )  # fmt: skip
        return self.request(order, contract, **({"variety": "regular", "product": product} | terms))

    def follow_up(self) -> None:
        """Place what orders that are done call for: the next leg of an iceberg, the stop of a cover order."""
        while done := [order for order in self.following.values() if not order.is_open]:
            for order in done:
                del self.following[order.order_id]
                if order.state != "FILLED":
                    continue
                request = self._next_leg(order) if "iceberg" in order.request.terms else self._stop_of(order)
                if request is not None:
                    self._place_following(order, request)

    # --- what it is made of ------------------------------------------------------------------------------------------

    def contract(self, exchange: str, symbol: str) -> Contract:
        try:
            return self.book.get(exchange, symbol)
        except UnknownContractError as problem:
            raise bad_input(
                "The instrument you are placing an order for has either expired or does not exist."
            ) from problem

    def settlement_price(self, contract: Contract) -> Decimal:
        """What an expired contract is worth: by the index it is of where that is listed, else by its own last price."""
        last = self.bands.last(contract) or Decimal(0)
        of = next((each for each in self.book if each.is_index and INDEX_NAMES.get(each.tradingsymbol, each.tradingsymbol) == contract.name), None)  # fmt: skip
        spot = self.bands.last(of) if of is not None else None
        if spot is None:
            return last
        if contract.is_option:
            inside = spot - contract.strike if contract.instrument_type == "CE" else contract.strike - spot
            return max(inside, Decimal(0))
        return spot

    def request(self, order: KiteOrder, contract: Contract, **terms: str) -> OrderRequest:
        """The order in the exchange's own terms."""
        limit, kept = order.price, terms_of(order)
        phase = self.bands.phase(contract).phase
        if order.order_type in UNPROTECTED:
            stop = order.order_type == "SL-M"
            around = order.trigger_price if stop else self.bands.last(contract)
            if around is None:
                raise bad_input("LTP cannot be validated for this instrument.")
            percent = _protection(order.market_protection or Decimal(-1), around)
            limit = self._within(
                contract, around * (1 + percent / 100 * (1 if order.side == "BUY" else -1)), order.side
            )
            kept |= {"shown_as": "SL" if stop else "LIMIT", "protection": f"{percent:.2f}"}
        queued = order.variety == "auction" or phase in ENTERS_AUCTION
        return OrderRequest(
            contract.tradingsymbol, order.side, Decimal(order.quantity), order.tag or "", limit,
            stop_price=order.trigger_price if order.order_type in STOPS else None, stop_rises=order.side == "BUY",
            time_in_force="IOC" if order.validity == "IOC" else "GTC",
            at_open=order.variety == "amo" or phase in BEFORE_OPEN, queued=queued and order.variety != "amo",
            terms={**kept, **terms},
        )  # fmt: skip

    # --- inside ------------------------------------------------------------------------------------------------------

    def _check(self, order: KiteOrder, contract: Contract) -> None:
        """The broker's own rules. Raises `KiteError`."""
        around = Surroundings(
            contract, self.bands.now, closing_auction=self.bands.has_closing_auction(contract),
            limits=self.bands.limits(contract), last_price=self.bands.last(contract), freeze=self.freeze,
        )  # fmt: skip
        if denial := check(order, around):
            raise denied(denial, order, around)
        if order.product == "MIS" and (since := self.flat.get(order.exchange)):
            raise bad_input(
                f"Intraday (MIS and CO) orders are not allowed after {since}: positions are being squared off."
            )

    def _check_variety(self, order: KiteOrder) -> None:
        if order.variety == "auction" and self.auctions.get(order.auction_number or "") != order.tradingsymbol:
            raise bad_input("Invalid `auction_number`.")
        if order.variety == "iceberg" and order.quantity % (order.iceberg_legs or 1):
            raise bad_input("Invalid `iceberg_quantity`: the quantity must be the same in every leg.")
        last = self.bands.last(self.contract(order.exchange, order.tradingsymbol))
        if order.variety == "co" and last is not None and order.trigger_price is not None:
            reference = order.price or last
            if order.trigger_price >= reference if order.side == "BUY" else order.trigger_price <= reference:
                side, where = ("sell", "lower") if order.side == "BUY" else ("buy", "higher")
                raise bad_input(f"Trigger price for stoploss {side} orders should be {where} than the last traded price ({last}).")  # fmt: skip

    def _exchange_refuses(self, account: Account, request: OrderRequest, contract: Contract) -> str:
        """`message|raw` of the exchange's refusal; empty where it takes the order."""
        if self.halted:
            return HALTED
        day: datetime = self.bands.now.astimezone(IST)
        limit, stop = request.limit_price, request.stop_price
        if limit is not None and stop is not None:
            side = "buy" if request.side == "BUY" else "sell"
            if check_stop_range(side, limit, stop, contract, day.date()):  # type: ignore[arg-type]
                return STOP_RANGE
        if stop is None and not (request.at_open or request.queued) and limit is not None:
            for other in account.open_by[request.symbol, "SELL" if request.side == "BUY" else "BUY"].values():
                if other.rank and (other.limit <= limit if request.side == "BUY" else other.limit >= limit):
                    return SELF_TRADE
        return ""

    def _within(self, contract: Contract, price: Decimal, side: str) -> Decimal:
        limits = self.bands.limits(contract)
        rounded = round_price(price, contract.tick_size, "up" if side == "BUY" else "down")
        if limits.apply:
            rounded = min(max(rounded, limits.lower), limits.upper)
        return max(rounded, contract.tick_size)

    def _watch(self, order: Order) -> Order:
        terms = order.request.terms
        if (order.is_open and ("iceberg" in terms or "co_trigger" in terms)) or (
            order.state == "FILLED" and ("iceberg" in terms or "co_trigger" in terms) and not self._followed(order)
        ):
            self.following[order.order_id] = order
        return order

    def _followed(self, order: Order) -> bool:
        """Whether what follows from a finished order was placed already (before a restart)."""
        number = number_of(order)
        later = (each for each in self.exchange.books.accounts[order.account_id].orders.values() if each.order_id > order.order_id)  # fmt: skip
        return any(number in (each.request.terms.get("after"), each.request.terms.get("parent")) for each in later)

    def _next_leg(self, order: Order) -> OrderRequest | None:
        leg, legs, size, total = (int(part) for part in order.request.terms["iceberg"].split("/"))
        if leg >= legs:
            return None
        terms = {**order.request.terms, "iceberg": f"{leg + 1}/{legs}/{size}/{total}", "after": number_of(order)}
        return replace(order.request, terms=terms)

    def _stop_of(self, order: Order) -> OrderRequest:
        """The second leg of a cover order: a stop on the other side."""
        terms, side = order.request.terms, "SELL" if order.side == "BUY" else "BUY"
        stop = KiteOrder(
            terms["exchange"], order.symbol, side, int(order.filled), "MIS", "SL-M",  # type: ignore[arg-type]
            trigger_price=Decimal(terms["co_trigger"]), market_protection=Decimal(-1), tag=terms.get("tag"),
        )  # fmt: skip
        contract = self.contract(terms["exchange"], order.symbol)
        return self.request(stop, contract, variety="co", product="CO", parent=number_of(order))

    def _place_following(self, order: Order, request: OrderRequest) -> None:
        account = self.exchange.books.accounts[order.account_id]
        try:
            self.send(account, request)
        except RefusedError as refusal:
            if refusal.reason is Refusal.WOULD_TRIGGER:  # the stop of a cover order: the price is through it already
                opposite = replace(request, stop_price=None)
                self.send(account, opposite)
                return
            words = in_words(refusal).message
            self.exchange.reject_order(account, request, f"{words}|RMS:{words}")


def in_words(error: RefusedError) -> KiteError:
    """The exchange's refusal as the broker words it."""
    if error.reason is Refusal.BALANCE and error.wanted is not None and error.available is not None:
        return KiteError(
            400, "MarginException",
            f"Insufficient funds. Required margin is {error.wanted:.2f} but available margin is {error.available:.2f}.",
        )  # fmt: skip
    if error.reason is Refusal.HOLDINGS:
        return KiteError(
            400, "HoldingException",
            f"Insufficient holdings: {error.wanted:f} are to be sold and {error.available:f} are there. Authorise the sale "
            "of holdings at the depository (CDSL) if they are not authorised yet.",
        )  # fmt: skip
    words = {
        Refusal.NO_MARKET: "LTP cannot be validated for this instrument: it has not traded yet.",
        Refusal.UNKNOWN_SYMBOL: "The instrument you are placing an order for has either expired or does not exist.",
        Refusal.LOT_SIZE: "Invalid `quantity`: it must be a multiple of the lot size.",
        Refusal.PRICE_FILTER: "Tick size for this script does not allow this price. Kindly enter price in the multiple of "
        "tick size for this script.",
        Refusal.WOULD_TRIGGER: "Trigger price for stoploss orders should be beyond the last traded price.",
        Refusal.UNKNOWN_ORDER: "Order cannot be changed or cancelled as it is not open.",
    }
    kind = "OrderException" if error.reason is Refusal.UNKNOWN_ORDER else "InputException"
    return KiteError(400, kind, words.get(error.reason, error.reason.value))


def _protection(asked: Decimal, around: Decimal) -> Decimal:
    if asked > 0:
        return asked
    return next((percent for below, percent in OWN_BANDS if around < below), LAST_OWN_BAND)
