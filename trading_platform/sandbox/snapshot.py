"""The state of the books as records, for a journal that begins anew."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from trading_platform.sandbox.books import Account, Books
from trading_platform.sandbox.candles import Candles
from trading_platform.sandbox.events import revive
from trading_platform.sandbox.journal import Record
from trading_platform.sandbox.liquidity import Level
from trading_platform.sandbox.margin_ledger import Balance, Position
from trading_platform.sandbox.matching import Market
from trading_platform.sandbox.orders import Order, OrderList


@dataclass(frozen=True)
class _Account:
    account_id: str
    api_key: str
    api_secret: str
    updated: int
    balances: dict[str, Balance]
    positions: dict[str, Position] = field(default_factory=dict)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    billed: Decimal = Decimal(0)


@dataclass(frozen=True)
class _Liquidity:
    """Enough of a synthetic book to make it again."""

    last: Decimal | None
    volume: Decimal
    stamp: int
    version: int
    taken: dict[str, list[Level]]


def take(
    books: Books, markets: dict[str, Market], candles: dict[str, Candles], clock: dict[str, Any]
) -> Iterator[Record]:
    """Records, all of them `{"c": "snapshot", ...}`, in an order in which `restore` can take them."""
    counters = {"orders": books.last_order_id, "trades": books.last_trade_id, "lists": books.last_list_id}
    yield {"c": "snapshot", "clock": clock, "counters": counters}
    for symbol, market in markets.items():
        book = market.liquidity
        taken: dict[str, list[Level]] = {
            side: [Level(*each) for each in gone.items()] for side, gone in book.taken.items()
        }
        liquidity = _Liquidity(book.last, book.volume, book.stamp, book.version, taken)
        yield {"c": "snapshot", "market": symbol, "liquidity": liquidity, "arrivals": market.arrivals}
        yield {"c": "snapshot", "candles": symbol, "rows": candles[symbol].unstored()}
    for account in books.accounts.values():
        kept = _Account(
            account.account_id, account.api_key, account.api_secret, account.updated, account.balances, account.positions,
            account.kept, account.billed,
        )  # fmt: skip
        yield {"c": "snapshot", "account": kept}
        for order in account.orders.values():
            yield {"c": "snapshot", "order": order}
        for order_list in account.lists.values():
            yield {"c": "snapshot", "list": order_list}
        yield {"c": "snapshot", "trades_of": account.account_id}


def restore(books: Books, markets: dict[str, Market], candles: dict[str, Candles], record: Record) -> dict[str, Any]:
    """Take one record; returns the clock's state where the record holds it."""
    if "clock" in record:
        counters = record["counters"]
        books.last_order_id, books.last_trade_id, books.last_list_id = (
            counters["orders"], counters["trades"], counters["lists"],
        )  # fmt: skip
        return dict(record["clock"])
    if "market" in record:
        _restore_market(markets[record["market"]], revive(_Liquidity, record["liquidity"]), record["arrivals"])
    elif "candles" in record:
        candles[record["candles"]].restore(record["rows"])
    elif "account" in record:
        kept: _Account = revive(_Account, record["account"])
        account = Account(
            kept.account_id, kept.api_key, kept.api_secret, kept.balances, updated=kept.updated, positions=kept.positions,
            kept=kept.kept, billed=kept.billed,
        )  # fmt: skip
        books.accounts[account.account_id] = books.by_key[account.api_key] = account
    elif "list" in record:
        order_list: OrderList = revive(OrderList, record["list"])
        books.lists[order_list.list_id] = books.accounts[order_list.account_id].lists[order_list.list_id] = order_list
    elif "trades_of" in record:
        books.accounts[record["trades_of"]].trades.sort(key=lambda trade: trade.trade_id)
    else:
        _restore_order(books, markets, revive(Order, record["order"]))
    return {}


def _restore_market(market: Market, kept: _Liquidity, arrivals: int) -> None:
    book = market.liquidity
    if kept.last is not None:
        book.refresh(kept.last, kept.volume, kept.stamp)
    for side in ("BUY", "SELL"):
        book.taken[side] = {level.price: level.quantity for level in kept.taken[side]}
    book.version = kept.version
    market.arrivals = arrivals


def _restore_order(books: Books, markets: dict[str, Market], order: Order) -> None:
    books.add(order)
    account = books.accounts[order.account_id]
    account.trades.extend(order.trades)
    market = markets[order.symbol]
    if order.rank:
        market.join(order)
    elif order.is_open:
        market.stops[order.order_id] = order
