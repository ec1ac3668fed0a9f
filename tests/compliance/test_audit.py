"""The hash chain, against tampering done in the database by its owner, and against a second implementation of it."""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal, localcontext

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from tests.compliance.conftest import Write
from trading_platform.compliance import audit
from trading_platform.compliance.audit import canonical, record, seal, verify
from trading_platform.identifiers import GroupId
from trading_platform.storage.control import AuditAnchor
from trading_platform.storage.databases import Databases, plain_url
from trading_platform.storage.group import AuditRow, AuditSeal, Position


@pytest.fixture
def tamper(databases: Databases, group: GroupId) -> Callable[[str], None]:
    """Run SQL as somebody who owns the tables and has switched the triggers off."""

    def tamper(sql: str) -> None:
        with databases.group_engine(group).begin() as connection:
            for table in ("audit_log", "audit_seals"):
                connection.execute(text(f"alter table group_{group}.{table} disable trigger append_only"))
            connection.execute(text(f"set local search_path = group_{group}"))
            connection.execute(text(sql))
            for table in ("audit_log", "audit_seals"):
                connection.execute(text(f"alter table group_{group}.{table} enable always trigger append_only"))

    return tamper


@pytest.fixture
def batches_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BATCH", 4)


@pytest.mark.usefixtures("batches_of_four")
def test_an_untouched_trail_is_whole_and_its_unsealed_tail_is_counted(
    databases: Databases, group: GroupId, write: Write
) -> None:
    write(10, price=Decimal("64000.10"), quantity=Decimal("0.001"), detail={"b": 1.5, "a": {"ü": None}})
    sealed = seal(databases, group)
    assert (sealed.entries, sealed.batches, sealed.head_seq) == (10, 3, 10)
    write(2)
    found = verify(databases, group)
    assert (found.entries, found.verified, found.problems) == (12, 10, [])
    assert seal(databases, group).entries == 2
    assert seal(databases, group).entries == 0
    assert verify(databases, group).verified == 12
    with databases.control() as session:
        assert session.scalars(
            select(AuditAnchor.seq).where(AuditAnchor.group_id == group).order_by(AuditAnchor.seq)
        ).all() == [4, 8, 10, 12]


def test_an_empty_trail_is_whole(databases: Databases, group: GroupId) -> None:
    assert seal(databases, group).head_seq is None
    assert verify(databases, group) == audit.Verification(entries=0, verified=0)


def test_an_entry_lives_and_dies_with_the_change_it_describes(databases: Databases, group: GroupId) -> None:
    with suppress(ZeroDivisionError), databases.group(group) as session:
        session.add(
            Position(
                user_id="ann", account_id="a", strategy_id="s", symbol="BTC/USDT", quantity=Decimal(1),
                average_price=Decimal(1),
            )
        )  # fmt: skip
        record(session, user_id="ann", actor="engine", event_type="FILL")
        session.flush()
        raise ZeroDivisionError
    with databases.group(group) as session:
        assert session.scalars(select(AuditRow)).all() == []
        assert session.scalars(select(Position)).all() == []


async def test_asynchronous_sessions_record_too(databases: Databases, group: GroupId) -> None:
    async with databases.group_async(group) as session:
        record(session, user_id="ann", actor="api", event_type="HALT", detail={"reason": "drill"})
    await databases.aclose()
    assert seal(databases, group).entries == 1


def test_an_entry_without_an_actor_or_with_a_time_of_its_own_is_refused(databases: Databases, group: GroupId) -> None:
    with databases.group(group) as session:
        with pytest.raises(ValueError, match="needs actor"):
            record(session, user_id="ann", event_type="SEND")
        with pytest.raises(ValueError, match="set by the database alone"):
            record(session, user_id="ann", actor="api", event_type="SEND", seq=1)


@pytest.mark.usefixtures("batches_of_four")
@pytest.mark.parametrize(
    ("sql", "bad_seq", "says"),
    [
        ("update audit_log set price = 2 where seq = 5", 5, "seq 5 was altered"),
        ("update audit_log set detail = '{\"a\": 2}' where seq = 5", 5, "seq 5 was altered"),
        ("update audit_log set event_ts = event_ts + interval '1 microsecond' where seq = 7", 7, "seq 7 was altered"),
        ("update audit_log set user_id = 'bob' where seq = 1", 1, "seq 1 was altered"),
        ("update audit_log set price = null where seq = 8", 8, "seq 8 was altered"),
        ("delete from audit_log where seq = 6", 6, "seq 6 was deleted"),
        (
            "update audit_log set seq = 100 where seq = 5; update audit_log set seq = 5 where seq = 6;"
            "update audit_log set seq = 6 where seq = 100",
            5,
            "seq 5 was altered",
        ),
        (
            "delete from audit_log where seq = 6; insert into audit_log (seq, user_id, actor, event_type)"
            "values (6, 'ann', 'engine', 'SEND')",
            6,
            "seq 6 was altered",
        ),
        ("delete from audit_log where seq > 8", 9, "seq 9 was deleted"),
        ("delete from audit_log where seq > 8; delete from audit_seals where last_seq > 8", 9, "cut off after seq 8"),
        ("truncate audit_log, audit_seals", 1, "cut off after seq 0"),
        (
            "delete from audit_log where seq in (5, 6, 7, 8); delete from audit_seals where last_seq = 8",
            5,
            "broken after seq 4",
        ),
        ("update audit_seals set hash = repeat('0', 64) where last_seq = 8", 5, "seq 5 to 8 were altered"),
        ("update audit_seals set entries = 3 where last_seq = 8", 5, "the seal of seq 5 to 8 was altered"),
    ],
)
def test_tampering_is_found_and_the_first_bad_entry_named(
    databases: Databases, group: GroupId, write: Write, tamper: Callable[[str], None],
    sql: str, bad_seq: int, says: str,
) -> None:  # fmt: skip
    write(10, price=Decimal(1), detail={"a": 1})
    seal(databases, group)
    tamper(sql)
    found = verify(databases, group)
    assert found.first_bad_seq == bad_seq
    assert says in found.problems[0] or says in " ".join(found.problems)
    assert found.verified < 10


def test_an_entry_slipped_into_a_gap_of_the_numbers_is_found(
    databases: Databases, group: GroupId, write: Write, tamper: Callable[[str], None]
) -> None:
    write(2)
    with suppress(ZeroDivisionError), databases.group(group) as session:
        record(session, user_id="ann", actor="engine", event_type="SEND")
        session.flush()
        raise ZeroDivisionError
    write(2)
    seal(databases, group)
    assert verify(databases, group).problems == []
    tamper("insert into audit_log (seq, user_id, actor, event_type) values (3, 'ann', 'engine', 'SEND')")
    assert verify(databases, group).problems == ["seq 3 was inserted after the batch was sealed"]


def test_a_chain_rewritten_as_a_whole_contradicts_its_anchors(
    databases: Databases, group: GroupId, write: Write, tamper: Callable[[str], None]
) -> None:
    write(5, price=Decimal(1))
    seal(databases, group)
    tamper("update audit_log set price = 2 where seq = 3; delete from audit_seals")
    seal(databases, group)  # the forger seals the altered rows anew, with the platform's own code
    assert verify(databases, group).problems == [
        "the chain up to seq 5 is not the one that was anchored: it was rewritten"
    ]


def test_a_late_commit_with_a_smaller_number_does_not_slip_under_a_seal(databases: Databases, group: GroupId) -> None:
    late = psycopg.connect(plain_url(databases.group_address(group)[0]))
    insert = f"insert into group_{group}.audit_log (user_id, actor, event_type) values ('ann', 'engine', 'SEND') returning seq"
    first = late.execute(insert).fetchone()  # seq 1, not committed
    with databases.group(group) as session:
        record(session, user_id="ann", actor="engine", event_type="ACK")  # seq 2, committed
    results: list[audit.Sealed] = []
    sealing = threading.Thread(target=lambda: results.append(seal(databases, group)))
    sealing.start()
    time.sleep(0.6)
    assert sealing.is_alive(), "sealing went past a transaction that holds a smaller number"
    with databases.group(group) as session:
        assert session.scalars(select(AuditSeal)).all() == []
    late.commit()
    late.close()
    sealing.join(timeout=10)
    assert first == (1,)
    assert results[0].entries == 2
    found = verify(databases, group)
    assert (found.entries, found.verified, found.problems) == (2, 2, [])


def test_sealing_gives_up_without_a_seal_and_lets_writers_through(
    databases: Databases, group: GroupId, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "LOCK_TRIES", 2)
    with psycopg.connect(plain_url(databases.group_address(group)[0])) as stuck:
        stuck.execute(f"insert into group_{group}.audit_log (user_id, actor, event_type) values ('x', 'y', 'SEND')")
        with pytest.raises(audit.SealBusyError, match=f"group {group}"):
            seal(databases, group)
        started = time.monotonic()
        write()
        assert time.monotonic() - started < 1
    assert seal(databases, group).entries == 2


def test_several_sealers_make_one_chain(
    databases: Databases, group: GroupId, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "BATCH", 3)
    write(40)
    results: list[audit.Sealed] = []
    threads = [threading.Thread(target=lambda: results.append(seal(databases, group))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sum(result.entries for result in results) == 40
    found = verify(databases, group)
    assert (found.verified, found.problems) == (40, [])


def test_a_crash_between_seal_and_anchor_is_made_good(
    databases: Databases, group: GroupId, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(3)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit, "_anchor", crash)
        with pytest.raises(KeyboardInterrupt):
            seal(databases, group)
    assert verify(databases, group).problems == []
    assert seal(databases, group).entries == 0
    with databases.control() as session:
        assert session.scalars(select(AuditAnchor.seq).where(AuditAnchor.group_id == group)).all() == [3]


@pytest.mark.parametrize("table", ["audit_log", "audit_seals"])
@pytest.mark.parametrize("sql", ["update {} set {} = 1", "delete from {}", "truncate {}"])
def test_the_database_itself_refuses_changes(
    databases: Databases, group: GroupId, write: Write, table: str, sql: str
) -> None:
    write()
    seal(databases, group)
    column = {"audit_log": "attempt", "audit_seals": "entries"}[table]
    for role in ("origin", "replica"):
        with databases.group_engine(group).connect() as connection:
            connection.execute(text(f"set local session_replication_role = {role}"))
            with pytest.raises(DBAPIError, match="append-only"):
                connection.execute(text(sql.format(f"group_{group}.{table}", column)))
    assert verify(databases, group).verified == 1


@pytest.mark.parametrize("sql", ["update control.audit_anchors set hash = ''", "delete from control.audit_anchors"])
def test_anchors_refuse_changes_too(databases: Databases, group: GroupId, write: Write, sql: str) -> None:
    write()
    seal(databases, group)
    with databases.engine().connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(sql))


def test_the_documented_recipe_alone_recomputes_the_chain(databases: Databases, group: GroupId, write: Write) -> None:
    """A second implementation: PostgreSQL writes the rows as JSON, and nothing of the audit module is used."""
    write(3, price=Decimal("64000.10"), quantity=Decimal("0.00100"), tag="a", detail={"z": [1, 2], "a": "é"})
    seal(databases, group)
    with psycopg.connect(plain_url(databases.group_address(group)[0])) as connection:
        connection.execute("set timezone to 'UTC'")
        rows = connection.execute(
            "select to_jsonb(l) || jsonb_build_object('event_ts', to_char(event_ts, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),"
            "'price', trim_scale(price)::text, 'quantity', trim_scale(quantity)::text)"
            f"from group_{group}.audit_log l order by seq"
        ).fetchall()
        stored = connection.execute(f"select hash from group_{group}.audit_seals").fetchone()
    digest = hashlib.sha256(hashlib.sha256(f"trading-platform audit v1 {group}".encode()).hexdigest().encode())
    for (row,) in rows:
        kept = {key: value for key, value in row.items() if value is not None}
        entry = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        digest.update(row["seq"].to_bytes(8, "big") + hashlib.sha256(entry).digest())
    assert stored == (digest.hexdigest(),)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**20), max_value=10**20))
def test_an_amount_hashes_by_its_value_not_by_its_spelling(amount: Decimal) -> None:
    with localcontext(prec=60):
        assert canonical({"a": amount}) == canonical({"a": amount.normalize()})
    assert Decimal(json.loads(canonical({"a": amount}))["a"]) == amount
