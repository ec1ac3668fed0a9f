"""Every statement of the API is served by an index, however many rows other users have."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Select, text, true
from sqlalchemy.dialects import postgresql

from tests.api.conftest import START
from trading_platform.api import queries
from trading_platform.identifiers import DatasetId, GroupId, UserId
from trading_platform.settings import Settings
from trading_platform.storage.databases import Databases

ANN, G1, D1 = UserId("ann"), GroupId("g1"), DatasetId("d1")
KEY = [START, "x"]
GROUP: dict[str, Select[Any]] = {
    "accounts": queries.accounts(ANN),
    "account": queries.account(ANN, "a"),
    "orders": queries.orders(ANN, KEY, 100, symbol="BTC/USDT", state="FILLED"),
    "orders, first page": queries.orders(ANN, None, 100),
    "denials": queries.denials(ANN, KEY, 100),
    "denials, first page": queries.denials(ANN, None, 100),
    "fills": queries.fills(ANN, [START, "a", "b", "c"], 100, symbol="BTC/USDT"),
    "fills, first page": queries.fills(ANN, None, 100),
    "outcomes": queries.outcomes(ANN, KEY, 100, symbol="BTC/USDT"),
    "outcomes, first page": queries.outcomes(ANN, None, 100),
    "positions": queries.positions(ANN),
    "equity": queries.equity(ANN, "a", START, 100),
    "subscriptions": queries.subscriptions(ANN),
    "risk_limits": queries.risk_limits("user", ANN, "USDT", 1),
    "live_equity": queries.live_equity([ANN, UserId("cat")]),
    "live_positions": queries.live_positions([ANN, UserId("cat")]),
    "closed_trades": queries.closed_trades(ANN),
    "engine_lease": queries.engine_lease(G1),
}
CONTROL: dict[str, Select[Any]] = {
    "group_of_user": queries.group_of_user(ANN),
    "dataset_with_progress": queries.dataset_with_progress(D1),
    "signals": queries.signals(D1, 50, 100, symbol="BTC/USDT", state="ok", role="champion"),
    "signals, first page": queries.signals(D1, None, 100),
    "signals_since": queries.signals_since(D1, 5, 100),
    "models": queries.models(D1, 50, "barrier_long"),
    "model": queries.model("v1"),
    "deployments": queries.deployments(D1, 50),
    "experiments": queries.experiments(D1, 50, "barrier_long"),
    "drift": queries.drift(D1, 9, 50),
    "halts": queries.halts(100, true(), active=True),
    "halt": queries.halt(1),
    "alerts": queries.alerts(100, 9, is_open=True, about_user=ANN),
}
FEW_ROWS = {"breakers", "group_ids", "latest_dataset", "market_progress", "services", "leases"}
"""Read as a whole: a row a group, a dataset or a process."""
OPEN_ROWS_ONLY = {"uq_halts_active", "uq_alerts_open"}
"""Partial indexes: reading one from end to end reads what is open now, not the history."""
NOT_STATEMENTS = {"encoded", "decoded", "halts_of"}


@pytest.fixture(scope="module")
def databases(deployment: Settings) -> Iterator[Databases]:
    found = Databases(deployment)
    yield found
    found.close()


def test_no_statement_is_left_out() -> None:
    public = {
        name for name, found in vars(queries).items()
        if inspect.isfunction(found) and found.__module__ == queries.__name__ and not name.startswith("_")
    }  # fmt: skip
    tested = {name.partition(",")[0] for name in (*GROUP, *CONTROL)}
    assert public == tested | FEW_ROWS | NOT_STATEMENTS


@pytest.mark.parametrize("name", GROUP)
def test_statements_on_a_group_use_an_index(databases: Databases, name: str) -> None:
    _, schema = databases.group_address(G1)
    require_index(databases, GROUP[name], schema)


@pytest.mark.parametrize("name", CONTROL)
def test_statements_on_the_control_database_use_an_index(databases: Databases, name: str) -> None:
    require_index(databases, CONTROL[name], None)


def require_index(databases: Databases, statement: Select[Any], schema: str | None) -> None:
    """With sequential scans priced out, one that remains means that no index can serve the statement."""
    engine = databases.engine() if schema is None else databases.group_engine(G1)
    compiled = statement.compile(
        dialect=postgresql.dialect(), schema_translate_map={"GROUP": schema} if schema else None,
        compile_kwargs={"literal_binds": True, "render_schema_translate": True},
    )  # fmt: skip
    with engine.connect() as connection:
        connection.execute(text("set local enable_seqscan = off"))
        connection.execute(text("set local enable_bitmapscan = off"))
        sql = str(compiled).replace(":", r"\:").replace("%%", "%")
        plan = connection.execute(text(f"explain (format json) {sql}")).scalar_one()[0]["Plan"]
    bad = [node for node, limited in nodes(plan, limited=False) if not served(node, limited)]
    assert not bad, f"{[(node['Node Type'], node.get('Relation Name')) for node in bad]} in {plan}"


def nodes(plan: dict[str, Any], *, limited: bool) -> Iterator[tuple[dict[str, Any], bool]]:
    """Every node, and whether a Limit above it can stop it early (a Sort in between would read everything first)."""
    yield plan, limited
    below = plan["Node Type"] == "Limit" or (limited and plan["Node Type"] not in ("Sort", "Aggregate"))
    for child in plan.get("Plans", ()):
        yield from nodes(child, limited=below)


def served(node: dict[str, Any], limited: bool) -> bool:
    """An index scan that is told where to look, one read in order until the limit, or one over the open rows alone."""
    if "Scan" not in node["Node Type"] or node["Node Type"] in ("Subquery Scan", "CTE Scan"):
        return True
    return "Index" in node["Node Type"] and ("Index Cond" in node or limited or node["Index Name"] in OPEN_ROWS_ONLY)
