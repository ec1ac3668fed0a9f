"""What may be sent to Kite Connect: an order as a value, and every rule that would refuse it, before the wire.

    denial = check(order, contract, now, closing_auction=True, limits=limits)
    form = order.form()

The broker's tables (varieties, products, order types, validities) are data here; prices, quantities and sessions are judged
by `trading_platform.markets`. A denial names the rule and the nearest value that it would allow.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, cast
from zoneinfo import ZoneInfo

from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.price_bands import CircuitLimits, check_price
from trading_platform.markets.price_ranges import check_limit_protection, check_stop_range
from trading_platform.markets.quantities import FreezeTable, check_lot
from trading_platform.markets.sessions import Phase, Segment, amo_window, phase_at
from trading_platform.markets.ticks import check_tick

IST = ZoneInfo("Asia/Kolkata")
Variety = Literal["regular", "amo", "co", "iceberg", "auction"]
Product = Literal["CNC", "MIS", "NRML", "MTF"]
OrderType = Literal["MARKET", "LIMIT", "SL", "SL-M"]
Validity = Literal["DAY", "IOC", "TTL"]
ANY_PRODUCT = frozenset({"CNC", "MIS", "NRML", "MTF"})
VARIETIES: dict[str, tuple[frozenset[str], frozenset[str], frozenset[str]]] = {
    # variety: products, order types, validities
    "regular": (ANY_PRODUCT, frozenset({"MARKET", "LIMIT", "SL", "SL-M"}), frozenset({"DAY", "IOC", "TTL"})),
    "amo": (
        frozenset({"CNC", "MIS", "NRML"}), frozenset({"MARKET", "LIMIT", "SL", "SL-M"}), frozenset({"DAY", "IOC"}),
    ),
    "co": (frozenset({"MIS"}), frozenset({"MARKET", "LIMIT"}), frozenset({"DAY"})),
    "iceberg": (ANY_PRODUCT, frozenset({"LIMIT"}), frozenset({"DAY", "TTL"})),
    "auction": (frozenset({"CNC"}), frozenset({"LIMIT"}), frozenset({"DAY"})),
}  # fmt: skip
PRODUCTS_OF_SHARES = frozenset({"CNC", "MIS", "MTF"})
PRODUCTS_OF_DERIVATIVES = frozenset({"MIS", "NRML"})
SHARE_EXCHANGES = frozenset({"NSE", "BSE"})
STOPS = frozenset({"SL", "SL-M"})
UNPROTECTED = frozenset({"MARKET", "SL-M"})
LONGEST_TAG = 20
LEGS = range(2, 51)
LEAST_DISCLOSED = Decimal("0.1")
MOST_MODIFICATIONS = 25
TRADE_TO_TRADE = ("-BE", "-BZ", "-BL", "-SM", "-ST")
"""Series of shares that must be delivered: no intraday."""
TAKES_REGULAR = frozenset(
    {Phase.PRE_OPEN_ENTRY, Phase.PRE_OPEN_LIMIT_ONLY, Phase.CONTINUOUS, Phase.CAS_ENTRY, Phase.CAS_LIMIT_ONLY, Phase.POST_CLOSE}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KiteOrder:
    """An order as POST /orders/{variety} takes it. `quantity` in units; prices in rupees.

    `market_protection`: percent of the last price, or -1 for the broker's own; MARKET and SL-M need it.
    """

    exchange: str
    tradingsymbol: str
    side: Literal["BUY", "SELL"]
    quantity: int
    product: Product
    order_type: OrderType
    variety: Variety = "regular"
    validity: Validity = "DAY"
    price: Decimal | None = None
    trigger_price: Decimal | None = None
    market_protection: Decimal | None = None
    disclosed_quantity: int | None = None
    validity_ttl: int | None = None
    iceberg_legs: int | None = None
    auction_number: str | None = None
    autoslice: bool = False
    tag: str | None = None
    algo_id: str | None = None

    def form(self) -> dict[str, str | int | float]:
        """The fields as the broker wants them; what is not set is not sent."""
        fields: dict[str, object] = {
            "exchange": self.exchange,
            "tradingsymbol": self.tradingsymbol,
            "transaction_type": self.side,
            "quantity": self.quantity,
            "product": self.product,
            "order_type": self.order_type,
            "validity": self.validity,
            "price": self.price,
            "trigger_price": self.trigger_price,
            "market_protection": self.market_protection,
            "disclosed_quantity": self.disclosed_quantity,
            "validity_ttl": self.validity_ttl,
            "iceberg_legs": self.iceberg_legs,
            "iceberg_quantity": self.quantity // self.iceberg_legs if self.iceberg_legs else None,
            "auction_number": self.auction_number,
            "autoslice": "true" if self.autoslice else None,
            "tag": self.tag,
            "algo_id": self.algo_id,
        }
        return {
            name: f"{value:f}" if isinstance(value, Decimal) else cast("str | int", value)
            for name, value in fields.items()
            if value is not None
        }


@dataclass(frozen=True)
class Surroundings:
    """What an order is judged by, beside itself. What is None is not checked."""

    contract: Contract
    now: datetime
    closing_auction: bool = False
    """Whether the share has derivatives, and so a closing auction."""
    limits: CircuitLimits | None = None
    last_price: Decimal | None = None
    freeze: FreezeTable | None = None


def check(order: KiteOrder, around: Surroundings) -> Denial | None:
    """The first rule that would refuse the order; None where it may go out."""
    rules: tuple[Callable[[KiteOrder, Surroundings], Iterator[Denial | None]], ...] = (
        _combination, _fields, _quantity, _prices, _stop, _session,
    )  # fmt: skip
    for rule in rules:
        for denial in rule(order, around):
            if denial is not None:
                return denial
    return None


def check_at_exchange(order: KiteOrder, around: Surroundings) -> Denial | None:
    """What the exchange would refuse after the broker has taken the order: a stop that looks placed would be none."""
    side: Literal["buy", "sell"] = "buy" if order.side == "BUY" else "sell"
    day = around.now.astimezone(IST).date()
    if order.order_type == "SL" and order.price is not None and order.trigger_price is not None:
        return check_stop_range(side, order.price, order.trigger_price, around.contract, day)
    if order.price is not None and around.last_price is not None:
        return check_limit_protection(side, order.price, around.last_price, around.contract, day)
    return None


def check_modification(order: KiteOrder, done_before: int) -> Denial | None:
    """An order takes 25 modifications, then it must be cancelled and placed anew. Neither tag nor side can change."""
    if done_before >= MOST_MODIFICATIONS:
        return Denial(
            "MODIFICATIONS_SPENT", f"{order.tradingsymbol} was modified {done_before} times; cancel it and place it anew",
            Decimal(MOST_MODIFICATIONS),
        )  # fmt: skip
    return None


def variety_in_url(variety: Variety, session_open: bool) -> Variety:
    """Which variety a change or cancellation names: an after-market order that was released is `regular` from then on."""
    return "regular" if variety == "amo" and session_open else variety


def _combination(order: KiteOrder, around: Surroundings) -> Iterator[Denial | None]:
    products, types, validities = VARIETIES[order.variety]
    for code, value, allowed in (
        ("ORDER_PRODUCT", order.product, products),
        ("ORDER_TYPE", order.order_type, types),
        ("ORDER_VALIDITY", order.validity, validities),
    ):
        if value not in allowed:
            yield Denial(code, f"variety {order.variety} takes {', '.join(sorted(allowed))}, not {value}")
    shares = order.exchange in SHARE_EXCHANGES
    of_segment = PRODUCTS_OF_SHARES if shares else PRODUCTS_OF_DERIVATIVES
    if order.product not in of_segment:
        yield Denial("ORDER_PRODUCT", f"{order.exchange} takes {', '.join(sorted(of_segment))}, not {order.product}")
    if order.variety == "co" and order.exchange != "NSE":
        yield Denial("ORDER_VARIETY", f"cover orders are for NSE shares, not {order.exchange}")
    if order.variety == "auction" and order.side != "SELL":
        yield Denial("ORDER_SIDE", "an auction is an offer of shares that are held: SELL only")
    if order.exchange == "MCX" and order.validity == "IOC":
        yield Denial("ORDER_VALIDITY", "MCX refuses IOC from APIs; use DAY")
    if order.product == "MIS" and order.tradingsymbol.endswith(TRADE_TO_TRADE):
        yield Denial("ORDER_PRODUCT", f"{order.tradingsymbol} is traded for delivery only: CNC, not MIS")
    if around.contract.is_index:
        yield Denial("INSTRUMENT_INDEX", f"{order.tradingsymbol} is an index: trade its future or options")


def _fields(order: KiteOrder, around: Surroundings) -> Iterator[Denial | None]:
    if order.order_type in UNPROTECTED and not order.market_protection:
        yield Denial(
            "MARKET_UNPROTECTED",
            f"{order.order_type} needs market_protection: -1 for the broker's own, or 0 < percent <= 100", Decimal(-1),
        )  # fmt: skip
    protection = order.market_protection
    if protection is not None and protection != -1 and not 0 < protection <= 100:
        yield Denial(
            "MARKET_PROTECTION", f"market_protection is -1 or 0 < percent <= 100, not {protection}", Decimal(-1)
        )
    if (order.validity == "TTL") != (order.validity_ttl is not None):
        yield Denial("ORDER_TTL", "validity TTL goes with validity_ttl in minutes, and no other validity does")
    if order.validity_ttl is not None and order.validity_ttl < 1:
        yield Denial("ORDER_TTL", f"validity_ttl is at least a minute, not {order.validity_ttl}", Decimal(1))
    if order.tag is not None and not (order.tag.isalnum() and order.tag.isascii() and len(order.tag) <= LONGEST_TAG):
        yield Denial("ORDER_TAG", f"a tag has 1 to {LONGEST_TAG} letters and digits, not {order.tag!r}")
    if (order.variety == "iceberg") != (order.iceberg_legs is not None):
        yield Denial("ICEBERG_LEGS", "iceberg_legs belong to variety iceberg, and it to them", Decimal(LEGS.start))
    if order.iceberg_legs is not None and order.iceberg_legs not in LEGS:
        nearest = min(max(order.iceberg_legs, LEGS.start), LEGS.stop - 1)
        yield Denial("ICEBERG_LEGS", f"an iceberg has 2 to 50 legs, not {order.iceberg_legs}", Decimal(nearest))
    if (order.variety == "auction") != (order.auction_number is not None):
        yield Denial("ORDER_AUCTION", "auction_number belongs to variety auction: take it from the list of auctions")
    if order.variety == "co" and order.trigger_price is None:
        yield Denial("ORDER_TRIGGER", "a cover order needs the trigger price of its stop")


def _quantity(order: KiteOrder, around: Surroundings) -> Iterator[Denial | None]:
    yield check_lot(order.quantity, around.contract)
    if around.freeze is not None and not order.autoslice:
        yield around.freeze.check(order.quantity, around.contract, around.now.astimezone(IST).date())
    disclosed = order.disclosed_quantity
    if disclosed is not None:
        least = -(-order.quantity // 10)
        if order.exchange not in SHARE_EXCHANGES:
            yield Denial("DISCLOSED_QUANTITY", f"{order.exchange} takes no disclosed quantity")
        if not least <= disclosed <= order.quantity:
            nearest = min(max(disclosed, least), order.quantity)
            yield Denial(
                "DISCLOSED_QUANTITY", f"disclosed quantity {disclosed} is not between a tenth of the order and all of it",
                Decimal(nearest),
            )  # fmt: skip


def _prices(order: KiteOrder, around: Surroundings) -> Iterator[Denial | None]:
    wants_price = order.order_type in ("LIMIT", "SL")
    wants_trigger = order.order_type in STOPS or order.variety == "co"
    for name, value, wanted in (
        ("price", order.price, wants_price), ("trigger_price", order.trigger_price, wants_trigger),
    ):  # fmt: skip
        if wanted != (value is not None):
            yield Denial(
                f"ORDER_{name.upper()}",
                f"{order.order_type} {'needs' if wanted else 'takes no'} {name}",
            )
        if value is not None:
            yield check_tick(value, around.contract, name)
            if around.limits is not None:
                yield check_price(value, around.limits, name)


def _stop(order: KiteOrder, around: Surroundings) -> Iterator[Denial | None]:
    if order.order_type not in STOPS or order.trigger_price is None:
        return
    buys, last = order.side == "BUY", around.last_price
    if last is not None and (order.trigger_price < last if buys else order.trigger_price > last):
        yield Denial(
            "TRIGGER_PASSED",
            f"a {order.side} stop triggers {'at or above' if buys else 'at or below'} the last price {last}, "
            f"not at {order.trigger_price}: the price is through it already",
            last,
        )
    price = order.price
    if price is not None and (price < order.trigger_price if buys else price > order.trigger_price):
        yield Denial(
            "STOP_PRICE", f"the limit {price} of a {order.side} stop lies on the wrong side of its trigger "
            f"{order.trigger_price}", order.trigger_price,
        )  # fmt: skip


def _session(order: KiteOrder, around: Surroundings) -> Iterator[Denial | None]:
    segment = cast(Segment, {"NCO": "MCX"}.get(order.exchange, order.exchange))
    span = phase_at(segment, around.now, closing_auction=around.closing_auction)
    clock = around.now.astimezone(IST).strftime("%H:%M:%S")
    if order.variety == "amo":
        if not amo_window(segment, around.now):
            yield Denial(
                "SESSION_NO_AMO", f"{segment} takes no after-market orders at {clock} IST: send a regular order"
            )
        return
    if span.phase not in TAKES_REGULAR:
        opens = span.ends.astimezone(IST)
        yield Denial("SESSION_CLOSED", f"{segment} takes no orders at {clock} IST; next at {opens:%Y-%m-%d %H:%M}")
    elif order.order_type not in span.order_types:
        allowed = ", ".join(sorted(span.order_types))
        yield Denial("SESSION_ORDER_TYPE", f"{span.phase} takes {allowed} alone, not {order.order_type}")
    elif order.validity not in span.validities:
        allowed = ", ".join(sorted(span.validities))
        yield Denial("SESSION_VALIDITY", f"{span.phase} takes validity {allowed} alone, not {order.validity}")
    elif span.phase is not Phase.CONTINUOUS and order.disclosed_quantity is not None:
        yield Denial("SESSION_DISCLOSED", f"{span.phase} takes no disclosed quantity")
