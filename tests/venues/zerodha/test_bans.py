"""The F&O ban list from the exchange's address to the engine that obeys it, and everything that is not taken for it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from assets.platform import Platform
from assets.zerodha import fno_ban_list
from jobs.definitions import ban_list_before_the_open
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.accounts.vault import Vault
from trading_platform.execution.accounts import load_portfolios
from trading_platform.execution.breaker_board import BreakerBoard
from trading_platform.execution.clock import ReplayClock, WallClock
from trading_platform.execution.directives import Directives
from trading_platform.identifiers import AccountId, DatasetId, GroupId, UserId
from trading_platform.markets.position_limits import BadBanListError, BanList
from trading_platform.storage.control import Alert
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, AuditRow
from trading_platform.venues.zerodha import bans, commands
from trading_platform.venues.zerodha.bans import fetch_and_take, loaded, take

DAY = date(2026, 11, 20)
G1, G2, ANN = GroupId("g1"), GroupId("g2"), UserId("ann")


def listed(day: date, *names: str) -> bytes:
    rows = "".join(f"\n{number},{name}" for number, name in enumerate(names, 1)) or " NIL"
    return f"Securities in Ban For Trade Date {day:%d-%b-%Y}:{rows}\n".upper().encode()


@dataclass
class Exchange:
    """What the exchange's address sends: a status, a body, and how long it says that the body is."""

    databases: Databases
    url: str
    status: int = 200
    body: bytes = b""
    missing: int = 0
    names: list[str | None] = field(default_factory=list)

    def load(self) -> BanList:
        return fetch_and_take(self.databases, DAY, actor="t")

    def kept(self) -> set[str] | None:
        with self.databases.control() as session:
            found = loaded(session, DAY)
        return None if found is None else set(found.underlyings)

    def alerts(self) -> list[tuple[str, int]]:
        with self.databases.control() as session:
            rows = session.scalars(select(Alert).where(Alert.resolved_at.is_(None)))
            return [(row.detail, row.count) for row in rows]

    def audited(self, group: GroupId) -> list[tuple[str, object, object]]:
        with self.databases.group(group) as session:
            rows = session.scalars(select(AuditRow).where(AuditRow.event_type == "BAN_LIST").order_by(AuditRow.seq))
            return [(row.actor, row.detail["before"], row.detail["underlyings"]) for row in rows]


@pytest.fixture
def exchange(platform: Databases) -> Iterator[Exchange]:
    for user, group in ((ANN, G1), (UserId("ben"), G2)):
        person = NewUser(f"{user}@example.com", user, "trader", group, "four plain words here", user_id=user)
        create_user(platform, person, actor="t")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.names.append(self.headers["User-Agent"])
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(made.body) + made.missing))
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}/content/fo/fo_secban.csv"
    made = Exchange(Databases(platform.settings.model_copy(update={"ban_list_url": url})), url)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    made.databases.close()
    server.shutdown()
    server.server_close()


def test_the_day_s_list_is_loaded_once_a_change_and_is_on_every_group_s_trail(exchange: Exchange) -> None:
    exchange.body = listed(DAY, "SAIL", "M&M")
    assert exchange.load().underlyings == {"SAIL", "M&M"} == exchange.kept()
    assert str(exchange.names[0]).startswith("Mozilla"), "the exchange's servers ignore others"
    exchange.load()
    exchange.body = listed(DAY)
    exchange.load()
    assert exchange.kept() == set()
    for group in (G1, G2):
        assert exchange.audited(group) == [("t", None, ["M&M", "SAIL"]), ("t", ["M&M", "SAIL"], [])]
    with exchange.databases.control() as session:
        assert loaded(session, DAY + timedelta(days=1)) is None, "a day's list is of that day"


def test_what_is_not_the_day_s_list_is_an_alert_and_leaves_the_good_one(exchange: Exchange) -> None:
    wrong = {
        "yesterday's": (listed(DAY - timedelta(days=1), "SAIL"), 200, 0), "a page": (b"<html>Denied</html>", 200, 0),
        "an error with a list": (listed(DAY, "SAIL"), 404, 0), "nothing": (b"", 200, 0),
        "a heading alone": (listed(DAY).removesuffix(b" NIL\n"), 200, 0),
        "cut off at a name": (listed(DAY, "SAIL", "INFY").removesuffix(b"INFY\n"), 200, 0),
        "a connection that broke off": (listed(DAY, "SAIL")[:-3], 200, 3),
    }  # fmt: skip
    for kept in (None, {"GNFC"}):
        for times, (name, sent) in enumerate(wrong.items(), 1):
            exchange.body, exchange.status, exchange.missing = sent
            with pytest.raises(BadBanListError):
                exchange.load()
            ((detail, count),) = exchange.alerts()
            assert (exchange.kept(), count) == (kept, times), name
            assert ("nothing new is opened" if kept is None else "loaded before holds") in detail
        exchange.body, exchange.status, exchange.missing = listed(DAY, "GNFC"), 200, 0
        exchange.load()
        assert (exchange.alerts(), exchange.kept()) == ([], {"GNFC"})
    exchange.body = b""
    with pytest.raises(BadBanListError):
        exchange.load()
    old = DAY - timedelta(days=700)
    take(exchange.databases, listed(old, "SAIL"), old, source="old.csv", actor="t")
    assert len(exchange.alerts()) == 1, "a list for a replay says nothing of today's"


def test_an_operator_loads_a_file_and_sees_what_is_loaded(
    exchange: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "settings", lambda: exchange.databases.settings)
    monkeypatch.setenv("COLUMNS", "300")
    file = tmp_path / "fo_secban.csv"

    def asked(*words: str) -> tuple[int, str]:
        told = CliRunner().invoke(commands.app, ["bans", *words])
        return told.exit_code, told.output

    assert asked("--day", "2026-11-20")[0] == 1, "nothing is loaded"
    file.write_bytes(listed(DAY, "SAIL"))
    code, text = asked("--day", "2026-11-20", "--file", str(file))
    assert (code, text.startswith("2026-11-20: SAIL (fo_secban.csv, ")) == (0, True)
    ((actor, _, _),) = exchange.audited(G1)
    assert actor.startswith("cli:")
    code, text = asked("--day", "2026-11-21", "--file", str(file))
    assert (code, "is of 2026-11-20, not of 2026-11-21" in text) == (1, True)
    file.write_bytes(listed(DAY))
    assert "nothing is in the ban" in asked("--day", "2026-11-20", "--file", str(file))[1]


async def test_engines_obey_the_list_of_the_market_s_day(exchange: Exchange) -> None:
    settings = exchange.databases.settings.model_copy(update={"sandbox_kite_url": "http://127.0.0.1:9"})
    databases = Databases(settings)
    with databases.group(G1) as session:
        session.add(
            Account(user_id=ANN, account_id="paper", venue="zerodha", kind="sandbox", currency="INR", dataset_id="d")
        )
        for name in ("api_key", "api_secret"):
            session.add(Vault(settings).seal(ANN, AccountId("paper"), name, "x"))
    for day, name in ((DAY, "SAIL"), (DAY + timedelta(days=3), "GNFC")):
        exchange.body = listed(day, name)
        fetch_and_take(databases, day, actor="t")
    clock = [datetime(2026, 11, 20, 18, 29, tzinfo=UTC)]  # 23:59 IST
    board = BreakerBoard(G1)
    async with databases.group_async(G1) as session:
        (account,) = await load_portfolios(
            databases, G1, session, DatasetId("d"), None, None, lambda: clock[0], board.venue
        )
    assert account.broker is not None
    wall = Directives(databases, G1, DatasetId("d"), None, WallClock(), board)
    await wall.read([account], {})
    assert account.broker.bans[DAY].underlyings == {"SAIL"}
    assert wall.bans == {"day": "2026-11-20", "underlyings": ["SAIL"]}
    clock[0] += timedelta(minutes=1)
    await wall.read([account], {})
    assert (DAY in account.broker.bans, wall.bans) == (False, {"day": "2026-11-21", "underlyings": None})
    replay = Directives(databases, G1, DatasetId("d"), None, ReplayClock("http://127.0.0.1:9", "t", "e"), board)
    await replay.read([account], {})
    assert {day: set(found.underlyings) for day, found in account.broker.bans.items()} == {
        DAY: {"SAIL"}, DAY + timedelta(days=3): {"GNFC"},
    }, "whose days pass between two looks"  # fmt: skip
    await databases.aclose()
    databases.close()


def open_account(databases: Databases, kind: str) -> None:
    with databases.group(G1) as session:
        session.add(Account(user_id=ANN, account_id=f"a_{kind}_one", venue="zerodha", kind=kind, currency="INR"))


def resource(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> Platform:
    settings = exchange.databases.settings
    assert settings.database_url is not None
    monkeypatch.setenv("TP_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("TP_BAN_LIST_URL", exchange.url)
    return Platform(home_dir=str(settings.home_dir))


def test_the_schedule_asks_until_it_is_there_and_knows_holidays_and_sunday_s_muhurat(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = resource(exchange, monkeypatch)

    def asked(day: date, minute: int = 0) -> str | None:
        at = datetime(day.year, day.month, day.day, 2, 30 + minute, tzinfo=UTC)  # 08:00 IST
        context = dg.build_schedule_context(scheduled_execution_time=at, resources={"platform": platform})
        found = ban_list_before_the_open(context)
        return found.run_key if isinstance(found, dg.RunRequest) else None

    open_account(exchange.databases, "sandbox")
    assert asked(DAY) is None, "a replay has no need of today's"
    open_account(exchange.databases, "live")
    days = {DAY: True, date(2026, 11, 21): False, date(2026, 11, 24): False, date(2026, 11, 8): True}
    assert {day: asked(day) is not None for day in days} == days
    assert asked(DAY) != asked(DAY, 10), "another run"
    exchange.body = listed(DAY)
    exchange.load()
    assert asked(DAY, 20) is None


@pytest.mark.xdist_group("dagster")
def test_the_asset_loads_today_s_list_once(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC).astimezone(commands.IST).date()
    monkeypatch.setattr(bans, "is_trading_day", lambda segment, day: day == today)
    exchange.body = listed(today, "SAIL")
    platform = resource(exchange, monkeypatch)

    def told() -> dict[str, object]:
        made = dg.materialize([fno_ban_list], resources={"platform": platform})
        (materialized,) = made.asset_materializations_for_node("fno_ban_list")
        return {name: value.value for name, value in materialized.metadata.items()}

    assert "no account at Zerodha is real" in str(told()["not_asked_for"])
    open_account(exchange.databases, "live")
    assert told()["underlyings"] == "SAIL"
    assert "is loaded" in str(told()["not_asked_for"])
    assert len(exchange.names) == 1
