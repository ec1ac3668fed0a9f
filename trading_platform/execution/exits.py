"""Protected exits: a stop at the venue for every position, confirmed as armed, with a ladder for when it is refused.

The ladder, from incident logs of automated traders: place the stop inside what the venue allows; believe it only when
the venue shows it waiting; refused, price it anew once from the venue's own words; refused again, or the price is through
already, leave the position now, with what the venue says is held; still there after a few tries, halt the account and
call a person. Side and size come from the venue before every send: a stale side once opened a naked short.

`Protection` is one position's ladder as a value; `protect` climbs it against a venue.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

import structlog

from trading_platform.identifiers import ClientOrderId, Symbol, content_id
from trading_platform.markets.instruments import Instrument
from trading_platform.venues.port import FINAL_STATES, Accepted, OrderVenue, QueryFailedError, Refused, Result, Side

ZERO = Decimal(0)
STOP_ROOM = Decimal("0.01")
"""How far beyond its trigger a stop may fill, as a fraction of the trigger."""
REPRICED_ROOM = Decimal("0.0025")
"""The second try is within the ranges that refuse the first: exchanges limit how far limit and trigger are apart."""
CONFIRM_SECONDS, CONFIRM_EVERY = 3.0, 0.25
MOST_EXITS = 3
log = structlog.get_logger(__name__)


class Rung(StrEnum):
    """Where on the ladder a position is."""

    STOP = "STOP"
    """To be given its stop."""
    REPRICED = "REPRICED"
    """The stop was refused; the second is nearer to its trigger."""
    EXIT = "EXIT"
    """No stop is to be had: leave it now."""
    ARMED = "ARMED"
    """The venue shows the stop waiting."""
    FLAT = "FLAT"
    HUMAN = "HUMAN"
    """Neither protected nor flat: halt and call a person."""


@dataclass(frozen=True)
class Protection:
    """A position and its stop. `position_id` names it in client order ids; `trigger` is the price it is left at.

    `quantity` is what the stop is for; `tries` counts sends, so that each has a client order id of its own and the same
    send, repeated after a crash, the same.
    """

    position_id: str
    contract: Symbol
    side: Side
    """Of the exit."""
    trigger: Decimal
    quantity: Decimal = ZERO
    rung: Rung = Rung.STOP
    stop_id: ClientOrderId | None = None
    tries: int = 0
    exits: int = 0

    def next_id(self) -> ClientOrderId:
        return ClientOrderId(content_id("tp", self.position_id, "protect", self.tries, length=30))

    @property
    def settled(self) -> bool:
        return self.rung in (Rung.ARMED, Rung.FLAT, Rung.HUMAN)

    def limit(self, instrument: Instrument) -> Decimal:
        """The worst price that the stop may fill at, on the tick and on the far side of the trigger."""
        room = REPRICED_ROOM if self.rung is Rung.REPRICED else STOP_ROOM
        beyond = self.trigger * (1 - room if self.side == "sell" else 1 + room)
        on_tick = beyond - beyond % instrument.tick
        return on_tick if self.side == "sell" or on_tick == beyond else on_tick + instrument.tick

    # --- what a step of the ladder leads to --------------------------------------------------------------------------

    def sent_stop(self, result: Result, stop_id: ClientOrderId) -> "Protection":
        """After a stop was sent: to be confirmed where it may be there, else one rung further."""
        after = replace(self, tries=self.tries + 1)
        if isinstance(result, Refused):
            return replace(after, rung=Rung.REPRICED if self.rung is Rung.STOP else Rung.EXIT)
        return replace(after, stop_id=stop_id)  # also where the answer is lost: it may be there

    def confirmed(self, found: Accepted | None) -> "Protection":
        """After the stop was asked for. None: the venue does not have it."""
        if found is not None and found.state in ("WORKING", "PARTIALLY_FILLED"):
            return replace(self, rung=Rung.ARMED)
        if found is not None and found.state == "FILLED":
            return replace(self, rung=Rung.FLAT)
        gone = replace(self, stop_id=None)
        return replace(gone, rung=Rung.REPRICED if self.rung is Rung.STOP else Rung.EXIT)

    def resized(self, held: Decimal) -> "Protection":
        """The venue holds another quantity than the stop is for: a fill came, or somebody traded by hand."""
        if self.rung is Rung.HUMAN:
            return self
        if held <= ZERO:
            return replace(self, quantity=ZERO, rung=Rung.FLAT)
        return self if held == self.quantity else replace(self, quantity=held, rung=Rung.STOP)

    def exited(self, held: Decimal) -> "Protection":
        """After a try to leave now: flat, once more, or a person's."""
        if held <= ZERO:
            return replace(self, quantity=ZERO, rung=Rung.FLAT)
        exits = self.exits + 1
        return replace(self, quantity=held, exits=exits, rung=Rung.HUMAN if exits >= MOST_EXITS else Rung.EXIT)


Held = Callable[[], Awaitable[Decimal]]


def held_at(venue: OrderVenue, instrument: Instrument, side: Side) -> Held:
    """What the venue holds of an instrument that an exit of this side could leave; never negative, on the step.

    Raises `QueryFailedError`: no answer is not flat.
    """

    async def ask() -> Decimal:
        units = (await venue.balances()).get(instrument.base, ZERO)
        there = units if side == "sell" else -units
        return instrument.round_quantity(max(there, ZERO))

    return ask


async def protect(
    protection: Protection, venue: OrderVenue, instrument: Instrument, held: Held,
    note: Callable[[Protection, str], Awaitable[None]],
) -> Protection:  # fmt: skip
    """Climb until the position is armed, flat or a person's. `note` writes down every send before it goes out.

    Safe to run again: a stop that is there already, of the right size, is confirmed and left alone; one of another size
    is cancelled, and its end awaited, before the next is sent, for two stops would sell twice.
    Raises `QueryFailedError` where the venue does not tell what is held: then nothing was sent blindly.
    """
    protection = await _resumed(protection, venue)
    quantity = await held()
    if protection.stop_id is not None and protection.rung is not Rung.HUMAN and quantity != protection.quantity:
        protection = await _withdrawn(protection, venue)
        quantity = await held()
    current = protection.resized(quantity)
    while not current.settled:
        if current.rung is Rung.EXIT:
            current = await _leave(current, venue, instrument, held, note)
        else:
            current = await _arm(current, venue, instrument, note)
    if current.rung is Rung.ARMED and current.stop_id is not None:
        return await _still(current, venue)
    return current


async def _arm(
    protection: Protection,
    venue: OrderVenue,
    instrument: Instrument,
    note: Callable[[Protection, str], Awaitable[None]],
) -> Protection:
    stop_id, limit = protection.next_id(), protection.limit(instrument)
    await note(
        replace(protection, stop_id=stop_id), f"stop {protection.quantity} at {protection.trigger} limit {limit}"
    )
    result = await venue.place_stop(
        stop_id, protection.contract, protection.side, protection.quantity, protection.trigger, limit, datetime.now(UTC)
    )
    sent = protection.sent_stop(result, stop_id)
    if sent.stop_id is None:
        log.warning("stop_refused", contract=protection.contract, rung=protection.rung, answer=str(result)[:300])
        return sent
    found = await _seen(venue, stop_id, protection.contract)
    return sent.confirmed(found) if found is not None else await _absent(sent, venue)


async def _absent(protection: Protection, venue: OrderVenue) -> Protection:
    """A stop that was sent and is not seen. Only a venue that proves absence lets another be sent; else it is a person's:
    a second stop or an exit beside one that turns up after all would sell twice."""
    if venue.proves_absence_after is None or protection.stop_id is None:
        return replace(protection, rung=Rung.HUMAN)
    await asyncio.sleep(venue.proves_absence_after.total_seconds())
    return protection.confirmed(await venue.find_order(protection.stop_id, protection.contract))


async def _resumed(protection: Protection, venue: OrderVenue) -> Protection:
    """What was written down before it was sent, and what became of it while nobody looked."""
    if protection.stop_id is None or protection.rung not in (Rung.STOP, Rung.REPRICED):
        return protection
    found = await venue.find_order(protection.stop_id, protection.contract)
    after = replace(protection, tries=protection.tries + 1)
    return after.confirmed(found) if found is not None else await _absent(after, venue)


async def _leave(
    protection: Protection, venue: OrderVenue, instrument: Instrument, held: Held,
    note: Callable[[Protection, str], Awaitable[None]],
) -> Protection:  # fmt: skip
    """Leave at the market what the venue holds now, and see what is left."""
    order_id = protection.next_id()
    if await venue.find_order(order_id, protection.contract) is not None:  # sent before a crash
        await _ended(venue, order_id, protection.contract)
        return replace(protection, tries=protection.tries + 1).exited(await held())
    quantity = await held()
    if quantity <= ZERO:
        return protection.exited(ZERO)
    await note(protection, f"leave {quantity} at the market")
    result = await venue.place_market(
        order_id, protection.contract, protection.side, quantity, datetime.now(UTC), reducing=True
    )
    if not isinstance(result, Refused):  # its end is known before it is asked what is left, or it would be sold twice
        await _ended(venue, order_id, protection.contract)
    return replace(protection, tries=protection.tries + 1).exited(await held())


async def _withdrawn(protection: Protection, venue: OrderVenue) -> Protection:
    """The stop cancelled and seen to have ended."""
    assert protection.stop_id is not None
    await venue.cancel(protection.stop_id, protection.contract)
    await _ended(venue, protection.stop_id, protection.contract)
    return replace(protection, stop_id=None, rung=Rung.STOP, quantity=ZERO)


async def _still(protection: Protection, venue: OrderVenue) -> Protection:
    """An armed stop, asked for once more after everything."""
    assert protection.stop_id is not None
    return protection.confirmed(await venue.find_order(protection.stop_id, protection.contract))


async def _seen(venue: OrderVenue, order_id: ClientOrderId, contract: Symbol) -> Accepted | None:
    """The order as soon as the venue shows it; None where it does not within `CONFIRM_SECONDS`."""
    for _ in range(int(CONFIRM_SECONDS / CONFIRM_EVERY)):
        if (found := await venue.find_order(order_id, contract)) is not None:
            return found
        await asyncio.sleep(CONFIRM_EVERY)
    return None


async def _ended(venue: OrderVenue, order_id: ClientOrderId, contract: Symbol) -> None:
    """Wait for an order's end. Raises `QueryFailedError` where it does not come: what follows would build on a guess."""
    for _ in range(int(CONFIRM_SECONDS / CONFIRM_EVERY)):
        found = await venue.find_order(order_id, contract)
        if found is None or found.state in FINAL_STATES:
            return
        await asyncio.sleep(CONFIRM_EVERY)
    raise QueryFailedError(f"order {order_id} has not ended within {CONFIRM_SECONDS:.0f} s")
