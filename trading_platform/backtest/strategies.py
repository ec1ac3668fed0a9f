"""Strategies as arrays: what is wanted at each close, with the stop and target of a position entered there.

`sma_cross` is the field's yardstick. The platform's own strategies (`strategies/`) come with their definition's barriers,
horizon and stake, and with the engine's ways: barriers are looked at on closes, a trade may be entered again at once.
What they enter on is signals: those given, or every close, which shows what the barriers earn without any model.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from trading_platform.backtest.kernel import FLAT, HOLD, LONG, Codes, Floats, Rules, Wishes
from trading_platform.backtest.simulation import MICROSECONDS, NONE, Bars
from trading_platform.execution.portfolio import BEYOND
from trading_platform.features.stream import compute
from trading_platform.learning.labels import BarrierSpec
from trading_platform.strategies.definition import StrategyDefinition, StrategyError, configured, installed, strategy

EQUAL = 1e-6
"""Averages closer than this, in price, are the same: sums of floats differ in their last digits."""
SMA_CROSS = "sma_cross"
SMA_DEFAULTS = {"fast": 10.0, "slow": 50.0, "stop": 0.0, "target": 0.0}
"""`stop` and `target` in percent of the close; 0: none."""
BARRIER_NAMES = ("profit_multiple", "stop_multiple", "horizon_bars")


@dataclass(frozen=True)
class Play:
    """A strategy with its parameters, ready for one instrument; `fraction`: share of equity in a position, None: free."""

    wishes: Wishes
    rules: Rules
    fraction: float | None


@dataclass(frozen=True)
class Prepared:
    """What a strategy needs of one instrument, computed once for all its parameters.

    `sigma` (n,): deviation of one-bar log returns as the features have it; `allowed` (n,): closes whose signal is ok.
    """

    bars: Bars
    sigma: Floats
    allowed: NDArray[np.bool_]


def names() -> list[str]:
    return [SMA_CROSS, *installed()]


def defaults(name: str) -> dict[str, float]:
    """Parameters of a strategy with their values. Raises `StrategyError` for a strategy that is not installed."""
    if name == SMA_CROSS:
        return dict(SMA_DEFAULTS)
    if name not in installed():
        raise StrategyError(f"no strategy {name!r}; there are {', '.join(names())}")
    definition = strategy(name)
    spec = definition.barriers
    values = {key: float(getattr(spec, key)) for key in BARRIER_NAMES}
    return values | {"capital_fraction": float(definition.capital_fraction)}


def prepare(name: str, bars: Bars, frame: pl.DataFrame, signals: pl.DataFrame | None = None) -> Prepared:
    """`frame`: the bar frame of `bars`; `signals`: symbol, bar_open_time (UTC) and state of each, `ok` being a trade."""
    if name == SMA_CROSS:
        return Prepared(bars, NONE, np.empty(0, dtype=np.bool_))
    sigma = compute(frame).sigma
    if signals is None:
        return Prepared(bars, sigma, np.ones(len(bars), dtype=np.bool_))
    ok = signals.filter((pl.col("symbol") == bars.symbol) & (pl.col("state") == "ok"))
    return Prepared(bars, sigma, frame["open_time"].is_in(ok["bar_open_time"].implode()).to_numpy())


def play(name: str, prepared: Prepared, parameters: Mapping[str, float], *, next_open: bool, slippage: float) -> Play:
    """Raises `StrategyError` on a parameter that the strategy does not have, ValueError on a value it cannot take."""
    known = defaults(name)
    if unknown := set(parameters) - set(known):
        raise StrategyError(f"{name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    values = known | dict(parameters)
    if name == SMA_CROSS:
        close = prepared.bars.market.close
        stop = close * (1.0 - values["stop"] / 100.0) if values["stop"] else NONE
        target = close * (1.0 + values["target"] / 100.0) if values["target"] else NONE
        wishes = sma_cross(close, round(values["fast"]), round(values["slow"]), stop, target)
        return Play(wishes, Rules(next_open, True, False, False, 0, slippage), None)
    definition = configured_with(strategy(name), values)
    return Play(
        barrier_wishes(prepared, definition.barriers),
        engine_rules(definition.barriers, prepared.bars.interval_seconds, next_open=next_open, slippage=slippage),
        float(definition.capital_fraction),
    )


def configured_with(definition: StrategyDefinition, values: Mapping[str, float]) -> StrategyDefinition:
    """The definition with parameters of a grid applied. Raises `StrategyError`."""
    barriers = {key: values[key] for key in BARRIER_NAMES if key in values}
    if "horizon_bars" in barriers:
        barriers["horizon_bars"] = round(barriers["horizon_bars"])
    rest = {"capital_fraction": repr(values["capital_fraction"])} if "capital_fraction" in values else {}
    return configured(definition, {"barriers": barriers} | rest)


def engine_rules(spec: BarrierSpec, interval_seconds: int, *, next_open: bool = False, slippage: float = 0.0) -> Rules:
    """The engine's ways: see `as_engine`."""
    return as_engine(spec.horizon_bars * interval_seconds * MICROSECONDS, next_open=next_open, slippage=slippage)


def as_engine(horizon: int, *, next_open: bool = False, slippage: float = 0.0) -> Rules:
    """Closes decide on barriers, a stop further out stands at the venue, the time barrier is a moment (`horizon`
    microseconds on), a new signal may enter at once."""
    return Rules(next_open, False, True, False, horizon, slippage, float(BEYOND))


def barrier_wishes(prepared: Prepared, spec: BarrierSpec) -> Wishes:
    """Long where a signal is ok and volatility is known, with the barriers of `BarrierSpec`; nothing else is wanted."""
    close, volatility = prepared.bars.market.close, prepared.sigma * np.sqrt(float(spec.horizon_bars))
    usable = prepared.allowed & np.isfinite(volatility) & (volatility > 0.0)
    target = close * (1.0 + spec.profit_multiple * volatility)
    stop = np.maximum(0.0, close * (1.0 - spec.stop_multiple * volatility))
    return Wishes(np.where(usable, LONG, HOLD).astype(np.int8), stop, target)


def sma_cross(close: Floats, fast: int, slow: int, stop: Floats, target: Floats) -> Wishes:
    """Long while the fast simple moving average of the close lies above the slow one, flat while not.

    `stop`, `target`: prices by bar, or (0,) for none. Raises ValueError unless 0 < fast < slow.
    """
    if not 0 < fast < slow:
        raise ValueError(
            f"the fast average is of fewer bars than the slow one and of at least 1; got {fast} and {slow}"
        )
    return Wishes(_above(close, fast, slow), stop, target)


@njit(cache=True, error_model="numpy", nogil=True)
def _above(close: Floats, fast: int, slow: int) -> Codes:
    wanted = np.empty(len(close), dtype=np.int8)
    fast_sum, slow_sum, apart = 0.0, 0.0, EQUAL * fast * slow
    for i in range(len(close)):
        fast_sum += close[i] - (close[i - fast] if i >= fast else 0.0)
        slow_sum += close[i] - (close[i - slow] if i >= slow else 0.0)
        # fast_sum / fast - slow_sum / slow > EQUAL, without the divisions
        wanted[i] = LONG if i >= slow - 1 and fast_sum * slow - slow_sum * fast > apart else FLAT
    return wanted
