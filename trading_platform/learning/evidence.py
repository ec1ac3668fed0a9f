"""What an experiment's paired scores say, and which decision that carries.

Plain frames and arrays in, a decision out; `experiments.py` reads and writes the rows.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from trading_platform.learning.arms import CHALLENGER, CHAMPION
from trading_platform.learning.calibration import Floats, expected_calibration_error, log_losses, reliability
from trading_platform.learning.confidence_sequence import FIRST_LOOK, Bounds, block_means, confidence_sequence
from trading_platform.learning.plan import CONDITIONS
from trading_platform.learning.samples import microseconds

MOST_PLOTTED = 500
LEAST_TRADES = 30
"""Published bars below which a drawdown says nothing."""


@dataclass(frozen=True)
class ExperimentPolicy:
    """When an experiment may end, and how.

    `margin`: what the challenger has to be better by, in nats of log-loss; blocks, days of market time and market
    conditions (values of volatility with at least `rows_per_condition` rows) that must have been seen first.
    """

    alpha: float = 0.05
    harm_alpha: float = 0.05
    margin: float = 0.0
    minimum_blocks: int = 40
    minimum_days: float = 7.0
    minimum_conditions: int = 2
    rows_per_condition: int = 30
    calibration_slack: float = 0.02
    drawdown_slack: float = 0.02
    maximum_days: float = 120.0
    horizons_per_block: int = 2


@dataclass(frozen=True)
class Evidence:
    """What an experiment has shown so far. Differences are champion minus challenger: positive favours the challenger.

    `harm` bounds the challenger's net return minus the champion's, a block, each on the bars it published.
    """

    rows: int
    days: float
    loss: Bounds
    harm: Bounds
    block_times: list[datetime]
    log_loss: dict[str, float | None]
    ece: dict[str, float | None]
    drawdown: dict[str, float | None]
    conditions: dict[str, int]
    by_condition: dict[str, dict[str, float]]
    """{condition=value: rows, and each arm's log-loss}."""


# --- the split -------------------------------------------------------------------------------------------------------


def paired(resolved: pl.DataFrame, champion_id: str, challenger_id: str) -> pl.DataFrame:
    """One row a bar that both versions scored: the champion's columns, and the challenger's with `_challenger`."""
    key = ["symbol", "bar_open_time"]
    champion = resolved.filter(pl.col("version_id") == champion_id)
    challenger = resolved.filter(pl.col("version_id") == challenger_id)
    both = champion.join(
        challenger.select(*key, "confidence", "threshold", "state", "net_return"), on=key, suffix="_challenger"
    )
    return both.sort("available_at", "symbol")


def weigh(pairs: pl.DataFrame, *, width: timedelta, known_until: datetime, alpha: float, harm_alpha: float) -> Evidence:
    """Evidence from paired rows (see `paired`). Blocks that may still get labels at `known_until` do not count yet."""
    label = pairs["label"].to_numpy()
    moments = microseconds(pairs["available_at"])
    champion = log_losses(pairs["confidence"].to_numpy(), label)
    challenger = log_losses(pairs["confidence_challenger"].to_numpy(), label)
    champion_pnl = _published_return(pairs, "")
    challenger_pnl = _published_return(pairs, "_challenger")
    microseconds_wide = int(width.total_seconds() * 1_000_000)
    loss, begins = block_means(champion - challenger, moments, microseconds_wide)
    harm, _ = block_means(challenger_pnl - champion_pnl, moments, microseconds_wide)
    complete = begins + microseconds_wide <= int(known_until.timestamp() * 1_000_000)
    begins = begins[complete]
    days = float(moments.max() - moments.min()) / 86_400e6 if len(moments) else 0.0
    return Evidence(
        rows=len(pairs),
        days=days,
        loss=confidence_sequence(loss[complete], alpha),
        harm=confidence_sequence(harm[complete], harm_alpha),
        block_times=[datetime.fromtimestamp(begin / 1e6, known_until.tzinfo) for begin in begins.tolist()],
        log_loss={CHAMPION: _mean(champion), CHALLENGER: _mean(challenger)},
        ece={
            CHAMPION: _ece(pairs["confidence"].to_numpy(), label),
            CHALLENGER: _ece(pairs["confidence_challenger"].to_numpy(), label),
        },
        drawdown={CHAMPION: _drawdown(champion_pnl, moments), CHALLENGER: _drawdown(challenger_pnl, moments)},
        conditions={str(value): int(count) for value, count in pairs["volatility"].value_counts().iter_rows()},
        by_condition=_by_condition(pairs, champion, challenger),
    )


def decide(evidence: Evidence, policy: ExperimentPolicy) -> tuple[str, list[str]]:
    """(decision, what still stands in the way of a promotion)."""
    lower, upper = evidence.loss.last
    _, harm_upper = evidence.harm.last
    if harm_upper is not None and harm_upper < 0.0:
        return "rollback", ["the challenger loses money against the champion"]
    if upper is not None and upper < 0.0:
        return "keep", ["the challenger's log-loss is worse"]
    wanting = _wanting(evidence, policy)
    if lower is not None and lower > policy.margin and not wanting:
        return "promote", []
    if lower is None or lower <= policy.margin:
        wanting = [f"the lower bound does not clear {policy.margin}", *wanting]
    if evidence.days > policy.maximum_days:
        return "keep", [f"undecided after {policy.maximum_days:g} days", *wanting]
    return "continue", wanting


def _wanting(evidence: Evidence, policy: ExperimentPolicy) -> list[str]:
    blocks = len(evidence.loss.mean)
    conditions = sum(count >= policy.rows_per_condition for count in evidence.conditions.values())
    checks = [
        (blocks >= policy.minimum_blocks, f"{blocks} of {policy.minimum_blocks} blocks"),
        (evidence.days >= policy.minimum_days, f"{evidence.days:.1f} of {policy.minimum_days:g} days"),
        (conditions >= policy.minimum_conditions, f"{conditions} of {policy.minimum_conditions} volatility conditions"),
        (_not_worse(evidence.ece, policy.calibration_slack), "its calibration is worse"),
        (
            evidence.drawdown[CHAMPION] is None or _not_worse(evidence.drawdown, policy.drawdown_slack),
            "its drawdown is worse, or not known",
        ),
    ]
    return [text for passed, text in checks if not passed]


def _not_worse(measure: dict[str, float | None], slack: float) -> bool:
    """Whether both were measured and the challenger's is no larger. A champion that hardly trades has no drawdown."""
    champion, challenger = measure[CHAMPION], measure[CHALLENGER]
    return champion is not None and challenger is not None and challenger <= champion + slack


def _by_condition(pairs: pl.DataFrame, champion: Floats, challenger: Floats) -> dict[str, dict[str, float]]:
    losses = pairs.select(CONDITIONS).with_columns(pl.Series(CHAMPION, champion), pl.Series(CHALLENGER, challenger))
    return {
        f"{name}={value}": {"rows": rows, CHAMPION: ours, CHALLENGER: theirs}
        for name in CONDITIONS
        for value, rows, ours, theirs in losses.group_by(name)
        .agg(pl.len(), pl.col(CHAMPION).mean(), pl.col(CHALLENGER).mean())
        .sort(name)
        .iter_rows()
    }


def _published_return(pairs: pl.DataFrame, suffix: str) -> Floats:
    """Net return of the rows a version published, zero elsewhere."""
    published = (pairs[f"state{suffix}"] == "ok").to_numpy()
    return np.where(published, pairs["net_return"].to_numpy(), 0.0)


def _drawdown(returns: Floats, moments: Any) -> float | None:
    """Largest fall of the summed returns, an equal share of money a symbol and moment; None where hardly any traded."""
    if np.count_nonzero(returns) < LEAST_TRADES:
        return None
    _, number = np.unique(moments, return_inverse=True)
    curve = np.cumsum(np.bincount(number, returns) / np.bincount(number))
    return float(np.max(np.maximum.accumulate(np.maximum(curve, 0.0)) - curve))


def _ece(confidence: Floats, label: Any) -> float | None:
    return expected_calibration_error(reliability(confidence, label)) if len(label) else None


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def document(evidence: Evidence, policy: ExperimentPolicy, alpha: float, wanting: list[str]) -> dict[str, Any]:
    """The evidence as JSON, with series thinned for plots."""
    step = max(1, len(evidence.block_times) // MOST_PLOTTED)
    shown = [index for index in range(len(evidence.block_times)) if index >= FIRST_LOOK - 1][::step]
    return {
        "rows": evidence.rows,
        "days": evidence.days,
        "alpha": alpha,
        "wanting": wanting,
        "log_loss": evidence.log_loss,
        "ece": evidence.ece,
        "drawdown": evidence.drawdown,
        "conditions": evidence.conditions,
        "by_condition": evidence.by_condition,
        "policy": asdict(policy),
        "harm": dict(zip(("lower", "upper"), evidence.harm.last, strict=True)),
        "series": _series(evidence.loss, evidence.block_times, shown),
        "harm_series": _series(evidence.harm, evidence.block_times, shown),
    }


def _series(bounds: Bounds, times: list[datetime], shown: list[int]) -> dict[str, list[Any]]:
    return {
        "time": [times[index].isoformat() for index in shown],
        **{
            name: [float(values[index]) for index in shown]
            for name, values in (("mean", bounds.mean), ("lower", bounds.lower), ("upper", bounds.upper))
        },
    }
