"""What user data streams say: execution reports, changed balances, order lists."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from trading_platform.sandbox.binance import shapes
from trading_platform.sandbox.binance.order_types import order_type
from trading_platform.sandbox.books import Books
from trading_platform.sandbox.events import Ended, Entered, Event, Filled, Listed, Triggered
from trading_platform.sandbox.orders import ZERO, Order

Payload = dict[str, Any]


def reports(events: list[Event], books: Books, accounts: set[str], time: int) -> Iterator[tuple[str, Payload]]:
    """(account, event) for all that `events` did to `accounts`, in order; the books are as the events left them."""
    filled, value = _before(events, books)
    touched: dict[str, set[str]] = {}
    for event in events:
        if isinstance(event, Listed):
            if event.order_list.account_id in accounts:
                yield event.order_list.account_id, _list_status(event, books, time)
            continue
        if not isinstance(event, Entered | Filled | Ended | Triggered):
            continue
        order = books.orders[event.order_id]
        if order.account_id not in accounts:
            continue
        touched.setdefault(order.account_id, set()).update(
            (books.paid_asset(order.symbol, order.side), books.received_asset(order.symbol, order.side))
        )
        if isinstance(event, Filled):
            filled[order.order_id] += event.quantity
            value[order.order_id] += event.price * event.quantity
        yield order.account_id, _report(event, order, filled[order.order_id], value[order.order_id], time)
    for account_id, assets in touched.items():
        yield account_id, _position(books, account_id, assets, time)


def _before(events: list[Event], books: Books) -> tuple[dict[int, Decimal], dict[int, Decimal]]:
    """Filled quantity and its value of every order named, as they were before the events."""
    numbers = {event.order_id for event in events if isinstance(event, Entered | Filled | Ended | Triggered)}
    filled = {number: books.orders[number].filled for number in numbers}
    value = {number: books.orders[number].quote_filled for number in numbers}
    for event in events:
        if isinstance(event, Filled):
            filled[event.order_id] -= event.quantity
            value[event.order_id] -= event.price * event.quantity
    return filled, value


def _report(
    event: Entered | Filled | Ended | Triggered, order: Order, filled: Decimal, value: Decimal, time: int
) -> Payload:
    request = order.request
    execution, state = _state(event, order, filled)
    fill = event if isinstance(event, Filled) else None
    working = order.working_since is not None and not (isinstance(event, Entered) and not event.working)
    report: Payload = {
        "e": "executionReport",
        "E": time,
        "s": shapes.venue_symbol(order.symbol),
        "c": order.client_order_id,
        "S": order.side,
        "o": order_type(request),
        "f": request.time_in_force,
        "q": shapes.number(request.quantity),
        "p": shapes.number(request.limit_price or ZERO),
        "P": shapes.number(request.stop_price or ZERO),
        "F": "0.00000000",
        "g": -1 if order.list_id is None else order.list_id,
        "C": order.client_order_id if execution == "CANCELED" else "",
        "x": execution,
        "X": state,
        "r": "NONE",
        "i": order.order_id,
        "l": shapes.number(fill.quantity if fill else ZERO),
        "z": shapes.number(filled),
        "L": shapes.number(fill.price if fill else ZERO),
        "n": shapes.number(fill.fee) if fill else "0",
        "N": fill.fee_asset if fill else None,
        "T": event.time,
        "t": fill.trade_id if fill else -1,
        "I": order.order_id,
        "w": working and state in ("NEW", "PARTIALLY_FILLED"),
        "m": fill.maker if fill else False,
        "M": False,
        "O": order.time,
        "Z": shapes.number(value),
        "Y": shapes.number(fill.price * fill.quantity if fill else ZERO),
        "Q": shapes.number(request.quote_quantity or ZERO),
        "V": "NONE",
    }
    if working:
        report["W"] = order.working_since
    if isinstance(event, Ended) and event.state == "EXPIRED":
        report["eR"] = event.reason
    return report


def _state(event: Entered | Filled | Ended | Triggered, order: Order, filled: Decimal) -> tuple[str, str]:
    """(what happened, the order's state right after it)."""
    if isinstance(event, Ended):
        return event.state, event.state
    if isinstance(event, Filled):
        return "TRADE", "FILLED" if filled == order.request.quantity else "PARTIALLY_FILLED"
    return "NEW", "NEW"


def _list_status(event: Listed, books: Books, time: int) -> Payload:
    found = event.order_list
    name = shapes.venue_symbol(found.symbol)
    return {
        "e": "listStatus", "E": time, "s": name, "g": found.list_id, "c": "OCO", "l": "EXEC_STARTED", "L": "EXECUTING",
        "r": "NONE", "C": found.client_id, "T": found.time,
        "O": [{"s": name, "i": number, "c": books.orders[number].client_order_id} for number in found.order_ids],
    }  # fmt: skip


def _position(books: Books, account_id: str, assets: set[str], time: int) -> Payload:
    account = books.accounts[account_id]
    return {
        "e": "outboundAccountPosition", "E": time, "u": account.updated,
        "B": [
            {
                "a": asset, "f": shapes.number(account.balance(asset).free),
                "l": shapes.number(account.balance(asset).locked),
            }
            for asset in sorted(assets)
        ],
    }  # fmt: skip
