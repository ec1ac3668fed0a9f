"""From files to bars that can be played: read, judged, one instrument each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl

from trading_platform.backtest.kernel import Market
from trading_platform.backtest.simulation import Bars
from trading_platform.identifiers import Symbol, Venue
from trading_platform.market_data.quality import judge
from trading_platform.market_data.reading import ReadOptions, read
from trading_platform.market_data.tables import UnreadableFileError
from trading_platform.markets.instruments import Instrument, platform_symbol

DATASET = "backtest"


@dataclass(frozen=True)
class Loaded:
    """`frames` {symbol: bar frame, oldest first}; `rows` read and `lost` to quarantine; `notes` of what was guessed."""

    frames: dict[Symbol, pl.DataFrame]
    rows: int
    lost: int
    notes: list[str]


def load(
    path: Path, options: ReadOptions, symbols: tuple[str, ...] = (), on_file: Callable[[str], None] = lambda _: None
) -> Loaded:
    """Read and judge a file or folder. Raises `UnreadableFileError`, also where a symbol asked for is not there."""
    batches, left_out = read(path, replace(options, accept_loss=True), on_file)
    judged = judge(batches, DATASET, accept_loss=options.accept_loss)
    parts = judged.bars.sort("symbol", "open_time").partition_by("symbol", as_dict=True, maintain_order=True)
    frames = {Symbol(str(name)): part for (name,), part in parts.items()}
    if symbols:
        venue = batches[0].venue
        wanted = [platform_symbol(name, venue if venue == "nse" else None) for name in symbols]
        if missing := [name for name in wanted if name not in frames]:
            raise UnreadableFileError(f"{path} holds no {', '.join(missing)}; it holds {', '.join(frames)}")
        frames = {name: frames[name] for name in wanted}
    if not frames:
        raise UnreadableFileError(f"{path}: no bar is left of {judged.rows:,} rows: {dict(judged.reasons)}")
    notes = [note for batch in batches for note in batch.notes]
    return Loaded(
        frames, judged.rows, judged.lost, sorted(set(notes)) + [f"left out {k}: {v}" for k, v in left_out.items()]
    )


def as_bars(frame: pl.DataFrame) -> Bars:
    """A bar frame of one symbol as arrays for the loop."""
    opened, high, low, close = (
        np.ascontiguousarray(frame[name].cast(pl.Float64).to_numpy()) for name in ("open", "high", "low", "close")
    )
    available_at = np.ascontiguousarray(frame["available_at"].dt.timestamp("us").to_numpy())
    return Bars(
        venue=Venue(frame["venue"][0]),
        symbol=Symbol(frame["symbol"][0]),
        interval_seconds=int(frame["interval_seconds"][0]),
        open_time=np.ascontiguousarray(frame["open_time"].dt.timestamp("us").to_numpy()),
        market=Market(opened, high, low, close, available_at),
        volume=np.ascontiguousarray(frame["volume"].cast(pl.Float64).to_numpy()),
        days=frame["session_date"].to_numpy().astype("datetime64[D]"),
    )


def instrument_of(bars: Bars) -> Instrument:
    """Step, smallest order and currencies by the defaults for a symbol known from a file only."""
    return Instrument.from_file(bars.venue, bars.symbol, Decimal(repr(float(bars.market.close[-1]))))
