"""How bars get in: from files, from the generator, or from the live venue, to the lake and a row in `control.datasets`.

A dataset is where bars come from, and its id says so: the hash of the files' bytes and of the flags that change how
they are read, the parameters of the generator, or the venue and interval. Its last part, from `replay_from` on, is the
*replay tail*: never learned from, replayed by the sandbox. Adding a dataset again adds nothing.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import polars as pl
import structlog
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from trading_platform.identifiers import DatasetId, content_id
from trading_platform.market_data import synthetic
from trading_platform.market_data.gaps import Repair, repair
from trading_platform.market_data.lake import Lake, Upserted
from trading_platform.market_data.quality import Judged, judge, judge_live
from trading_platform.market_data.reading import Batch, ReadOptions, data_files, interval_name, read
from trading_platform.market_data.sources import as_bars, is_reachable, venue_source, venue_sources
from trading_platform.market_data.tables import UnreadableFileError
from trading_platform.markets.calendars import calendar
from trading_platform.storage.control import Dataset
from trading_platform.storage.databases import Databases

log = structlog.get_logger(__name__)

REPLAY_BARS = 3_000
REPLAY_SHARE = 0.1
DRILL_SEED = 11
LIVE_SYMBOLS = ("BTC/USDT", "ETH/USDT", "BNB/USDT", "XRP/USDT")
LIVE_INTERVAL_SECONDS = 300
LIVE_DAYS = 60
READING = 1
"""Raised when the same bytes come to be read differently: it is part of a file dataset's identity."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, total)."""


class VenueUnreachableError(RuntimeError):
    """The live venue gives no history."""


@dataclass(frozen=True)
class IngestOptions:
    """What to do beside reading. `drill="drift"` plants a change of regime half way through the replay tail."""

    read: ReadOptions = field(default_factory=ReadOptions)
    replay_bars: int = REPLAY_BARS
    repair: bool = True
    drill: Literal["drift"] | None = None
    seed: int = synthetic.SEED
    bars: int = synthetic.BARS
    symbols: tuple[str, ...] = ()
    interval_seconds: int | None = None
    days: int = LIVE_DAYS
    base_url: str | None = None


@dataclass(frozen=True)
class IngestReport:
    """What an ingestion found and did. `quarantined` counts rows by reason; times are aware UTC."""

    dataset_id: DatasetId
    kind: str
    venue: str
    source: str
    interval_seconds: int
    symbols: dict[str, dict[str, Any]]
    rows: int
    bars: int
    added: int
    changed: int
    unchanged: int
    gaps_found: int
    bars_missing: int
    bars_repaired: int
    quarantined: dict[str, int]
    first: datetime
    last: datetime
    replay_from: datetime | None
    notes: list[str]
    left_out: dict[str, str]
    seconds: float


@dataclass
class _Source:
    """Clean bars of a dataset on their way to the lake, with all that is to be said about them."""

    dataset_id: DatasetId
    kind: str
    source: str
    bars: pl.DataFrame
    rows: int
    quarantine: pl.DataFrame | None = None
    quarantined: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def ingest(
    databases: Databases,
    lake: Lake,
    source: str,
    options: IngestOptions = IngestOptions(),
    progress: Progress = lambda *_: None,
) -> IngestReport:
    """Bring a source's bars into the lake and register the dataset. Running it again adds nothing.

    `source`: a file or folder, `synthetic`, `binance`, or `auto` (Binance where it answers within 3 s, else synthetic).
    Raises `UnreadableFileError` (its kind `TooMuchLostError` included) and `VenueUnreachableError`.
    """
    started = time.monotonic()
    resolved, why = resolve(source, options.base_url)
    found = _collect(lake, resolved, options, progress)
    if why:
        found.notes.insert(0, why)
    replay_from = None if found.kind == "venue" else _replay_from(found.bars, options.replay_bars)
    if options.drill and replay_from is not None:
        found = _drilled(found, replay_from)
    progress("writing", 0, 1)
    written = lake.write_bars(found.bars)
    if found.quarantine is not None:
        lake.write_quarantine(found.quarantine)
    gaps = _repair(lake, found, options, progress)
    report = _report(lake, found, written, gaps, replay_from=replay_from, seconds=time.monotonic() - started)
    _register(databases, report, found.details)
    log.info("dataset_ingested", dataset_id=report.dataset_id, added=report.added, quarantined=report.quarantined)
    return report


def register_venue(
    databases: Databases,
    lake: Lake,
    options: IngestOptions = IngestOptions(),
    progress: Progress = lambda *_: None,
) -> IngestReport:
    """The live Binance dataset: history of `options.days` days by REST, kept up by the collector from then on."""
    return ingest(databases, lake, "binance", options, progress)


def resolve(source: str, base_url: str | None = None) -> tuple[str, str]:
    """(source, why) with `auto` decided: aloud, because synthetic bars are not a market."""
    if source != "auto":
        return source, ""
    if asyncio.run(is_reachable(base_url)):
        return "binance", "source auto: Binance's public REST answers, so bars are Binance's"
    return "synthetic", "source auto: Binance does not answer within 3 s, so bars are SYNTHETIC (seeded, made up)"


# --- the three sources ------------------------------------------------------------------------------------------------


def _collect(lake: Lake, source: str, options: IngestOptions, progress: Progress) -> _Source:
    if source == "synthetic":
        return _synthetic(options)
    if source == "binance":
        return asyncio.run(_venue(lake, options, progress))
    return _files(Path(source), options, progress)


def _files(path: Path, options: IngestOptions, progress: Progress) -> _Source:
    files = data_files(path)
    read_options = _reading(options)
    dataset_id = _files_id(files, read_options, options)
    seen = iter(range(len(files)))
    batches, left_out = read(
        path, read_options, on_file=lambda name: progress(f"reading {name}", next(seen), len(files))
    )
    progress("checking", 0, 1)
    judged = judge(batches, dataset_id, accept_loss=read_options.accept_loss)
    if judged.bars.is_empty():
        raise UnreadableFileError(f"{path}: no bar is left of {judged.rows:,} rows: {dict(judged.reasons)}")
    return _Source(
        dataset_id, "files", path.name, judged.bars, judged.rows, judged.quarantine, dict(judged.reasons),
        _notes(batches, judged), left_out, {"files": [batch.file for batch in batches], "flags": read_options.flags()},
    )  # fmt: skip


def _reading(options: IngestOptions) -> ReadOptions:

    return replace(options.read, interval_seconds=options.read.interval_seconds or options.interval_seconds)


def _files_id(files: list[Path], read_options: ReadOptions, options: IngestOptions) -> DatasetId:
    contents = [f"{file.name}:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]
    return DatasetId(content_id("files", READING, *contents, read_options.flags(), options.replay_bars))


def _notes(batches: list[Batch], judged: Judged) -> list[str]:
    """What was guessed, said once with the number of files it holds for."""
    counted: dict[str, int] = {}
    for batch in batches:
        for note in batch.notes:
            counted[note] = counted.get(note, 0) + 1
    notes = [
        note if len(batches) == 1 else f"{note} ({count} of {len(batches)} files)" for note, count in counted.items()
    ]
    if judged.lost:
        notes.append(f"{judged.lost:,} of {judged.rows:,} rows lost to quarantine")
    return notes


def _synthetic(options: IngestOptions) -> _Source:
    symbols = options.symbols or synthetic.SYMBOLS
    interval = options.interval_seconds or synthetic.INTERVAL_SECONDS
    bars = synthetic.generate(options.seed, synthetic.START, options.bars, symbols, interval)
    parameters = {
        "seed": options.seed, "start": synthetic.START.isoformat(), "bars": options.bars,
        "symbols": list(symbols), "interval_seconds": interval,
    }  # fmt: skip
    dataset_id = DatasetId(str(bars["dataset_id"][0]))
    note = (
        f"made up: a forecaster who knew all could reach a correlation of {synthetic.information(12):.2f} over 12 bars"
    )
    return _Source(
        dataset_id,
        "synthetic",
        f"seed {options.seed}",
        bars,
        len(bars),
        notes=[note],
        details={"synthetic": parameters},
    )


async def _venue(lake: Lake, options: IngestOptions, progress: Progress) -> _Source:
    """History by REST, from where the lake's bars of the symbol end."""
    interval = options.interval_seconds or LIVE_INTERVAL_SECONDS
    symbols = options.symbols or LIVE_SYMBOLS
    dataset_id = DatasetId(f"binance_{interval_name(interval)}")
    exchange = venue_source("binance", options.base_url)
    now = datetime.now(UTC)
    good, bad = [], []
    try:
        for number, symbol in enumerate(symbols):
            progress(f"history of {symbol}", number, len(symbols))
            start = now - timedelta(days=options.days)
            known = lake.bars(dataset_id, [symbol], start=start)
            since = _moment(known["open_time"].max()) if len(known) else start
            rows = await exchange.bars(symbol, since, now - timedelta(seconds=interval), interval)
            if rows is None:
                raise VenueUnreachableError(
                    f"Binance gives no history of {symbol}: it did not answer within 3 s, or does not list it. "
                    "Use --data synthetic or a folder of files, or check the network"
                )
            bars = as_bars(
                rows, dataset_id=dataset_id, venue="binance", symbol=symbol, interval_seconds=interval, source="binance"
            )
            kept, set_aside = judge_live(bars.filter(pl.col("available_at") <= now), known.tail(20))
            good.append(kept)
            bad.append(set_aside)
    finally:
        await exchange.close()
    set_aside = pl.concat(bad)
    return _Source(
        dataset_id, "venue", "binance", pl.concat(good), sum(map(len, good)) + len(set_aside),
        quarantine_live(set_aside), dict(set_aside["reason"].value_counts().iter_rows()),
        details={"base_url": options.base_url, "days": options.days},
    )  # fmt: skip


def quarantine_live(set_aside: pl.DataFrame) -> pl.DataFrame:
    """Rows for the quarantine table of bars that a venue sent; its 'row number' is the opening time in seconds."""
    return set_aside.with_columns(
        file=pl.concat_str(pl.lit("venue:"), "venue", pl.lit(":"), "symbol"),
        row_number=pl.col("open_time").dt.epoch("s"),
        raw=pl.struct("open", "high", "low", "close", "volume", "source").struct.json_encode(),
    )


# --- what all of them go through --------------------------------------------------------------------------------------


def _replay_from(bars: pl.DataFrame, replay_bars: int) -> datetime:
    """Open time of the tail's first bar: the last `replay_bars` time steps, a tenth of all at most.

    On a venue with sessions the tail starts with a session, so that no session is half learned from (unless there is but one).
    """
    steps = bars.select("open_time", "session_date").unique("open_time").sort("open_time")
    length = max(min(replay_bars, int(len(steps) * REPLAY_SHARE)), 1)
    first = steps.row(len(steps) - length, named=True)
    start = steps.filter(pl.col("session_date") == first["session_date"])["open_time"].min()
    if calendar(str(bars["venue"][0])).never_closes or start == steps["open_time"][0]:
        return _moment(first["open_time"])
    return _moment(start)


def _drilled(found: _Source, replay_from: datetime) -> _Source:
    steps = found.bars["open_time"].unique().sort()
    tail = steps.filter(steps >= replay_from)
    drill = synthetic.Drill(_moment(tail[len(tail) // 2]), DRILL_SEED)
    found.dataset_id = DatasetId(content_id("drill", found.dataset_id, drill))
    found.bars = synthetic.plant_drift(found.bars, drill.from_time, drill.seed).with_columns(
        dataset_id=pl.lit(found.dataset_id)
    )
    if found.quarantine is not None:
        found.quarantine = found.quarantine.with_columns(dataset_id=pl.lit(found.dataset_id))
    found.details["drill"] = {"kind": "drift", "from": drill.from_time.isoformat(), "what": drill.meaning}
    found.notes.append(f"drill: from {drill.from_time:%Y-%m-%d %H:%M} UTC on, {drill.meaning}")
    return found


def _repair(lake: Lake, found: _Source, options: IngestOptions, progress: Progress) -> Repair:
    """Made-up bars are never filled from a market, and a market's never from a drill."""
    venue = str(found.bars["venue"][0]) if len(found.bars) else "binance"
    may_ask = options.repair and found.kind != "synthetic" and not options.drill

    async def run() -> Repair:
        sources = venue_sources(venue, options.base_url) if may_ask else []
        try:
            return await repair(lake, found.dataset_id, sources, lambda done, total: progress("repairing", done, total))
        finally:
            for source in sources:
                await source.close()

    return asyncio.run(run())


def _report(
    lake: Lake, found: _Source, written: Upserted, gaps: Repair, *, replay_from: datetime | None, seconds: float
) -> IngestReport:
    bars = lake.bars(found.dataset_id)
    return IngestReport(
        dataset_id=found.dataset_id, kind=found.kind, venue=str(bars["venue"][0]), source=found.source,
        interval_seconds=int(bars["interval_seconds"][0]), symbols=symbol_spans(bars), rows=found.rows, bars=len(bars),
        added=written.added, changed=written.changed, unchanged=written.unchanged,
        gaps_found=gaps.found, bars_missing=gaps.missing, bars_repaired=gaps.repaired, quarantined=found.quarantined,
        first=_moment(bars["open_time"].min()), last=_moment(bars["open_time"].max()), replay_from=replay_from,
        notes=found.notes, left_out=found.left_out, seconds=round(seconds, 3),
    )  # fmt: skip


def symbol_spans(bars: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """{symbol: {first, last, bars}} of a bar frame, times as ISO UTC: what `datasets.symbols` holds."""
    spans = bars.group_by("symbol", maintain_order=True).agg(
        first=pl.col("open_time").min(), last=pl.col("open_time").max(), bars=pl.len()
    )
    return {
        row["symbol"]: {"first": row["first"].isoformat(), "last": row["last"].isoformat(), "bars": row["bars"]}
        for row in spans.iter_rows(named=True)
    }


def _register(databases: Databases, report: IngestReport, details: dict[str, Any]) -> None:
    values = {
        "dataset_id": report.dataset_id,
        "kind": report.kind,
        "venue": report.venue,
        "source": report.source,
        "interval_seconds": report.interval_seconds,
        "symbols": report.symbols,
        "replay_from": report.replay_from,
        "details": details | {"quarantined": report.quarantined, "notes": report.notes, "left_out": report.left_out},
    }
    with databases.control() as session:
        statement = insert(Dataset).values(**values)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[Dataset.dataset_id],
                set_={name: statement.excluded[name] for name in values} | {"updated_at": func.now()},
            )
        )


def _moment(value: Any) -> datetime:
    assert isinstance(value, datetime)
    return value.astimezone(UTC)
