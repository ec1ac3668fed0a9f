"""Many parameters over the same bars, on all cores: the loop holds no interpreter lock, so threads are enough."""

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from trading_platform.backtest.criticism import Trials
from trading_platform.backtest.kernel import Floats
from trading_platform.backtest.simulation import Backtest
from trading_platform.backtest.statistics import Figures, daily_returns, figures

LARGEST = 100_000


class GridError(ValueError):
    """A grid that cannot be read, has no combination that can be played, or too many."""


@dataclass(frozen=True)
class Trial:
    """One combination of parameters and what it came to; `returns` (days,)."""

    parameters: Mapping[str, float]
    figures: Figures
    returns: Floats


def axis(text: str) -> tuple[str, list[float]]:
    """`fast=5:50:5` (both ends included) or `fast=5,10,20` as a name and its values. Raises `GridError`.

    >>> axis("fast=5:20:5"), axis("stop=0.5,1")
    (('fast', [5.0, 10.0, 15.0, 20.0]), ('stop', [0.5, 1.0]))
    """
    match = re.fullmatch(r"(\w+)=([-\d.:,]+)", text.strip())
    try:
        if match is None:
            raise ValueError("no name=values")
        if ":" not in match[2]:
            return match[1], [float(value) for value in match[2].split(",")]
        start, stop, step = (Decimal(part) for part in match[2].split(":"))
        if step <= 0 or stop < start:
            raise ValueError("the step is above 0 and the end not below the start")
        return match[1], [float(start + n * step) for n in range(int((stop - start) / step) + 1)]
    except (ValueError, ArithmeticError) as problem:
        raise GridError(f"{text!r} is no axis; expected name=start:stop:step or name=a,b,c ({problem})") from problem


def combinations(axes: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """All of them; where both `fast` and `slow` are varied, those with fast below slow. Raises `GridError`."""
    found = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    found = [given for given in found if not {"fast", "slow"} <= set(given) or given["fast"] < given["slow"]]
    if not found or len(found) > LARGEST:
        raise GridError(f"the grid has {len(found):,} combinations that can be played; expected 1 to {LARGEST:,}")
    return found


def sweep(
    grid: Sequence[Mapping[str, float]], one: Callable[[Mapping[str, float]], list[Backtest]],
    on_trial: Callable[[], None] = lambda: None, workers: int | None = None,
) -> list[Trial]:  # fmt: skip
    """Every combination of the grid through `one`, in the order of the grid."""

    def trial(parameters: Mapping[str, float]) -> Trial:
        results = one(parameters)
        found = Trial(parameters, figures(results), daily_returns(results))
        on_trial()
        return found

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return list(pool.map(trial, grid))


def best(trials: Sequence[Trial]) -> int:
    """Number of the trial with the highest Sharpe ratio of those that traded; the first where none did."""
    ratios = [-np.inf if trial.figures.sharpe is None else trial.figures.sharpe for trial in trials]
    return int(np.argmax(ratios))


def as_trials(trials: Sequence[Trial], chosen: int, axes: Mapping[str, Sequence[float]]) -> Trials:
    """For criticism: the matrix of returns, and the parameters whose best value is the first or last one tried."""
    parameters = trials[chosen].parameters
    edges = [
        name for name, values in axes.items() if len(values) > 2 and parameters[name] in (min(values), max(values))
    ]
    return Trials(np.column_stack([trial.returns for trial in trials]), chosen, edges)
