"""The models against figures computed here from the same books by other means (polars, scikit-learn, SciPy)."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, log_loss
from sqlalchemy import select, text

from tests.compliance.seeding import WALL
from tests.dbt.conftest import PROJECT, Built
from trading_platform.storage.databases import Database
from trading_platform.storage.group import AuditRow, Outcome

pytestmark = pytest.mark.xdist_group("dbt")
INDIA = ZoneInfo("Asia/Kolkata")


@pytest.fixture(scope="module")
def outcomes(built: Built) -> pl.DataFrame:
    """All outcomes, from the group schemas themselves."""
    found = []
    for books in built.books:
        with built.databases.group(books.group) as session:
            found += [
                {"group_id": books.group, **{c.name: getattr(row, c.name) for c in Outcome.__table__.columns}}
                for row in session.scalars(select(Outcome))
            ]
    return pl.DataFrame(found).with_columns(
        pl.col("exit_time").dt.convert_time_zone("Asia/Kolkata").dt.date().alias("day")
    )


def test_the_build_passes_on_an_empty_database_and_on_a_full_one(built: Built) -> None:
    for run in (built.empty_run, built.run):
        assert len(run) > 30
        assert set(run.values()) <= {"success", "pass"}, {
            node: s for node, s in run.items() if s not in {"success", "pass"}
        }


def test_daily_profit_and_loss(built: Built, outcomes: pl.DataFrame) -> None:
    expected = outcomes.group_by("group_id", "user_id", "currency", "day").agg(
        pl.len().alias("trades"), *(pl.col(name).sum() for name in ("gross_pnl", "costs", "net_pnl"))
    )
    found = {
        (row["group_id"], row["user_id"], row["currency"], row["exit_date"]):
        (row["trades"], row["gross_pnl"], row["costs"], row["net_pnl"])
        for row in built.rows("select * from marts.fct_daily_pnl")
    }  # fmt: skip
    assert found == {row[:4]: row[4:] for row in expected.iter_rows()}
    (last,) = built.rows(
        "select cumulative_net_pnl from marts.fct_daily_pnl where user_id = 'ann' order by exit_date desc limit 1"
    )
    assert last["cumulative_net_pnl"] == sum(outcomes.filter(pl.col("user_id") == "ann")["net_pnl"], Decimal(0))


def test_accuracy_over_time_agrees_with_scikit_learn(built: Built, outcomes: pl.DataFrame) -> None:
    rows = built.rows("select * from marts.fct_accuracy_over_time")
    assert rows
    for row in rows:
        day = outcomes.filter((pl.col("day") == row["exit_date"]) & (pl.col("version_id") == row["version_id"]))
        labels, confidence = day["success"].to_list(), day["confidence"].to_list()
        assert row["trades"] == len(day)
        assert row["brier"] == pytest.approx(brier_score_loss(labels, confidence))
        assert row["log_loss"] == pytest.approx(log_loss(labels, confidence, labels=[False, True]))
    thirty = built.rows("select max(trades_30d) as n from marts.fct_accuracy_over_time where version_id = 'v_champion'")
    assert thirty[0]["n"] == outcomes.filter(pl.col("version_id") == "v_champion").height


def test_reliability_bins_and_their_intervals(built: Built, outcomes: pl.DataFrame) -> None:
    rows = built.rows("select * from marts.fct_reliability")
    assert sum(row["resolved"] for row in rows) == outcomes["signal_id"].n_unique()
    for row in rows:
        assert row["confidence_bin"] <= row["mean_confidence"] < row["confidence_bin"] + 0.1
        interval = binomtest(row["successes"], row["resolved"]).proportion_ci(0.95, method="wilson")
        assert row["success_rate_lower"] == pytest.approx(interval.low, abs=1e-4)
        assert row["success_rate_upper"] == pytest.approx(interval.high, abs=1e-4)


def test_signal_quality_counts_every_signal_once(built: Built) -> None:
    (sums,) = built.rows(
        "select sum(signals) as signals, sum(ok) as ok, sum(resolved) as resolved from marts.fct_signal_quality"
    )
    (raw,) = built.rows("select count(*) as signals from raw.signals")
    assert sums["signals"] == sums["ok"] == raw["signals"]
    assert sums["resolved"] == 22


def test_each_trade_counts_once_in_each_condition_type(built: Built, outcomes: pl.DataFrame) -> None:
    rows = built.rows(
        "select condition_type, sum(trades) as n, sum(net_pnl) as net from marts.fct_condition_performance group by 1"
    )
    total = sum(outcomes["net_pnl"], Decimal(0))
    assert {row["condition_type"]: (row["n"], row["net"]) for row in rows} == dict.fromkeys(
        ("volatility", "trend", "liquidity", "session"), (outcomes.height, total)
    )


def test_drawdown_is_measured_from_the_running_peak(built: Built) -> None:
    rows = built.rows("select equity, drawdown from marts.fct_equity where user_id = 'ann' order by market_time")
    peak = Decimal(0)
    for row in rows:
        peak = max(peak, row["equity"])
        assert row["drawdown"] == pytest.approx(float(row["equity"] / peak - 1))
    assert min(row["drawdown"] for row in rows) < 0


def test_experiments_split_the_trades_by_version(built: Built, outcomes: pl.DataFrame) -> None:
    (row,) = built.rows("select * from marts.fct_experiment_history")
    by_version = dict(outcomes.group_by("version_id").len().iter_rows())
    assert (row["champion_trades"], row["challenger_trades"]) == (by_version["v_champion"], by_version["v_challenger"])


def test_order_rates_agree_with_a_count_by_hand(built: Built) -> None:
    sent = []
    with built.databases.group(built.books[0].group) as session:
        sent = list(session.scalars(select(AuditRow.event_ts).where(AuditRow.event_type == "SEND")))
    for kind, pattern in (("second", "%F %T"), ("minute", "%F %H:%M"), ("day", "%F")):
        rows = built.rows(f"select * from compliance.ops_rate where window_kind = '{kind}' and group_id = 'one'")
        expected = Counter(at.astimezone(INDIA).strftime(pattern) for at in sent)
        assert Counter({row["window_start"].strftime(pattern): row["total"] for row in rows}) == expected
    over = built.rows("select * from compliance.ops_rate where over_limit")
    assert [(row["window_kind"], row["total"], row["breached"]) for row in over] == [("second", 11, False)]


def test_the_order_to_trade_ratio_counts_fills(built: Built) -> None:
    rows = built.rows("select * from compliance.order_to_trade_ratio where group_id = 'one'")
    assert [(row["entries"], row["trades"], row["ratio_gross"], row["slab"]) for row in rows] == [
        (51, 40, 51 / 40, "<50")
    ]


def test_a_record_belongs_to_the_indian_day_of_its_wall_time(built: Built) -> None:
    rows = built.rows("select trade_date, orders from compliance.algo_tagging where group_id = 'two' order by 1")
    day = WALL.date()
    assert [(row["trade_date"], row["orders"]) for row in rows] == [(day, 2), (day + timedelta(days=1), 2)]


def test_what_officers_see_is_masked(built: Built) -> None:
    (access,) = built.rows("select distinct user_ref, email_masked from compliance.access_log")
    assert access == {"user_ref": "a***", "email_masked": "a***@example.org"}
    refs = {row["account_ref"] for row in built.rows("select distinct account_ref from compliance.order_audit_log")}
    assert refs == {"acct_***ne_ann", "acct_***wo_bob"}
    actors = built.rows("select distinct actor from compliance.order_audit_log where event_type = 'LIMITS'")
    assert actors == [{"actor": "trader:u_***456789"}]


def test_incidents_halts_and_refusals_are_listed(built: Built) -> None:
    (incident,) = built.rows("select * from compliance.incident_log")
    assert (incident["duration_minutes"], incident["technical_glitch"]) == (7.0, True)
    rows = built.rows(
        "select action, group_id, control_id, observed, threshold, reset_by from compliance.risk_control_log order by action"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("blocked", "one", "POSITIONS_TOO_MANY", "5", "5", None),
        ("halted", "one", "halt latch", None, None, "bob"),
    ]


def test_the_projects_own_tests_notice_broken_books(built: Built) -> None:
    """Break the copies in `raw`, and the tests of the project must fail; then put everything back."""
    engine = built.databases.engine(Database.ANALYTICS)
    with engine.begin() as connection:
        connection.execute(
            text("create table public.kept as select * from raw.orders where client_order_id = 'c_ann_0_entry'")
        )
        connection.execute(text("delete from raw.orders where client_order_id = 'c_ann_0_entry'"))
        connection.execute(text("update raw.outcomes set net_pnl = net_pnl + 1 where user_id = 'bob'"))
        connection.execute(text("update raw.fills set quantity = quantity * 2 where client_order_id = 'c_ann_1_entry'"))
        connection.execute(text("update raw.audit_log set event_type = 'X' where client_order_id = 'c_ann_2_entry'"))
    try:
        singular = [path.stem for path in (PROJECT / "tests").glob("*.sql")]
        run = built.dbt("test", "--select", *singular)
    finally:
        with engine.begin() as connection:
            connection.execute(text("insert into raw.orders select * from public.kept; drop table public.kept"))
            connection.execute(text("update raw.outcomes set net_pnl = net_pnl - 1 where user_id = 'bob'"))
            connection.execute(
                text("update raw.fills set quantity = quantity / 2 where client_order_id = 'c_ann_1_entry'")
            )
            connection.execute(text("delete from raw.audit_log; delete from raw.export_watermarks"))
        from trading_platform.storage.analytics import export

        export(built.databases)
    assert {name for name, status in run.items() if status == "fail"} == {
        "every_fill_belongs_to_an_order", "daily_pnl_reconciles_with_outcomes",
        "no_order_is_filled_beyond_its_quantity", "every_sent_order_is_in_the_audit_log",
    }  # fmt: skip


def test_every_model_and_column_that_people_see_is_described(built: Built) -> None:
    undescribed = built.rows(
        "select table_schema, table_name, column_name from information_schema.columns c where table_schema in "
        "('marts', 'compliance') and col_description((table_schema || '.' || table_name)::regclass, ordinal_position) is null"
    )
    assert undescribed == []
