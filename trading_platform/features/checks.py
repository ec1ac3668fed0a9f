"""The checks of `lookahead.py` on every symbol of a frame, with what is allowed of the platform's own features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from trading_platform.features.definition import FEATURES, WARM_UP, Feature
from trading_platform.features.lookahead import WARM_UPS, Compute, check_lookahead, check_recursive, set_features
from trading_platform.features.reference import COLUMN, with_reference
from trading_platform.features.stream import SymbolStream
from trading_platform.identifiers import Venue
from trading_platform.market_data.bar import Bar

NEWEST = 5_000
LIVE = 200


def settled_after(warm_up: int) -> int:
    """Bars of history after which every column of a set must have settled: the shortest of `WARM_UPS` that allows it."""
    return min(length for length in WARM_UPS if length >= warm_up)


SETTLED = settled_after(WARM_UP)
"""That of the standard features; a symbol needs more bars than these to be checked."""


@dataclass(frozen=True)
class SymbolCheck:
    """What was found of one symbol. `leaking`: columns that knew the future; `history`: {column: bars of history it
    needs} beyond the shortest warm-up, -1 for one that never settles; `differing`: columns whose live value differs
    from the batch's (None: only the platform's own features have a live form)."""

    symbol: str
    bars: int
    leaking: list[str]
    history: dict[str, int]
    differing: list[str] | None
    settled: int = SETTLED

    @property
    def passed(self) -> bool:
        return not self.leaking and not self.differing and all(0 < n <= self.settled for n in self.history.values())


def check_symbols(
    bars: pl.DataFrame,
    compute: Compute | None = None,
    names: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    features: tuple[Feature, ...] = FEATURES,
) -> list[SymbolCheck]:
    """Check `features` on the newest bars of every symbol. `compute`: another feature function, its columns `names`.

    A symbol with no more bars than its features need to settle says nothing and raises ValueError.
    """
    settled = SETTLED if compute else settled_after(max(feature.warm_up for feature in features))
    names = names if compute else [feature.name for feature in features]
    parts = (bars if COLUMN in bars.columns else with_reference(bars)).partition_by("symbol", maintain_order=True)
    found = []
    for done, part in enumerate(parts):
        symbol = str(part["symbol"][0])
        progress(f"checking {symbol}", done, len(parts))
        newest = part.sort("open_time").tail(NEWEST)
        if len(newest) <= settled:
            raise ValueError(f"{symbol} has {len(newest):,} bars; the checks need over {settled:,}: bring more history")
        function = compute or set_features(features)
        found.append(
            SymbolCheck(
                symbol,
                len(newest),
                check_lookahead(newest, function, names),
                check_recursive(newest, function, names, [n for n in WARM_UPS if n < len(newest)]),
                None if compute else check_live(newest, features),
                settled,
            )
        )
    progress("checked", len(parts), len(parts))
    return found


def check_live(bars: pl.DataFrame, features: tuple[Feature, ...] = FEATURES, last: int = LIVE) -> list[str]:
    """Columns of the platform's features of which one of the last bars, taken one by one, differs from the batch's."""
    venue, interval = Venue(bars["venue"][0]), int(bars["interval_seconds"][0])
    whole = set_features(features)(bars)
    stream = SymbolStream(venue, interval, features)
    stream.extend(bars[:-last])
    beside = bars[COLUMN].fill_null(np.nan)[-last:].to_list() if COLUMN in bars.columns else [np.nan] * last
    rows = bars[-last:].drop(COLUMN, strict=False).iter_rows(named=True)
    live = np.array([stream.push(Bar(**values), close).features for values, close in zip(rows, beside, strict=True)])
    same = (live == whole[-last:]) | (np.isnan(live) & np.isnan(whole[-last:]))
    return [features[column].name for column in np.flatnonzero(~same.all(axis=0))]
