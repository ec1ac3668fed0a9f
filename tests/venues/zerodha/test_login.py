"""The log-in: checksums by vector, the state that nobody else can make, how long a session holds, the daily check."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SHARED
from tests.venues.zerodha.replayed import MOCKS, Replayed, error, success
from trading_platform.venues.zerodha import login as module
from trading_platform.venues.zerodha.login import (
    KiteSession,
    LoginRefusedError,
    account_in_state,
    authorise_holdings,
    close_session,
    login_url,
    login_wanted,
    open_session,
    postback_is_genuine,
    session_checksum,
    session_ends,
    signed_state,
    state_is_ours,
)
from trading_platform.venues.zerodha.preflight import Preflight, Report
from trading_platform.venues.zerodha.transport import Failure

IST = ZoneInfo("Asia/Kolkata")
NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def test_checksums_of_the_specification() -> None:
    told = session_checksum("api_key_x", "req_token_y", "secret_z")
    assert told == "934462425e45bc1e548911210c07191f56663f8ea23c2ca106e84398ae861c46"
    checksum = "687ea5a6b4931040acfa6cf8c26a87efb451119f746070ffe52b4b42ed40cc11"
    given = ("220303000308932", "2022-03-03 09:24:25", checksum, "secret_z")
    assert postback_is_genuine(*given)
    for place in range(4):
        other = [value + "0" if at == place else value for at, value in enumerate(given)]
        assert not postback_is_genuine(*other)
    assert not postback_is_genuine(given[0], given[1], "ü", "secret_z")


def test_the_vectors_file_agrees() -> None:
    path = SHARED / "design" / "zerodha-vectors.json"
    if not path.exists():
        pytest.skip("the folder ../shared/design is not here")
    assert session_checksum("api_key_x", "req_token_y", "secret_z") in json.dumps(json.loads(path.read_text()))


def test_the_address_carries_the_state() -> None:
    assert login_url("key", "a=b&c") == (
        "https://kite.zerodha.com/connect/login?v=3&api_key=key&redirect_params=state%3Da%253Db%2526c"
    )


@pytest.mark.parametrize(
    ("logged_in", "ends"),
    [
        ("2026-11-23 08:30:00", "2026-11-24 06:00:00"), ("2026-11-23 23:59:59", "2026-11-24 06:00:00"),
        ("2026-11-24 05:59:59", "2026-11-24 06:00:00"), ("2026-11-24 06:00:00", "2026-11-25 06:00:00"),
    ],
)  # fmt: skip
def test_a_session_ends_at_six_in_india(logged_in: str, ends: str) -> None:
    at, until = (datetime.fromisoformat(text).replace(tzinfo=IST) for text in (logged_in, ends))
    assert session_ends(at.astimezone(UTC)) == until


def test_somebody_is_asked_to_log_in_before_the_session() -> None:
    def at(clock: str, day: str = "2026-11-23") -> datetime:
        return datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=IST).astimezone(UTC)

    def until(ends: datetime) -> KiteSession:
        return KiteSession("AB1234", "Ann", "t", NOW, ends, (), ())

    opens = at("09:00")
    yesterdays, todays = until(at("06:00")), until(at("06:00", "2026-11-24"))
    assert login_wanted(None, at("07:59:59")) is None
    assert login_wanted(None, at("08:00")) == opens
    assert login_wanted(yesterdays, at("08:30")) == opens
    assert login_wanted(todays, at("08:30")) is None
    assert login_wanted(None, at("16:00")) is None, "the day is over"
    assert login_wanted(None, at("10:00", "2026-11-22")) is None, "Sunday"
    assert login_wanted(None, at("10:00", "2026-11-24")) is None, "a holiday"


def test_a_state_is_good_for_one_user_one_account_and_ten_minutes() -> None:
    state = signed_state("acc", "ann", "secret", NOW)
    assert account_in_state(state) == "acc"
    assert state_is_ours(state, "acc", "ann", "secret", NOW + timedelta(minutes=9, seconds=59))
    assert not state_is_ours(state, "acc", "ann", "secret", NOW + timedelta(minutes=10))
    for account, user, secret in (("acd", "ann", "secret"), ("acc", "ben", "secret"), ("acc", "ann", "other")):
        assert not state_is_ours(state, account, user, secret, NOW)
    assert state != signed_state("acc", "ann", "secret", NOW)


@settings(max_examples=100)
@given(st.text(max_size=80))
def test_no_text_is_a_state_by_chance(text: str) -> None:
    assert not state_is_ours(text, "acc", "ann", "secret", NOW)


async def test_a_session_is_opened_once_and_closed(kite: Replayed) -> None:
    transport = kite.transport()
    session = await open_session(transport, "req", "secret")
    assert kite.asked[-1].form == {
        "api_key": "key", "request_token": "req", "checksum": session_checksum("key", "req", "secret"),
    }  # fmt: skip
    assert session.user_id == "XX0000"
    assert session.expires_at - session.logged_in_at < timedelta(days=1, hours=1)
    assert session.access_token not in repr(session)
    kite.answers["POST", "/session/token"] = error(403, "TokenException", "Token is invalid or has expired.")
    with pytest.raises(LoginRefusedError, match="LOGIN_TOKEN_USED"):
        await open_session(transport, "req", "secret")
    for broken in (None, {}, {"login_time": "yesterday"}):
        kite.answers["POST", "/session/token"] = success(broken)
        with pytest.raises(LoginRefusedError):
            await open_session(transport, "req", "secret")
    await close_session(transport, session.access_token)
    assert ("access_token", session.access_token) in kite.asked[-1].query
    await transport.call("GET", "/user/profile")
    assert "Authorization" not in kite.asked[-1].headers, "a closed session is used no more"
    await transport.close()


async def test_holdings_are_authorised_at_the_broker_s_page(kite: Replayed) -> None:
    transport = kite.transport()
    page = await authorise_holdings(transport)
    assert page == f"{module.AUTHORISE_URL}/key/na8QgCeQm05UHG6NL9sAGRzdfSF64UdB"
    kite.answers["POST", "/portfolio/holdings/authorise"] = success(None)
    assert isinstance(await authorise_holdings(transport), Failure)
    await transport.close()


# --- before the market opens -----------------------------------------------------------------------------------------

SESSION = KiteSession("AB1234", "Ann", "t", NOW, NOW + timedelta(hours=20), ("NSE", "NFO"), ("CNC",))


async def checked(
    kite: Replayed, *, session: KiteSession | None = SESSION, seen: str = "203.0.113.7", **given: object
) -> Report:
    dump = (MOCKS / "instruments_nse.csv").read_bytes()
    kite.answers.setdefault(("GET", "/instruments"), (200, dump))
    transport = kite.transport()

    async def egress() -> str:
        await asyncio.sleep(0)
        return seen

    allowed = given.pop("allowed", frozenset({"203.0.113.7"}))
    segments = given.pop("segments", ("NSE",))
    report = await Preflight(transport, session, allowed, egress, segments, lambda: NOW).run()  # type: ignore[arg-type]
    await transport.close()
    return report


def failed(report: Report) -> list[str]:
    return [each.check for each in report.findings if each.verdict == "failed"]


async def test_all_is_well(kite: Replayed) -> None:
    report = await checked(kite)
    assert [each.check for each in report.findings] == [
        "session",
        "address",
        "clock",
        "profile",
        "instruments",
        "money",
        "holidays",
    ]
    assert (report.ready, failed(report)) == (True, [])


async def test_each_check_fails_by_itself(kite: Replayed) -> None:
    assert failed(await checked(kite, session=None)) == ["session"]
    late = KiteSession("AB1234", "Ann", "t", NOW, NOW, (), ())
    assert failed(await checked(kite, session=late)) == ["session"], "06:00 is not before 06:00"
    assert failed(await checked(kite, seen="9.9.9.9")) == ["address"]
    assert failed(await checked(kite, seen="10.0.0.4")) == []
    assert failed(await checked(kite, allowed=frozenset())) == []
    assert failed(await checked(kite, segments=("NSE", "MCX"))) == ["instruments"]
    other = KiteSession("ZZ9999", "Zoe", "t", NOW, NOW + timedelta(hours=1), (), ())
    assert failed(await checked(kite, session=other)) == ["profile"]
    kite.answers["GET", "/instruments"] = (200, b"what,is,this\n")
    assert failed(await checked(kite)) == ["instruments"]
    kite.answers["GET", "/instruments"] = (502, b"<html>")
    assert failed(await checked(kite)) == ["instruments"]


async def test_derivatives_of_yesterday_are_noticed(kite: Replayed) -> None:
    header = (MOCKS / "instruments_all.csv").read_bytes().splitlines()[0]
    row = b"1,0,NIFTY26NOVFUT,NIFTY,0,%s,0,0.1,65,FUT,NFO-FUT,NFO"
    for expiry, expected in ((b"2026-11-20", ["instruments"]), (b"2026-11-23", [])):
        kite.answers["GET", "/instruments"] = (200, header + b"\n" + row % expiry + b"\n")
        assert failed(await checked(kite, segments=("NFO",))) == expected


async def test_a_broker_that_is_away_is_a_report_too() -> None:
    from trading_platform.venues.zerodha.transport import KiteTransport

    async def egress() -> str:
        raise OSError("no route")

    transport = KiteTransport("key", "token", root="http://127.0.0.1:1")
    report = await Preflight(transport, SESSION, frozenset(), egress, ("NSE",), lambda: NOW).run()
    assert failed(report) == ["address", "clock", "profile", "instruments", "money"]
    await transport.close()


async def test_a_clock_that_is_off_is_noticed(kite: Replayed, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = kite.transport()
    for off, expected in ((0.0, "ok"), (-5.0, "failed"), (5.0, "failed")):

        async def told(off: float = off) -> str:
            return formatdate(datetime.now(UTC).timestamp() + off, usegmt=True)

        monkeypatch.setattr(transport, "clock", told)
        found = await Preflight(transport, SESSION, frozenset(), None, ("NSE",), lambda: NOW)._clock()  # type: ignore[arg-type]
        assert found.verdict == expected
    await transport.close()
