"""The journal: what happened, in order, on disk before anybody is told.

One record a line: its CRC-32, then JSON. A torn end is what a kill in the middle of a write leaves: nobody was told of
it, so it is cut off. Damage anywhere else cannot be healed by guessing and stops the start.

The journal is one file, `journal-<n>.log`. When it has grown enough it is replaced by file n+1, which begins with a
snapshot of the books: that file gets its name only when all of it is on disk, and only then the old one goes.
"""

import asyncio
import fcntl
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import structlog

log = structlog.get_logger(__name__)

Record = dict[str, Any]
PARTIAL = ".partial"
LEAST_TO_COMPACT = 32 << 20


class JournalDamagedError(RuntimeError):
    """A record in the middle of the journal does not match its checksum."""


class JournalInUseError(RuntimeError):
    """Another process has this journal open."""


class Journal:
    """Append-only records in a folder of their own (mode 0700: it holds the accounts' API secrets).

    `append` takes a record, `durable` waits until all that was appended is on disk; those who wait together share one
    `fdatasync`. What `append` was given as `then` is called in order, right after the record is on disk.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalInUseError(f"another process has the journal in {folder} open; stop it first") from error
        self._number = self._tidy()
        self._file: BinaryIO | None = None
        self._buffer: list[tuple[bytes, Callable[[], None] | None]] = []
        self._appended = self._durable = 0
        self._flushing: asyncio.Task[None] | None = None
        self._compact_at = LEAST_TO_COMPACT

    @property
    def path(self) -> Path:
        return self.folder / f"journal-{self._number:06d}.log"

    @property
    def wants_compaction(self) -> bool:
        """Whether the file has grown well beyond the snapshot it began with."""
        return self._file is not None and self._file.tell() > self._compact_at

    def records(self) -> Iterator[Record]:
        """All records from the beginning; cuts a torn end off. Call it to its end, before the first `append`."""
        if not self.path.exists():
            return
        good = 0
        with self.path.open("rb") as lines:
            for line in lines:
                record = _decode(line)
                if record is None:
                    if any(_decode(later) is not None for later in lines):
                        raise JournalDamagedError(
                            f"{self.path} is damaged at byte {good}: the record there does not match its checksum, and "
                            "others follow it. Restore the file from a copy, or move it away to start with empty books."
                        )
                    break
                good += len(line)
                yield record
        torn = self.path.stat().st_size - good
        if torn:
            log.warning("journal_torn_end_cut_off", path=str(self.path), bytes=torn)
            os.truncate(self.path, good)

    def append(self, record: Record, then: Callable[[], None] | None = None) -> None:
        """Take a record; it counts only once it is durable."""
        self._buffer.append((_encode(record), then))
        self._appended += 1

    async def durable(self) -> None:
        """Return once every record appended before the call is on disk."""
        wanted = self._appended
        while self._durable < wanted:
            if self._flushing is None:
                self._flushing = asyncio.get_running_loop().create_task(self._flush_together())
            await asyncio.shield(self._flushing)

    def flush(self) -> None:
        """Write what was appended, wait for the disk, then tell those who asked to be told."""
        taken, self._buffer = self._buffer, []
        if not taken:
            return
        try:
            file = self._opened()
            _write_all(file, b"".join(line for line, _ in taken))
            os.fdatasync(file.fileno())
        except OSError as error:
            # After a failed write nobody knows what is on disk: the process must not go on as if all of it were.
            log.critical("journal_cannot_be_written", path=str(self.path), error=str(error))
            os._exit(74)
        self._durable += len(taken)
        for _, then in taken:
            if then is not None:
                then()

    def compact(self, snapshot: Iterable[Record]) -> None:
        """Go on in a new file that begins with `snapshot`, the state after all that was appended."""
        self.flush()
        successor = self.folder / f"journal-{self._number + 1:06d}.log"
        draft = successor.with_suffix(PARTIAL)
        with draft.open("wb", buffering=1 << 20) as file:
            draft.chmod(0o600)
            for record in snapshot:
                file.write(_encode(record))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        draft.replace(successor)
        _sync_folder(self.folder)
        before = self.path
        if self._file is not None:
            self._file.close()
            self._file = None
        self._number += 1
        before.unlink(missing_ok=True)
        self._compact_at = max(LEAST_TO_COMPACT, 3 * size)
        log.info("journal_compacted", path=str(self.path), bytes=size)

    def close(self) -> None:
        """Write what is left and let another process have the journal."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _flush_together(self) -> None:
        await asyncio.sleep(0)  # whoever is ready now joins this write
        try:
            self.flush()
        finally:
            self._flushing = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = os.fdopen(descriptor, "ab", buffering=0)
            _sync_folder(self.folder)
        return self._file

    def _tidy(self) -> int:
        """Remove what an interrupted compaction left; returns the number of the file that counts."""
        for draft in self.folder.glob(f"*{PARTIAL}"):
            draft.unlink()
        found = sorted(self.folder.glob("journal-*.log"))
        for superseded in found[:-1]:
            superseded.unlink()
        return int(found[-1].stem.removeprefix("journal-")) if found else 1


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _sync_folder(folder: Path) -> None:
    """Make the folder's own entries (a new or renamed file) durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(record: Record) -> bytes:
    body = orjson.dumps(record, default=str)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> Record | None:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    record: Record = orjson.loads(body)
    return record
