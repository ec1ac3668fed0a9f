"""Signed positions against a plain ledger: whatever the order of fills, and however often they are told."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.execution.test_decisions import STRATEGY, holding, portfolio
from trading_platform.execution.decisions import Decision
from trading_platform.execution.order_states import OrderRecord
from trading_platform.execution.outcomes import closed_trade
from trading_platform.execution.portfolio import BOUGHT, SOLD
from trading_platform.execution.positions import Change, _moved
from trading_platform.execution.reconciliation import compare
from trading_platform.execution.stops import terms_of
from trading_platform.execution.withdrawal import at_most_held
from trading_platform.identifiers import Symbol, TradeId, Venue, VenueOrderId
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.group import Intent
from trading_platform.venues.port import Accepted, Side, VenueFill

D = Decimal
CALL = Symbol("NIFTY26JUL24000CE")
INSTRUMENT = Instrument(Venue("zerodha"), CALL, CALL, "INR", D("0.05"), D(1), D(0))
START = datetime(2026, 7, 1, 6, tzinfo=UTC)
Trades = list[tuple[int, int]]
"""(price in paise x 5, units)"""
TRADES = st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 500)), min_size=1, max_size=6)


def intent(purpose: Literal["entry", "exit"], side: Side) -> Intent:
    return Intent(
        user_id="alice", intent_id=f"i_{purpose}", account_id="paper_1", strategy_id=STRATEGY, symbol=CALL, contract=CALL,
        version_id="v", arm=SOLD if side == "sell" else BOUGHT, signal_id="s", purpose=purpose, side=side, target_price=None,
        stop_price=None, exit_by=None, market_time=START, entry_intent_id=None if purpose == "entry" else "i_entry",
    )  # fmt: skip


def fills_of(trades: Trades, name: str) -> list[VenueFill]:
    return [
        VenueFill(TradeId(f"{name}{n}"), D(price) / 20, D(units), D(price) / 1_000, "INR", START + timedelta(seconds=n))
        for n, (price, units) in enumerate(trades)
    ]


@dataclass
class Book:
    """An account that hears of orders in reports, as the books do: what is known by its trade id is applied once."""

    def __post_init__(self) -> None:
        self.account = portfolio(currency="INR", cash=D(0))
        self.records: dict[str, OrderRecord] = {}
        self.realized = self.fees = D(0)
        self.row: dict[str, Any] = {}

    def hear(self, of: Intent, told: list[VenueFill]) -> None:
        record = self.records.setdefault(of.intent_id, OrderRecord(D(10**9)))
        report = Accepted(
            VenueOrderId("1"), "PARTIALLY_FILLED", sum((f.quantity for f in told), D(0)), tuple(told), complete=True
        )
        self.records[of.intent_id] = record.heard(report)
        if new := record.new_fills(told):
            self.row, _ = _moved(Change(self.account, of, INSTRUMENT, new))
            self.realized, self.fees = self.realized + self.row["realized_pnl"], self.fees + self.row["fees"]

    @property
    def units(self) -> Decimal:
        held = self.account.holdings.get((STRATEGY, CALL))
        return held.quantity if held else D(0)


def reports(fills: list[VenueFill], random: Random) -> list[list[VenueFill]]:
    """The fills in any order, in reports that repeat some of what was told before."""
    left, told = random.sample(fills, len(fills)), []
    while left:
        size = random.randint(1, len(left))
        new, left = left[:size], left[size:]
        again = [each for report in told for each in report]
        told.append(random.sample(new + random.sample(again, len(again) // 2), len(new) + len(again) // 2))
    return told


@given(TRADES, TRADES, st.sampled_from(["buy", "sell"]), st.randoms(use_true_random=False))
def test_positions_equal_a_plain_ledger_whatever_the_order(
    opening: Trades, closing: Trades, side: Side, random: Random
) -> None:
    sign, other = (1, "sell") if side == "buy" else (-1, "buy")
    entries, exits = fills_of(opening, "e"), fills_of(closing, "x")
    entered, book = sum((f.quantity for f in entries), D(0)), Book()
    for report in reports(entries, random):
        book.hear(intent("entry", side), report)
    paid = sum((f.price * f.quantity for f in entries), D(0))
    assert book.units == sign * entered
    average = book.account.holdings[STRATEGY, CALL].average_price
    assert abs(average - paid / entered) < D("1e-20")
    assert abs(book.account.holdings_value - sign * paid) < D("1e-12"), "a short is worth less than nothing"

    told = [fill for report in reports(exits, random) for fill in report]
    for fill in told:
        book.hear(intent("exit", other), [fill])  # type: ignore[arg-type]
        assert book.units * sign >= 0, "a position never turns into its opposite"
    left = sum((f.quantity for f in exits), D(0))
    assert book.units == sign * max(entered - left, D(0))
    money = sign * (sum((f.price * f.quantity for f in exits), D(0)) - paid)
    fees = sum((f.fee for f in entries + exits), D(0))
    assert (book.account.cash, book.fees) == (money - fees, fees)
    if left == entered:
        assert abs(book.realized - money) < D("1e-12"), "once all is left, what was realised is the money that moved"
    elif left < entered:
        still = sign * average * (entered - left)
        assert abs(book.realized - (money + still)) < D("1e-12"), "or that and what is held at cost"


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_an_entry_of_the_other_side_is_cut_at_nothing(side: Side) -> None:
    """It cannot happen by the risk check; where a venue tells it all the same, no position appears that nobody decided on."""
    other: Side = "sell" if side == "buy" else "buy"
    book = Book()
    book.hear(intent("entry", side), fills_of([(2_000, 65)], "e"))
    against = intent("entry", other)
    against.intent_id = "i_against"
    book.hear(against, fills_of([(2_100, 50), (2_100, 50), (2_100, 10)], "a"))
    assert (book.units, book.row["quantity"], book.account.holdings) == (D(0), D(0), {})
    late = intent("exit", side)
    book.hear(late, fills_of([(2_100, 10)], "l"))
    assert book.units == D(0), "an exit opens nothing"


def test_a_short_call_by_hand() -> None:
    """Sell 65 at 290 (fee 10), buy back at 300 (fee 12): 18,850 - 10 - 19,500 - 12 = -672; gross (300 - 290) x -65 = -650."""
    sold, back = (
        [VenueFill(TradeId(name), price, D(65), fee, "INR", START)]
        for name, price, fee in (("1", D(290), D(10)), ("2", D(300), D(12)))
    )
    trade = closed_trade(
        [Timed(each) for each in sold], [Timed(each) for each in back], base=CALL, quote="INR", worth=_nobody, short=True
    )  # fmt: skip
    assert (trade.quantity, trade.gross, trade.costs, trade.net) == (D(-65), D(-650), D(22), D(-672))
    assert trade.net_return == pytest.approx(-672 / 18_840)


@dataclass(frozen=True)
class Timed:
    """A fill as the books have it."""

    fill: VenueFill

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fill, "time" if name == "market_time" else name)


def _nobody(asset: str) -> Decimal:
    raise AssertionError(f"nobody should ask for the price of {asset}")


@pytest.mark.parametrize(
    ("at_venue", "differs"), [(-65, False), (-130, False), (0, True), (-64, True), (65, True)]
)  # fmt: skip
def test_a_short_that_the_venue_does_not_show_or_shows_smaller_is_a_difference(at_venue: int, differs: bool) -> None:
    """More short than we know of is somebody else's."""
    account = portfolio(holdings={(STRATEGY, CALL): holding(CALL, quantity=D(-65), arm=SOLD)})
    lines = compare(account, {CALL: D(at_venue)}, {CALL: INSTRUMENT})
    assert bool(lines) == differs
    assert all(f"-65 {CALL} held by the books, {at_venue} at the venue" in line for line in lines)


@pytest.mark.parametrize(("at_venue", "back"), [(-65, 65), (-130, 65), (-40, 40), (0, None), (65, None)])
def test_no_more_is_bought_back_than_is_short_at_the_venue(at_venue: int, back: int | None) -> None:
    held = holding(CALL, quantity=D(-65), arm=SOLD)
    wanted = Decision(portfolio(), None, "exit", "buy", D(65), None, held, "k", CALL)  # type: ignore[arg-type]
    kept = at_most_held([wanted], {CALL: D(at_venue)}, {CALL: INSTRUMENT})
    assert [each.quantity for each in kept] == ([] if back is None else [D(back)])
    two = at_most_held([wanted, replace(wanted, decision_key="l")], {CALL: D(-100)}, {CALL: INSTRUMENT})
    assert [each.quantity for each in two] == [D(65), D(35)], "what one takes the other cannot"


def test_no_leg_of_a_spread_has_a_stop() -> None:
    for arm, quantity in ((BOUGHT, D(65)), (SOLD, D(-65))):
        assert terms_of(holding(CALL, quantity=quantity, arm=arm, stop=D(23_000)), INSTRUMENT, 0) is None
    assert terms_of(holding(CALL, quantity=D(65), average_price=D(100), stop=D(95)), INSTRUMENT, 0) is not None


def test_a_spread_is_worth_its_calls_and_counts_in_full_towards_limits() -> None:
    """65 bought at 400, now 410; as many sold at 290, now 300: worth 65 x 110, and 65 x 710 of notional."""
    from tests.execution.test_decisions import SITUATION

    index, sold = Symbol("NIFTY 50"), Symbol("NIFTY26JUL24250CE")
    account = portfolio(
        cash=D(0), prices={index: D(24_016), CALL: D(410), sold: D(300)},
        holdings={
            (STRATEGY, index): holding(index, contract=CALL, quantity=D(65), average_price=D(400), arm=BOUGHT),
            (STRATEGY, sold): holding(sold, quantity=D(-65), average_price=D(290), arm=SOLD),
        },
    )  # fmt: skip
    assert account.equity == D(65) * (410 - 300)
    (standing,) = SITUATION.exposures([account], START).standings(account, STRATEGY, index)
    assert (standing.gross_notional, standing.position_notional) == (D(65) * 710, D(65) * 410)
