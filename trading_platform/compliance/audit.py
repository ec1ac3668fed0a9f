"""The append-only audit trail: record an entry, seal entries into a hash chain, verify the chain.

    with databases.group(group_id) as session:
        order.state = "FILLED"
        record(session, user_id=..., actor="engine", event_type="FILL", ...)   # commits or rolls back with the change
    seal(databases, group_id)                                                  # from time to time, by one or many
    verify(databases, group_id).problems                                       # [] or the first entries that changed

The chain, so that anybody can recompute it with a JSON library and sha256:

    entry   JSON object of the row's columns that are not null, keys sorted, no blanks, UTF-8; numerics as strings
            without exponent or trailing zeros, times as 2026-01-31T09:15:00.000000Z. (Null columns are left out, so
            that a column added later leaves old hashes as they are.)
    leaf    seq as 8 bytes, big-endian, followed by sha256(entry)
    hash    hex of sha256(previous hash in hex || leaves of the batch); the first batch of a group follows
            sha256("trading-platform audit v1 <group_id>")

A chain that somebody recomputed as a whole would look whole. Therefore every head is also written to
`control.audit_anchors`, in another database.
"""

import hashlib
import json
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy import Engine, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from trading_platform.identifiers import GroupId
from trading_platform.storage.control import AuditAnchor
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow, AuditSeal
from trading_platform.storage.types import table_of

BATCH = 5_000
LOCK_WAIT_MS = 250
"""How long sealing may make writers wait behind it."""
LOCK_TRIES = 20
PAUSE_SECONDS = 0.25
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
LEAF = struct.Struct(">q32s")
MOST_PROBLEMS = 20
ROWS = table_of(AuditRow)
COLUMNS = tuple(column.name for column in ROWS.columns)
_NEW_ENTRIES = insert(ROWS).returning(ROWS.c.seq)
"""Returning makes it one statement for many rows."""
SEALS = AuditSeal.__table__
log = structlog.get_logger(__name__)


class SealBusyError(RuntimeError):
    """A transaction held the audit table for too long; nothing was sealed, try again later."""


@dataclass(frozen=True)
class Sealed:
    """What a call of `seal` added, and the head of the chain after it (None while the trail is empty)."""

    entries: int
    batches: int
    head_seq: int | None
    head_hash: str | None


@dataclass(frozen=True)
class Verification:
    """Result of recomputing a group's chain.

    `entries` are in the table, `verified` of them are under a seal that recomputes; the others are not sealed yet or
    in a broken batch. `problems` has one line each, naming the seq; empty means that the trail is whole.
    """

    entries: int
    verified: int
    problems: list[str] = field(default_factory=list)
    first_bad_seq: int | None = None
    head_seq: int | None = None
    head_hash: str | None = None

    @property
    def whole(self) -> bool:
        return not self.problems


# --- record ----------------------------------------------------------------------------------------------------------


def record(session: Session | AsyncSession, **columns: Any) -> None:
    """Add an entry to the caller's transaction. `user_id`, `actor` and `event_type` are required; see `AuditRow`.

    seq and event_ts are the database's. Raises ValueError for a missing or refused column, TypeError for an unknown
    one.
    """
    session.add(AuditRow(**_complete(columns)))


async def record_all(session: AsyncSession, entries: Iterable[Mapping[str, Any]]) -> None:
    """Like `record` for many entries, written at once: those with the same columns in the order given."""
    alike: dict[frozenset[str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        alike.setdefault(frozenset(entry), []).append(_complete(entry))
    for rows in alike.values():
        await session.execute(_NEW_ENTRIES, rows)


def _complete(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    if missing := [name for name in ("user_id", "actor", "event_type") if not columns.get(name)]:
        raise ValueError(f"an audit entry needs {', '.join(missing)}; given were {', '.join(sorted(columns))}")
    if refused := {"seq", "event_ts"} & columns.keys():
        raise ValueError(
            f"{', '.join(sorted(refused))} of an audit entry are set by the database alone; leave them out"
        )
    return columns


# --- seal ------------------------------------------------------------------------------------------------------------


def seal(databases: Databases, group_id: GroupId) -> Sealed:
    """Chain all entries that are committed and not sealed yet, and anchor the new heads in the control database.

    Opens its own transactions; call it outside of any that wrote audit entries. Several callers take turns. A crash
    between sealing and anchoring is made good by the next call. Raises `SealBusyError`.
    """
    engine = databases.group_engine(group_id)
    entries = batches = 0
    complete_up_to = _complete_up_to(engine, group_id)
    while complete_up_to is not None and (added := _seal_batch(engine, group_id, complete_up_to)):
        entries += added
        batches += 1
    head = _anchor(databases, group_id)
    if entries:
        log.info("audit_sealed", group=group_id, entries=entries, batches=batches, head_seq=head and head[0])
    return Sealed(entries, batches, *(head or (None, None)))


def _complete_up_to(engine: Engine, group_id: GroupId) -> int | None:
    """The newest seq such that no entry at or below it can still appear. None for an empty trail.

    Identity numbers are given out before they commit, so a transaction under way may hold a seq below the newest one
    seen. SHARE waits until every writer is through and lets none in; under it, what is there is complete. It is
    released at once: entries that come later have higher numbers.
    """
    for attempt in range(LOCK_TRIES):
        try:
            with Session(engine) as session, session.begin():
                session.execute(text(f"set local lock_timeout = {LOCK_WAIT_MS}"))
                session.execute(text(f"lock table {_name(engine, 'audit_log')} in share mode"))
                return session.scalar(select(func.max(AuditRow.seq)))
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
                raise
            log.debug("audit_seal_waits", group=group_id, attempt=attempt)
            time.sleep(PAUSE_SECONDS)
    raise SealBusyError(
        f"a transaction has been writing to the audit log of group {group_id} for more than "
        f"{LOCK_TRIES * (PAUSE_SECONDS + LOCK_WAIT_MS / 1000):.0f} s; nothing was sealed, run it again later"
    )


def _seal_batch(engine: Engine, group_id: GroupId, complete_up_to: int) -> int:
    """Seal at most `BATCH` entries; returns how many, 0 when all are sealed."""
    with Session(engine) as session, session.begin():
        session.execute(text(f"lock table {_name(engine, 'audit_seals')} in share row exclusive mode"))
        head = session.execute(
            select(SEALS.c.last_seq, SEALS.c.hash).order_by(SEALS.c.last_seq.desc()).limit(1)
        ).first()
        last_seq, previous = (head.last_seq, head.hash) if head else (None, genesis(group_id))
        query = select(ROWS).where(ROWS.c.seq <= complete_up_to).order_by(ROWS.c.seq).limit(BATCH)
        if last_seq is not None:
            query = query.where(ROWS.c.seq > last_seq)
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in session.execute(query)]
        if not rows:
            return 0
        leaves = b"".join(leaf(row) for row in rows)
        session.add(
            AuditSeal(
                first_seq=rows[0]["seq"], last_seq=rows[-1]["seq"], entries=len(rows), previous_hash=previous,
                hash=batch_hash(previous, leaves), leaves=leaves,
            )
        )  # fmt: skip
        return len(rows)


def _anchor(databases: Databases, group_id: GroupId) -> tuple[int, str] | None:
    """Anchor every head above the newest anchor. Returns the chain's head (seq, hash)."""
    with databases.control() as session:
        anchored = session.scalar(select(func.max(AuditAnchor.seq)).where(AuditAnchor.group_id == group_id))
    heads = select(SEALS.c.last_seq, SEALS.c.hash).order_by(SEALS.c.last_seq)
    with databases.group(group_id) as session:
        new = session.execute(heads if anchored is None else heads.where(SEALS.c.last_seq >= anchored)).all()
    if not new:
        return None
    with databases.control() as session:
        session.execute(
            insert(AuditAnchor).on_conflict_do_nothing(),
            [{"group_id": group_id, "seq": head.last_seq, "hash": head.hash} for head in new],
        )
    return new[-1].last_seq, new[-1].hash


def _name(engine: Engine, table: str) -> str:
    """The table's schema-qualified name: LOCK TABLE is plain SQL, which the schema map does not reach."""
    schema = engine.get_execution_options()["schema_translate_map"][AuditRow.metadata.schema]
    return f'"{schema}".{table}'


# --- the chain's arithmetic ------------------------------------------------------------------------------------------


def genesis(group_id: GroupId) -> str:
    """What a group's first batch follows: chains of two groups can't be exchanged."""
    return hashlib.sha256(f"trading-platform audit v1 {group_id}".encode()).hexdigest()


def leaf(row: Mapping[str, Any]) -> bytes:
    """seq and hash of one entry, 40 bytes. `row` maps column names to values as read from the table."""
    return LEAF.pack(row["seq"], hashlib.sha256(canonical(row)).digest())


def batch_hash(previous: str, leaves: bytes) -> str:
    return hashlib.sha256(previous.encode() + leaves).hexdigest()


def canonical(row: Mapping[str, Any]) -> bytes:
    """An entry's bytes, as the module's docstring defines them.

    >>> canonical({"seq": 7, "price": Decimal("1.500000000000"), "side": None})
    b'{"price":"1.5","seq":7}'
    """
    return ENCODER.encode({name: _plain(value) for name, value in row.items() if value is not None}).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        shown = format(value, "f")
        shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
        return "0" if shown == "-0" else shown
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"
    return value


# --- verify ----------------------------------------------------------------------------------------------------------


def verify(databases: Databases, group_id: GroupId) -> Verification:
    """Recompute a group's chain from its rows and compare it with the seals and with the anchors outside the group.

    Finds entries that were altered, deleted, inserted, reordered or cut off, also together with their seals. Entries
    newer than the last seal are counted but cannot be verified yet. Reads in a stream, one consistent snapshot.
    """
    anchors = _anchors(databases, group_id)  # first: every anchor in it has its seal in the snapshot read next
    walk = _Walk(group_id)
    with Session(databases.group_engine(group_id).execution_options(isolation_level="REPEATABLE READ")) as session:
        rows = _Rows(session)
        seals = session.execute(select(SEALS).order_by(SEALS.c.last_seq).execution_options(yield_per=50))
        for row in seals:
            found = row._asdict()
            walk.check(found, b"".join(leaf(entry) for entry in rows.up_to(found["last_seq"])))
        unsealed = rows.rest()
    walk.compare(anchors)
    return Verification(
        entries=walk.entries + unsealed,
        verified=walk.verified,
        problems=walk.problems,
        first_bad_seq=min(walk.bad, default=None),
        head_seq=walk.head_seq,
        head_hash=walk.previous if walk.head_seq is not None else None,
    )


def _anchors(databases: Databases, group_id: GroupId) -> list[tuple[int, str]]:
    with databases.control() as session:
        query = select(AuditAnchor.seq, AuditAnchor.hash).where(AuditAnchor.group_id == group_id)
        return [(row.seq, row.hash) for row in session.execute(query.order_by(AuditAnchor.seq))]


class _Rows:
    """The log in order of seq, read once, handed out batch by batch."""

    def __init__(self, session: Session) -> None:
        query = select(ROWS).order_by(ROWS.c.seq).execution_options(yield_per=2_000)
        self._rows: Iterator[dict[str, Any]] = (dict(zip(COLUMNS, row, strict=True)) for row in session.execute(query))
        self._next = next(self._rows, None)

    def up_to(self, seq: int) -> Iterator[Mapping[str, Any]]:
        while self._next is not None and self._next["seq"] <= seq:
            yield self._next
            self._next = next(self._rows, None)

    def rest(self) -> int:
        return (self._next is not None) + sum(1 for _ in self._rows)


class _Walk:
    """Goes along the seals, keeps count, and says what is wrong where."""

    def __init__(self, group_id: GroupId) -> None:
        self.previous = genesis(group_id)
        self.head_seq: int | None = None
        self.entries = 0
        self.verified = 0
        self.problems: list[str] = []
        self.bad: list[int] = []
        self.hashes: dict[int, str] = {}

    def check(self, found: Mapping[str, Any], leaves: bytes) -> None:
        """One seal against the leaves recomputed from the rows it covers."""
        count = len(leaves) // LEAF.size
        self.entries += count
        before = len(self.bad)
        if found["previous_hash"] != self.previous:
            after = self.head_seq or 0
            self._problem(
                after + 1,
                f"the chain is broken after seq {after}: {_range(found)} follows a seal that is missing or was altered",
            )
        if batch_hash(found["previous_hash"], leaves) != found["hash"]:
            self._name_changes(found, leaves)
        elif (found["entries"], found["leaves"]) != (count, leaves):
            self._problem(found["first_seq"], f"the seal of {_range(found)} was altered")
        self.verified += count if len(self.bad) == before else 0
        self.previous, self.head_seq = found["hash"], found["last_seq"]
        self.hashes[found["last_seq"]] = found["hash"]

    def compare(self, anchors: list[tuple[int, str]]) -> None:
        """The seals' hashes against what was anchored outside the group."""
        head = self.head_seq or 0
        if gone := [seq for seq, _ in anchors if seq > head]:
            self._problem(
                head + 1,
                f"the trail was cut off after seq {head}: entries up to seq {gone[-1]} were sealed and anchored, but are gone",
            )
        for seq, anchored in anchors:
            found = self.hashes.get(seq)
            if found is None and seq <= head:
                self._problem(seq, f"seq {seq} was anchored as a head of the chain, but its seal is gone")
            elif found is not None and found != anchored:
                self._problem(seq, f"the chain up to seq {seq} is not the one that was anchored: it was rewritten")

    def _name_changes(self, found: Mapping[str, Any], leaves: bytes) -> None:
        if batch_hash(found["previous_hash"], found["leaves"]) != found["hash"]:
            self._problem(found["first_seq"], f"entries or the seal of {_range(found)} were altered")
            return
        sealed, now = dict(LEAF.iter_unpack(found["leaves"])), dict(LEAF.iter_unpack(leaves))
        for seq in sorted(sealed.keys() | now.keys()):
            if seq not in now:
                self._problem(seq, f"seq {seq} was deleted")
            elif seq not in sealed:
                self._problem(seq, f"seq {seq} was inserted after the batch was sealed")
            elif sealed[seq] != now[seq]:
                self._problem(seq, f"seq {seq} was altered")

    def _problem(self, seq: int, what: str) -> None:
        self.bad.append(seq)
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(what)


def _range(found: Mapping[str, Any]) -> str:
    return f"seq {found['first_seq']} to {found['last_seq']}"
