"""A backtest: bars and wishes in, orders, trades, curves and figures out.

result = run(bars, wishes, Rules(...), Funds(...), SpotSchedule("binance"))
result.trades, result.equity, result.drawdown, statistics(result)
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from trading_platform.backtest import kernel
from trading_platform.backtest.charges import Days, Schedule, charge_terms, charges_of_orders
from trading_platform.backtest.kernel import Finer, Floats, Funds, Integers, Market, Rules, Wishes
from trading_platform.identifiers import Symbol, Venue

NONE = np.empty(0, dtype=np.float64)
NO_FINER = Finer(NONE, NONE, NONE, np.empty(0, dtype=np.int64))
MICROSECONDS = 1_000_000
MAKES = kernel.BUY_MAKER - kernel.BUY_TAKER
"""From a taker's row of charge terms to a maker's."""


@dataclass(frozen=True)
class Bars:
    """Bars of one instrument, oldest first. `open_time`: microseconds since the epoch, UTC; `days`: session date of each."""

    venue: Venue
    symbol: Symbol
    interval_seconds: int
    open_time: Integers
    market: Market
    volume: Floats
    days: Days

    def __len__(self) -> int:
        return len(self.open_time)


@dataclass(frozen=True)
class Backtest:
    """What a run came to. `equity` (n,): at each close; `deepest`: drawdown, a fraction of the peak, never above 0.

    `eras`: the bars from which other charges hold; `order_rows`: the kernel's order list; `refused`: entries that the account could not pay for at their fill.
    """

    bars: Bars
    rules: Rules
    funds: Funds
    schedule: Schedule
    eras: Integers
    order_rows: Floats
    equity: Floats
    refused: int
    deepest: float

    @cached_property
    def drawdown(self) -> Floats:
        """Below the highest equity until then (n,), as a fraction of it; the cash at the start counts."""
        peaks = np.maximum.accumulate(np.maximum(self.equity, self.funds.cash))
        return np.asarray(self.equity / peaks - 1.0, dtype=np.float64)

    @cached_property
    def orders(self) -> pl.DataFrame:
        """The order list: time (UTC, the bar's open or availability), decided_at, side, quantity, price, charge, reason."""
        rows = np.ascontiguousarray(self.order_rows.T)
        bar, decided, reason = (
            rows[column].astype(np.int64) for column in (kernel.BAR, kernel.DECIDED_AT, kernel.REASON)
        )
        market = self.bars.market
        barrier = (reason == kernel.TARGET) | (reason == kernel.STOP)
        inside = (decided != bar) | (self.rules.intrabar & barrier)
        return pl.DataFrame(
            {
                "bar": bar,
                "time": _times(np.where(inside, self.bars.open_time[bar], market.available_at[bar])),
                "decided_at": _times(market.available_at[decided]),
                "side": pl.Series(("sell", "buy")).gather((rows[kernel.SIDE] > 0).astype(np.int64)),
                "quantity": rows[kernel.QUANTITY],
                "price": rows[kernel.PRICE],
                "charge": rows[kernel.CHARGE],
                "reason": pl.Series(kernel.REASONS).gather(reason),
            }
        )

    @cached_property
    def charges(self) -> dict[str, Floats]:
        """{head: (orders,)}: the charge of every order by head, in floats; `itemised` has the same in exact decimals."""
        rows = np.ascontiguousarray(self.order_rows.T)
        made = self.rules.intrabar & (rows[kernel.REASON] == kernel.TARGET)
        kind = np.where(rows[kernel.SIDE] > 0, kernel.BUY_TAKER, kernel.SELL_TAKER) + np.where(made, MAKES, 0)
        value = rows[kernel.QUANTITY] * rows[kernel.PRICE]
        return charges_of_orders(
            self.schedule, self.bars.days, self.eras, rows[kernel.BAR].astype(np.int64), kind, value
        )

    @cached_property
    def trades(self) -> pl.DataFrame:
        """Closed trades, by the arithmetic of `execution/outcomes.py`: net = what came back - what was laid out."""
        orders = self.orders
        closed = len(orders) // 2 * 2
        entries, exits = orders[0:closed:2], orders[1:closed:2]
        side = np.where(entries["side"].to_numpy() == "buy", 1.0, -1.0)
        bought, sold = entries["quantity"].to_numpy(), exits["quantity"].to_numpy()
        paid, got = bought * entries["price"].to_numpy(), sold * exits["price"].to_numpy()
        in_kind = self.funds.fee_in_base & (side > 0)
        fees = np.where(in_kind, 0.0, entries["charge"].to_numpy()) + exits["charge"].to_numpy()
        net = side * (got - paid) - fees
        gross = side * (exits["price"].to_numpy() - entries["price"].to_numpy()) * bought
        return pl.DataFrame(
            {
                "entry_time": entries["time"],
                "exit_time": exits["time"],
                "decided_at": entries["decided_at"],
                "side": np.where(side > 0, "long", "short"),
                "quantity": bought,
                "entry_price": entries["price"],
                "exit_price": exits["price"],
                "gross": gross,
                "costs": gross - net,
                "net": net,
                "net_return": net / paid,
                "reason": exits["reason"],
                "bars": exits["bar"] - entries["bar"],
            }
        )

    def itemised(self) -> pl.DataFrame:
        """Charges of every order by head, exact: one row an order and head, in the quote currency."""
        rows = [
            (number, order["side"], head, amount)
            for number, order in enumerate(self.orders.iter_rows(named=True))
            for head, amount in self._heads(order).items()
        ]
        columns = [("order", pl.Int64()), ("side", pl.String()), ("head", pl.String()), ("amount", pl.Decimal(38, 12))]
        return pl.DataFrame(rows, schema=pl.Schema(columns), orient="row")

    def charges_by_head(self) -> dict[str, Decimal]:
        """What all orders together cost, by head."""
        totals: dict[str, Decimal] = {}
        for order in self.orders.iter_rows(named=True):
            for head, amount in self._heads(order).items():
                totals[head] = totals.get(head, Decimal(0)) + amount
        return totals

    def _heads(self, order: Mapping[str, Any]) -> Mapping[str, Decimal]:
        """A target inside the bar rested in the book, so it made."""
        value = Decimal(repr(order["quantity"])) * Decimal(repr(order["price"]))
        made = self.rules.intrabar and order["reason"] == "target"
        day = self.bars.days[order["bar"]].astype(object)
        return self.schedule.heads(order["side"], value, day, "maker" if made else "taker")

    @property
    def order_hash(self) -> str:
        """sha256 of the order list: the same strategy on the same bars has the same, on every machine."""
        text = "\n".join(
            f"{row['time'].isoformat()} {row['side']} {row['quantity']:.8f} {row['price']:.8f} {row['reason']}"
            for row in self.orders.iter_rows(named=True)
        )
        return hashlib.sha256(text.encode()).hexdigest()


def run(
    bars: Bars, wishes: Wishes, rules: Rules, funds: Funds, schedule: Schedule, finer: Finer = NO_FINER
) -> Backtest:
    """Play a strategy's wishes over bars. Raises ValueError on arrays that do not fit together or broken bars."""
    _check(bars.market, wishes, funds, finer)
    eras, terms = charge_terms(schedule, bars.days)
    equity = np.empty(len(bars))
    orders, refused, deepest = kernel.simulate(bars.market, wishes, finer, rules, funds, eras, terms, equity)
    return Backtest(bars, rules, funds, schedule, eras, orders, equity, refused, deepest)


def finer_bars(coarse: Bars, fine: Bars) -> Finer:
    """The bars of `fine` that lie inside each bar of `coarse`. Raises ValueError where the symbols differ."""
    if fine.symbol != coarse.symbol or fine.interval_seconds >= coarse.interval_seconds:
        raise ValueError(
            f"finer bars of {coarse.symbol} are below {coarse.interval_seconds} s; got {fine.symbol}, {fine.interval_seconds} s"
        )
    first = np.searchsorted(fine.open_time, np.append(coarse.open_time, np.iinfo(np.int64).max))
    ends = np.searchsorted(fine.open_time, coarse.open_time + coarse.interval_seconds * MICROSECONDS)
    if np.any(ends[:-1] != first[1:-1]):
        raise ValueError(
            "finer bars must lie inside the bars; some lie in a gap between them: pass the same period of both"
        )
    return Finer(fine.market.open, fine.market.high, fine.market.low, first.astype(np.int64))


def _check(market: Market, wishes: Wishes, funds: Funds, finer: Finer) -> None:
    bars = len(market.close)
    if bars == 0:
        raise ValueError("there are no bars to play")
    lengths = {len(array) for array in market} | {len(wishes.wanted)}
    if (
        lengths != {bars}
        or not {len(wishes.stop), len(wishes.target)} <= {0, bars}
        or len(finer.first) not in (0, bars + 1)
    ):
        raise ValueError(f"bars, wishes, stops and targets are of one length ({bars}), finer.first of one more")
    if (broken := kernel.first_broken(market)) >= 0:
        raise ValueError(
            f"bar {broken} is broken: 0 < low <= open, close <= high is expected, and strictly ascending available_at; "
            "quarantine such bars before playing"
        )
    if not (funds.cash > 0 and (funds.quantity > 0 or 0 < funds.fraction <= 1)):
        raise ValueError(
            f"cash is above 0, and a quantity or a fraction in (0, 1] says how much to enter with; got {funds}"
        )


def _times(moments: Integers) -> pl.Series:
    return pl.Series(moments).cast(pl.Datetime("us", "UTC"))
