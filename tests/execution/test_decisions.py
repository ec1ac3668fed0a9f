"""What an account decides on a step's signals: exits first, sizes, and what catching up may not do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from trading_platform.execution.decisions import Situation, decide, flatten
from trading_platform.execution.limits import LimitBook, Limits
from trading_platform.execution.portfolio import Holding, Portfolio, Stake
from trading_platform.identifiers import AccountId, GroupId, StrategyId, Symbol, UserId, Venue
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.control import Signal
from trading_platform.venues.binance import BinanceVenue

D = Decimal
NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
STRATEGY = StrategyId("barrier_long")
VENUE = BinanceVenue("http://127.0.0.1:9", "key", "secret")  # only asked what it trades a symbol as
SYMBOLS = ("BTC/USDT", "ETH/USDT", "XRP/USDT")
SITUATION = Situation(
    instruments={
        Symbol(name): Instrument(
            Venue("binance"), Symbol(name), name[:3], "USDT", D("0.01"), D("0.001"), D(10)
        )
        for name in SYMBOLS
    },
    flattening=False,
    seconds=lambda market_time: market_time.timestamp(),
    halted=lambda portfolio: None,
)  # fmt: skip


def portfolio(**changes: Any) -> Portfolio:
    values: dict[str, Any] = {
        "user_id": UserId("alice"), "account_id": AccountId("paper_1"), "kind": "sandbox", "armed": False,
        "currency": "USDT", "venue": VENUE, "limits": Limits(D(50_000), D(50_000), 8, 10, 500, D(5_000)),
        "stakes": {STRATEGY: Stake(STRATEGY, D("0.1"), False, True)}, "cash": D(10_000),
    }  # fmt: skip
    return Portfolio(**(values | changes))


def holding(symbol: str, **changes: Any) -> Holding:
    values: dict[str, Any] = {
        "symbol": Symbol(symbol), "contract": Symbol(symbol), "strategy_id": STRATEGY, "quantity": D("1.9989"), "average_price": D(100),
        "entry_intent_id": "i_1", "version_id": "v_old", "arm": "champion", "signal_id": "s_0", "target": D(110),
        "stop": D(95), "exit_by": NOW + timedelta(hours=5),
    }  # fmt: skip
    return Holding(**(values | changes))


def signal(symbol: str, price: str, state: str = "ok", at: datetime = NOW) -> Signal:
    return Signal(
        dataset_id="d", seq=1, signal_id=f"s_{symbol}_{at:%H}", strategy_id=STRATEGY, version_id="v", role="champion",
        symbol=symbol, bar_open_time=at - timedelta(hours=1), available_at=at, price=D(price), state=state,
        direction="long" if state == "ok" else "flat", certified=False, threshold=0.6, confidence=0.7,
        target_price=D(price) * D("1.1"), stop_price=D(price) * D("0.95"), exit_by=at + timedelta(hours=12),
        expires_at=at + timedelta(hours=1), volatility="low", trend="up", liquidity="high", session="us",
    )  # fmt: skip


def taken(account: Portfolio, *signals: Signal, now: datetime = NOW, at: datetime = NOW) -> list[tuple[str, str, str]]:
    """(purpose, symbol, denial's code or quantity) of every decision."""
    return [
        (d.purpose, d.signal.symbol, f"{d.quantity:.3f}" if d.denial is None else d.denial.partition(":")[0])
        for d in decide(account, signals, at, SITUATION, now)
    ]


def test_a_tenth_of_equity_rounded_down_to_the_step() -> None:
    assert taken(portfolio(), signal("BTC/USDT", "333.33")) == [("entry", "BTC/USDT", "3.000")]
    assert taken(portfolio(cash=D(9_999)), signal("BTC/USDT", "333.33")) == [("entry", "BTC/USDT", "2.999")]


def test_exits_come_before_entries_whatever_the_order_of_the_signals() -> None:
    account = portfolio(holdings={(STRATEGY, Symbol("ETH/USDT")): holding("ETH/USDT")})
    assert taken(account, signal("BTC/USDT", "100"), signal("ETH/USDT", "110")) == [
        ("exit", "ETH/USDT", "1.998"),
        ("entry", "BTC/USDT", "10.219"),  # (10,000 + 1.9989 x 110) / 10 / 100
    ]


@pytest.mark.parametrize(
    ("price", "hours", "reason"),
    [("110", 0, "target"), ("109.99", 0, None), ("95", 0, "stop"), ("95.01", 0, None), ("100", 5, "time"), ("100", 4, None)],
)  # fmt: skip
def test_barriers_are_reached_by_closes_at_or_beyond_them(price: str, hours: int, reason: str | None) -> None:
    assert holding("BTC/USDT").exit_reason(D(price), NOW + timedelta(hours=hours)) == reason


def test_catching_up_leaves_positions_but_enters_nothing_late() -> None:
    account = portfolio(holdings={(STRATEGY, Symbol("ETH/USDT")): holding("ETH/USDT")})
    found = taken(account, signal("BTC/USDT", "100"), signal("ETH/USDT", "94"), now=NOW + timedelta(hours=1))
    assert found == [("exit", "ETH/USDT", "1.998"), ("entry", "BTC/USDT", "SIGNAL_STALE")]


def test_a_price_far_from_the_last_one_is_not_believed() -> None:
    account = portfolio()
    assert taken(account, signal("BTC/USDT", "100", "abstain")) == []
    later = NOW + timedelta(hours=1)
    assert taken(account, signal("BTC/USDT", "120.01", at=later), at=later, now=later) == [
        ("entry", "BTC/USDT", "PRICE_SANITY")
    ]
    again = NOW + timedelta(hours=2)
    assert taken(account, signal("BTC/USDT", "119", at=again), at=again, now=again)[0][2] == "8.403"


def test_one_steps_entries_share_the_cash_the_positions_and_the_seconds_orders() -> None:
    signals = [signal(symbol, "100") for symbol in SYMBOLS]
    half = portfolio(stakes={STRATEGY: Stake(STRATEGY, D("0.5"), False, True)})
    assert [found[2] for found in taken(half, *signals)] == ["50.000", "50.000", "BALANCE_SHORT"]
    two = portfolio(limits=Limits(D(50_000), D(50_000), 2, 10, 500, D(5_000)))
    assert [found[2] for found in taken(two, *signals)] == ["10.000", "10.000", "POSITIONS_TOO_MANY"]
    slow = portfolio(limits=Limits(D(50_000), D(50_000), 8, 1, 500, D(5_000)))
    assert [found[2] for found in taken(slow, *signals)] == ["10.000", "RATE_SECOND", "RATE_SECOND"]


def test_orders_per_second_are_counted_by_the_replays_own_clock() -> None:
    """A day replayed in a second is no reason to deny: limits mean the same at every speed."""
    account = portfolio(limits=Limits(D(50_000), D(50_000), 8, 1, 500, D(5_000)))
    account.count_order(NOW.timestamp())
    assert taken(account, signal("BTC/USDT", "100"))[0][2] == "RATE_SECOND"
    later = NOW + timedelta(hours=1)
    assert taken(account, signal("BTC/USDT", "100", at=later), at=later, now=later)[0][2] == "10.000"


def test_a_minutes_limit_holds_however_high_it_is() -> None:
    """It did not above 1,000: so many were remembered."""
    account = portfolio(limits=Limits(D(50_000), D(50_000), 8, 5_000, 5_000, D(5_000), max_orders_per_minute=1_200))
    begun = NOW.timestamp() - 59
    for number in range(1_199):
        account.count_order(begun + number / 100)
    assert taken(account, signal("BTC/USDT", "100"))[0][2] == "10.000"
    account.count_order(NOW.timestamp())
    assert taken(account, signal("BTC/USDT", "100"))[0][2] == "RATE_MINUTE"
    later = NOW + timedelta(seconds=1)  # a minute after the first of them
    assert taken(account, signal("BTC/USDT", "100", at=later), at=later, now=later)[0][2] == "10.000"


def test_an_account_without_a_stake_leaves_its_positions_and_enters_nothing() -> None:
    account = portfolio(stakes={}, holdings={(STRATEGY, Symbol("ETH/USDT")): holding("ETH/USDT")})
    assert taken(account, signal("BTC/USDT", "100"), signal("ETH/USDT", "90")) == [("exit", "ETH/USDT", "1.998")]


def test_flattening_leaves_everything_but_what_has_an_order_on_its_way() -> None:
    held = {(STRATEGY, Symbol(name)): holding(name) for name in SYMBOLS[:2]}
    account = portfolio(holdings=held, unknown={Symbol("BTC/USDT")})
    latest = {Symbol(name): signal(name, "100", "abstain") for name in SYMBOLS}
    found = flatten(account, latest, NOW, SITUATION)
    assert [(d.purpose, d.signal.symbol, d.denial) for d in found] == [("exit", "ETH/USDT", None)]


def test_the_same_decision_has_the_same_ids_and_the_next_bar_has_others() -> None:
    first, second = (decide(portfolio(), [signal("BTC/USDT", "100")], NOW, SITUATION, NOW)[0] for _ in range(2))
    later = NOW + timedelta(hours=1)
    third = decide(portfolio(), [signal("BTC/USDT", "100", at=later)], later, SITUATION, later)[0]
    assert (first.intent_id, first.client_order_id) == (second.intent_id, second.client_order_id)
    assert first.client_order_id != third.client_order_id
    assert len(first.client_order_id) <= 36


def test_a_users_limits_count_all_of_his_accounts_of_one_currency_and_none_of_another() -> None:
    limits = Limits(D(50_000), D(50_000), 2, 10, 500, D(5_000))
    accounts = [portfolio(account_id=AccountId(f"paper_{n}"), limits=limits) for n in range(3)]
    rupees = portfolio(account_id=AccountId("rupees"), currency="INR", limits=limits)
    exposures = SITUATION.exposures([*accounts, rupees], NOW)
    found = [
        decide(each, [signal("BTC/USDT", "100")], NOW, SITUATION, NOW, exposures)[0].denial
        for each in [*accounts, rupees]
    ]
    assert [denial and denial.partition(" limit")[0] for denial in found] == [
        None, None, "POSITIONS_TOO_MANY: scope=user id=alice currency=USDT open=3", None,
    ]  # fmt: skip


def test_a_groups_limit_is_shared_by_all_its_users() -> None:
    book = LimitBook({("group", "g1", "USDT"): Limits(D(50_000), D(1_999), 99, 99, 99, D(5_000))})
    situation = replace(SITUATION, group_id=GroupId("g1"), limits=book)
    users = [portfolio(user_id=UserId(name), account_id=AccountId(name)) for name in ("ann", "ben", "cat")]
    exposures = situation.exposures(users, NOW)
    found = [decide(each, [signal("BTC/USDT", "100")], NOW, situation, NOW, exposures)[0].denial for each in users]
    assert [denial and denial.partition(":")[0] for denial in found] == [None, "NOTIONAL_POSITION", "NOTIONAL_POSITION"]


def test_nothing_is_bought_while_the_same_person_sells_it() -> None:
    leaving = portfolio(
        account_id=AccountId("one"), holdings={(STRATEGY, Symbol("ETH/USDT")): holding("ETH/USDT")},
        working={Symbol("ETH/USDT")},
    )  # fmt: skip
    entering = portfolio(account_id=AccountId("two"))
    other = portfolio(user_id=UserId("ben"), account_id=AccountId("three"))
    exposures = SITUATION.exposures([leaving, entering, other], NOW)
    denials = [
        decide(each, [signal("ETH/USDT", "100")], NOW, SITUATION, NOW, exposures)[0].denial
        for each in (entering, other)
    ]
    assert denials == ["ORDER_SELF_TRADE", None]


def test_a_session_that_has_ended_and_another_address_keep_from_entering() -> None:
    live = {"kind": "live", "armed": True, "stakes": {STRATEGY: Stake(STRATEGY, D("0.1"), True, True)}}
    assert taken(portfolio(**live, session_ends_at=NOW), signal("BTC/USDT", "100"))[0][2] == "AUTH_STALE"
    just_in_time = portfolio(**live, session_ends_at=NOW + timedelta(microseconds=1))
    assert taken(just_in_time, signal("BTC/USDT", "100"))[0][2] == "10.000"
    elsewhere = BinanceVenue("http://127.0.0.1:9", "key", "secret")
    elsewhere.route = replace(elsewhere.route, source_ip="10.0.0.9")
    account = portfolio(**live, venue=elsewhere, registered_address="10.0.0.8")
    assert taken(account, signal("BTC/USDT", "100"))[0][2] == "ADDRESS_CHANGED"
    account.registered_address = "10.0.0.9"
    assert taken(account, signal("BTC/USDT", "100"))[0][2] == "10.000"
