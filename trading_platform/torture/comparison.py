"""Our books against the exchange's, order by order, fill by fill, to the last digit of cash and positions."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import or_, select

from trading_platform.execution.books import SETTLING
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Fill, Intent, Order, Outbox, Outcome, Position
from trading_platform.torture.deployment import CASH, Traded
from trading_platform.venues.zerodha.venue import tag_of

ZERO = Decimal(0)
OPEN_AT_VENUE = ("NEW", "PARTIALLY_FILLED")


@dataclass
class Verdict:
    """What was found wrong; all zero where nothing was lost or doubled. Without a single order nothing was shown."""

    orders: int = 0
    lost: int = 0
    doubled: int = 0
    fills: int = 0
    fills_lost: int = 0
    fills_doubled: int = 0
    unresolved: int = 0
    cash_difference: Decimal = ZERO
    position_difference: Decimal = ZERO
    lines: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        wrong = (
            self.lost, self.doubled, self.fills_lost, self.fills_doubled, self.unresolved, self.cash_difference,
            self.position_difference,
        )  # fmt: skip
        return self.orders > 0 and not any(wrong)

    def shown(self) -> dict[str, Any]:
        values = asdict(self)
        del values["lines"]
        return {
            name: str(value) if isinstance(value, Decimal) and value else int(value) for name, value in values.items()
        }


def compare_at_rest(
    databases: Databases, traded: Sequence[Traded], venue_books: Callable[[], Mapping[str, Any]], seconds: float = 10.0
) -> Verdict:
    """Engines live on: what is on its way between the looks at either side is no difference, what stays is one."""
    deadline = time.monotonic() + seconds
    while True:
        verdict = compare(databases, traded, venue_books())
        if not verdict.lines or time.monotonic() > deadline:
            return verdict
        time.sleep(0.5)


def compare(databases: Databases, traded: Sequence[Traded], venue_books: Mapping[str, Any]) -> Verdict:
    """`venue_books`: {account id: what GET <admin>/books shows}."""
    verdict = Verdict()
    for each in traded:
        _compare(databases, each, venue_books[each.account_id], verdict)
    return verdict


def _compare(databases: Databases, traded: Traded, theirs: Mapping[str, Any], verdict: Verdict) -> None:
    with databases.group(traded.group_id) as session:
        orders = session.scalars(select(Order)).all()
        fills = session.scalars(select(Fill)).all()
        positions = session.scalars(select(Position).where(Position.quantity != 0)).all()
        intents = {each.intent_id: each for each in session.scalars(select(Intent))}
        closed = Counter(session.scalars(select(Outcome.symbol)))
    named = {_name(traded, each.client_order_id): each for each in orders}
    at_venue = Counter(str(row["client_order_id"]) for row in theirs["orders"])
    say = _Say(traded, verdict.lines)
    verdict.orders += len(theirs["orders"])
    verdict.fills += len(theirs["fills"])

    for name, count in at_venue.items():
        if name not in named:
            verdict.lost += 1
            say(f"order {name} of the exchange is not in the books")
        if count > 1:
            verdict.doubled += count - 1
            say(f"order {name} is {count} times at the exchange")
    for name, order in named.items():
        if name not in at_venue and order.state != "REJECTED":
            verdict.lost += 1
            say(f"order {order.client_order_id} is {order.state} in the books and not at the exchange")
    twice = Counter(each.decision_key for each in intents.values() if each.denial is None)
    for key, count in twice.items():
        if count > 1:
            verdict.doubled += count - 1
            say(f"decision {key} led to {count} orders")

    for intent in unsettled(databases, traded, theirs):
        verdict.unresolved += 1
        say(f"intent {intent.intent_id} is {intent.state}")

    _compare_fills(fills, theirs["fills"], traded, verdict, say)
    _compare_money(traded, fills, positions, theirs, _most_dust(traded, closed, orders), verdict, say)


def unsettled(
    databases: Databases, traded: Traded, theirs: Mapping[str, Any], sent_before: datetime | None = None
) -> list[Intent]:
    """Intents that are neither finished nor rest at the exchange, for the next morning's opening.

    `sent_before` (market time): without those that were sent later, for a session that is to come.
    """
    rests = {str(row["client_order_id"]) for row in theirs["orders"] if row["state"] in OPEN_AT_VENUE}
    with databases.group(traded.group_id) as session:
        open_rows = (Outbox.intent_id == Intent.intent_id) & (Outbox.state != SETTLING)
        if sent_before is not None:
            open_rows &= or_(Outbox.market_sent_at.is_(None), Outbox.market_sent_at < sent_before)
        waiting = session.scalars(select(Intent).join(Outbox, open_rows)).all()
    return [each for each in waiting if _name(traded, each.client_order_id) not in rests]


def _name(traded: Traded, client_order_id: str) -> str:
    """What the exchange knows an order of ours by."""
    return tag_of(client_order_id) if traded.venue == "zerodha" else client_order_id


def _compare_fills(
    ours: Iterable[Fill], theirs: Iterable[Mapping[str, Any]], traded: Traded, verdict: Verdict, say: "_Say"
) -> None:
    known = {_number(each.trade_id) for each in ours}
    at_venue = {str(row["trade_id"]) for row in theirs}
    for number in sorted(at_venue - known):
        verdict.fills_lost += 1
        say(f"fill {number} of the exchange is not in the books")
    for number in sorted(known - at_venue):
        verdict.fills_doubled += 1
        say(f"fill {number} is in the books and not at the exchange")


def _compare_money(
    traded: Traded, fills: Sequence[Fill], positions: Sequence[Position], theirs: Mapping[str, Any],
    most_dust: Mapping[str, Decimal], verdict: Verdict, say: "_Say",
) -> None:  # fmt: skip
    currency, cash = CASH[traded.venue]
    units: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for fill in fills:
        sign = 1 if fill.side == "buy" else -1
        units[fill.symbol] += sign * fill.quantity
        cash -= sign * fill.price * fill.quantity
        if traded.venue == "binance":  # a fee is taken from what is received; an Indian broker sends a bill
            if fill.fee_currency == currency:
                cash -= fill.fee
            else:
                units[fill.symbol] -= fill.fee
    held = {asset: Decimal(row["free"]) + Decimal(row["locked"]) for asset, row in theirs["balances"].items()}
    there = held.pop(currency, ZERO) + Decimal(theirs["billed"])
    if there != cash:
        verdict.cash_difference += abs(there - cash)
        say(f"cash is {cash} by our fills, {there} at the exchange")
    for symbol in sorted({*units, *(each.symbol for each in positions)}):
        at_exchange = held.get(symbol.partition("/")[0], ZERO)
        in_books = sum((each.quantity for each in positions if each.symbol == symbol), ZERO)
        if units[symbol] != at_exchange:
            verdict.position_difference += abs(units[symbol] - at_exchange)
            say(f"{symbol}: {units[symbol]} by our fills, {at_exchange} at the exchange")
        dust = units[symbol] - in_books
        if dust and not 0 <= dust < most_dust.get(symbol, ZERO):
            verdict.position_difference += abs(dust)
            say(f"{symbol}: {units[symbol]} by our fills, {in_books} held")


def _most_dust(traded: Traded, closed: Mapping[str, int], orders: Iterable[Order]) -> dict[str, Decimal]:
    """By symbol: what may lie in an account beside its positions. Where fees are taken from what is bought, a position that
    is closed leaves less than can be sold, which is the step of its orders. Elsewhere nothing may."""
    if traded.venue != "binance":
        return {}
    places: dict[str, int] = defaultdict(int)
    for order in orders:
        exponent = order.quantity.normalize().as_tuple().exponent
        places[order.symbol] = max(places[order.symbol], -int(exponent))
    return {symbol: count * Decimal(1).scaleb(-places[symbol]) for symbol, count in closed.items()}


def _number(trade_id: str) -> str:
    """The exchange's own number: ours of Kite have the day before it."""
    return trade_id.rpartition("-")[2]


@dataclass
class _Say:
    traded: Traded
    lines: list[str]

    def __call__(self, text: str) -> None:
        self.lines.append(f"{self.traded.group_id} {self.traded.venue}: {text}")
