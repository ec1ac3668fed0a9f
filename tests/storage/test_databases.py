"""The control database, group schemas and the shard map, on a real server."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, StatementError

from trading_platform.identifiers import GroupId
from trading_platform.storage.control import Group, Shard
from trading_platform.storage.databases import Databases, UnknownGroupError
from trading_platform.storage.group import Account, EquityPoint
from trading_platform.storage.migrate import WrongRevisionError, migrate, migrate_group, require_current


def add_group(databases: Databases, group_id: str) -> GroupId:
    with databases.control() as session:
        session.merge(Shard(shard_id="shard0", url_key="shard0"))
        session.flush()
        session.add(Group(group_id=group_id, shard_id="shard0", schema_name=f"group_{group_id}"))
    migrate_group(databases, GroupId(group_id))
    return GroupId(group_id)


def equity(user: str, at: datetime, amount: str) -> EquityPoint:
    return EquityPoint(
        user_id=user, account_id="a", market_time=at, cash=Decimal(amount), positions_value=Decimal(0),
        equity=Decimal(amount), currency="USDT",
    )  # fmt: skip


def test_groups_see_only_their_own_schema(platform: Databases) -> None:
    one, two = add_group(platform, "one"), add_group(platform, "two")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with platform.group(one) as session:
        session.add(equity("ann", at, "1.000000000001"))
    with platform.group(two) as session:
        session.add(equity("bob", at, "2"))
    with platform.group(one) as session:
        assert session.scalars(select(EquityPoint.user_id)).all() == ["ann"]
        assert session.scalars(select(EquityPoint.equity)).one() == Decimal("1.000000000001")
        assert session.scalars(select(EquityPoint.market_time)).one().tzinfo is UTC


async def test_the_asynchronous_door_reaches_the_same_rows(platform: Databases) -> None:
    group = add_group(platform, "one")
    async with platform.group_async(group) as session:
        session.add(Account(user_id="ann", account_id="a1", venue="binance", kind="sandbox", currency="USDT"))
    async with platform.group_async(group) as session:
        assert (await session.scalars(select(Account.account_id))).all() == ["a1"]
    await platform.aclose()


def test_naive_times_are_refused(platform: Databases) -> None:
    group = add_group(platform, "one")
    with pytest.raises(StatementError, match="naive datetime"), platform.group(group) as session:
        session.add(equity("ann", datetime(2026, 1, 1), "1"))  # noqa: DTZ001


def test_migrating_twice_changes_nothing_and_another_revision_is_refused(platform: Databases) -> None:
    group = add_group(platform, "one")
    migrate(platform)
    require_current(platform.group_engine(group), "group", "group_one")
    with platform.group_engine(group).begin() as connection:
        connection.execute(text("update group_one.schema_version set version_num = '0000'"))
    with pytest.raises(WrongRevisionError, match="trading-platform migrate"):
        require_current(platform.group_engine(group), "group", "group_one")


def test_an_unknown_group_is_named(platform: Databases) -> None:
    with pytest.raises(UnknownGroupError, match="'nobody'"):
        platform.group_address(GroupId("nobody"))


@pytest.mark.parametrize(("line", "schema"), [("control", "control"), ("group", "group_one")])
def test_the_migrations_and_the_models_agree(platform: Databases, line: str, schema: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from trading_platform.storage.control import ControlBase
    from trading_platform.storage.group import GroupBase

    if line == "group":
        engine = platform.group_engine(add_group(platform, "one"))
        metadata = GroupBase.metadata
    else:
        engine, metadata = platform.engine(), ControlBase.metadata
    expected = {table.name: {column.name for column in table.columns} for table in metadata.tables.values()}
    with engine.connect() as connection:
        rows = connection.execute(
            text("select table_name, column_name from information_schema.columns where table_schema = :s"),
            {"s": schema},
        )
        found: dict[str, set[str]] = {}
        for table, column in rows:
            found.setdefault(table, set()).add(column)
        del found["schema_version"]
        assert found == expected
        if line == "control":
            context = MigrationContext.configure(connection, opts={
                "include_schemas": True, "include_name": lambda name, kind, _: kind != "schema" or name == schema,
                "include_object": lambda obj, name, *_: name != "schema_version",
            })  # fmt: skip
            assert compare_metadata(context, metadata) == []


async def test_who_sleeps_in_a_transaction_is_ended_whatever_he_did_last(platform: Databases) -> None:
    """Also after many statements at once that take a moment: as a pipeline, their end would turn the server's watch off."""
    watched = Databases(platform.settings, asleep_after=timedelta(seconds=1))
    insert = text("insert into much select :n from pg_sleep(0.1)")
    async with watched.async_engine().begin() as connection:
        await connection.execute(text("create table much (n int)"))
    connection = await watched.async_engine().connect()
    await connection.execute(insert, [{"n": n} for n in range(3)])
    await asyncio.sleep(1.5)
    with pytest.raises(DBAPIError, match=r"idle-in-transaction|closed"):
        await connection.execute(text("select 1"))
    await connection.invalidate()
    await connection.close()
    with watched.engine().connect() as sync:
        sync.execute(insert, [{"n": n} for n in range(3)])
        time.sleep(1.5)
        with pytest.raises(DBAPIError, match=r"idle-in-transaction|closed"):
            sync.execute(text("select 1"))
        sync.invalidate()
    await watched.aclose()
