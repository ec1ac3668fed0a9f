"""Bars written by hand, and the runs that tests repeat."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from trading_platform.backtest.charges import FlatSchedule, Schedule
from trading_platform.backtest.kernel import Finer, Funds, Market, Rules, Wishes
from trading_platform.backtest.simulation import NO_FINER, NONE, Backtest, Bars, run
from trading_platform.identifiers import Symbol, Venue

START = int(datetime(2026, 8, 3, tzinfo=UTC).timestamp()) * 1_000_000
MINUTE = 60_000_000
FREE = FlatSchedule(Decimal(0))
PLAIN = Rules(next_open=False, intrabar=True, reenter=True, partial_last=False, horizon=0, slippage=0.0)
ONE = Funds(cash=10_000.0, quantity=1.0, fraction=0.0, step=0.0, minimum_notional=0.0, fee_in_base=False)


def bars(rows: Sequence[Sequence[float]], step: int = MINUTE, start: int = START) -> Bars:
    """Bars of (open, high, low, close), a minute each."""
    table = np.array(rows, dtype=np.float64)
    opened = start + np.arange(len(table)) * step
    columns = [np.ascontiguousarray(table[:, n]) for n in range(4)]
    return Bars(
        Venue("binance"), Symbol("BTC/USDT"), step // 1_000_000, opened, Market(*columns, opened + step),
        np.ones(len(table)), np.full(len(table), "2026-08-03", dtype="datetime64[D]"),
    )  # fmt: skip


def wishes(wanted: Sequence[int], stop: Sequence[float] | None = None, target: Sequence[float] | None = None) -> Wishes:
    def prices(given: Sequence[float] | None) -> Any:
        return NONE if given is None else np.array(given, dtype=np.float64)

    return Wishes(np.array(wanted, dtype=np.int8), prices(stop), prices(target))


def play(
    rows: Sequence[Sequence[float]], wished: Wishes, rules: Rules = PLAIN, funds: Funds = ONE,
    schedule: Schedule = FREE, finer: Finer = NO_FINER,
) -> Backtest:  # fmt: skip
    return run(bars(rows), wished, rules, funds, schedule, finer)


def orders(result: Backtest) -> list[tuple[int, str, float, str]]:
    """(bar, side, price, reason) of every order."""
    return [tuple(row) for row in result.orders.select("bar", "side", "price", "reason").iter_rows()]  # type: ignore[misc]
