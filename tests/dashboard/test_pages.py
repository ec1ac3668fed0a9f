"""Every page, as people see it: with work going on, in the first minute, and when something behind it is away."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import altair
import httpx
import pytest
from sqlalchemy import select

from tests.dashboard.conftest import PAGES, Enter, Platform, forget
from tests.dashboard.seeding import HELD
from trading_platform.execution.denial_codes import ABOUT, Denial, said
from trading_platform.identifiers import GroupId
from trading_platform.stack.servers import free_port
from trading_platform.storage.control import Halt
from trading_platform.storage.group import Account, EquityPoint, Intent, Order, Outcome, Subscription

pytestmark = pytest.mark.xdist_group("dashboard")
SYNTHETIC = "Synthetic data."
NOTHING = "No market data has been collected yet"
MOST_CALLS = 7


def shown(banners: list[object], words: str) -> bool:
    return any(words in str(banner.value) for banner in banners)  # type: ignore[attr-defined]


def test_every_page_is_drawn_and_says_that_its_data_are_synthetic(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ann")
    for page in PAGES:
        browser.open(page)
        assert browser.title, page
        assert shown(list(browser.at.warning), SYNTHETIC), page
        assert bool(browser.specifications()) is (page not in ("orders", "risk", "health")), page
        for specification in browser.specifications():
            chart = json.loads(specification) | {"data": {"values": []}}
            altair.Chart.from_dict(chart)  # raises where Vega-Lite's schema is broken


def test_in_the_first_minute_every_page_says_what_is_still_to_come(starting: Platform, enter: Enter) -> None:
    browser = enter(starting, "u_ann")
    for page in PAGES:
        browser.open(page)
        assert browser.title, page
        assert shown(list(browser.at.info), NOTHING), page
        assert not browser.at.error, page
        told = browser.text.replace(NOTHING, "")
        assert any(word in told for word in ("yet", "so far")), page
        assert not browser.specifications(), page


def test_overview_shows_what_the_books_say(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ann")
    now = working.works[-1]
    with working.databases.group(GroupId("g1")) as session:
        mine = (Outcome.user_id == "u_ann", Outcome.dataset_id == now.dataset_id)
        trades = session.scalars(select(Outcome).where(*mine)).all()
        last = session.scalars(
            select(EquityPoint.equity).where(EquityPoint.user_id == "u_ann", EquityPoint.account_id == trades[0].account_id)
            .order_by(EquityPoint.market_time.desc()).limit(1)
        ).one()  # fmt: skip
    assert f"{last:,.2f} USDT now" in browser.text
    metrics = {metric.label: metric.value for metric in browser.at.metric}
    assert metrics["Net result (USDT)"] == f"{sum(trade.net_pnl for trade in trades):+,.2f}"
    assert metrics["Trades"] == str(len(trades))
    assert metrics["In profit after costs"] == f"{sum(trade.success for trade in trades) / len(trades):.1%}"
    positions = browser.table("symbol", "unrealized")
    assert list(positions["symbol"]) == [HELD]
    assert positions["value"].iloc[0] == pytest.approx(18934.1 * now.closes[HELD][-1], rel=1e-5)


@pytest.mark.parametrize(("user_id", "group"), [("u_ann", "g1"), ("u_ben", "g2")])
def test_a_trader_sees_own_orders_and_those_of_the_chosen_data_only(
    user_id: str, group: str, working: Platform, enter: Enter
) -> None:
    browser = enter(working, user_id).open("orders")
    browser.select("Newest").set_value(500)
    rows = browser.look().table("client_order_id", "status")
    with working.databases.group(GroupId(group)) as session:
        own = session.execute(select(Order.client_order_id, Order.account_id).where(Order.user_id == user_id)).all()
    account = working.ask(user_id, "/api/accounts")
    current = {row["account_id"] for row in account if row["dataset_id"] == working.works[-1].dataset_id}
    assert set(rows["client_order_id"]) == {row.client_order_id for row in own if row.account_id in current}
    assert len(rows) < len(own)


def test_what_risk_kept_back_is_said_with_its_meaning(working: Platform, enter: Enter) -> None:
    dataset, denial = working.works[-1].dataset_id, said(Denial.RATE_DAY, scope="user", orders=51, limit=50)
    with working.databases.group(GroupId("g1")) as session:
        session.merge(
            Intent(
                user_id="u_ann", intent_id="i_late", decision_key="d_late", client_order_id="tp_late", account_id="a",
                dataset_id=dataset, strategy_id="barrier_long", version_id="v", arm="champion", signal_id="s",
                purpose="entry", symbol=HELD, contract=HELD, side="buy", order_type="MARKET", quantity=Decimal(2),
                reference_price=Decimal(10), market_time=datetime(2026, 1, 2, tzinfo=UTC), epoch=1, state="DENIED",
                denial=denial,
            )
        )  # fmt: skip
    for user_id, kept_back in (("u_ann", 1), ("u_ben", 0)):
        browser = enter(working, user_id).open("orders")
        (kinds,) = browser.at.get("button_group")
        kinds.set_value("Kept back")
        browser.look()
        assert ("Nothing was kept back." in browser.text) is (kept_back == 0)
        if kept_back:
            (row,) = browser.table("code", "meaning").to_dict("records")
            assert (row["code"], row["figures"]) == ("RATE_DAY", "scope=user orders=51 limit=50")
            assert (row["meaning"], row["remedy"]) == (ABOUT[Denial.RATE_DAY].meaning, ABOUT[Denial.RATE_DAY].remedy)


def test_how_books_and_venues_compare_is_shown_by_engine(working: Platform, enter: Enter) -> None:
    rows = enter(working, "u_cora").open("health").table("books", "which").set_index("who")
    assert {name: row["books"] for name, row in rows.iterrows()} == {"Engine g1": ["Match"], "Engine g2": ["Differ"]}
    assert rows.loc["Engine g2", "which"] == "a: 2 BTC held by the books, 1 at the venue"
    assert set(rows["foreign_orders"]) == {3}
    assert [rows.loc[f"Engine {group}", "bans"] for group in ("g1", "g2")] == ["SAIL", "–"]


def test_staff_choose_whose_books_they_look_at_and_traders_cannot(working: Platform, enter: Enter) -> None:
    officer = enter(working, "u_cora").open("orders")
    whose = officer.select("Books of")
    assert whose.options[:2] == ["Ann Archer", "Ben Baker"]
    whose.set_value("u_ben")
    rows = officer.look().table("client_order_id", "status")
    orders = working.ask("u_ben", "/api/orders", limit=500)["items"]
    assert set(rows["client_order_id"]) <= {order["client_order_id"] for order in orders}
    trader = enter(working, "u_ann")
    assert all(box.label != "Books of" for box in trader.at.selectbox)


def test_earlier_data_can_be_chosen_and_are_marked_as_such(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ann").open("orders")
    box = browser.select("Data")
    assert box.options == ["Synthetic market, seed 7 (1 h bars)", "binance_1h (Binance, 1 h bars)"]
    box.set_value(working.works[0].dataset_id)
    browser.look()
    assert shown(list(browser.at.info), "Replayed history.")
    assert shown(list(browser.at.info), "records of earlier data")
    assert not shown(list(browser.at.warning), SYNTHETIC)


def test_signals_are_filtered_and_their_reliability_is_drawn(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ben").open("signals")
    assert shown(list(browser.at.warning), "Uncertified.")
    (reliability,) = browser.specifications()
    assert "Confidence promised" in reliability
    for label, value in (("State", "ok"), ("Instrument", "ETH/USDT"), ("Model", "champion")):
        browser.select(label).set_value(value)
    rows = browser.look().table("symbol", "says")
    assert set(rows["says"]) == {"Long"}
    assert set(rows["symbol"]) == {"ETH/USDT"}
    assert all(name.startswith("Champion, LightGBM ") for name in rows["model"])
    assert (rows["confidence"] >= rows["threshold"]).all()
    assert rows["evidence"].str.fullmatch(r"\d+% of 900").all()
    assert shown(list(browser.at.warning), "of 212 signals that it published")


def test_drift_is_said_by_market_condition(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ben").open("drift")
    assert "While the trend is up the market no longer does what the model learnt." in browser.text
    assert "1 of 2 questions about single conditions" in browser.text


def test_the_kill_switch_stops_and_only_the_typed_words_let_go(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ann")
    browser.field("Reason").input("prices look wrong")
    browser.button("Stop trading").click()
    browser.look()
    assert shown(list(browser.at.error), "prices look wrong")
    with working.databases.control() as session:
        halt = session.scalars(select(Halt).where(Halt.cleared_at.is_(None))).one()
    assert (halt.scope, halt.scope_id, halt.set_by) == ("user", "u_ann", "u_ann")
    assert not shown(enter(working, "u_ben").banners, "prices look wrong"), "another trader's halt"

    browser = enter(working, "u_ann").open("drift")
    browser.field("Why").input("checked them")
    browser.field("Type").input("resume")
    browser.button("Let trading go on").click()
    browser.look()
    assert shown(list(browser.at.error), "Confirmation does not match")
    browser.field("Why").input("checked them")
    browser.field("Type").input("clear user u_ann")
    browser.button("Let trading go on").click()
    browser.look()
    assert not browser.at.error or not shown(list(browser.at.error), "prices look wrong")


def test_an_account_is_connected_and_only_the_typed_words_arm_it(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ann")
    browser.open("accounts")
    at = browser.at
    for label, value in (("API key", "a_kite_key"), ("API secret", "a_kite_secret")):
        next(each for each in at.text_input if each.label == label).set_value(value)
    next(each for each in at.button if each.label == "Connect").click().run()
    browser.look()
    with working.databases.group(GroupId("g1")) as session:
        live = session.scalars(select(Account).where(Account.user_id == "u_ann", Account.kind == "live")).one()
        account_id = live.account_id
    assert "a_kite_secret" not in browser.text
    assert "Not logged in" in browser.text
    typed = next(each for each in at.text_input if "To trade real money" in each.label)
    typed.set_value("yes")
    next(each for each in at.button if each.label == "Arm").click().run()
    assert any("Confirmation does not match" in str(each.value) for each in at.error)
    next(each for each in at.text_input if "To trade real money" in each.label).set_value(f"arm {account_id}")
    next(each for each in at.button if each.label == "Arm").click().run()
    browser.look()
    assert any("Armed for real money" in str(each.value) for each in at.error)
    next(each for each in at.button if each.label == "Disarm").click().run()
    browser.look()
    with working.databases.group(GroupId("g1")) as session:
        row = session.get_one(Account, ("u_ann", account_id))
        assert row.armed_at is None
        row.closed_at = datetime.now(UTC)


def test_an_owner_says_which_strategy_trades_an_account_and_how(working: Platform, enter: Enter) -> None:
    with working.databases.group(GroupId("g1")) as session:
        session.add(
            Account(user_id="u_ann", account_id="kite_ann", venue="zerodha", kind="live", currency="INR")
        )  # fmt: skip
    browser = enter(working, "u_ann").open("accounts")

    def of(kind: str, label: str) -> Any:
        """The last of that label: accounts at Binance come without what is asked of indices."""
        found = [each for each in getattr(browser.at, kind) if label in each.label]
        return next((each for each in found if "kite_ann" in str(each.key or "")), found[0])

    of("selectbox", "Strategy").set_value("index_futures_long").run()
    assert "The index by its nearest future" in browser.text
    of("selectbox", "An index is entered by").set_value("A bull call spread")
    of("number_input", "How far the option").set_value(2.5)
    of("checkbox", "Hold positions overnight").set_value(False)
    forms = [each for each in browser.at.button if each.label == "Save"]
    forms[0].click().run()
    browser.look()
    with working.databases.group(GroupId("g1")) as session:
        row = session.get_one(Subscription, ("u_ann", "kite_ann", "index_futures_long"))
        kept = (row.spread_away, row.hedge_away, row.overnight, row.capital_fraction, row.allow_uncertified)
    assert kept == (Decimal("0.025"), None, False, Decimal("0.3"), False)
    (shown_terms,) = [
        row for row in browser.table("strategy", "how").to_dict("records") if row["strategy"] == "Index futures long"
    ]
    assert (shown_terms["state"], shown_terms["how"]) == (
        ["Trades"], "indices by a call spread 2.5% wide, nothing overnight",
    )  # fmt: skip
    of("checkbox", "Also on signals that are not certified").set_value(True)
    next(each for each in browser.at.button if each.label == "Save").click().run()
    assert any("Confirmation missing" in str(each.value) for each in browser.at.error)
    officer = enter(working, "u_cora").open("accounts")
    assert not [each for each in officer.at.button if each.label == "Save"], "only the owner says"
    with working.databases.group(GroupId("g1")) as session:
        session.delete(session.get_one(Subscription, ("u_ann", "kite_ann", "index_futures_long")))
        session.get_one(Account, ("u_ann", "kite_ann")).closed_at = datetime.now(UTC)


def test_an_alert_is_taken_by_whoever_says_so(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_dan").open("health")
    browser.button("I take it").click()
    assert "u_dan looks after it" in "\n".join(str(banner.value) for banner in browser.look().banners)
    services = browser.table("who", "alive")
    assert {"Engine g1", "Sandbox", "Scorer, Synthetic market, seed 7 (1 h bars)"} <= set(services["who"])
    assert ["Alive"] in [list(value) for value in services["alive"]]


def test_records_are_for_staff(working: Platform, enter: Enter) -> None:
    with pytest.raises(ValueError, match="page"):
        enter(working, "u_ann").open("compliance")
    officer = enter(working, "u_cora").open("compliance")
    chains = officer.table("group_id", "seq")
    assert list(chains["group_id"]) == ["g1", "g2"]
    assert (chains["seq"] > 0).all()


Break = Callable[[Platform, pytest.MonkeyPatch], None]


def without_api(_: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TP_API_URL", f"http://127.0.0.1:{free_port()}")


def without_database(_: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TP_DATABASE_URL", f"postgresql://nobody:nothing@127.0.0.1:{free_port()}/gone")


@pytest.mark.parametrize(
    ("broken", "words"), [(without_api, "The API does not answer"), (without_database, "The database does not answer")]
)
def test_what_is_away_is_said_once_and_clearly(
    broken: Break, words: str, working: Platform, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = enter(working, "u_ann")
    broken(working, monkeypatch)
    forget()
    browser.look()
    assert [words in error.value for error in browser.at.error] == [True]
    assert not browser.title


def test_without_a_session_there_is_nothing_but_the_way_to_log_in(working: Platform, enter: Enter) -> None:
    browser = enter(working, None)
    assert shown(list(browser.at.error), "not logged in")
    assert not browser.title
    assert not browser.at.dataframe


def test_a_session_that_was_ended_shows_nothing_more(working: Platform, enter: Enter) -> None:
    working.tokens["u_eve"] = working.log_in("u_eve")
    browser = enter(working, "u_eve")
    assert browser.title == "Overview"
    headers = {"Authorization": f"Bearer {working.tokens.pop('u_eve')}"}
    httpx.delete(f"{working.api_url}/api/session", headers=headers).raise_for_status()
    browser.at.run()  # nothing is forgotten here: what was kept must not be shown either
    assert shown(list(browser.at.error), "not logged in")
    assert not browser.title


def test_a_page_that_was_never_asked_for_costs_a_few_calls(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ann")
    for page in PAGES:
        before = _requests(working)
        browser.open(page)
        assert _requests(working) - before <= MOST_CALLS + 1, page  # one is that of the count itself


def test_drawing_a_page_again_costs_one_call(working: Platform, enter: Enter) -> None:
    browser = enter(working, "u_ann").open("models")
    before = _requests(working)
    browser.at.run()
    assert _requests(working) - before <= 2


def _requests(platform: Platform) -> int:
    lines = httpx.get(f"{platform.api_url}/metrics").text.splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("tp_api_requests_total")))
