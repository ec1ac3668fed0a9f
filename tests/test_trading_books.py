"""The assets of a group's books on real rows: what they report, and that each check fails where it must."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import delete, update

from assets.platform import Platform
from assets.trading_books import fills, live_session, reconciliation
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.identifiers import GroupId, UserId
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, Credential, EngineLease, Fill, Order

pytestmark = pytest.mark.xdist_group("dagster")
D = Decimal
GROUP, NOW = GroupId("g1"), datetime.now(UTC)
HOUR = timedelta(hours=1)
FINE = {
    "at": NOW.isoformat(),
    "matches": True,
    "set_aside": 0,
    "open_outcomes": 1,
    "late_fills": 0,
    "foreign_orders": 2,
    "differences": [],
}


@pytest.fixture
def books(platform: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """Two live accounts, one of them armed and logged in; an order that filled in two pieces; an engine that compared."""
    person = NewUser("a@example.com", "A", "trader", GROUP, "correct horse battery", user_id=UserId("alice"))
    create_user(platform, person, actor="t")
    with platform.group(GROUP) as session:
        for name, armed_at in (("armed", NOW), ("new", None)):
            session.add(
                Account(
                    user_id="alice", account_id=name, venue="zerodha", kind="live", currency="INR", armed_at=armed_at
                )
            )
        session.add(
            Credential(
                user_id="alice", account_id="armed", name="access_token", wrapped_key=b"w", nonce=b"n", wrap_nonce=b"n", master_key_version=1,
                ciphertext=b"c", expires_at=NOW + HOUR,
            )
        )  # fmt: skip
        session.add(
            Order(
                user_id="alice", client_order_id="tp_1", intent_id="i", account_id="armed", symbol="INFY", contract="INFY",
                side="buy", order_type="MARKET", quantity=D(10), filled_quantity=D(10), state="FILLED", market_time=NOW,
                epoch=1,
            )
        )  # fmt: skip
        for trade, quantity in (("1", 4), ("2", 6)):
            session.add(
                Fill(
                    user_id="alice", account_id="armed", symbol="INFY", trade_id=trade, client_order_id="tp_1", side="buy",
                    price=D(1500), quantity=D(quantity), fee=D(1), fee_currency="INR", market_time=NOW,
                )
            )  # fmt: skip
        session.add(
            EngineLease(
                group_id=GROUP, holder="h", epoch=3, expires_at=NOW + HOUR, state="RUNNING",
                detail={"reconciliation": FINE},
            )
        )  # fmt: skip
    url = platform.settings.database_url
    assert url is not None
    monkeypatch.setenv("TP_DATABASE_URL", url.get_secret_value())
    yield platform
    platform.close()


def materialized(books: Databases) -> tuple[dict[str, bool], dict[str, dict[str, Any]]]:
    """({check: passed}, {asset: metadata})"""
    wanted = [live_session, fills, reconciliation]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("user_group", [GROUP])
        result = dg.materialize(
            wanted, partition_key=GROUP, resources={"platform": Platform(home_dir=str(books.settings.home_dir))},
            instance=instance, selection=wanted,
        )  # fmt: skip
    metadata = {
        event.asset_key.to_user_string(): {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}, metadata


def test_books_that_are_whole_are_reported_and_pass(books: Databases) -> None:
    passed, metadata = materialized(books)
    assert passed == {"logged_in": True, "orders_add_up": True, "books_match": True}
    assert metadata["fills"]["dagster/row_count"] == 2
    assert metadata["live_session"]["dagster/row_count"] == 2
    assert (metadata["reconciliation"]["open_outcomes"], metadata["reconciliation"]["foreign_orders"]) == (1, 2)


def test_each_check_fails_where_it_must(books: Databases) -> None:
    difference = "armed: 10 INFY held by the books, 4 at the venue"
    with books.group(GROUP) as session:
        session.execute(update(Credential).values(expires_at=NOW - HOUR))
        session.execute(delete(Fill).where(Fill.trade_id == "2"))
        detail = {"reconciliation": FINE | {"matches": False, "differences": [difference]}}
        session.execute(update(EngineLease).values(detail=detail))
    passed, metadata = materialized(books)
    assert passed == {"logged_in": False, "orders_add_up": False, "books_match": False}
    assert difference in metadata["reconciliation"]["differences"]


@pytest.mark.parametrize(
    "lease",
    [
        {"detail": {"reconciliation": FINE | {"at": (NOW - HOUR).isoformat()}}},
        {"detail": {}},
        {"expires_at": NOW - HOUR},
    ],
    ids=["long ago", "never", "the engine is gone"],
)
def test_a_comparison_that_nobody_made_lately_is_no_match(books: Databases, lease: dict[str, Any]) -> None:
    with books.group(GROUP) as session:
        session.execute(update(EngineLease).values(**lease))
    assert materialized(books)[0]["books_match"] is False
