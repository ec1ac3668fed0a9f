"""The export into the analytics database: complete, repeatable, resumable, free of secrets."""

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import delete, func, inspect, select, text, update
from sqlalchemy.orm import Session

from tests.compliance.seeding import Books, add_group, add_shared
from trading_platform.identifiers import GroupId
from trading_platform.storage import analytics
from trading_platform.storage.analytics import RAW, dbt_environment, export, raw_tables
from trading_platform.storage.control import Halt, LoginEvent
from trading_platform.storage.databases import Database, Databases, plain_url
from trading_platform.storage.group import AuditRow, Order, Position


@pytest.fixture(scope="module")
def books(databases: Databases) -> Books:
    one = add_group(databases, "one")
    add_shared(databases, one)
    made = Books(databases, one)
    made.open_account()
    made.trade("60000", "60600.5")
    made.deny("POSITIONS_TOO_MANY: open=5 limit=5")
    two = Books(databases, add_group(databases, "two"), user="bob")
    two.open_account()
    export(databases)
    return made


def rows(databases: Databases, table: str, where: str = "true") -> list[dict[str, object]]:
    with databases.engine(Database.ANALYTICS).connect() as connection:
        found = connection.execute(text(f"select * from {RAW}.{table} where {where}"))
        return [dict(row) for row in found.mappings()]


def test_a_second_export_adds_nothing(databases: Databases, books: Books) -> None:
    assert len(rows(databases, "orders")) == 2
    again = export(databases)
    assert sum(again.values()) == 0
    assert set(again) == {table.name for table in raw_tables().sorted_tables} - {"export_watermarks"}


def test_values_arrive_as_they_were(databases: Databases, books: Books) -> None:
    with databases.group(books.group) as session:
        source = session.scalars(select(Order).where(Order.side == "sell")).one()
    (copied,) = rows(databases, "orders", "side = 'sell'")
    assert copied.pop("group_id") == "one"
    for name, value in copied.items():
        assert value == getattr(source, name), name
    (dataset,) = rows(databases, "datasets")
    assert dataset["symbols"] == {"BTC/USDT": {"bars": 100}}


def test_changes_of_every_kind_are_carried_over(databases: Databases, books: Books) -> None:
    with databases.group(books.group) as session:
        session.execute(update(Order).where(Order.side == "buy").values(state="CANCELLED", updated_at=func.now()))
        session.add(
            Position(
                user_id="ann", account_id=books.account, strategy_id="other", symbol="ETH/USDT", quantity=Decimal(1),
                average_price=Decimal(5),
            )
        )  # fmt: skip
    with databases.control() as session:
        session.add(Halt(scope="user", scope_id="ann", reason="r", set_by="ann"))
    assert {name: n for name, n in export(databases).items() if n} == {"orders": 1, "positions": 1, "halts": 1}
    with databases.group(books.group) as session:
        session.execute(delete(Position).where(Position.strategy_id == "other"))
        session.execute(update(Order).where(Order.side == "buy").values(state="FILLED", updated_at=func.now()))
    with databases.control() as session:
        session.execute(update(Halt).where(Halt.scope == "user").values(cleared_at=func.now(), cleared_by="bob"))
    assert {name: n for name, n in export(databases).items() if n} == {"orders": 1, "positions": 1, "halts": 1}
    assert [row["symbol"] for row in rows(databases, "positions", "group_id = 'one'")] == ["BTC/USDT"]


def test_a_commit_that_comes_late_is_not_missed(
    databases: Databases, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is that of its transaction's start, before the export; it appears after it. No overlap is needed."""
    monkeypatch.setattr(analytics, "OVERLAP", timedelta(0))
    late = psycopg.connect(plain_url(databases.group_address(books.group)[0]))
    late.execute("update group_one.orders set state = 'EXPIRED', updated_at = now() where side = 'sell'")
    late.execute("insert into group_one.audit_log (user_id, actor, event_type) values ('ann', 'late', 'SEND')")
    time.sleep(0.05)
    books.audit("ACK", datetime.now(UTC))
    export(databases)
    assert rows(databases, "audit_log", "actor = 'late'") == []
    late.commit()
    late.close()
    export(databases)
    assert len(rows(databases, "audit_log", "actor = 'late'")) == 1
    assert rows(databases, "orders", "side = 'sell'")[0]["state"] == "EXPIRED"


def test_a_crash_leaves_rows_and_watermarks_as_they_were(
    databases: Databases, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(databases)
    before = rows(databases, "export_watermarks", "source = 'one'")
    books.trade("50000", "49000", wall=datetime.now(UTC))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(analytics._Copy, "_delete_missing", crash)  # positions come after accounts: something was written
        with pytest.raises(KeyboardInterrupt):
            export(databases)
    assert rows(databases, "export_watermarks", "source = 'one'") == before
    changed = export(databases)
    assert (changed["orders"], changed["fills"], changed["outcomes"], changed["equity"]) == (2, 2, 1, 1)


def test_old_rows_are_not_read_again(databases: Databases, books: Books) -> None:
    """Rows older than the watermark are not looked at: the export's cost is that of what is new."""
    export(databases)
    with databases.engine(Database.ANALYTICS).begin() as connection:
        connection.execute(text("update raw.export_watermarks set watermark = now() + interval '1 minute'"))
        gone = connection.execute(text("delete from raw.audit_log")).rowcount
    assert gone > 0
    changed = export(databases)
    assert changed["audit_log"] == changed["fills"] == changed["signals"] == 0
    with databases.engine(Database.ANALYTICS).begin() as connection:
        connection.execute(text("delete from raw.export_watermarks"))
    assert export(databases)["audit_log"] == gone


def test_a_column_that_the_source_gains_is_added(databases: Databases, books: Books) -> None:
    with databases.engine(Database.ANALYTICS).begin() as connection:
        connection.execute(text("alter table raw.fills drop column fee_currency"))
        connection.execute(text("alter table raw.users drop column display_name"))
        connection.execute(text("delete from raw.export_watermarks"))
    export(databases)
    assert {row["fee_currency"] for row in rows(databases, "fills")} == {"USDT"}
    assert rows(databases, "users")[0]["display_name"] == "Ann"


def test_no_secret_is_exported(databases: Databases, books: Books) -> None:
    inspector = inspect(databases.engine(Database.ANALYTICS))
    assert "credentials" not in inspector.get_table_names(schema=RAW)
    columns = {
        column["name"]
        for table in inspector.get_table_names(schema=RAW)
        for column in inspector.get_columns(table, RAW)
    }
    assert not {name for name in columns if any(w in name for w in ("password", "secret", "ciphertext", "nonce"))}


def test_dbt_finds_the_same_database(databases: Databases) -> None:
    found = dbt_environment(databases.settings)
    with psycopg.connect(
        host=found["DBT_HOST"], port=found["DBT_PORT"], user=found["DBT_USER"], password=found["DBT_PASSWORD"],
        dbname=found["DBT_DBNAME"],
    ) as connection:  # fmt: skip
        assert connection.info.dbname.endswith("_analytics")


def test_a_day_of_signals_and_orders_takes_less_than_three_seconds(databases: Databases, books: Books) -> None:
    with databases.control() as session:
        _multiply(
            session, "control.signals", "signal_id = signal_id || n, seq = 1000 + n", "seq = 0", "created_at", 24_000
        )
    with databases.group(books.group) as session:
        _multiply(
            session, "group_one.orders",
            "client_order_id = client_order_id || n, intent_id = intent_id || n, venue_order_id = n::text",
            "client_order_id = 'c_ann_0_entry'", "updated_at", 5_000,
        )  # fmt: skip
    started = time.perf_counter()
    changed = export(databases)
    seconds = time.perf_counter() - started
    assert (changed["signals"], changed["orders"]) == (24_000, 5_000)
    assert seconds < 3, f"the export took {seconds:.1f} s"
    assert sum(export(databases).values()) == 0


def _multiply(session: Session, table: str, changes: str, where: str, stamp: str, times: int) -> None:
    """Insert `times` copies of one row, changed by its number n."""
    session.execute(text(f"create temp table seed on commit drop as select * from {table} where {where}"))
    session.execute(
        text(
            f"create temp table many on commit drop as select seed.*, n from seed, generate_series(1, {times}) n;"
            f"update many set {changes}, {stamp} = now(); alter table many drop column n; insert into {table} select * from many"
        )
    )


def test_a_new_group_joins_with_the_next_export(databases: Databases, books: Books) -> None:
    third = Books(databases, add_group(databases, "three"), user="cyd")
    third.open_account()
    with databases.control() as session:
        session.add(LoginEvent(user_id="cyd", action="login", result="ok"))
    changed = {name: n for name, n in export(databases).items() if n}
    assert changed == {"accounts": 1, "positions": 1, "login_events": 1}
    assert {row["group_id"] for row in rows(databases, "accounts")} == {"one", "two", "three"}
    with databases.group(GroupId("three")) as session:
        assert session.scalars(select(AuditRow)).all() == []
