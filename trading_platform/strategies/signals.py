"""What one version says of one bar: a row of `control.signals` but for its sequence number."""

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

from trading_platform.features.stream import Row
from trading_platform.identifiers import SignalId, Symbol, VersionId, content_id
from trading_platform.learning.servable import Scored
from trading_platform.market_data.bar import Bar
from trading_platform.strategies.serving import Deployed

PLACES = Decimal("1e-12")
"""Of a price in the books (`storage.types.Money`)."""


def signal_id(version_id: VersionId, symbol: Symbol, bar: Bar) -> SignalId:
    """The content of (version, symbol, bar): scoring the same bar again mints nothing new."""
    return SignalId(content_id("s", version_id, symbol, bar.open_time.isoformat()))


def signal(deployed: Deployed, bar: Bar, row: Row, trace_id: str | None) -> dict[str, Any]:
    """The signal's columns.

    `expired`: market time is past the version's expiry, and it is not asked; `outlier`: the bar is unlike the training
    data, or features or volatility are missing; `abstain`: confidence below the threshold; `ok`: a trade. During warm-up
    and on a price that does not move there is no volatility to set barriers with: both lie at the price.
    """
    servable, barriers = deployed.servable, deployed.barriers
    volatility = row.barrier_volatility(barriers.horizon_bars)
    measurable = math.isfinite(volatility) and volatility > 0.0
    expired = servable.expired(bar.available_at)
    scored = servable.score(row.features) if measurable and not expired else None
    state = "expired" if expired else _state(scored, servable.threshold)
    distance = volatility if measurable else 0.0
    return {
        "dataset_id": bar.dataset_id,
        "signal_id": signal_id(deployed.version_id, bar.symbol, bar),
        "strategy_id": deployed.strategy_id,
        "version_id": deployed.version_id,
        "role": deployed.role,
        "symbol": bar.symbol,
        "bar_open_time": bar.open_time,
        "available_at": bar.available_at,
        "price": _price(bar.close),
        "state": state,
        "probability": _known(scored.probability) if scored else None,
        "confidence": _known(scored.confidence) if scored else None,
        "confidence_lower": _known(scored.lower) if scored else None,
        "confidence_upper": _known(scored.upper) if scored else None,
        "threshold": servable.threshold,
        "certified": servable.certified and state == "ok",
        "direction": "long" if state == "ok" else "flat",
        "target_price": _price(barriers.target_price(bar.close, distance)),
        "stop_price": _price(barriers.stop_price(bar.close, distance)),
        "exit_by": barriers.exit_by(bar.available_at, bar.interval_seconds),
        "expires_at": bar.available_at + timedelta(seconds=bar.interval_seconds),
        **row.conditions,
        "trace_id": trace_id,
    }


def _state(scored: Scored | None, threshold: float) -> str:
    if scored is None or scored.outlier or not math.isfinite(scored.confidence):
        return "outlier"
    return "ok" if scored.confidence >= threshold else "abstain"


def _known(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _price(value: float) -> Decimal:
    return Decimal(repr(value)).quantize(PLACES)
