"""Conditions against ranks and averages computed the slow way."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tests.features.bars import nifty_minutes, real_hours
from trading_platform.features.sessions import SESSIONS, SessionNames
from trading_platform.features.stream import compute
from trading_platform.identifiers import Venue


def third(past: np.ndarray, value: float, names: tuple[str, str, str]) -> str:
    share = ((past < value).sum() + 0.5 * (past == value).sum()) / len(past)
    return names[0] if share < 1 / 3 else names[1] if share <= 2 / 3 else names[2]


def test_conditions_are_ranks_among_every_fourth_of_the_last_thousand_bars(market_data: Path) -> None:
    bars = real_hours(market_data)[:9_000]
    history = compute(bars)
    close = pd.Series(bars["close"].to_numpy())
    turnover = (close * pd.Series(bars["volume"].to_numpy())).ewm(span=24, adjust=False).mean().to_numpy()
    gap = np.log(close.ewm(span=20, adjust=False).mean() / close.ewm(span=100, adjust=False).mean()).to_numpy()
    for row in range(2_500, 9_000, 97):
        sigmas = np.array([history.sigma[n] for n in range(row - 1_000, row) if (n - 399) % 4 == 0])
        assert history.conditions["volatility"][row] == third(sigmas, history.sigma[row], ("low", "normal", "high"))
        past = np.array([turnover[n] for n in range(row - 1_000, row) if n % 4 == 0])
        assert history.conditions["liquidity"][row] == third(past, turnover[row], ("thin", "normal", "deep"))
        limit = 1.57 * history.sigma[row]
        trend = "up" if gap[row] > limit else "down" if gap[row] < -limit else "sideways"
        assert history.conditions["trend"][row] == trend


def test_nothing_is_claimed_before_there_is_something_to_compare_with(market_data: Path) -> None:
    history = compute(real_hours(market_data)[:450])
    assert set(history.conditions["volatility"]) == {"unknown"}
    assert set(history.conditions["liquidity"][:97]) == {"unknown"}
    assert "unknown" not in history.conditions["liquidity"][97:]
    assert set(history.conditions["trend"][:399]) == {"unknown"}


def test_a_driftless_walk_spends_about_a_third_of_its_time_in_each_trend() -> None:
    from tests.features.bars import rough

    rng = np.random.default_rng(3)
    bars = rough(30_000)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, len(bars))))
    same = {name: pl.Series(name, close) for name in ("open", "high", "low", "close")}
    shares = Counter(compute(bars.with_columns(**same)).conditions["trend"][1_000:])
    assert all(0.25 < shares[name] / 29_000 < 0.42 for name in ("up", "down", "sideways")), shares


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        (datetime(2026, 3, 4, 7, 59, tzinfo=UTC), "asia"),
        (datetime(2026, 3, 4, 8, 0, tzinfo=UTC), "europe"),
        (datetime(2026, 3, 4, 14, 0, tzinfo=UTC), "us"),
        (datetime(2026, 3, 7, 9, 0, tzinfo=UTC), "weekend"),
    ],
)
def test_sessions_around_the_clock(moment: datetime, name: str) -> None:
    assert SessionNames(Venue("binance"), 3600).one(moment) == name
    assert SessionNames(Venue("binance"), 86_400).one(moment) == "day"


def test_sessions_of_an_exchange_have_an_hour_at_each_end(market_data: Path) -> None:
    bars = nifty_minutes(market_data)
    minutes = bars["open_time"].dt.convert_time_zone("Asia/Kolkata")
    clock = (minutes.dt.hour().cast(pl.Int32) * 60 + minutes.dt.minute()).to_numpy()
    # 9:15 to 15:30 IST
    expected = np.select(
        [(clock < 9 * 60 + 15) | (clock >= 15 * 60 + 30), clock < 10 * 60 + 15, clock >= 14 * 60 + 30],
        ["off", "open", "close"],
        "mid",
    )
    found = compute(bars).conditions["session"]
    assert (found == expected).all()
    assert set(found) <= set(SESSIONS)
