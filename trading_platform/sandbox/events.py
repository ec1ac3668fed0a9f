"""What can happen to the books: each change is one of these events, and nothing else changes them.

Matching decides and posts events; the journal keeps them; rebuilding applies them again. So books come back exactly as
customers were told, even by a later release whose matching decides otherwise.
"""

import types
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from trading_platform.sandbox.orders import OrderList, OrderRequest, State


@dataclass(frozen=True, slots=True)
class AccountOpened:
    """A new account with its balances, or a new key for an existing one, whose balances stay as they are."""

    account_id: str
    api_key: str
    api_secret: str
    balances: dict[str, Decimal]


@dataclass(frozen=True, slots=True)
class Entered:
    """An order was accepted and `locked` taken from the free balance. A stop order does not work yet."""

    order_id: int
    account_id: str
    request: OrderRequest
    locked: Decimal
    working: bool
    list_id: int | None
    time: int


@dataclass(frozen=True, slots=True)
class Listed:
    """Two entered orders were joined: one cancels the other."""

    order_list: OrderList


@dataclass(frozen=True, slots=True)
class Reserved:
    """More was locked for an order: the funds that its list had locked under the other leg."""

    order_id: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Triggered:
    """The stop price was reached; the order works from now on."""

    order_id: int
    time: int


@dataclass(frozen=True, slots=True)
class Rested:
    """An order joined the queue at its price, behind `ahead` of the synthetic book's quantity."""

    order_id: int
    ahead: Decimal


@dataclass(frozen=True, slots=True)
class Moved:
    """A resting order moved up: `ahead` is what is still before it."""

    order_id: int
    ahead: Decimal


@dataclass(frozen=True, slots=True)
class Filled:
    """An execution. `level`: price of the synthetic book's level it consumed; None where it took from none."""

    order_id: int
    trade_id: int
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool
    level: Decimal | None
    time: int
    margin: Decimal | None = None
    """What the position blocks afterwards, for an account on margin."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An order is over before it was filled; what was still locked is free again."""

    order_id: int
    state: State
    reason: str
    time: int


@dataclass(frozen=True, slots=True)
class Amended:
    """An open order was changed: it leaves its place in the queue, and `locked` is locked for it from now on."""

    order_id: int
    request: OrderRequest
    locked: Decimal
    time: int


@dataclass(frozen=True, slots=True)
class BarClosed:
    """A bar became known: the synthetic book is made anew around its close. `open_time` in milliseconds."""

    symbol: str
    open_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True)
class Settled:
    """A position of an account on margin was closed at a price, without an order: its contract ended."""

    account_id: str
    symbol: str
    product: str
    price: Decimal
    time: int


@dataclass(frozen=True, slots=True)
class Converted:
    """Units of a position (negative for a short) changed their product; what either position blocks afterwards."""

    account_id: str
    symbol: str
    product: str
    into: str
    units: Decimal
    margin_before: Decimal
    margin_after: Decimal
    time: int


@dataclass(frozen=True, slots=True)
class Paid:
    """An account was billed."""

    account_id: str
    amount: Decimal
    what: str
    time: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A venue's surface keeps a document of its own with the books: a trigger, an alert. `value` None removes it."""

    account_id: str
    kind: str
    key: str
    value: dict[str, Any] | None


OfAccount = AccountOpened | Listed | Settled | Converted | Paid | Kept
OfOrder = Entered | Amended | Reserved | Triggered | Rested | Moved | Filled | Ended
Event = OfAccount | OfOrder | BarClosed
Post = Callable[[Event], None]
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def as_record(event: Event) -> list[Any]:
    """[name, fields]: what the journal writes (as JSON, decimals as strings)."""
    return [type(event).__name__, event]


def from_record(record: list[Any]) -> Event:
    """The event that `as_record` wrote."""
    name, values = record
    event: Event = revive(KINDS[name], values)
    return event


def revive(kind: Any, value: Any) -> Any:
    """A dataclass from the JSON of its fields: decimals, nested dataclasses, lists, dicts and optional values.

    >>> revive(dict[str, Decimal], {"BTC": "1.5"})
    {'BTC': Decimal('1.5')}
    """
    return _reviver(kind)(value)


@cache
def _reviver(kind: Any) -> Callable[[Any], Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = _reviver(next(argument for argument in arguments if argument is not type(None)))
        return lambda value: None if value is None else inner(value)
    if origin is list:
        item = _reviver(arguments[0])
        return lambda value: [item(each) for each in value]
    if origin is dict:
        item = _reviver(arguments[1])
        return lambda value: {name: item(each) for name, each in value.items()}
    if kind is Decimal:
        return Decimal
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        revivers = [(each.name, _reviver(hints[each.name])) for each in fields(kind)]
        # A field that the record lacks is younger than the record, and has its default.
        return lambda value: kind(**{name: reviver(value[name]) for name, reviver in revivers if name in value})
    return lambda value: value
