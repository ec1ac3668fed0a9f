"""The engine's own decisions, sizes, barriers and outcomes, bar by bar in exact decimals, against the compiled loop.

The engine's side is its real code: `decide` (risk check included), `Holding.exit_reason`, `Instrument.round_quantity`,
`terms_of` (the stop at the venue), `closed_trade`, the charge table. What the venue does is the test's: it fills at the
close and a stop where the bar first comes to it, and takes a buy's fee in kind.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.backtest.charges import SpotSchedule
from trading_platform.backtest.files import as_bars
from trading_platform.backtest.kernel import Funds
from trading_platform.backtest.simulation import Backtest, run
from trading_platform.backtest.strategies import barrier_wishes, engine_rules, prepare
from trading_platform.execution.decisions import Decision, Situation, decide
from trading_platform.execution.outcomes import ClosedTrade, closed_trade
from trading_platform.execution.portfolio import Holding, Portfolio, Stake
from trading_platform.execution.risk import Limits
from trading_platform.execution.stops import terms_of
from trading_platform.features.stream import compute
from trading_platform.identifiers import AccountId, StrategyId, Symbol, UserId, Venue
from trading_platform.learning.labels import BarrierSpec
from trading_platform.markets.charges import rate
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.control import Signal
from trading_platform.strategies.barrier_long import BARRIER_LONG
from trading_platform.strategies.signals import _price
from trading_platform.venues.binance import BinanceVenue

D = Decimal
START = datetime(2024, 3, 1, tzinfo=UTC)
SYMBOL, STRATEGY = Symbol("BTC/USDT"), StrategyId("barrier_long")
CASH, STEP = D(100_000), D("0.001")
HUGE = Limits(D(10) ** 12, D(10) ** 12, 8, 10**6, 10**6, D(10) ** 12)
INSTRUMENT = Instrument(Venue("binance"), SYMBOL, "BTC", "USDT", D("0.000000001"), STEP, D(10))
VENUE = BinanceVenue("http://127.0.0.1:9", "key", "secret")  # only asked what it trades a symbol as


@dataclass(frozen=True)
class Filled:
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_currency: str
    market_time: datetime


def frame(seed: int, count: int, missing: float) -> pl.DataFrame:
    """Hours of a walk, some of them absent."""
    rng = np.random.default_rng(seed)
    close = np.round(300.0 * np.exp(np.cumsum(rng.standard_t(4, count) * 0.008)), 2)
    opened = np.concatenate([[300.0], close[:-1]])
    kept = np.append(True, rng.random(count - 1) >= missing)
    hours = pl.datetime_range(START, START + timedelta(hours=count - 1), "1h", eager=True)
    return pl.DataFrame(
        {
            "venue": "binance", "symbol": SYMBOL, "interval_seconds": 3600, "open_time": hours,
            "open": opened, "high": np.maximum(opened, close) + 1.0, "low": np.minimum(opened, close) - 1.0, "close": close,
            "volume": rng.random(count) + 1.0, "session_date": hours.dt.date(), "available_at": hours + timedelta(hours=1),
        }
    ).filter(pl.Series(kept))  # fmt: skip


def signals(bars: pl.DataFrame, ok: np.ndarray[Any, Any], spec: BarrierSpec) -> list[Signal]:
    """What the scorer would write of each bar, but for the model's say (`ok`)."""
    volatility = compute(bars).barrier_volatility(spec.horizon_bars)
    made = []
    for row, good, distance in zip(bars.iter_rows(named=True), ok, volatility.tolist(), strict=True):
        known = bool(np.isfinite(distance) and distance > 0)
        state = ("ok" if good else "abstain") if known else "outlier"
        made.append(
            Signal(
                dataset_id="d", seq=1, signal_id=f"s_{row['open_time']}", strategy_id=STRATEGY, version_id="v",
                role="champion", symbol=SYMBOL, bar_open_time=row["open_time"], available_at=row["available_at"],
                price=_price(row["close"]), state=state, direction="long" if state == "ok" else "flat", certified=False,
                threshold=0.6, confidence=0.7, target_price=_price(spec.target_price(row["close"], distance if known else 0.0)),
                stop_price=_price(spec.stop_price(row["close"], distance if known else 0.0)),
                exit_by=spec.exit_by(row["available_at"], 3600), expires_at=row["available_at"] + timedelta(hours=1),
                volatility="low", trend="up", liquidity="high", session="us",
            )
        )  # fmt: skip
    return made


def by_the_engine(
    bars: pl.DataFrame, made: list[Signal], fraction: Decimal
) -> tuple[list[tuple[ClosedTrade, str]], Decimal]:
    """(closed trades with the reason of their exit, cash at the end)."""
    situation = Situation({SYMBOL: INSTRUMENT}, False, lambda moment: moment.timestamp(), lambda _: None)
    stake = Stake(STRATEGY, fraction, False, True)
    account = Portfolio(UserId("u"), AccountId("a"), "sandbox", False, "USDT", VENUE, HUGE, {STRATEGY: stake}, CASH)
    trades: list[tuple[ClosedTrade, str]] = []
    entry: Filled | None = None
    for row, signal in zip(bars.iter_rows(named=True), made, strict=True):
        stopped = _stopped(account, row)
        if stopped is not None:
            assert entry is not None
            account.holdings.clear()
            account.cash += stopped.price * stopped.quantity - stopped.fee
            trades.append((closed_trade([entry], [stopped], base="BTC", quote="USDT", worth=lambda _: D(0)), "stop"))
        for decision in decide(account, [signal], signal.available_at, situation, signal.available_at):
            assert decision.denial is None
            fill = _filled(decision)
            if decision.side == "buy":
                entry = fill
                account.cash -= fill.price * fill.quantity
                account.holdings[STRATEGY, SYMBOL] = _held(decision, fill)
                continue
            assert entry is not None
            held = account.holdings.pop((STRATEGY, SYMBOL))
            account.cash += fill.price * fill.quantity - fill.fee
            reason = held.exit_reason(signal.price, signal.available_at)
            assert reason is not None
            trades.append((closed_trade([entry], [fill], base="BTC", quote="USDT", worth=lambda _: D(0)), reason))
    return trades, account.cash


def _stopped(account: Portfolio, row: dict[str, Any]) -> Filled | None:
    """The fill of the stop that has stood at the venue since the last close, if the bar comes to it."""
    terms = [terms_of(held, INSTRUMENT, 0) for held in account.holdings.values()]
    if not terms or terms[0] is None or D(str(row["low"])) > terms[0].trigger:
        return None
    price = min(D(str(row["open"])), terms[0].trigger)
    fee = rate("binance", "spot", side="sell", day=row["available_at"].date()) * terms[0].quantity * price
    return Filled(price, terms[0].quantity, fee, "USDT", row["available_at"])


def _filled(decision: Decision) -> Filled:
    signal = decision.signal
    fee = rate("binance", "spot", side=decision.side, day=signal.available_at.date())
    in_kind = decision.side == "buy"
    amount = decision.quantity * fee * (1 if in_kind else signal.price)
    return Filled(signal.price, decision.quantity, amount, "BTC" if in_kind else "USDT", signal.available_at)


def _held(decision: Decision, fill: Filled) -> Holding:
    signal = decision.signal
    return Holding(
        SYMBOL, SYMBOL, STRATEGY, fill.quantity - fill.fee, fill.price, decision.intent_id, "v", "champion",
        signal.signal_id, signal.target_price, signal.stop_price, signal.exit_by,
    )  # fmt: skip


def by_the_loop(bars: pl.DataFrame, ok: np.ndarray[Any, Any], spec: BarrierSpec, fraction: Decimal) -> Backtest:
    arrays = as_bars(bars)
    given = pl.DataFrame({"symbol": SYMBOL, "bar_open_time": bars["open_time"], "state": np.where(ok, "ok", "abstain")})
    wishes = barrier_wishes(prepare("barrier_long", arrays, bars, given), spec)
    funds = Funds(float(CASH), 0.0, float(fraction), float(STEP), 10.0, fee_in_base=True)
    return run(arrays, wishes, engine_rules(spec, 3600), funds, SpotSchedule("binance"))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(520, 800),  # volatility is known from the 400th bar on
    st.sampled_from([0.0, 0.1]), st.sampled_from([0.1, 0.3, 1.0]),
    st.sampled_from([0.5, 1.0, 2.5]), st.sampled_from([0.5, 1.0, 2.5]), st.integers(1, 30),
    st.sampled_from([D("0.05"), D("0.1"), D("0.9")]),
)  # fmt: skip
def test_the_loop_trades_as_the_engine_does(
    seed: int, count: int, missing: float, share: float, profit: float, stop: float, horizon: int, fraction: Decimal
) -> None:
    spec = BarrierSpec(profit, stop, horizon, 0.001)
    bars = frame(seed, count, missing)
    ok = np.random.default_rng(seed + 1).random(len(bars)) < share
    trades, cash = by_the_engine(bars, signals(bars, ok, spec), fraction)
    result = by_the_loop(bars, ok, spec, fraction)
    found = result.trades
    assert trades or not ok[399:-35].any()  # an entry there has ended by the last bar
    assert found["reason"].to_list() == [reason for _, reason in trades]
    for row, (trade, _) in zip(found.iter_rows(named=True), trades, strict=True):
        assert (row["entry_time"], row["exit_time"]) == (trade.entry_time, trade.exit_time)
        assert row["entry_price"] == float(trade.entry_price)
        assert row["exit_price"] == pytest.approx(float(trade.exit_price), abs=1e-8)  # a stop's is rounded to a tick
        assert row["quantity"] == pytest.approx(float(trade.quantity), rel=1e-12)
        assert row["net"] == pytest.approx(float(trade.net), abs=1e-5)
        assert row["costs"] == pytest.approx(float(trade.costs), abs=1e-5)
        assert row["net_return"] == pytest.approx(trade.net_return, abs=1e-11)
    if len(result.order_rows) % 2 == 0:
        assert result.equity[-1] == pytest.approx(float(cash), abs=1e-4)


def test_the_strategy_that_ships_trades_alike_for_a_year() -> None:
    bars = frame(7, 8_760, 0.001)
    ok = np.random.default_rng(8).random(len(bars)) < BARRIER_LONG.target_coverage
    spec, fraction = BARRIER_LONG.barriers, BARRIER_LONG.capital_fraction
    trades, _ = by_the_engine(bars, signals(bars, ok, spec), fraction)
    found = by_the_loop(bars, ok, spec, fraction).trades
    assert len(trades) > 500
    closes = set(bars["close"].to_list())
    assert sum(float(trade.exit_price) not in closes for trade, _ in trades) > 10, "stops at the venue go off"
    assert found["reason"].to_list() == [reason for _, reason in trades]
    assert found["net"].sum() == pytest.approx(float(sum(trade.net for trade, _ in trades)), abs=1e-5)
