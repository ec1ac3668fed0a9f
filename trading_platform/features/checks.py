"""The checks of `lookahead.py` on every symbol of a frame, with what is allowed of the platform's own features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from trading_platform.features.definition import NAMES, WARM_UP
from trading_platform.features.lookahead import WARM_UPS, Compute, check_lookahead, check_recursive, platform_features
from trading_platform.features.stream import SymbolStream
from trading_platform.identifiers import Venue
from trading_platform.market_data.bar import Bar

NEWEST = 5_000
LIVE = 200
SETTLED = min(length for length in WARM_UPS if length >= WARM_UP)
"""Bars of history after which every column must have settled; a symbol needs more than these to be checked."""


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

    @property
    def passed(self) -> bool:
        return not self.leaking and not self.differing and all(0 < n <= SETTLED for n in self.history.values())


def check_symbols(
    bars: pl.DataFrame,
    compute: Compute | None = None,
    names: Sequence[str] = NAMES,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[SymbolCheck]:
    """Check the newest bars of every symbol. `compute`: another feature function, its columns named by `names`.

    A symbol with `SETTLED` bars or fewer says nothing and raises ValueError.
    """
    parts = bars.partition_by("symbol", maintain_order=True)
    found = []
    for done, part in enumerate(parts):
        symbol = str(part["symbol"][0])
        progress(f"checking {symbol}", done, len(parts))
        newest = part.sort("open_time").tail(NEWEST)
        if len(newest) <= SETTLED:
            raise ValueError(f"{symbol} has {len(newest):,} bars; the checks need over {SETTLED:,}: bring more history")
        function = compute or platform_features
        found.append(
            SymbolCheck(
                symbol,
                len(newest),
                check_lookahead(newest, function, names),
                check_recursive(newest, function, names, [n for n in WARM_UPS if n < len(newest)]),
                None if compute else check_live(newest),
            )
        )
    progress("checked", len(parts), len(parts))
    return found


def check_live(bars: pl.DataFrame, last: int = LIVE) -> list[str]:
    """Columns of the platform's features of which one of the last bars, taken one by one, differs from the batch's."""
    venue, interval = Venue(bars["venue"][0]), int(bars["interval_seconds"][0])
    whole = platform_features(bars)
    stream = SymbolStream(venue, interval)
    stream.extend(bars[:-last])
    live = np.array([stream.push(Bar(**values)).features for values in bars[-last:].iter_rows(named=True)])
    same = (live == whole[-last:]) | (np.isnan(live) & np.isnan(whole[-last:]))
    return [NAMES[column] for column in np.flatnonzero(~same.all(axis=0))]
