"""Books against the venue: before trading, and ever again while trading.

Unfinished orders are settled by asking for them; holdings are compared with balances; orders that are not ours are
counted and left alone. A question without an answer is a failed reconciliation, never "nothing there". Differences are
named; nothing is repaired in a way that could add risk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.sender import Sender
from trading_platform.identifiers import Symbol
from trading_platform.markets.instruments import Instrument

ZERO = Decimal(0)


@dataclass
class Reconciled:
    """What a comparison found; `matches` is what an engine needs to trade."""

    at: datetime
    open_outcomes: int = 0
    foreign_orders: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def matches(self) -> bool:
        return not self.differences and self.open_outcomes == 0

    def shown(self) -> dict[str, object]:
        return {
            "at": self.at.isoformat(),
            "matches": self.matches,
            "open_outcomes": self.open_outcomes,
            "foreign_orders": self.foreign_orders,
            "differences": self.differences,
        }


async def reconcile(
    sender: Sender, portfolios: list[Portfolio], instruments: dict[Symbol, Instrument], market_time: datetime | None
) -> Reconciled:
    """Compare every account of the group. Raises `QueryFailedError` where the venue does not answer."""
    result = Reconciled(datetime.now(UTC))
    for portfolio in portfolios:
        result.open_outcomes += await sender.settle(portfolio, instruments, market_time, all_now=True)
        balances = await portfolio.venue.balances()
        portfolio.cash = balances.get(portfolio.currency, ZERO)
        result.differences += compare(portfolio, balances, instruments)
        foreign = [name for name in await portfolio.venue.open_client_order_ids() if not name.startswith("tp_")]
        result.foreign_orders += len(foreign)
    return result


def compare(
    portfolio: Portfolio, balances: Mapping[str, Decimal], instruments: Mapping[Symbol, Instrument]
) -> list[str]:
    """Holdings that the venue's balances do not cover, one line each. More than we know of is somebody else's."""
    held: dict[str, Decimal] = {}
    for holding in portfolio.holdings.values():
        instrument = instruments.get(holding.symbol)
        if instrument is None:
            return [f"{portfolio.account_id}: {holding.symbol} is held, but the venue does not trade it"]
        held[instrument.base] = held.get(instrument.base, ZERO) + holding.quantity
    return [
        f"{portfolio.account_id}: {quantity} {asset} held by the books, {balances.get(asset, ZERO)} at the venue"
        for asset, quantity in sorted(held.items())
        if balances.get(asset, ZERO) < quantity
    ]
