"""The daily compliance records: complete, stable, masked, labelled, and loud about a broken trail."""

import csv
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.compliance.seeding import WALL
from tests.dbt.conftest import Built
from trading_platform.compliance.record_files import cell, keep_until
from trading_platform.compliance.reports import NotBuiltError, Records, write_daily_records
from trading_platform.identifiers import GroupId
from trading_platform.storage.databases import Database, Databases

pytestmark = pytest.mark.xdist_group("dbt")
DAY = WALL.date()


@pytest.fixture(scope="module")
def records(built: Built) -> Records:
    return write_daily_records(built.databases, DAY)


def read(records: Records, name: str) -> list[dict[str, str]]:
    (path,) = [path for path in records.paths if path.name == f"{name}.csv"]
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def page(records: Records) -> str:
    return next(path for path in records.paths if path.suffix == ".html").read_text()


def test_the_order_and_trade_audit_log_is_complete(built: Built, records: Records) -> None:
    rows = read(records, "order_audit_log")
    # 20 trades of two orders with five events each, a refusal, a change of limits, 11 orders; a trade of group two
    assert len(rows) == 20 * 2 * 5 + 1 + 1 + 11 + 2 * 5 == records.figures["audit_entries"]
    assert [int(row["seq"]) for row in rows if row["group_id"] == "one"] == list(range(1, 214))
    first = rows[0]
    assert first["event_ts_utc"] == "2026-11-19T05:00:00.000Z"
    assert first["event_ts_ist"] == "2026-11-19T10:30:00.000+05:30"
    assert first["market_time"] == "2021-03-01T00:00:00.000Z"
    assert (first["qty"], first["data_label"]) == ("0.01", "replayed")
    assert records.figures["audit_entries_sealed"] == len(rows)


def test_the_hashes_beside_the_entries_make_up_the_chain(records: Records) -> None:
    """From the file alone: leaves of the one batch that holds all of group one's entries give its hash."""
    rows = [row for row in read(records, "order_audit_log") if row["group_id"] == "one"]
    digest = hashlib.sha256(rows[0]["prev_hash"].encode())
    for row in rows:
        digest.update(int(row["seq"]).to_bytes(8, "big") + bytes.fromhex(row["entry_hash"]))
    assert {row["hash"] for row in rows} == {digest.hexdigest()}
    assert rows[0]["prev_hash"] == hashlib.sha256(b"trading-platform audit v1 one").hexdigest()


def test_the_figures_are_those_of_the_day(records: Records) -> None:
    shown = {name: records.figures[name] for name in (
        "chains_whole", "orders_sent", "fills", "rejected", "risk_blocks", "halts", "rate_breaches", "log_ins_refused", "incidents",
    )}  # fmt: skip
    assert shown == {
        "chains_whole": True, "orders_sent": 53, "fills": 42, "rejected": 0, "risk_blocks": 1, "halts": 1,
        "rate_breaches": 0, "log_ins_refused": 1, "incidents": 1,
    }  # fmt: skip


def test_writing_again_gives_the_same_bytes(built: Built, records: Records) -> None:
    before = {path: path.read_bytes() for path in records.paths}
    again = write_daily_records(built.databases, DAY)
    assert again.paths == records.paths
    changed = [
        path.name for path, content in before.items() if path.read_bytes() != content and path.name != "manifest.json"
    ]
    assert changed == []
    assert not list(records.paths[0].parent.glob(".*")), "a partial file was left"


def test_the_manifest_has_the_hash_of_every_file(records: Records) -> None:
    folder = records.paths[0].parent
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {path.name for path in folder.iterdir()} == set(manifest["files"]) | {"manifest.json"}
    for name, about in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == about["sha256"]
    assert manifest["keep_until"] == "2032-03-31"
    assert datetime.fromisoformat(manifest["generated_at"]) > datetime.now(UTC) - timedelta(minutes=5)


def test_the_page_says_what_it_is_and_what_it_is_not(records: Records) -> None:
    html = page(records)
    for phrase in (
        "Audit trail whole.", "Not real trading: paper trading on replayed data.", "Records, not filings.", "31 March 2032",
        "Critical incidents of five minutes or longer: 1.", "Paper accounts, more than 10 requests in a second: 1 times, at most 11.",
    ):  # fmt: skip
        assert phrase in html
    assert "http" not in html.replace("http-equiv", ""), "the page must not load anything"
    assert "<script" not in html


def test_no_account_user_or_address_leaves_unmasked(records: Records) -> None:
    for path in records.paths:
        content = path.read_text()
        assert "acct_one_ann" not in content
        assert "ann@example.org" not in content


def test_one_groups_records_hold_no_other_groups_rows(built: Built, records: Records) -> None:
    only = write_daily_records(built.databases, DAY, [GroupId("two")])
    assert only.paths[0].parent == records.paths[0].parent / "two"
    assert {row["group_id"] for row in read(only, "order_audit_log")} == {"two"}
    assert only.figures["orders_sent"] == 2
    assert read(only, "risk_control_log") == []


def test_a_day_without_events_says_so(built: Built) -> None:
    quiet = write_daily_records(built.databases, DAY - timedelta(days=30))
    assert "No order or trade event on this day." in page(quiet)
    assert read(quiet, "order_audit_log") == []


@pytest.fixture
def altered_copy(built: Built) -> Iterator[None]:
    change = "update raw.audit_log set price = price {} 1 where seq = 5 and group_id = 'one'"
    with built.databases.engine(Database.ANALYTICS).begin() as connection:
        connection.execute(text(change.format("+")))
    yield
    with built.databases.engine(Database.ANALYTICS).begin() as connection:
        connection.execute(text(change.format("-")))


@pytest.mark.usefixtures("altered_copy")
def test_a_copy_that_differs_from_the_sealed_original_is_named(built: Built) -> None:
    html = page(write_daily_records(built.databases, DAY))
    assert "differ from the sealed originals: 1 (group/seq one/5)" in html


@pytest.fixture
def altered_original(built: Built) -> Iterator[None]:
    def change(sign: str) -> None:
        with built.databases.group_engine(GroupId("one")).begin() as connection:
            connection.execute(text("alter table group_one.audit_log disable trigger append_only"))
            connection.execute(text(f"update group_one.audit_log set price = price {sign} 1 where seq = 10"))
            connection.execute(text("alter table group_one.audit_log enable always trigger append_only"))

    write_daily_records(built.databases, DAY)  # sealed before it is altered
    change("+")
    yield
    change("-")


@pytest.mark.usefixtures("altered_original")
def test_a_broken_trail_is_the_headline(built: Built) -> None:
    broken = write_daily_records(built.databases, DAY)
    assert broken.figures["chains_whole"] is False
    assert "Audit trail broken." in page(broken)
    assert "Audit trail of group one: seq 10 was altered." in page(broken)


def test_missing_models_and_future_days_are_refused(databases: Databases, built: Built) -> None:
    with pytest.raises(NotBuiltError, match="dbt build"):
        write_daily_records(databases, DAY)
    with pytest.raises(ValueError, match="has not begun"):
        write_daily_records(built.databases, datetime.now(UTC).date() + timedelta(days=2))


def test_a_cell_that_a_spreadsheet_would_run_is_defused(tmp_path: Path) -> None:
    assert cell('=HYPERLINK("http://evil")') == '\'=HYPERLINK("http://evil")'
    assert cell("-2+3") == "'-2+3"
    assert cell(-2.5) == "-2.5"


@pytest.mark.parametrize(
    ("day", "until"),
    [
        (date(2026, 3, 31), date(2031, 3, 31)),
        (date(2026, 4, 1), date(2032, 3, 31)),
        (date(2026, 12, 31), date(2032, 3, 31)),
    ],
)
def test_records_are_kept_five_years_after_the_financial_year(day: date, until: date) -> None:
    assert keep_until(day) == until
