"""The parity report: its arithmetic, its causes, and a real paper run beside the backtest of the same bars and signals."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select

from assets.parity import parity_report
from assets.platform import Platform
from tests.execution.test_engine import GROUP, TOKEN, Deployment, deployment, settled  # noqa: F401 - a fixture
from trading_platform.backtest.parity import Expected, Traded, compare, counts
from trading_platform.backtest.parity_books import reports
from trading_platform.market_data.lake import Lake
from trading_platform.storage.group import Intent, Order, Outcome

D = Decimal
NOON = datetime(2026, 8, 3, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=3)
RATE = D("0.001")
TWIN = Expected("BTC/USDT", NOON, D(100), LATER, D(110), "target")


def traded(**changes: Any) -> Traded:
    """The twin of `TWIN`: 2 bought at 100 and sold at 110, .42 of charges."""
    values: dict[str, Any] = {
        "symbol": "BTC/USDT", "decided_at": NOON, "meant": D(2), "filled": D(2), "entry_price": D(100),
        "exit_decided_at": LATER, "exit_price": D(110), "reason": "target", "net": D("19.58"), "costs": D("0.42"),
    }  # fmt: skip
    return Traded(**(values | changes))


def causes(*trades: Traded, expected: tuple[Expected, ...] = (TWIN,)) -> list[tuple[str, Decimal | None]]:
    return [(d.cause, d.money) for d in compare(trades, expected, RATE, [TWIN]).differences]


def test_equal_trades_do_not_differ() -> None:
    parity = compare([traded()], [TWIN], RATE)
    assert parity.differences == []
    assert (parity.agreeing, parity.pairs[0].expected_net) == (1, D("19.58"))


def test_each_cause_with_what_it_cost() -> None:
    """By hand: a cent worse on 2 is .02; one of two filled forgoes 10; the same trade two hours later at 105 is 10 less."""
    slipped = traded(entry_price=D("100.01"), exit_price=D("109.99"), net=D("19.54"))
    assert causes(slipped) == [("entry_price", D("-0.02")), ("exit_price", D("-0.02"))]
    part = traded(filled=D(1), net=D("9.79"), costs=D("0.21"))
    assert causes(part) == [("charges", D("0.21")), ("partial", D(-10))]
    late = traded(exit_decided_at=LATER + timedelta(hours=2), exit_price=D(105), net=D("9.58"), reason="time")
    assert causes(late) == [("exit_reason", None), ("exit_time", D(-10))]
    assert causes(traded(costs=D("0.5"), net=D("19.5"))) == [("charges", D("-0.08"))]


def test_entries_that_were_not_made() -> None:
    denied = Traded("BTC/USDT", NOON, D(2), D(0), None, denial="RATE_DAY: orders=500 limit=500", state="DENIED")
    assert causes(denied, expected=()) == [("denied", D("-19.58"))]
    rejected = Traded("BTC/USDT", NOON, D(2), D(0), None, state="REJECTED")
    assert causes(rejected, expected=()) == [("unfilled", D("-19.58"))]
    assert causes() == [("missed", None)]
    assert causes(traded(), expected=()) == [("unexpected", D("19.58"))]
    still = Expected("BTC/USDT", NOON, D(100), None, None, None)
    assert causes(traded(), expected=(still,)) == [("still_open", None)]
    both_open = traded(exit_decided_at=None, exit_price=None, reason=None, net=None, costs=None)
    assert causes(both_open, expected=(still,)) == []


prices = st.decimals("1", "1000", places=2)


@given(prices, prices, prices, prices, st.decimals("0.01", "10", places=3), st.decimals("0", "1", places=2),
       st.decimals("0", "5", places=3), st.booleans())  # fmt: skip
def test_causes_add_up_to_the_difference(
    entry: Decimal,
    left: Decimal,
    bought: Decimal,
    sold: Decimal,
    meant: Decimal,
    part: Decimal,
    costs: Decimal,
    on_time: bool,
) -> None:
    """Nothing is lost between the causes: together they are paper's net less the backtest's, to the last digit."""
    filled = meant * part
    if not filled:
        return
    net = (sold - bought) * filled - costs
    trade = traded(
        meant=meant, filled=filled, entry_price=bought, exit_price=sold, costs=costs, net=net,
        exit_decided_at=LATER if on_time else LATER + timedelta(hours=1),
    )  # fmt: skip
    parity = compare([trade], [Expected("BTC/USDT", NOON, entry, LATER, left, "target")], RATE)
    assert sum((d.money or D(0) for d in parity.differences), D(0)) == net - parity.pairs[0].expected_net


@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore")
def test_a_paper_run_and_its_backtest_decide_alike(
    deployment: Deployment,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A real engine against a real sandbox; the report pairs every trade, and prices and charges are all that differs."""
    deployment.start_engine()
    httpx.post(
        f"{deployment.settings.sandbox_url}/sandbox/replay/start",
        json={"participants": ["engine-g1"], "speed": "max"}, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10,
    ).raise_for_status()  # fmt: skip
    for number, (market_time, bars) in enumerate(deployment.tail[:60]):
        deployment.wait_for(lambda n=number: deployment.status().get("steps_done", 0) > n, f"step {number}", 30)
        deployment.signal(market_time, bars, number)
    deployment.wait_for(lambda: settled(deployment), "the last orders", 60)
    lake = Lake(deployment.settings.lake_dir)

    (run,) = reports(deployment.databases, lake, GROUP, deployment.dataset)
    with deployment.databases.group(GROUP) as session:
        # The market goes on: a stop may go off in the bar after the last one that was scored.
        outcomes = session.scalars(select(Outcome).where(Outcome.exit_time <= market_time + timedelta(minutes=1))).all()
        assert len(run.parity.pairs) == len(outcomes) >= 8
        assert {pair.traded.net for pair in run.parity.pairs} == {outcome.net_pnl for outcome in outcomes}
    assert run.parity.agreeing == len(run.parity.pairs)
    found = counts(run.parity.differences)
    assert {cause for cause, number in found.items() if number} <= {"entry_price", "exit_price", "charges"}
    for pair in run.parity.pairs:  # the sandbox's half spread is .5 to 1.5 basis points, its book a few ticks deep
        assert pair.traded.entry_price is not None
        slippage = pair.traded.entry_price / pair.expected.entry_price - 1
        assert 0 < slippage < D("0.002")

    gone = run.parity.pairs[2].traded
    _forget(deployment, gone.decided_at, gone.symbol)
    (again,) = reports(deployment.databases, lake, GROUP, deployment.dataset)
    assert [(d.symbol, d.decided_at) for d in again.parity.others if d.cause == "missed"] == [
        (gone.symbol, gone.decided_at)
    ]

    url = deployment.settings.database_url
    assert url is not None
    monkeypatch.setenv("TP_DATABASE_URL", url.get_secret_value())
    platform = Platform(home_dir=str(deployment.settings.home_dir))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("user_group", [GROUP])
        result = dg.materialize(
            [parity_report], partition_key=GROUP, resources={"platform": platform}, instance=instance, raise_on_error=True,
            selection=[parity_report],
        )  # fmt: skip
    metadata = result.asset_materializations_for_node("parity_report")[0].metadata
    assert metadata["trades_in_both"].value == len(outcomes) - 1
    assert "data:image/png" in str(metadata["money_by_cause"].value)
    assert "missed" in str(metadata["differences"].value)


def _forget(deployment: Deployment, decided_at: datetime, symbol: str) -> None:  # noqa: F811
    """As if no engine had run at that moment."""
    with deployment.databases.group(GROUP) as session:
        entry = session.scalars(
            select(Intent).where(Intent.market_time == decided_at, Intent.symbol == symbol, Intent.purpose == "entry")
        ).one()
        session.execute(delete(Order).where(Order.intent_id == entry.intent_id))
        session.delete(entry)
