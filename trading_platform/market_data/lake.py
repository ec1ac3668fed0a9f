"""The lake: bars, quarantine, gaps, features and predictions as Delta tables on disk.

Tables are append-only. A row that changes is appended again with a higher `revision`, and a reader sees the highest
revision that was available at its `as_of`: a correction never rewrites what an earlier reader saw, and adding the same
rows twice adds nothing. Delta Lake's own tools (Spark, Trino, DuckDB, polars) read the tables as they are.
"""

import fcntl
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable, write_deltalake

TIME = pl.Datetime("us", "UTC")
BAR_SCHEMA: dict[str, pl.DataType] = {
    "dataset_id": pl.String(),
    "venue": pl.String(),
    "symbol": pl.String(),
    "interval_seconds": pl.Int32(),
    "open_time": TIME,
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "session_date": pl.Date(),
    "available_at": TIME,
    "revision": pl.Int32(),
    "source": pl.String(),
}
"""One row a bar. Key: (dataset_id, symbol, interval_seconds, open_time); prices in quote currency, times UTC."""

QUARANTINE_SCHEMA: dict[str, pl.DataType] = {
    "dataset_id": pl.String(),
    "symbol": pl.String(),
    "file": pl.String(),
    "row_number": pl.Int64(),
    "reason": pl.String(),
    "open_time": TIME,
    "raw": pl.String(),
}
"""Rows that broke a rule: which one, where it stood (file and 1-based row), and the row itself as JSON."""

GAP_SCHEMA: dict[str, pl.DataType] = {
    "dataset_id": pl.String(),
    "symbol": pl.String(),
    "interval_seconds": pl.Int32(),
    "first": TIME,
    "last": TIME,
    "missing": pl.Int64(),
    "repaired": pl.Int64(),
    "session": pl.String(),
    "tried": pl.String(),
}
"""Bars that the venue's calendar expects and nobody has. `first`, `last`: open times of the first and last missing."""


@dataclass(frozen=True)
class Upserted:
    """What an upsert did, in rows."""

    added: int
    changed: int
    unchanged: int


@dataclass(frozen=True)
class _Table:
    name: str
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ("dataset_id",)
    not_compared: tuple[str, ...] = ("revision",)
    """Columns whose difference alone does not make a row another row."""


BARS = _Table("bars", ("dataset_id", "symbol", "interval_seconds", "open_time"), not_compared=("revision", "source"))
QUARANTINE = _Table("quarantine", ("dataset_id", "file", "row_number", "reason"))
GAPS = _Table("gaps", ("dataset_id", "symbol", "interval_seconds", "first"))
FEATURES = _Table("features", ("dataset_id", "feature_hash", "symbol", "open_time"), ("dataset_id", "feature_hash"))
PREDICTIONS = _Table("predictions", ("dataset_id", "version_id", "symbol", "open_time"), ("dataset_id", "version_id"))
TABLES = (BARS, QUARANTINE, GAPS, FEATURES, PREDICTIONS)


class Lake:
    """The tables under one folder. Safe for several reading processes; writers of one table take turns by file lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # --- bars --------------------------------------------------------------------------------------------------------

    def write_bars(self, frame: pl.DataFrame) -> Upserted:
        """Add the bars that are new and revise those that differ; `frame` has the columns of `BAR_SCHEMA`."""
        return self._upsert(BARS, frame.select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items()))

    def bars(
        self,
        dataset_id: str,
        symbols: Sequence[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        as_of: datetime | None = None,
    ) -> pl.DataFrame:
        """Bars sorted by (symbol, open_time): `start` <= open time < `end`, and available at `as_of` (market time).

        Without `as_of` everything is returned, the replay tail included: only tools that never learn may do that.
        """
        rows = self._rows(BARS, dataset_id, symbols=symbols, start=start, end=end, as_of=as_of)
        if rows is None:
            return pl.DataFrame(schema=BAR_SCHEMA)
        return rows.select(list(BAR_SCHEMA)).sort("symbol", "open_time")

    def data_version(self, dataset_id: str, as_of: datetime | None = None) -> str:
        """A hash of the content of exactly the bars that a reader with this `as_of` sees."""
        frame = self.bars(dataset_id, as_of=as_of)
        digest = hashlib.sha256()
        for (symbol,), rows in frame.partition_by("symbol", as_dict=True, maintain_order=True).items():
            digest.update(f"{symbol}\x1f{len(rows)}\x1e".encode())
            for column in ("interval_seconds", "open_time", "open", "high", "low", "close", "volume", "available_at"):
                digest.update(rows[column].to_physical().to_numpy().tobytes())
        return f"data_{digest.hexdigest()[:20]}"

    # --- features and predictions ------------------------------------------------------------------------------------

    def write_features(self, frame: pl.DataFrame) -> Upserted:
        """`frame`: dataset_id, feature_hash, symbol, open_time, available_at and one column a feature."""
        return self._upsert(FEATURES, frame)

    def features(
        self,
        dataset_id: str,
        feature_hash: str,
        *,
        symbols: Sequence[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        as_of: datetime | None = None,
    ) -> pl.DataFrame:
        """Feature rows of one feature set, sorted by (symbol, open_time), with that set's columns alone."""
        extra = [pl.col("feature_hash") == feature_hash]
        return _own_columns(
            self._rows(FEATURES, dataset_id, symbols=symbols, start=start, end=end, as_of=as_of, extra=extra)
        )

    def write_predictions(self, frame: pl.DataFrame) -> Upserted:
        """`frame`: dataset_id, version_id, symbol, open_time, available_at and the columns of the prediction."""
        return self._upsert(PREDICTIONS, frame)

    def predictions(
        self, dataset_id: str, version_id: str | None = None, as_of: datetime | None = None
    ) -> pl.DataFrame:
        """Predictions of one version, or of all, sorted by (symbol, open_time)."""
        extra = [] if version_id is None else [pl.col("version_id") == version_id]
        return _own_columns(self._rows(PREDICTIONS, dataset_id, as_of=as_of, extra=extra))

    # --- quarantine and gaps -----------------------------------------------------------------------------------------

    def write_quarantine(self, frame: pl.DataFrame) -> Upserted:
        return self._upsert(
            QUARANTINE, frame.select(pl.col(name).cast(dtype) for name, dtype in QUARANTINE_SCHEMA.items())
        )

    def quarantined(self, dataset_id: str) -> pl.DataFrame:
        """Rows that were kept out, with the reason, in the order of their files."""
        rows = self._rows(QUARANTINE, dataset_id)
        if rows is None:
            return pl.DataFrame(schema=QUARANTINE_SCHEMA)
        return rows.select(list(QUARANTINE_SCHEMA)).sort("file", "row_number")

    def write_gaps(self, frame: pl.DataFrame) -> Upserted:
        return self._upsert(GAPS, frame.select(pl.col(name).cast(dtype) for name, dtype in GAP_SCHEMA.items()))

    def gaps(self, dataset_id: str) -> pl.DataFrame:
        """Gaps as last seen, repaired ones included (`missing` = 0), sorted by (symbol, first)."""
        rows = self._rows(GAPS, dataset_id)
        if rows is None:
            return pl.DataFrame(schema=GAP_SCHEMA)
        return rows.select(list(GAP_SCHEMA)).sort("symbol", "first")

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def compact(self) -> dict[str, tuple[int, int]]:
        """Join small files. Returns {table: (files before, files after)}. Old files stay a week for slow readers."""
        result = {}
        for table in TABLES:
            delta = self._open(table)
            if delta is None:
                continue
            with self._writing(table):
                before = len(delta.file_uris())
                delta.optimize.compact()
                delta.vacuum(dry_run=False)
                delta.update_incremental()
                result[table.name] = (before, len(delta.file_uris()))
        return result

    # --- inside ------------------------------------------------------------------------------------------------------

    def _open(self, table: _Table) -> DeltaTable | None:
        path = self.root / table.name
        return DeltaTable(path) if DeltaTable.is_deltatable(str(path)) else None

    @contextmanager
    def _writing(self, table: _Table) -> Iterator[None]:
        """One writer a table at a time: Delta's own conflict check does not see two appends of the same bar."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{table.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _rows(
        self,
        table: _Table,
        dataset_id: str,
        *,
        symbols: Sequence[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        as_of: datetime | None = None,
        extra: Iterable[pl.Expr] = (),
    ) -> pl.DataFrame | None:
        """The newest revision of each row that passes; None where the table does not exist yet."""
        delta = self._open(table)
        if delta is None:
            return None
        query = pl.scan_delta(delta).filter(pl.col("dataset_id") == dataset_id, *extra)
        if symbols is not None:
            query = query.filter(pl.col("symbol").is_in(list(symbols)))
        if start is not None:
            query = query.filter(pl.col("open_time") >= _aware(start))
        if end is not None:
            query = query.filter(pl.col("open_time") < _aware(end))
        if as_of is not None:
            query = query.filter(pl.col("available_at") <= _aware(as_of))
        return _newest(query.collect(), table)

    def _upsert(self, table: _Table, frame: pl.DataFrame) -> Upserted:
        if frame.is_empty():
            return Upserted(0, 0, 0)
        frame = frame.with_columns(revision=pl.lit(0, pl.Int32)).unique(
            list(table.key), keep="last", maintain_order=True
        )
        with self._writing(table):
            existing = self._existing(table, frame)
            added, changed = _differences(table, frame, existing)
            fresh = pl.concat([added, changed])
            if not fresh.is_empty():
                write_deltalake(
                    self.root / table.name,
                    fresh.to_arrow(),
                    mode="append",
                    partition_by=list(table.partition_by),
                    schema_mode="merge",
                )
        return Upserted(len(added), len(changed), len(frame) - len(fresh))

    def _existing(self, table: _Table, frame: pl.DataFrame) -> pl.DataFrame | None:
        """Stored rows that `frame` could meet: the same partitions, the same stretch of time."""
        delta = self._open(table)
        if delta is None:
            return None
        query = pl.scan_delta(delta)
        for column in table.partition_by:
            query = query.filter(pl.col(column).is_in(frame[column].unique().to_list()))
        if "open_time" in table.key:
            first, last = frame["open_time"].min(), frame["open_time"].max()
            query = query.filter(pl.col("open_time").is_between(pl.lit(first), pl.lit(last)))
        rows = _newest(query.collect(), table)
        return rows if len(rows) else None


def _newest(rows: pl.DataFrame, table: _Table) -> pl.DataFrame:
    """One row a key: the highest revision."""
    if rows.is_empty() or rows["revision"].max() == 0:
        return rows
    return rows.sort("revision").unique(list(table.key), keep="last", maintain_order=True)


def _differences(
    table: _Table, frame: pl.DataFrame, existing: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(rows that are new, rows that differ from what is stored, with the next revision)."""
    if existing is None:
        return frame, frame.clear()
    key = list(table.key)
    added = frame.join(existing, on=key, how="anti", maintain_order="left")
    both = frame.join(existing, on=key, how="inner", suffix="_stored", maintain_order="left")
    compared = [name for name in frame.columns if name not in {*key, *table.not_compared}]
    differs = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"{name}_stored")) if f"{name}_stored" in both.columns else pl.col(name).is_not_null()
        for name in compared
    )  # fmt: skip
    changed = both.filter(differs).with_columns(revision=pl.col("revision_stored") + 1).select(frame.columns)
    return added, changed


def _own_columns(rows: pl.DataFrame | None) -> pl.DataFrame:
    """Without the columns that other writers of a wide table brought in, which are empty here."""
    if rows is None:
        return pl.DataFrame()
    if rows.is_empty():
        return rows
    own = [name for name in rows.columns if rows[name].null_count() < len(rows)]
    return rows.select(own).sort("symbol", "open_time")


def _aware(moment: datetime) -> Any:
    if moment.tzinfo is None:
        raise ValueError(f"naive datetime {moment!r}: market times are aware UTC")
    return pl.lit(moment).dt.convert_time_zone("UTC")
