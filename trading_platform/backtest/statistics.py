"""The figures of a run: returns by day, ratios, trades. Shares and returns are fractions, money in quote currency."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from trading_platform.backtest.charges import Days
from trading_platform.backtest.kernel import Floats
from trading_platform.backtest.simulation import Backtest

DAYS_A_YEAR = {"nse": 252}
EVERY_DAY = 365


@dataclass(frozen=True)
class Figures:
    """None where there is nothing to measure. `sharpe`: of daily returns over zero, a year's; `exposure`: the share of bars
    at whose close something is held; `profit_factor`: gains over losses."""

    final_equity: float
    total_return: float
    annual_return: float | None
    sharpe: float | None
    max_drawdown: float
    trades: int
    win_rate: float | None
    profit_factor: float | None
    mean_net: float | None
    largest_share: float | None
    """Of the largest gain in all gains together."""
    gross: float
    costs: float
    net: float
    exposure: float
    buy_and_hold: float
    refused: int


def daily(results: Sequence[Backtest]) -> tuple[Days, Floats]:
    """(session dates, equity of all accounts together at the last close of each)."""
    ends = [np.append(np.flatnonzero(r.bars.days[1:] != r.bars.days[:-1]), len(r.bars) - 1) for r in results]
    days = np.unique(np.concatenate([r.bars.days[end] for r, end in zip(results, ends, strict=True)]))
    total = np.zeros(len(days))
    for result, end in zip(results, ends, strict=True):
        latest = np.searchsorted(result.bars.days[end], days, side="right") - 1
        total += np.where(latest < 0, result.funds.cash, result.equity[end][latest])
    return days, total


def daily_returns(results: Sequence[Backtest]) -> Floats:
    """Returns from day to day (days,), the first from the cash at the start."""
    equity = np.concatenate([[sum(result.funds.cash for result in results)], daily(results)[1]])
    return np.asarray(np.diff(equity) / equity[:-1], dtype=np.float64)


def sharpe(returns: Floats, days_a_year: float) -> float | None:
    """Mean over standard deviation (ddof 1), times the root of the days in a year; None where nothing varies."""
    deviation = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    return float(returns.mean()) / deviation * math.sqrt(days_a_year) if deviation > 0 else None


def days_a_year(results: Sequence[Backtest]) -> int:
    return DAYS_A_YEAR.get(results[0].bars.venue, EVERY_DAY)


def figures(results: Sequence[Backtest]) -> Figures:
    """Figures of several accounts as one."""
    _, curve = daily(results)
    cash = sum(result.funds.cash for result in results)
    trades = pl.concat([result.trades for result in results])
    net = trades["net"].to_numpy()
    gains, losses = net[net > 0], net[net < 0]
    days = np.concatenate([result.bars.days[[0, -1]] for result in results])
    years = float((days.max() - days.min()).astype(np.int64)) / 365.25
    growth = float(curve[-1]) / cash
    return Figures(
        final_equity=float(curve[-1]),
        total_return=growth - 1.0,
        annual_return=growth ** (1.0 / years) - 1.0 if years >= 0.25 and growth > 0 else None,
        sharpe=sharpe(daily_returns(results), days_a_year(results)),
        max_drawdown=_drawdown(results, curve, cash),
        trades=len(net),
        win_rate=float((net > 0).mean()) if len(net) else None,
        profit_factor=float(gains.sum() / -losses.sum()) if len(losses) else None,
        mean_net=float(net.mean()) if len(net) else None,
        largest_share=float(gains.max() / gains.sum()) if len(gains) else None,
        gross=float(trades["gross"].sum()),
        costs=float(trades["costs"].sum()),
        net=float(net.sum()),
        exposure=float(np.mean(np.concatenate([held(result) for result in results]))),
        buy_and_hold=float(np.mean([r.bars.market.close[-1] / r.bars.market.close[0] - 1.0 for r in results])),
        refused=sum(result.refused for result in results),
    )


def held(result: Backtest) -> Floats:
    """1 where a position is held at the close (n,), 0 elsewhere."""
    change = np.zeros(len(result.bars) + 1)
    bar = result.order_rows[:, 0].astype(np.int64)
    np.add.at(change, bar, np.where(np.arange(len(bar)) % 2 == 0, 1.0, -1.0))
    return np.cumsum(change[:-1])


def _drawdown(results: Sequence[Backtest], curve: Floats, cash: float) -> float:
    """By bar for one account; for several by day, on whose closes all of them are known."""
    if len(results) == 1:
        return results[0].deepest
    peaks = np.maximum(np.maximum.accumulate(curve), cash)
    return float((curve / peaks - 1.0).min())
