"""The life of an order as data: its states, which may follow which, and who may cause it.

An order that was sent and not answered is UNKNOWN. Silence never makes it anything else: only the venue's word, a proof
that it never arrived or a person does. States that end an order still take its late fills, and an
order that was given up and turns up after all is claimed. Reports may come twice, late, out of order or not at all: a
fill counts once by the venue's trade id, and a report that is older than what is known changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum

from trading_platform.identifiers import TradeId, VenueOrderId
from trading_platform.venues.port import FINAL_STATES, Accepted, VenueFill

ZERO = Decimal(0)
SUBMITTED, UNKNOWN, WORKING, PARTIALLY_FILLED = "SUBMITTED", "UNKNOWN", "WORKING", "PARTIALLY_FILLED"
FILLED, CANCELLED, REJECTED, EXPIRED = "FILLED", "CANCELLED", "REJECTED", "EXPIRED"
STATES = frozenset({SUBMITTED, UNKNOWN, WORKING, PARTIALLY_FILLED, FILLED, CANCELLED, REJECTED, EXPIRED})
OPEN_STATES = STATES - FINAL_STATES


class Cause(StrEnum):
    """Who may move an order."""

    SENDER = "sender"
    """Our sender, before a call: also once more, after an absence that was proven or a throttling."""
    SILENCE = "silence"
    """No answer, or the sender's death."""
    VENUE = "venue"
    """What the venue said of the order."""
    ABSENCE = "absence"
    """The venue showed that the order never arrived and never will: in time at Binance, by its whole day's book at Kite."""
    OPERATOR = "operator"
    """A person looked at the venue and decided."""


class ForbiddenTransitionError(ValueError):
    """Something tried to move an order in a way that the table does not allow."""


_VENUE = frozenset({Cause.VENUE})
_TOLD = frozenset({Cause.VENUE, Cause.OPERATOR})
_GIVEN_UP = frozenset({Cause.VENUE, Cause.ABSENCE, Cause.OPERATOR})
_SENT = {
    WORKING: _VENUE,
    PARTIALLY_FILLED: _VENUE,
    FILLED: _TOLD,
    CANCELLED: _VENUE,
    EXPIRED: _TOLD,
    REJECTED: _GIVEN_UP,
}
_LATE = {WORKING: _VENUE, PARTIALLY_FILLED: _VENUE, FILLED: _VENUE, CANCELLED: _VENUE, EXPIRED: _VENUE}
TRANSITIONS: Mapping[tuple[str, str], frozenset[Cause]] = {
    (SUBMITTED, SUBMITTED): frozenset({Cause.SENDER}),
    (SUBMITTED, UNKNOWN): frozenset({Cause.SILENCE}),
    (UNKNOWN, SUBMITTED): frozenset({Cause.SENDER}),
    **{(before, after): causes for before in (SUBMITTED, UNKNOWN) for after, causes in _SENT.items()},
    (WORKING, PARTIALLY_FILLED): _VENUE,
    **{(before, after): _TOLD for before in (WORKING, PARTIALLY_FILLED) for after in (FILLED, EXPIRED)},
    **{(before, after): _VENUE for before in (WORKING, PARTIALLY_FILLED) for after in (CANCELLED, REJECTED)},
    # late: fills that complete an order which had ended, and an order given up that turns up after all
    (CANCELLED, FILLED): _VENUE,
    (EXPIRED, FILLED): _VENUE,
    **{(REJECTED, after): causes for after, causes in _LATE.items()},
}
"""(before, after): who may cause it. What is not here may not happen."""


def allowed(before: str, after: str, cause: Cause) -> bool:
    return cause in TRANSITIONS.get((before, after), frozenset())


def move(before: str, after: str, cause: Cause) -> str:
    """`after`. Raises `ForbiddenTransitionError` where the table does not allow it."""
    if not allowed(before, after, cause):
        may = sorted(each for (start, each), causes in TRANSITIONS.items() if start == before and cause in causes)
        raise ForbiddenTransitionError(
            f"an order that is {before} cannot become {after} by {cause}; by {cause} it may become "
            f"{', '.join(may) or 'nothing else'}"
        )
    return after


@dataclass(frozen=True)
class OrderRecord:
    """One order as far as it is known. `told` is the largest filled quantity that the venue ever named."""

    quantity: Decimal
    state: str = SUBMITTED
    venue_order_id: VenueOrderId | None = None
    fills: Mapping[TradeId, VenueFill] = field(default_factory=dict)
    told: Decimal = ZERO

    @property
    def filled(self) -> Decimal:
        return sum((fill.quantity for fill in self.fills.values()), ZERO)

    @property
    def average_price(self) -> Decimal | None:
        filled = self.filled
        spent = sum((fill.quantity * fill.price for fill in self.fills.values()), ZERO)
        return spent / filled if filled else None

    @property
    def done(self) -> bool:
        """Ended, and every fill that the venue named is known."""
        named = max(self.told, self.quantity) if self.state == FILLED else self.told
        return self.state in FINAL_STATES and self.filled >= named

    def heard(self, told: Accepted, cause: Cause = Cause.VENUE) -> "OrderRecord":
        """After a report, however old it is. Its fills that were known change nothing."""
        fills = dict(self.fills)
        for fill in told.fills:
            fills.setdefault(fill.trade_id, fill)
        after = replace(
            self,
            fills=fills,
            told=max(self.told, told.filled),
            venue_order_id=self.venue_order_id or told.venue_order_id or None,
        )
        return replace(after, state=_state(self.state, told.state, cause, after.filled, self.quantity))

    def new_fills(self, told: Iterable[VenueFill]) -> list[VenueFill]:
        """Those of a report that are not known yet, each once."""
        new = {fill.trade_id: fill for fill in reversed(list(told)) if fill.trade_id not in self.fills}
        return list(reversed(new.values()))


def _state(before: str, told: str, cause: Cause, filled: Decimal, quantity: Decimal) -> str:
    if filled >= quantity > ZERO:
        return FILLED
    state = told if allowed(before, told, cause) else before
    if state == WORKING and filled > ZERO:
        return PARTIALLY_FILLED
    return state
