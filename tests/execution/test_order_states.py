"""The order's life: what may follow what, and what reports that come twice, late, shuffled or not at all leave behind."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_platform.execution.order_states import (
    OPEN_STATES,
    STATES,
    TRANSITIONS,
    Cause,
    ForbiddenTransitionError,
    OrderRecord,
    allowed,
    move,
)
from trading_platform.identifiers import TradeId, VenueOrderId
from trading_platform.venues.port import FINAL_STATES, Accepted, VenueFill

D = Decimal
NOW = datetime(2026, 7, 1, tzinfo=UTC)
ORDER = VenueOrderId("77")


@st.composite
def histories(draw: st.DrawFn) -> tuple[Decimal, list[VenueFill], list[Accepted]]:
    """(quantity, all trades, the venue's reports in their true order): an order as a venue lives it."""
    pieces = draw(st.lists(st.integers(1, 50), max_size=6))
    cut = draw(st.integers(0, 30)) if pieces else draw(st.integers(1, 30))
    quantity = D(sum(pieces) + cut)
    fills = [
        VenueFill(TradeId(str(n)), D(draw(st.integers(9_000, 11_000))) / 100, D(piece), D(0), "USDT", NOW)
        for n, piece in enumerate(pieces)
    ]
    reports = [Accepted(ORDER, "WORKING", D(0), (), complete=True)]
    for n in range(1, len(fills) + 1):
        filled = sum((fill.quantity for fill in fills[:n]), D(0))
        state = "FILLED" if filled == quantity else "PARTIALLY_FILLED"
        reports.append(Accepted(ORDER, state, filled, tuple(fills[:n]), complete=True))  # type: ignore[arg-type]
    if cut:
        end = draw(st.sampled_from(["CANCELLED", "EXPIRED"]))
        filled = quantity - cut
        reports.append(Accepted(ORDER, end, filled, tuple(fills), complete=True))
    return quantity, fills, reports


@given(histories(), st.randoms(use_true_random=False))
def test_shuffled_duplicated_and_dropped_reports_end_where_the_true_order_ended(history, random) -> None:  # type: ignore[no-untyped-def]
    quantity, fills, reports = history
    told = [*reports[:-1], *(random.choice(reports) for _ in range(random.randint(0, 8)))]
    random.shuffle(told)
    told = told[random.randint(0, len(told)) :]
    told.insert(random.randint(0, len(told)), reports[-1])  # the last word may come at any time, but it does come
    record, seen = OrderRecord(quantity), D(0)
    for report in told:
        new = record.new_fills(report.fills)
        after = record.heard(report)
        assert after.filled == record.filled + sum((fill.quantity for fill in new), D(0))
        assert seen <= after.filled <= quantity
        assert not (record.state in FINAL_STATES and after.state in OPEN_STATES), "an ended order works again"
        record, seen = after, after.filled
    true_end = reports[-1]
    assert (record.state, record.filled, record.done) == (true_end.state, true_end.filled, True)
    notional = sum((fill.price * fill.quantity for fill in fills), D(0))
    assert record.average_price == (notional / true_end.filled if true_end.filled else None)
    # Profit at any mark is that of the trades, one by one: the average price hides nothing.
    mark = D("100.5")
    one_by_one = sum(((mark - fill.price) * fill.quantity for fill in fills), D(0))
    assert abs((mark - (record.average_price or mark)) * record.filled - one_by_one) < D("1e-18")


def test_an_unknown_order_never_decays() -> None:
    """Silence leaves it as it is; it is over only by the venue's word, a proof, the day's close, or a person."""
    out_of_unknown = {(after, cause) for (before, after), causes in TRANSITIONS.items() for cause in causes if before == "UNKNOWN"}  # fmt: skip
    assert not any(cause == Cause.SILENCE for _, cause in out_of_unknown)
    assert {cause for after, cause in out_of_unknown if after == "REJECTED"} == {
        Cause.VENUE, Cause.ABSENCE, Cause.OPERATOR,
    }  # fmt: skip
    with pytest.raises(ForbiddenTransitionError, match="UNKNOWN cannot become REJECTED by silence"):
        move("UNKNOWN", "REJECTED", Cause.SILENCE)


def test_only_the_venue_opens_or_cancels_an_order_and_a_person_may_only_say_how_it_ended() -> None:
    for (_, after), causes in TRANSITIONS.items():
        if after in {"WORKING", "PARTIALLY_FILLED", "CANCELLED"}:
            assert causes == {Cause.VENUE}
        if after in {"FILLED", "EXPIRED"}:
            assert causes <= {Cause.VENUE, Cause.OPERATOR}


def test_an_order_that_the_venue_has_is_never_sent_again_and_never_called_absent() -> None:
    for before in STATES - {"SUBMITTED", "UNKNOWN"}:
        assert not allowed(before, "SUBMITTED", Cause.SENDER)
        ended = {"FILLED", "EXPIRED"} if before in {"WORKING", "PARTIALLY_FILLED"} else set()
        for cause in set(Cause) - {Cause.VENUE}:
            by_him = ended if cause == Cause.OPERATOR else set()
            assert {after for after in STATES if allowed(before, after, cause)} == by_him


def test_terminal_states_take_a_late_fill() -> None:
    fill = VenueFill(TradeId("9"), D(100), D(4), D(0), "USDT", NOW)
    cancelled = OrderRecord(D(10)).heard(Accepted(ORDER, "CANCELLED", D(0), (), complete=True))
    assert (cancelled.state, cancelled.done, cancelled.average_price) == ("CANCELLED", True, None)
    late = cancelled.heard(Accepted(ORDER, "CANCELLED", D(4), (fill,), complete=True))
    assert (late.state, late.filled, late.average_price) == ("CANCELLED", D(4), D(100))
    rest = VenueFill(TradeId("10"), D(101), D(6), D(0), "USDT", NOW)
    assert late.heard(Accepted(ORDER, "CANCELLED", D(10), (rest,), complete=True)).state == "FILLED"


def test_an_end_without_all_of_its_fills_is_not_done() -> None:
    told = OrderRecord(D(10)).heard(Accepted(ORDER, "FILLED", D(10), (), complete=False))
    assert (told.state, told.filled, told.done) == ("FILLED", D(0), False)
    fill = VenueFill(TradeId("1"), D(100), D(10), D(0), "USDT", NOW)
    assert told.heard(Accepted(ORDER, "WORKING", D(0), (fill,), complete=True)).done, (
        "fills may come with an old report"
    )
