"""A user's books: complete pages, exact amounts, and nobody else's rows."""

from decimal import Decimal

import pytest
from sqlalchemy import delete

from tests.api.conftest import ORDERS, START, Api
from trading_platform.identifiers import GroupId
from trading_platform.storage.group import Intent, Position

OWN = ["/api/accounts", "/api/orders", "/api/fills", "/api/outcomes", "/api/positions", "/api/equity",
       "/api/subscriptions", "/api/risk-limits"]  # fmt: skip


def rows_of(answer: object) -> list[dict[str, object]]:
    if isinstance(answer, dict):
        return answer.get("items") or answer.get("history") or []
    assert isinstance(answer, list)
    return answer


@pytest.mark.parametrize("path", OWN)
async def test_no_user_sees_another_ones_rows(api: Api, path: str) -> None:
    ann = await api.log_in("ann")
    own = rows_of((await api.client.get(path, headers=ann)).json())
    assert "ben" not in str(own)
    assert "cat" not in str(own)
    for other in ("ben", "cat"):  # of another group, and of the same one
        answer = await api.client.get(path, params={"user_id": other}, headers=ann)
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
    engineer = await api.client.get(path, params={"user_id": "ann"}, headers=await api.log_in("builder"))
    assert engineer.status_code == 403


@pytest.mark.parametrize("path", [path for path in OWN if path != "/api/subscriptions"])
async def test_compliance_may_name_a_user_of_any_group(api: Api, path: str) -> None:
    officer = await api.log_in("officer")
    answer = await api.client.get(path, params={"user_id": "ben"}, headers=officer)
    assert answer.status_code == 200
    rows = rows_of(answer.json())
    assert rows
    assert "ann" not in str(rows)
    assert (await api.client.get(path, params={"user_id": "nobody"}, headers=officer)).status_code == 404


@pytest.mark.parametrize(
    ("path", "key"), [("/api/orders", "client_order_id"), ("/api/fills", "trade_id"), ("/api/outcomes", "outcome_id")]
)
async def test_pages_hold_every_row_once_newest_first(api: Api, path: str, key: str) -> None:
    ann = await api.log_in("ann")
    seen, after = [], None
    while True:
        params = {"limit": "4", **({"after": after} if after else {})}
        page = (await api.client.get(path, params=params, headers=ann)).json()
        seen += [row[key] for row in page["items"]]
        if (after := page["next"]) is None:
            break
    assert seen == [f"ann-{number:03d}" for number in reversed(range(ORDERS))]


async def test_a_cursor_of_another_list_is_refused(api: Api) -> None:
    ann = await api.log_in("ann")
    cursor = (await api.client.get("/api/fills?limit=1", headers=ann)).json()["next"]
    for bad in (cursor, "%%%", "bm9wZQ"):
        answer = await api.client.get("/api/orders", params={"after": bad}, headers=ann)
        assert answer.status_code == 422
        assert answer.json()["remedy"] == "Start again without `after`."


async def test_amounts_are_exact_decimal_strings(api: Api) -> None:
    ann = await api.log_in("ann")
    position = (await api.client.get("/api/positions", headers=ann)).json()[0]
    assert (position["quantity"], position["average_price"], position["realized_pnl"]) == ("0.01", "42000", "12.5")
    assert (await api.client.get("/api/fills", headers=ann)).json()["items"][0]["price"] == "42000.1"


async def test_a_position_names_what_was_bought_or_sold_for_it(api: Api) -> None:
    cat = await api.log_in("cat")
    with api.databases.group(GroupId("g1")) as session:
        for name, contract, quantity in (("bought", "NIFTY26JUL24000CE", 65), ("sold", "NIFTY26JUL24500CE", -65)):
            session.add(
                Intent(
                    user_id="cat", intent_id=f"i_{name}", decision_key=f"d_{name}", client_order_id=f"tp_{name}",
                    account_id="acc_cat", dataset_id="d1", strategy_id="index", version_id="v", arm=name, signal_id="s",
                    purpose="entry", symbol=f"NIFTY {name}", contract=contract, side="buy", order_type="MARKET",
                    quantity=Decimal(65), reference_price=Decimal(24_000), market_time=START, state="DONE", epoch=1,
                )
            )  # fmt: skip
            session.add(
                Position(
                    user_id="cat", account_id="acc_cat", strategy_id="index", symbol=f"NIFTY {name}",
                    quantity=Decimal(quantity), average_price=Decimal(210), entry_intent_id=f"i_{name}",
                )
            )  # fmt: skip
    rows = (await api.client.get("/api/positions", headers=cat)).json()
    held = {row["symbol"]: (row["contract"], row["quantity"]) for row in rows if row["strategy_id"] == "index"}
    assert held == {"NIFTY bought": ("NIFTY26JUL24000CE", "65"), "NIFTY sold": ("NIFTY26JUL24500CE", "-65")}
    with api.databases.group(GroupId("g1")) as session:
        for table in (Position, Intent):
            session.execute(delete(table).where(table.strategy_id == "index", table.user_id == "cat"))


async def test_the_equity_curve_is_the_newest_points_in_order_of_time(api: Api) -> None:
    ann = await api.log_in("ann")
    points = (await api.client.get("/api/equity?limit=3", headers=ann)).json()
    assert [point["equity"] for point in points] == ["10022", "10023", "10024"]
    earlier = (await api.client.get("/api/equity", params={"before": points[0]["market_time"]}, headers=ann)).json()
    assert len(earlier) == ORDERS - 3
    assert (await api.client.get("/api/equity?before=2024-01-01T00:00:00", headers=ann)).status_code == 422


async def test_signals_are_paged_by_sequence_and_filtered(api: Api) -> None:
    ann = await api.log_in("ann")
    page = (await api.client.get("/api/signals?limit=10&symbol=ETH/USDT&state=abstain", headers=ann)).json()
    assert [row["seq"] for row in page["items"]] == list(range(29, 9, -2))
    rest = (await api.client.get(f"/api/signals?symbol=ETH/USDT&after={page['next']}", headers=ann)).json()
    assert [row["seq"] for row in rest["items"]] == list(range(9, 0, -2))
    assert (await api.client.get("/api/signals?dataset_id=none", headers=ann)).json() == {"items": [], "next": None}


async def test_models_and_their_neighbours_answer(api: Api) -> None:
    ann = await api.log_in("ann")
    assert [row["version_id"] for row in (await api.client.get("/api/models", headers=ann)).json()["models"]] == ["v1"]
    assert (await api.client.get("/api/models/v1", headers=ann)).json()["kind"] == "logistic"
    assert (await api.client.get("/api/models/v2", headers=ann)).status_code == 404
    for path in ("/api/experiments", "/api/drift"):
        assert (await api.client.get(path, headers=ann)).status_code == 200
