"""Pre-trade risk: the one place that every intent passes. Pure: everything it looks at is in its arguments.

`check` judges an order by what the venue accepts, by the state of account, market and signal, and then by the limits of
every scope that it counts towards: its user, account, strategy and group, in the account's currency. The first rule that
forbids it is its denial (`denial_codes.py`). Exits pass where entries may not: nothing here keeps a position from being
closed, except what the venue itself would refuse.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from trading_platform.execution.denial_codes import Denial, said
from trading_platform.execution.limits import Limits, Scope
from trading_platform.markets.denials import Denial as VenueDenial

ZERO = Decimal(0)
PRICE_TOLERANCE = Decimal("0.2")
"""A signal's price this far from the last one known is not believed."""


@dataclass(slots=True)
class Standing:
    """What a scope has already, and its limits; money in the limits' currency. None for `limits`: it has none."""

    scope: Scope
    scope_id: str
    currency: str
    limits: Limits | None
    position_notional: Decimal = ZERO
    """In the order's symbol."""
    gross_notional: Decimal = ZERO
    open_positions: int = 0
    open_orders: int = 0
    orders_this_second: int = 0
    orders_this_minute: int = 0
    orders_today: int = 0
    lost_today: Decimal = ZERO
    """Net loss of the day as a positive number; a gain is zero."""
    drawdown: Decimal = ZERO
    """How far equity is below its highest, as a fraction of that."""


@dataclass(slots=True)
class Wish:
    """An order somebody wants to send, and all that decides whether it may."""

    entry: bool
    quantity: Decimal
    price: Decimal
    last_price: Decimal | None
    step: Decimal
    minimum_notional: Decimal
    cash: Decimal
    standings: tuple[Standing, ...] = ()
    """Of every scope that the order counts towards; the user's must be among them for an entry."""
    halted: str | None = None
    """The scope of the halt that holds."""
    breaker: Callable[[], str | None] = lambda: None
    """The breaker that is open. Asked last: where one lets a few orders through to see, each of them must go out."""
    flattening: bool = False
    armed: bool = True
    set_aside: str | None = None
    """Why the account is set aside, where its books do not match the venue's."""
    stale_session: str | None = None
    """Why the session at the broker is not believed to hold."""
    other_address: str | None = None
    """The address that orders would leave from, where it is not the registered one."""
    session_ending: str | None = None
    """Since when nothing is entered any more that may not be held overnight."""
    certified_enough: bool = True
    stale: bool = False
    tradable: bool = True
    unknown_outcome: bool = False
    duplicate: bool = False
    own_opposite: bool = False
    """Whether the same person has an order on the other side."""
    venue_rule: VenueDenial | None = None
    """What the venue would refuse the order for: session, lot, freeze, tick, price band, ban."""


def check(wish: Wish) -> str | None:
    """None where the order may go out, else the denial. For an exit only the venue's own rules count."""
    rules = (
        (_venue_rules, _account_rules, _signal_rules, _limit_rules, _breaker_rule) if wish.entry else (_venue_rules,)
    )
    return next((denial for rule in rules for denial in rule(wish)), None)


def _venue_rules(wish: Wish) -> Iterator[str]:
    """What the venue would refuse, and what would be sent twice or without the owner's word."""
    notional = wish.quantity * wish.price
    if not wish.armed:
        yield said(Denial.ACCOUNT_NOT_ARMED)
    if not wish.tradable:
        yield said(Denial.INSTRUMENT_UNKNOWN)
    if wish.unknown_outcome:
        yield said(Denial.ORDER_UNKNOWN_OUTCOME)
    if wish.quantity <= ZERO or notional < wish.minimum_notional:
        yield said(Denial.QUANTITY_TOO_SMALL, notional=f"{notional:.2f}", minimum=wish.minimum_notional)
    if wish.step > ZERO and wish.quantity % wish.step != ZERO:
        yield said(Denial.QUANTITY_STEP, quantity=wish.quantity, step=wish.step)
    if wish.venue_rule is not None:
        yield _as_said(wish.venue_rule)


def _account_rules(wish: Wish) -> Iterator[str]:
    if wish.halted is not None:
        yield said(Denial.HALT_ACTIVE, scope=wish.halted)
    if wish.flattening:
        yield said(Denial.ENGINE_FLATTENING)
    if wish.set_aside is not None:
        yield said(Denial.BOOKS_DIFFER, why=wish.set_aside)
    if wish.stale_session is not None:
        yield said(Denial.AUTH_STALE, session=wish.stale_session)
    if wish.other_address is not None:
        yield said(Denial.ADDRESS_CHANGED, address=wish.other_address)
    if wish.session_ending:
        yield said(Denial.SESSION_ENDING, since=wish.session_ending)


def _signal_rules(wish: Wish) -> Iterator[str]:
    if not wish.certified_enough:
        yield said(Denial.SIGNAL_UNCERTIFIED)
    if wish.stale:
        yield said(Denial.SIGNAL_STALE)
    if wish.duplicate:
        yield said(Denial.INTENT_DUPLICATE)
    if wish.own_opposite:
        yield said(Denial.ORDER_SELF_TRADE)
    if wish.price <= ZERO:
        yield said(Denial.PRICE_INVALID, price=wish.price)
    elif wish.last_price is not None and abs(wish.price / wish.last_price - 1) > PRICE_TOLERANCE:
        yield said(Denial.PRICE_SANITY, price=wish.price, last=wish.last_price)


def _breaker_rule(wish: Wish) -> Iterator[str]:
    breaker = wish.breaker()
    if breaker is not None:
        yield said(Denial.BREAKER_OPEN, breaker=breaker)


def _limit_rules(wish: Wish) -> Iterator[str]:
    notional = wish.quantity * wish.price
    if not any(standing.scope == "user" and standing.limits is not None for standing in wish.standings):
        currencies = sorted({standing.currency for standing in wish.standings}) or ["?"]
        yield said(Denial.LIMITS_MISSING, scope="user", currency=currencies[0])
    for standing in wish.standings:
        if standing.limits is not None:
            yield from _scope_rules(wish.quantity, notional, standing, standing.limits)
    if notional > wish.cash:
        yield said(Denial.BALANCE_SHORT, notional=f"{notional:.2f}", cash=f"{wish.cash:.2f}")


def _scope_rules(quantity: Decimal, notional: Decimal, standing: Standing, limits: Limits) -> Iterator[str]:
    """The limits of one scope: amounts and counts as they would be with this order."""
    position, gross = standing.position_notional + notional, standing.gross_notional + notional
    after: tuple[tuple[Denial, str, Decimal | int, Decimal | int | None], ...] = (
        (Denial.QUANTITY_ORDER, "quantity", quantity, limits.max_order_quantity),
        (Denial.NOTIONAL_ORDER, "notional", notional, limits.max_order_notional),
        (Denial.NOTIONAL_POSITION, "position", position, limits.max_position_notional),
        (Denial.NOTIONAL_GROSS, "gross", gross, limits.max_gross_notional),
        (Denial.POSITIONS_TOO_MANY, "open", standing.open_positions + 1, limits.max_open_positions),
        (Denial.ORDERS_OPEN, "open", standing.open_orders + 1, limits.max_open_orders),
        (Denial.RATE_SECOND, "orders", standing.orders_this_second + 1, limits.max_orders_per_second),
        (Denial.RATE_MINUTE, "orders", standing.orders_this_minute + 1, limits.max_orders_per_minute),
        (Denial.RATE_DAY, "orders", standing.orders_today + 1, limits.max_orders_per_day),
    )
    for denial, name, amount, most in after:
        if most is not None and amount > most:
            yield _of_scope(denial, standing, **{name: _figure(amount)}, limit=_figure(most))
    if standing.lost_today >= limits.max_daily_loss:
        yield _of_scope(
            Denial.LOSS_DAILY, standing, lost=f"{standing.lost_today:.2f}", limit=f"{limits.max_daily_loss:.2f}"
        )
    if limits.max_drawdown is not None and standing.drawdown >= limits.max_drawdown:
        yield _of_scope(
            Denial.LOSS_DRAWDOWN, standing, drawdown=f"{standing.drawdown:.4f}", limit=f"{limits.max_drawdown:.4f}"
        )


def _of_scope(denial: Denial, standing: Standing, **values: object) -> str:
    return said(denial, scope=standing.scope, id=standing.scope_id, currency=standing.currency, **values)


def _figure(value: Decimal | int) -> str:
    return f"{value:.2f}" if isinstance(value, Decimal) else str(value)


def _as_said(denial: VenueDenial) -> str:
    nearest = {"nearest": f"{denial.nearest:f}"} if denial.nearest is not None else {}
    return said(denial.code, **nearest, why=denial.message)
