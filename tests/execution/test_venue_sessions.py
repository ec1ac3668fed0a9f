"""A session that ends concerns its own account: who is left out, who trades on, and how a log-in brings the account back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from tests.execution.test_decisions import portfolio
from tests.venues.zerodha.replayed import error, replay
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.accounts.vault import Vault
from trading_platform.execution.accounts import load_portfolios, tradable_accounts
from trading_platform.execution.breaker_board import BreakerBoard
from trading_platform.execution.venue_sessions import take_lost_session
from trading_platform.execution.watched_venue import WatchedVenue
from trading_platform.identifiers import AccountId, DatasetId, GroupId, UserId
from trading_platform.storage.control import Alert
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, AuditRow
from trading_platform.venues.port import AuthLostError
from trading_platform.venues.zerodha import vaulted
from trading_platform.venues.zerodha.limits import RateLimiter
from trading_platform.venues.zerodha.login import KiteSession
from trading_platform.venues.zerodha.venue import ZerodhaVenue

G1, ANN = GroupId("g1"), UserId("ann")
FIRST, SECOND = AccountId("kite_1"), AccountId("kite_2")
LIVE = DatasetId("live_nse")


@pytest.fixture
def accounts(platform: Databases) -> Databases:
    """Two live, armed accounts with keys, the first bound to an address; nobody has logged in."""
    create_user(
        platform, NewUser("ann@example.com", "Ann", "trader", G1, "four plain words here", user_id=ANN), actor="t"
    )
    vault = Vault(platform.settings)
    with platform.group(G1) as session:
        for account in (FIRST, SECOND):
            session.add(
                Account(
                    user_id=ANN, account_id=account, venue="zerodha", kind="live", currency="INR",
                    armed_at=datetime.now(UTC),
                )
            )  # fmt: skip
            for name, secret in (("api_key", f"key_{account}"), ("api_secret", "secret")):
                session.add(vault.seal(ANN, account, name, secret))
        session.add(vault.seal(ANN, FIRST, vaulted.ADDRESS, "127.0.0.1"))
    return platform


def log_in(databases: Databases, account: AccountId, lasts: timedelta = timedelta(hours=1)) -> None:
    now = datetime.now(UTC)
    session = KiteSession("AB1234", "Ann", "a-token", now, now + lasts, ("NSE",), ("CNC",))
    found = vaulted.account_of(databases, account)
    vaulted.keep(databases, Vault(databases.settings), found, session, actor="t")


async def tradable(databases: Databases) -> dict[str, datetime]:
    async with databases.group_async(G1) as session:
        rows = await tradable_accounts(session, LIVE, "zerodha")
    return {account: changed for _, account, changed in rows}


def open_alerts(databases: Databases) -> list[tuple[str, Any]]:
    with databases.control() as session:
        rows = session.scalars(select(Alert).where(Alert.resolved_at.is_(None))).all()
        return [(row.title, row.labels) for row in rows]


async def test_only_who_is_logged_in_is_traded_for(accounts: Databases) -> None:
    assert await tradable(accounts) == {}
    log_in(accounts, FIRST)
    log_in(accounts, SECOND, lasts=timedelta(seconds=-1))
    found = await tradable(accounts)
    assert set(found) == {FIRST}, "the other session was over before it was asked for"
    log_in(accounts, FIRST)
    assert (await tradable(accounts))[FIRST] > found[FIRST], "an engine sees that there are new keys"
    await accounts.aclose()


async def test_a_live_account_has_its_address_and_the_limits_of_its_broker(accounts: Databases) -> None:
    log_in(accounts, FIRST)
    async with accounts.group_async(G1) as session:
        (loaded,) = await load_portfolios(
            accounts, G1, session, LIVE, "zerodha", None, lambda: datetime.now(UTC), BreakerBoard(G1).venue
        )
    assert isinstance(loaded.venue, WatchedVenue)
    assert isinstance(loaded.venue.venue, ZerodhaVenue)
    assert loaded.venue.venue.transport.source_address == "127.0.0.1"
    assert isinstance(loaded.venue.venue.transport.limiter, RateLimiter)
    assert loaded.keys_changed_at == (await tradable(accounts))[FIRST]
    await accounts.aclose()


async def test_a_lost_session_stops_its_account_until_somebody_logs_in(accounts: Databases) -> None:
    log_in(accounts, FIRST)
    log_in(accounts, SECOND)
    lost = portfolio(user_id=ANN, account_id=FIRST, kind="live")
    await take_lost_session(accounts, G1, lost, "Token is invalid or has expired.")
    assert set(await tradable(accounts)) == {SECOND}
    assert open_alerts(accounts) == [("Log in to Zerodha", {"account": FIRST})]
    with accounts.group(G1) as session:
        ended = session.scalars(select(AuditRow).where(AuditRow.event_type == "SESSION_ENDED")).one()
        assert (ended.account_id, ended.detail["why"]) == (FIRST, "Token is invalid or has expired.")
    log_in(accounts, FIRST)
    assert set(await tradable(accounts)) == {FIRST, SECOND}
    assert open_alerts(accounts) == []
    await accounts.aclose()


async def test_a_question_that_is_answered_with_a_dead_token_names_its_account() -> None:
    async with replay() as broker:
        broker.answers["GET", "/orders"] = error(403, "TokenException", "Token is invalid or has expired.")
        venue = ZerodhaVenue(broker.transport(), account_id=FIRST)
        with pytest.raises(AuthLostError) as found:
            await venue.open_client_order_ids()
        assert found.value.account_id == FIRST
        await venue.close()
