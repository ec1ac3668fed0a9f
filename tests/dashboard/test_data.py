"""What `data` hands to the pages, held against the books and against the API's own word."""

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import httpx
import pandas as pd
import pytest
from sqlalchemy import select, text

from dashboard import data, live, names
from dashboard.sources import Refused, Unavailable
from tests.dashboard.conftest import Enter, Platform, forget
from tests.dashboard.seeding import STRATEGY
from trading_platform.identifiers import GroupId
from trading_platform.storage.databases import Database
from trading_platform.storage.group import Account, EquityPoint

pytestmark = pytest.mark.xdist_group("dashboard")
HOUR = timedelta(hours=1)


def view_of(platform: Platform, viewer: str, user_id: str | None = None, role: str = "trader") -> data.View:
    """What app.py puts together; also what it never would."""
    market = next(market for market in data.markets() if market.dataset_id == platform.works[-1].dataset_id)
    return data.View(data.Viewer(viewer, viewer, role), user_id or viewer, market)


def test_a_forged_view_of_anothers_books_is_refused(working: Platform, enter: Enter) -> None:
    enter(working, "u_ann")
    forged = view_of(working, "u_ann", "u_ben", role="admin")
    for books in (data.positions, data.equity, data.accounts):
        forget()
        with pytest.raises(Refused, match="own rows"):
            books(forged)  # type: ignore[operator]


def test_what_was_kept_for_one_is_not_shown_to_another(
    working: Platform, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(working, "u_ann")
    mine = data.orders(view_of(working, "u_ann"), 500)
    token = working.token("u_ben")
    monkeypatch.setattr("dashboard.sources.session_token", lambda: token)  # the same process, within seconds
    theirs = data.orders(view_of(working, "u_ben"), 500)
    assert len(mine) == len(theirs) > 0
    assert not set(mine["client_order_id"]) & set(theirs["client_order_id"])


def test_the_marts_are_asked_for_one_user_and_one_dataset(working: Platform, enter: Enter) -> None:
    enter(working, "u_ann")
    for user_id in ("u_ann", "u_ben"):
        view = view_of(working, user_id)
        with working.databases.engine(Database.ANALYTICS).connect() as connection:
            net, count = connection.execute(
                text("select sum(net_pnl), count(*) from raw.outcomes where user_id = :u and dataset_id = :d"),
                {"u": user_id, "d": view.dataset_id},
            ).one()
        daily, strategies, conditions = data.daily_pnl(view), data.strategy_pnl(view), data.condition_results(view)
        assert daily["net_pnl"].sum() == pytest.approx(float(net))
        assert daily["cumulative"].iloc[-1] == pytest.approx(float(net))
        assert daily["trades"].sum() == strategies["trades"].sum() == count
        assert set(conditions.groupby("condition_type")["trades"].sum()) == {count}
        assert data.all_trades(view).count(b"\n") == count + 1


def test_a_day_stays_that_day_in_every_browser(working: Platform, enter: Enter) -> None:
    """A date without a zone would be drawn as the evening before, west of Greenwich."""
    enter(working, "u_ann")
    days = data.daily_pnl(view_of(working, "u_ann"))["day"]
    assert str(days.dt.tz) in ("UTC", "Etc/UTC")
    assert (days == days.dt.normalize()).all()


def test_a_long_equity_curve_is_whole_and_thin(
    working: Platform, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 hourly points: the newest 100 as they are, the rest thinned to about 50."""
    monkeypatch.setattr(data, "NEWEST_EQUITY_POINTS", 100)
    monkeypatch.setattr(data, "OLDER_EQUITY_POINTS", 50)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    common = {"user_id": "u_dan", "account_id": "long_curve"}
    points = [
        {
            **common, "market_time": start + n * HOUR, "cash": Decimal(n), "positions_value": Decimal(0),
            "equity": Decimal(1000 + n), "currency": "USDT",
        }
        for n in range(2_000)
    ]  # fmt: skip
    with working.databases.group(GroupId("g2")) as session:
        session.add(
            Account(**common, venue="binance", kind="sandbox", dataset_id=working.works[-1].dataset_id, currency="USDT")
        )
        session.add_all(EquityPoint(**point) for point in points)
    with working.databases.engine(Database.ANALYTICS).begin() as connection:
        insert = (
            "insert into marts.fct_equity (user_id, account_id, market_time, cash, positions_value, equity, currency)"
        )
        values = "values (:user_id, :account_id, :market_time, :cash, :positions_value, :equity, :currency)"
        connection.execute(text(f"{insert} {values}"), points)
    enter(working, "u_dan")
    curve = data.equity(view_of(working, "u_dan"))
    times = curve["market_time"]
    assert times.is_monotonic_increasing
    assert times.is_unique
    assert times.iloc[-1] == points[-1]["market_time"]
    assert times.iloc[0] < start + 60 * HOUR
    assert set(curve["equity"] - 1000) <= set(range(2_000))
    assert 120 <= len(curve) <= 160


def test_names_tell_apart_what_is_called_alike() -> None:
    def dataset(dataset_id: str, kind: str = "files", **details: object) -> SimpleNamespace:
        return SimpleNamespace(
            dataset_id=dataset_id, kind=kind, venue="binance", source="/a/b/binance_1h", interval_seconds=900,
            details=details,
        )  # fmt: skip

    rows = [dataset("files_aaaaaabb"), dataset("files_ccccccdd"), dataset("drill_x", drill={"what": "x"})]
    assert names.datasets(rows) == {  # type: ignore[arg-type]
        "files_aaaaaabb": "binance_1h (Binance, 15 min bars) aaaaaa",
        "files_ccccccdd": "binance_1h (Binance, 15 min bars) cccccc",
        "drill_x": "binance_1h (Binance, 15 min bars, drill)",
    }
    made = {"kind": "sandbox", "currency": "USDT"}
    assert names.accounts(
        [
            {"account_id": "b", "created_at": "2024-02-01", **made},
            {"account_id": "a", "created_at": "2024-01-01", **made},
        ]
    ) == {"a": "Sandbox USDT", "b": "Sandbox USDT no. 2"}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (names.moment("2024-05-06T05:30:00+05:30"), "2024-05-06 00:00 UTC"),
        (names.moment(None), "–"),
        (names.moment(pd.NaT), "–"),
        (names.percent(0.4688), "46.9%"),
        (names.percent(float("nan")), "–"),
        (names.money(-1234567.891, "INR"), "-1,234,567.89 INR"),
        (names.age(59.4), "59 s"),
        (names.age(7200), "2 h"),
        (names.service("api:8401", {}), "API 8401"),
        (names.service("scorer:d1", {"d1": "a market"}), "Scorer, a market"),
        (names.strategy(STRATEGY), "Barrier long"),
    ],
)
def test_values_are_written_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_the_live_tiles_read_what_the_stream_sends(working: Platform) -> None:
    """Every field of a snapshot that the browser's code names is one that the API sends."""
    headers = {"Authorization": f"Bearer {working.token('u_ann')}"}
    with httpx.stream("GET", f"{working.api_url}/api/stream", headers=headers, timeout=20) as answer:
        lines = answer.iter_lines()
        assert any(line == "event: snapshot" for line in lines)
        snapshot = json.loads(next(lines).removeprefix("data: "))
    read = set(re.findall(r"\bd\.(\w+)", live.JS))
    engine = set(re.findall(r"\be\.(\w+)", live.JS))
    assert read >= {"equity", "realized_pnl", "market_time", "engine"}
    assert read <= set(snapshot)
    assert engine <= set(snapshot["engine"])


def test_only_files_of_a_days_records_are_handed_out(working: Platform, enter: Enter) -> None:
    enter(working, "u_cora")
    folder = working.databases.settings.reports_dir / "2026-11-19"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"files": {}}')
    (folder / "access_log.csv").write_bytes(b"a,b\r\n")
    (folder.parent / "secret").write_text("no")
    assert data.record_days() == ["2026-11-19"]
    assert data.record_manifest("2026-11-19") == {"files": {}}
    assert data.record_file("2026-11-19", "access_log.csv") == b"a,b\r\n"
    with pytest.raises(Unavailable, match="no records"):
        data.record_file("..", "secret")
    with pytest.raises(FileNotFoundError):
        data.record_file("2026-11-19", "../secret")
    (folder / "manifest.json").write_text("{")
    with pytest.raises(Unavailable, match="cannot be read"):
        data.record_manifest("2026-11-19")


def test_accounts_of_other_data_are_left_out(working: Platform, enter: Enter) -> None:
    enter(working, "u_ann")
    view = view_of(working, "u_ann")
    with working.databases.group(GroupId("g1")) as session:
        owned = session.scalars(select(Account).where(Account.user_id == "u_ann")).all()
    assert len(owned) == 2
    assert list(data.accounts(view)) == [a.account_id for a in owned if a.dataset_id == view.dataset_id]
