"""Protected exits: the ladder against a venue that refuses as told, its invariants, and the sandbox over a socket."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.alone import alone
from trading_platform.execution import exits
from trading_platform.execution.exits import Protection, Rung, held_at, protect
from trading_platform.identifiers import ClientOrderId, Symbol, Venue, VenueOrderId
from trading_platform.markets.instruments import Instrument
from trading_platform.venues.binance import BinanceVenue
from trading_platform.venues.port import Accepted, Ambiguous, Refused, Result

D = Decimal
ETH = Instrument(Venue("binance"), Symbol("ETH/USDT"), "ETH", "USDT", D("0.01"), D("0.001"), D(10))
START = Protection("p1", Symbol("ETH/USDT"), "sell", D(95))


@dataclass
class Scripted:
    """A venue with a position, which answers stops and exits as told and counts what could be sold twice."""

    units: Decimal
    stops: list[str] = field(default_factory=list)
    """armed, refused, lost (never there), unanswered (there, answer lost)."""
    exits: list[str] = field(default_factory=list)
    """fills, half, refused."""
    proves_absence_after: timedelta | None = timedelta(0)
    orders: dict[str, tuple[str, Decimal]] = field(default_factory=dict)
    limits: list[Decimal] = field(default_factory=list)
    naked: bool = False

    async def balances(self) -> dict[str, Decimal]:
        return {"ETH": self.units}

    async def place_stop(self, order_id: str, contract: str, side: str, quantity: Decimal, *rest: Any) -> Result:
        assert order_id not in self.orders
        self.limits.append(rest[1])
        what = self.stops.pop(0) if self.stops else "armed"
        if what == "refused":
            return Refused("17", "beyond permissible range")
        if what != "lost":
            self.orders[order_id] = ("WORKING", quantity)
            self._look()
        return Ambiguous("no answer") if what in ("lost", "unanswered") else self._told(order_id)

    async def place_market(
        self, order_id: str, contract: str, side: str, quantity: Decimal, *_: Any, reducing: bool
    ) -> Result:
        assert reducing
        what = self.exits.pop(0) if self.exits else "fills"
        if what == "refused":
            return Refused("x", "no")
        filled = quantity if what == "fills" else ETH.round_quantity(quantity / 2)
        self.units -= filled
        self.orders[order_id] = ("EXPIRED" if what == "half" else "FILLED", filled)
        self._look()
        return self._told(order_id)

    async def cancel(self, order_id: str, contract: str) -> Result:
        self.orders[order_id] = ("CANCELLED", self.orders[order_id][1])
        return self._told(order_id)

    async def find_order(self, order_id: str, contract: str) -> Accepted | None:
        return self._told(order_id) if order_id in self.orders else None

    def working(self) -> Decimal:
        return sum((quantity for state, quantity in self.orders.values() if state == "WORKING"), D(0))

    def _told(self, order_id: str) -> Accepted:
        return Accepted(VenueOrderId("1"), self.orders[order_id][0], D(0), (), True)  # type: ignore[arg-type]

    def _look(self) -> None:
        self.naked |= self.units < 0 or self.working() > max(self.units, D(0))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "CONFIRM_SECONDS", 0.02)
    monkeypatch.setattr(exits, "CONFIRM_EVERY", 0.01)


async def climbed(venue: Scripted, start: Protection = START) -> tuple[Protection, list[str]]:
    notes: list[str] = []

    async def note(protection: Protection, what: str) -> None:
        notes.append(what.split(maxsplit=1)[0])

    done = await protect(start, venue, ETH, held_at(venue, ETH, "sell"), note)  # type: ignore[arg-type]
    assert not venue.naked
    return done, notes


@pytest.mark.parametrize(
    ("stops", "leaving", "rung", "steps"),
    [
        ([], [], Rung.ARMED, ["stop"]),
        (["unanswered"], [], Rung.ARMED, ["stop"]),
        (["refused"], [], Rung.ARMED, ["stop", "stop"]),
        (["lost"], [], Rung.ARMED, ["stop", "stop"]),
        (["refused", "refused"], [], Rung.FLAT, ["stop", "stop", "leave"]),
        (["refused", "refused"], ["half"], Rung.FLAT, ["stop", "stop", "leave", "leave"]),
        (["refused", "refused"], ["refused"] * 3, Rung.HUMAN, ["stop", "stop", "leave", "leave", "leave"]),
    ],
)
async def test_the_ladder(stops: list[str], leaving: list[str], rung: Rung, steps: list[str]) -> None:
    venue = Scripted(D(2), stops, leaving)
    done, notes = await climbed(venue)
    assert (done.rung, notes) == (rung, steps)
    assert venue.working() == (2 if rung is Rung.ARMED else 0)
    assert venue.units == (0 if rung is Rung.FLAT else 2)


async def test_the_second_stop_is_nearer_to_its_trigger_and_on_the_tick() -> None:
    venue = Scripted(D(2), ["refused"])
    await climbed(venue)
    assert venue.limits == [D("94.05"), D("94.76")]  # 1 % and 0.25 % below 95, down to 0.01


async def test_where_absence_is_never_proven_a_lost_stop_is_a_persons() -> None:
    """Kite Connect: an order that is not in the book may still turn up, so neither a second stop nor an exit is safe."""
    venue = Scripted(D(2), ["lost"], proves_absence_after=None)
    done, notes = await climbed(venue)
    assert (done.rung, notes, venue.units) == (Rung.HUMAN, ["stop"], 2)
    assert (await climbed(venue, done))[0].rung is Rung.HUMAN


@pytest.mark.parametrize(
    ("units", "rung", "working"), [("3", Rung.ARMED, 3), ("0.5", Rung.ARMED, D("0.5")), ("0", Rung.FLAT, 0)]
)
async def test_the_stop_follows_the_position(units: str, rung: Rung, working: Decimal) -> None:
    venue = Scripted(D(2))
    armed, _ = await climbed(venue)
    venue.units = D(units)
    done, _ = await climbed(venue, armed)
    assert (done.rung, venue.working()) == (rung, working)


async def test_running_it_again_changes_nothing() -> None:
    venue = Scripted(D(2))
    armed, _ = await climbed(venue)
    assert await climbed(venue, armed) == (armed, [])


async def test_a_stop_that_was_sent_before_a_crash_is_found_and_not_sent_again() -> None:
    venue, kept = Scripted(D(2)), []

    async def note(protection: Protection, what: str) -> None:
        kept.append(protection)

    await protect(START, venue, ETH, held_at(venue, ETH, "sell"), note)  # type: ignore[arg-type]
    done, notes = await climbed(venue, kept[-1])  # all that was written down before the crash
    assert (done.rung, notes, len(venue.orders)) == (Rung.ARMED, [], 1)


@settings(max_examples=60, deadline=None)
@given(
    st.decimals("0.001", "5", places=3),
    st.lists(st.sampled_from(["armed", "refused", "lost", "unanswered"]), max_size=4),
    st.lists(st.sampled_from(["fills", "half", "refused"]), max_size=4),
    st.lists(st.decimals("0", "5", places=3), max_size=3),
)
def test_nothing_is_ever_sold_that_is_not_held(
    units: Decimal, stops: list[str], leaving: list[str], changes: list[Decimal]
) -> None:
    async def run() -> None:
        venue = Scripted(units, stops, leaving)
        protection, _ = await climbed(venue)
        for units_now in changes:
            if protection.rung is Rung.HUMAN:
                return
            for order_id, (state, quantity) in list(venue.orders.items()):
                if state == "WORKING" and units_now < quantity:  # it was filled: that is how a position shrinks
                    venue.orders[order_id] = ("FILLED", quantity)
            venue.units = units_now
            protection, _ = await climbed(
                venue, replace(protection, rung=Rung.STOP, stop_id=None) if venue.working() == 0 else protection
            )
        assert protection.settled
        if protection.rung is Rung.ARMED:
            assert venue.working() == ETH.round_quantity(venue.units)

    asyncio.run(run())


# --- the sandbox over a socket ---------------------------------------------------------------------------------------


@pytest.fixture
async def sandbox() -> AsyncIterator[BinanceVenue]:
    with alone("--no-limits") as running:
        info = running.info["binance"]
        venue = BinanceVenue(info["rest"], info["api_key"], info["api_secret"])
        yield venue
        await venue.close()


async def test_a_position_at_the_sandbox_is_armed_resized_and_left(
    sandbox: BinanceVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "CONFIRM_SECONDS", 3.0)
    instruments = await sandbox.instruments()
    contract, instrument = next(iter(instruments.items()))
    answer = await sandbox.client.public_get_ticker_price({"symbol": contract.replace("/", "")})
    price = D(answer["price"])
    quantity = instrument.round_quantity(D(500) / price)
    before = await held_at(sandbox, instrument, "sell")()
    bought = await sandbox.place_market(ClientOrderId("tp_buy"), contract, "buy", quantity, datetime.now(UTC))
    assert isinstance(bought, Accepted)

    async def note(protection: Protection, what: str) -> None:
        return None

    held = held_at(sandbox, instrument, "sell")
    units = await held()
    assert units > before
    trigger = (price * D("0.5")).quantize(instrument.tick)
    armed = await protect(Protection("pos", contract, "sell", trigger), sandbox, instrument, held, note)
    assert (armed.rung, armed.quantity) == (Rung.ARMED, units)
    assert await sandbox.open_client_order_ids() == {armed.stop_id}

    more = await sandbox.place_market(ClientOrderId("tp_more"), contract, "buy", quantity, datetime.now(UTC))
    assert isinstance(more, Accepted)
    resized = await protect(armed, sandbox, instrument, held, note)
    assert resized.quantity == await held() > units
    assert await sandbox.open_client_order_ids() == {resized.stop_id}

    assert resized.stop_id is not None
    cancelled = await sandbox.cancel(resized.stop_id, contract)
    assert isinstance(cancelled, Accepted)
    assert cancelled.state == "CANCELLED"
    assert isinstance(await sandbox.cancel(resized.stop_id, contract), Refused)
    flat = await protect(replace(resized, rung=Rung.EXIT, stop_id=None), sandbox, instrument, held, note)
    assert flat.rung is Rung.FLAT
    assert await held() == 0
