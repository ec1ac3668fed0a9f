"""Before the market: who is asked to log in, what a preflight's findings become, and how far holidays are known."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import select

from tests.venues.zerodha.replayed import Replayed, success
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, GroupId, UserId
from trading_platform.storage.control import Alert
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account
from trading_platform.venues.port import QueryFailedError
from trading_platform.venues.zerodha import vaulted
from trading_platform.venues.zerodha.login import KiteSession
from trading_platform.venues.zerodha.preflight import Finding, Report, holidays_finding
from trading_platform.venues.zerodha.watch import (
    ask_for_logins,
    check_account,
    tell,
    tell_unprotected,
    to_check,
    unprotected_of,
)

G1, ANN = GroupId("g1"), UserId("ann")
ARMED, IDLE = AccountId("kite_armed"), AccountId("kite_idle")


def ist(clock: str) -> datetime:
    """A moment of Friday, 2026-11-20."""
    return datetime.fromisoformat(f"2026-11-20T{clock}:00+05:30").astimezone(UTC)


@pytest.fixture
def accounts(platform: Databases, kite: Replayed, monkeypatch: pytest.MonkeyPatch) -> Databases:
    create_user(
        platform, NewUser("ann@example.com", "Ann", "trader", G1, "four plain words here", user_id=ANN), actor="t"
    )
    vault = Vault(platform.settings)
    with platform.group(G1) as session:
        for account, armed_at in ((ARMED, datetime.now(UTC)), (IDLE, None)):
            session.add(
                Account(
                    user_id=ANN, account_id=account, venue="zerodha", kind="live", currency="INR", armed_at=armed_at
                )
            )
            for name, secret in (("api_key", "the_key"), ("api_secret", "secret_z")):
                session.add(vault.seal(ANN, account, name, secret))
    monkeypatch.setattr(vaulted, "ROOT", kite.root)
    return platform


def alerts(databases: Databases) -> list[tuple[str, str, str]]:
    with databases.control() as session:
        rows = session.scalars(select(Alert).where(Alert.resolved_at.is_(None)).order_by(Alert.alert_id)).all()
        return [(row.title, row.severity, row.labels["account"]) for row in rows]


def log_in(databases: Databases, at: datetime, until: datetime) -> None:
    found = vaulted.account_of(databases, ARMED)
    session = KiteSession("AB1234", "Ann", "token", at, until, ("NSE", "NFO"), ("CNC",))
    vaulted.keep(databases, Vault(databases.settings), found, session, actor="t")


async def test_an_armed_account_without_a_session_is_asked_from_eight_on(accounts: Databases) -> None:
    vault = Vault(accounts.settings)
    assert ask_for_logins(accounts, vault, ist("07:59")) == []
    assert ask_for_logins(accounts, vault, ist("08:00")) == [ARMED]
    assert alerts(accounts) == [("Log in to Zerodha", "warning", ARMED)]
    assert ask_for_logins(accounts, vault, ist("09:00")) == [ARMED]
    assert alerts(accounts) == [("Log in to Zerodha", "critical", ARMED)], "trading has begun"
    log_in(accounts, ist("09:01"), ist("09:01") + timedelta(hours=21))
    assert alerts(accounts) == []
    assert ask_for_logins(accounts, vault, ist("09:02")) == []
    saturday = ist("10:00") + timedelta(days=1)
    assert ask_for_logins(accounts, vault, saturday) == []


async def test_only_armed_accounts_are_checked_and_the_broker_is_really_asked(
    accounts: Databases, kite: Replayed
) -> None:
    (account,) = to_check(accounts)
    assert account.account_id == ARMED
    report = await check_account(accounts, Vault(accounts.settings), account, datetime.now(UTC))
    assert not report.ready
    assert next(each for each in report.findings if each.check == "session").verdict == "failed"
    assert {"/user/profile", "/instruments", "/user/margins"} <= {each.path for each in kite.asked}


async def test_what_fails_is_an_alert_until_it_no_longer_does(accounts: Databases) -> None:
    (account,) = to_check(accounts)
    bad = Report((Finding("clock", "failed", "12 s off"), Finding("money", "warning", "0.00 rupees")))
    tell(accounts, account, bad)
    tell(accounts, account, bad)
    assert alerts(accounts) == [("Orders at Zerodha would not get through", "critical", ARMED)]
    tell(accounts, account, Report((Finding("money", "warning", "0.00 rupees"),)))
    assert alerts(accounts) == []
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("days_before_the_end", "verdict"), [(30, "ok"), (29, "warning"), (0, "warning"), (-1, "failed")]
)
def test_a_list_of_holidays_that_ends_soon_is_noticed(days_before_the_end: int, verdict: str) -> None:
    from trading_platform.identifiers import Venue
    from trading_platform.markets.calendars import calendar

    until = calendar(Venue("nse")).known_until
    assert until is not None
    assert until > date(2026, 11, 30)
    assert holidays_finding(until - timedelta(days=days_before_the_end)).verdict == verdict


async def test_a_trigger_that_fired_into_nothing_is_an_alarm_until_it_is_gone(
    accounts: Databases, kite: Replayed
) -> None:
    vault, now = Vault(accounts.settings), datetime.now(UTC)
    (account,) = to_check(accounts)
    assert await unprotected_of(accounts, vault, account, now) is None, "nobody is logged in: nothing is known"
    log_in(accounts, now, now + timedelta(hours=1))
    found = await unprotected_of(accounts, vault, account, now)
    assert found is not None
    assert ["lower circuit limit of 70.65" in each for each in found] == [True]
    tell_unprotected(accounts, account, found)
    assert alerts(accounts) == [("A position at Zerodha is not protected", "critical", ARMED)]
    kite.answers["GET", "/gtt/triggers"] = success([])
    tell_unprotected(accounts, account, await unprotected_of(accounts, vault, account, now) or [])
    assert alerts(accounts) == []
    kite.answers["GET", "/gtt/triggers"] = (502, b"")
    with pytest.raises(QueryFailedError):
        await unprotected_of(accounts, vault, account, now)
