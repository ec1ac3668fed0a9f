"""Subscriptions and risk limits: who may change what, with history and audit."""

import asyncio
from importlib.metadata import entry_points

from sqlalchemy import delete, select

from tests.api.conftest import Api
from trading_platform.identifiers import GroupId
from trading_platform.storage.control import StrategyConfig
from trading_platform.storage.group import Account, AuditRow
from trading_platform.strategies.definition import configure

HALF = {"capital_fraction": "0.5"}


def audited(api: Api, group: str, event_type: str, user: str) -> list[AuditRow]:
    with api.databases.group(GroupId(group)) as session:
        wanted = select(AuditRow).where(AuditRow.event_type == event_type, AuditRow.user_id == user)
        return list(session.scalars(wanted.order_by(AuditRow.seq)))


async def test_only_the_owner_says_what_trades_an_account(api: Api) -> None:
    cat, root = await api.log_in("cat"), await api.log_in("root")
    path = "/api/subscriptions/acc_cat/barrier_long"
    answer = await api.client.put(path, json=HALF, headers=cat)
    assert (answer.status_code, answer.json()["capital_fraction"]) == (200, "0.5")
    assert (await api.client.put(path, json={**HALF, "enabled": False}, headers=cat)).json()["enabled"] is False
    assert (await api.client.put(path, json=HALF, headers=root)).status_code == 404
    assert (await api.client.put("/api/subscriptions/acc_ann/barrier_long", json=HALF, headers=cat)).status_code == 404
    assert (await api.client.put("/api/subscriptions/acc_cat/no_such", json=HALF, headers=cat)).status_code == 404
    assert [row.detail["enabled"] for row in audited(api, "g1", "SUBSCRIPTION", "cat")] == [True, False]


async def test_a_share_beyond_the_whole_is_refused(api: Api) -> None:
    cat = await api.log_in("cat")
    for fraction in ("0", "1.01", "-1", "nan", "x"):
        body = {"capital_fraction": fraction}
        answer = await api.client.put("/api/subscriptions/acc_cat/barrier_long", json=body, headers=cat)
        assert answer.status_code == 422
        assert "capital_fraction" in answer.json()["detail"]


async def test_strategies_are_told_as_they_are_configured_now(api: Api) -> None:
    ann = await api.log_in("ann")
    before = {row["strategy_id"]: row for row in (await api.client.get("/api/strategies", headers=ann)).json()}
    assert set(before) == {point.name for point in entry_points(group="trading_platform.strategies")}
    assert (before["index_futures_long"]["capital_fraction"], before["delivery_long"]["capital_fraction"]) == (
        "0.3",
        "0.05",
    )
    with api.databases.control() as session:
        configure(session, "delivery_long", {"capital_fraction": "0.07"}, "test")
    after = {row["strategy_id"]: row for row in (await api.client.get("/api/strategies", headers=ann)).json()}
    assert after == before | {"delivery_long": before["delivery_long"] | {"capital_fraction": "0.07"}}
    with api.databases.control() as session:
        session.execute(delete(StrategyConfig).where(StrategyConfig.strategy_id == "delivery_long"))


async def test_a_hedge_is_asked_for_with_the_subscription_and_lies_below_the_market(api: Api) -> None:
    cat, path = await api.log_in("cat"), "/api/subscriptions/acc_cat/index_futures_long"
    for away in ("0", "1", "-0.1", "x"):
        assert (await api.client.put(path, json={**HALF, "hedge_away": away}, headers=cat)).status_code == 422
    answer = await api.client.put(path, json={**HALF, "hedge_away": "0.03"}, headers=cat)
    assert (answer.status_code, answer.json()["hedge_away"]) == (200, "0.03")
    assert (await api.client.put(path, json=HALF, headers=cat)).json()["hedge_away"] is None


async def test_nothing_overnight_is_for_markets_that_close(api: Api) -> None:
    cat, path = await api.log_in("cat"), "/api/subscriptions/{}/index_futures_long"
    refused = await api.client.put(path.format("acc_cat"), json={**HALF, "overnight": False}, headers=cat)
    assert (refused.status_code, refused.json()["title"]) == (422, "This market never closes")
    assert "is at binance: there is no session's end" in refused.json()["detail"]
    with api.databases.group(GroupId("g1")) as session:
        session.add(Account(user_id="cat", account_id="kite_cat", venue="zerodha", kind="live", currency="INR"))
    for overnight in (False, True):
        answer = await api.client.put(path.format("kite_cat"), json={**HALF, "overnight": overnight}, headers=cat)
        assert (answer.status_code, answer.json()["overnight"]) == (200, overnight)
    assert [row.detail["overnight"] for row in audited(api, "g1", "SUBSCRIPTION", "cat")][-2:] == [False, True]


async def test_a_spread_is_asked_for_with_the_subscription_and_excludes_a_hedge(api: Api) -> None:
    cat, path = await api.log_in("cat"), "/api/subscriptions/acc_cat/index_futures_long"
    for away in ("0", "1", "-0.1", "x"):
        assert (await api.client.put(path, json={**HALF, "spread_away": away}, headers=cat)).status_code == 422
    both = await api.client.put(path, json={**HALF, "spread_away": "0.02", "hedge_away": "0.03"}, headers=cat)
    assert both.status_code == 422
    assert "hedge_away and spread_away exclude each other" in both.json()["detail"]
    answer = await api.client.put(path, json={**HALF, "spread_away": "0.02"}, headers=cat)
    assert (answer.status_code, answer.json()["spread_away"], answer.json()["hedge_away"]) == (200, "0.02", None)
    assert (await api.client.put(path, json=HALF, headers=cat)).json()["spread_away"] is None


async def test_real_money_on_uncertified_signals_takes_the_words(api: Api) -> None:
    cat = await api.log_in("cat")
    path, wish = "/api/subscriptions/live_cat/barrier_long", {**HALF, "allow_uncertified": True}
    refused = await api.client.put(path, json=wish, headers=cat)
    assert refused.status_code == 422
    accounts = {row["account_id"]: row for row in (await api.client.get("/api/accounts", headers=cat)).json()}
    assert accounts["acc_cat"]["uncertified_confirmation"] is None
    words = accounts["live_cat"]["uncertified_confirmation"]
    assert words in refused.json()["expected"]
    assert (await api.client.put(path, json={**wish, "confirmation": "yes"}, headers=cat)).status_code == 422
    accepted = await api.client.put(path, json={**wish, "confirmation": words}, headers=cat)
    assert accepted.json()["allow_uncertified"] is True


async def test_traders_lower_limits_and_only_an_admin_raises_them(api: Api) -> None:
    ben, root, officer = [await api.log_in(name) for name in ("ben", "root", "officer")]
    path = "/api/risk-limits"
    limits = (await api.client.get(path, headers=ben)).json()["in_force"]
    lower = {**limits, "max_open_positions": 1, "max_daily_loss": "99.5"}
    changed = await api.client.put(path, json=lower, headers=ben)
    assert (changed.status_code, changed.json()["revision"], changed.json()["max_daily_loss"]) == (200, 2, "99.5")
    higher = {**lower, "revision": 2, "max_daily_loss": "99.51"}
    refused = await api.client.put(path, json=higher, headers=ben)
    assert (refused.status_code, refused.json()["detail"]) == (403, "raised: max_daily_loss")
    assert (await api.client.put(f"{path}?user_id=ben", json=higher, headers=officer)).status_code == 403
    assert (await api.client.put(f"{path}?user_id=ann", json=higher, headers=ben)).status_code == 403
    raised = await api.client.put(f"{path}?user_id=ben", json=higher, headers=root)
    assert (raised.status_code, raised.json()["changed_by"]) == (200, "root")
    history = (await api.client.get(path, headers=ben)).json()["history"]
    assert [(row["revision"], row["changed_by"]) for row in history] == [(3, "root"), (2, "ben"), (1, "test")]
    entries = audited(api, "g2", "LIMITS", "ben")
    assert [entry.actor for entry in entries] == ["trader:ben", "admin:root"]
    assert entries[0].detail["before"]["max_open_positions"] == 10


async def test_two_changes_from_the_same_revision_do_not_both_win(api: Api) -> None:
    ann = await api.log_in("ann")
    limits = (await api.client.get("/api/risk-limits", headers=ann)).json()["in_force"]
    bodies = [{**limits, "max_orders_per_day": number} for number in (11, 12, 13)]
    answers = await asyncio.gather(*(api.client.put("/api/risk-limits", json=body, headers=ann) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]


async def test_limits_hold_for_one_currency_and_a_strategys_and_groups_are_for_admins(api: Api) -> None:
    cat, root = await api.log_in("cat"), await api.log_in("root")
    path = "/api/risk-limits"
    rupees = (await api.client.get(f"{path}?currency=INR", headers=cat)).json()["in_force"]
    assert (await api.client.get(f"{path}?currency=EUR", headers=cat)).json()["in_force"] is None
    lower = {**rupees, "max_daily_loss": "7", "max_drawdown": "0.1"}
    assert (await api.client.put(f"{path}?currency=INR", json=lower, headers=cat)).status_code == 200
    dollars = (await api.client.get(f"{path}?currency=USDT", headers=cat)).json()["in_force"]
    assert (dollars["revision"], dollars["max_daily_loss"], dollars["max_drawdown"]) == (1, "10000", None)
    loose = {**lower, "revision": 2, "max_drawdown": None}
    refused = await api.client.put(f"{path}?currency=INR", json=loose, headers=cat)
    assert (refused.status_code, refused.json()["detail"]) == (403, "raised: max_drawdown")
    group = {**rupees, "revision": 0}
    assert (await api.client.put(f"{path}?scope=group&currency=INR", json=group, headers=cat)).status_code == 403
    made = await api.client.put(f"{path}?scope=group&currency=INR&user_id=cat", json=group, headers=root)
    assert (made.status_code, made.json()["scope"], made.json()["revision"]) == (200, "group", 1)
    unknown = await api.client.put(f"{path}?scope=strategy&scope_id=none&currency=INR", json=group, headers=root)
    assert unknown.status_code == 404
