"""Positions larger than one order may be are left in slices, each an intent of its own, one after the other.

An entry is never larger than the exchange's freeze quantity, but a position may come to be: freeze quantities are issued
anew every month, and the broker's refusal may name a lower one. The first slice is the exit itself, cut by
`decisions.py`; the next one is decided on when that is filled. Whatever else became of it ends the row: what follows
would build on a guess, and what is left is decided on with the next bar.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from trading_platform.execution.decisions import Decision
from trading_platform.identifiers import content_id
from trading_platform.markets.instruments import Instrument


@dataclass(frozen=True)
class Cut:
    """An exit that is as large as one order may be, and what is left of its position once it is filled."""

    decision: Decision
    rest: Decimal

    def following(self, instrument: Instrument) -> Decision | None:
        """The next slice; None where this one is not filled as a whole, or nothing is left that can be sold."""
        portfolio, held = self.decision.portfolio, self.decision.holding
        assert held is not None
        left = portfolio.holdings.get(held.key)
        if left is None or left.quantity != self.rest or left.symbol in portfolio.unsettled:
            return None
        quantity = min(instrument.round_quantity(self.rest), self.decision.quantity)
        key = content_id("d", self.decision.decision_key, "rest")
        return replace(self.decision, holding=left, quantity=quantity, decision_key=key) if quantity else None


def cuts(decisions: Sequence[Decision]) -> list[Cut]:
    """The exits among the decisions that may leave something, before they are sent."""
    return [
        Cut(each, each.holding.quantity - each.quantity)
        for each in decisions
        if each.holding is not None and each.denial is None and each.portfolio.broker is not None
        and each.quantity == each.portfolio.broker.largest_order(each.contract)
    ]  # fmt: skip
