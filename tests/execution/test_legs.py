"""Sets of legs: what protects what, and that nothing sold is ever without its protection, whatever fails and when."""

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_platform.execution.legs import Leg, Step, check_legs, plan
from trading_platform.markets.contracts import Contract

D = Decimal
NEAR, FAR = date(2026, 12, 29), date(2027, 1, 26)


def contract(kind: str, strike: int = 0, expiry: date = NEAR, name: str = "NIFTY") -> Contract:
    symbol = f"{name}{expiry:%y%b}{strike or ''}{kind}".upper()
    return Contract(
        1, 1, symbol, name, D(100), expiry, D(strike), D("0.05"), 65, kind, "NFO", "NFO",  # type: ignore[arg-type]
    )  # fmt: skip


def leg(side: str, kind: str, strike: int = 0, quantity: int = 65, expiry: date = NEAR, name: str = "NIFTY") -> Leg:
    return Leg(contract(kind, strike, expiry, name), side, D(quantity))  # type: ignore[arg-type]


BULL_CALL = (leg("sell", "CE", 26500), leg("buy", "CE", 26000))
CONDOR = (
    leg("sell", "PE", 25500, 130), leg("buy", "PE", 25000, 130), leg("sell", "CE", 26500, 130), leg("buy", "CE", 27000, 130),
)  # fmt: skip


@pytest.mark.parametrize(
    ("legs", "denial"),
    [
        (BULL_CALL, None),
        (CONDOR, None),
        ((leg("sell", "CE", 26500), leg("buy", "FUT")), None),
        ((leg("sell", "FUT"), leg("buy", "CE", 26000)), None),
        ((leg("sell", "CE", 26500), leg("buy", "CE", 26000, expiry=FAR)), None),
        ((leg("sell", "CE", 26500, expiry=FAR), leg("buy", "CE", 26000)), "LEG_UNPROTECTED"),
        ((leg("sell", "PE", 26500), leg("buy", "CE", 26000)), "LEG_UNPROTECTED"),
        ((leg("sell", "PE", 26500), leg("buy", "FUT")), "LEG_UNPROTECTED"),
        ((leg("sell", "CE", 26500, 130), leg("buy", "CE", 26000, 65)), "LEG_UNPROTECTED"),
        ((leg("sell", "CE", 26500), leg("buy", "CE", 26000, name="BANKNIFTY")), "LEG_UNPROTECTED"),
        ((leg("sell", "CE", 26500), leg("sell", "CE", 26000), leg("buy", "CE", 27000)), "LEG_UNPROTECTED"),
        ((leg("sell", "CE", 26500), leg("buy", "CE", 26000, 64)), "LEGS_INVALID"),
        ((leg("buy", "CE", 26000),), "LEGS_INVALID"),
        ((leg("buy", "CE", 26000), leg("sell", "CE", 26000)), "LEGS_INVALID"),
    ],
)
def test_what_protects_what(legs: tuple[Leg, ...], denial: str | None) -> None:
    found = check_legs(legs)
    assert (found and found.partition(":")[0]) == denial


def test_the_protective_leg_is_first_and_the_sold_one_follows_as_far_as_it_is_filled() -> None:
    sold, bought = leg("sell", "CE", 26500, 260), leg("buy", "CE", 26000, 260)
    first = plan((sold, bought), {}, "opening")
    assert first == Step(bought, "buy", D(260), unwinding=False)
    filled = {bought.symbol: D(260)}
    assert plan((sold, bought), filled, "opening") == Step(sold, "sell", D(260), unwinding=False)
    assert plan((sold, bought), {**filled, sold.symbol: D(260)}, "opening") is None


def carried_out(legs: Sequence[Leg], send: Callable[[Step], Decimal], tries: int = 99) -> dict[str, Decimal]:
    """What is open in the end when each step of both phases is sent; a step that falls short ends the opening."""
    open_now = {leg.symbol: D(0) for leg in legs}
    while (step := plan(legs, open_now, "opening")) is not None:
        done = send(step)
        open_now[step.leg.symbol] += done
        if done < step.quantity:
            break
    for _ in range(tries):
        if (step := plan(legs, open_now, "unwinding")) is None:
            break
        open_now[step.leg.symbol] -= send(step)
    return dict(open_now)


def test_when_the_sold_leg_is_refused_the_bought_one_is_taken_back() -> None:
    steps: list[str] = []

    def send(step: Step) -> Decimal:
        steps.append(f"{step.side} {step.leg.symbol}")
        return D(0) if step.leg.side == "sell" else step.quantity

    sold, bought = BULL_CALL
    assert carried_out(BULL_CALL, send) == {sold.symbol: 0, bought.symbol: 0}
    assert steps == [f"buy {bought.symbol}", f"sell {sold.symbol}", f"sell {bought.symbol}"]


@given(st.lists(st.integers(0, 3), max_size=12), st.sampled_from([BULL_CALL, CONDOR]), st.integers(1, 4))
def test_never_is_more_sold_than_protected_and_whole_sets_remain(
    outcomes: list[int], legs: tuple[Leg, ...], sets: int
) -> None:
    """Each order fills by thirds of itself, in whole lots, as told; then the venue fills everything."""
    many = tuple(Leg(each.contract, each.side, each.quantity * sets) for each in legs)
    open_now = {each.symbol: D(0) for each in many}
    told = list(outcomes)

    def send(step: Step) -> Decimal:
        thirds = told.pop(0) if told else 3
        done = D(int(Fraction(step.quantity) * thirds / 3 / 65) * 65)
        entering = step.side == step.leg.side
        open_now[step.leg.symbol] += done if entering else -done
        for kind in ("CE", "PE"):
            of_kind = [each for each in many if each.contract.instrument_type == kind]
            sold, bought = (
                sum(open_now[each.symbol] for each in of_kind if each.side == side) for side in ("sell", "buy")
            )
            assert sold <= bought
        return done

    left = carried_out(many, send)
    assert left == open_now
    shares = {open_now[each.symbol] / each.quantity for each in many}
    assert len(shares) == 1
