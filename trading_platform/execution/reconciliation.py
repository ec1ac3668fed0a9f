"""Books against the venue: before trading, and ever again while trading.

Unfinished orders are settled by asking for them; holdings are compared with balances; an order of ours that works at the
venue while the books have finished it is a difference; orders that are not ours are counted and left alone. A question
without an answer is a failed reconciliation, never "nothing there". Differences are named; nothing is repaired in a way
that could add risk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import select

from trading_platform.compliance.audit import record
from trading_platform.execution.books import SETTLING
from trading_platform.execution.decisions import OUR_PREFIX
from trading_platform.execution.late_fills import take_late_fills
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.sender import Sender
from trading_platform.execution.trail import ACTOR
from trading_platform.identifiers import DatasetId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.observability.alerts import raise_alert, resolve_alert
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Outbox

ZERO = Decimal(0)


@dataclass
class Reconciled:
    """What a comparison found; `matches` is what an engine needs to trade.

    An order whose outcome is unknown blocks its own symbol for its own account, and nobody else.
    """

    at: datetime
    open_outcomes: int = 0
    foreign_orders: int = 0
    late_fills: int = 0
    """Orders that had ended, and of which the venue told more; that is in the books now."""
    differences: list[str] = field(default_factory=list)

    @property
    def matches(self) -> bool:
        return not self.differences

    def shown(self) -> dict[str, object]:
        return {
            "at": self.at.isoformat(),
            "matches": self.matches,
            "open_outcomes": self.open_outcomes,
            "foreign_orders": self.foreign_orders,
            "late_fills": self.late_fills,
            "differences": self.differences,
        }


async def reconcile(
    sender: Sender, portfolios: Sequence[Portfolio], instruments: Mapping[Symbol, Instrument], now: datetime | None,
    clock_seconds: float,
) -> Reconciled:  # fmt: skip
    """Compare every account of the group. Raises `QueryFailedError` where the venue does not answer."""
    result = Reconciled(datetime.now(UTC))
    for portfolio in portfolios:
        await portfolio.venue.measure_route()
        result.open_outcomes += await sender.settle(portfolio, instruments, now, clock_seconds, all_now=True)
        result.late_fills += await take_late_fills(sender, [portfolio], instruments, all_now=True)
        balances = await portfolio.venue.balances()
        portfolio.cash = balances.get(portfolio.currency, ZERO)
        result.differences += compare(portfolio, balances, instruments)
        working = await portfolio.venue.open_client_order_ids()
        ours = {name for name in working if name.startswith(OUR_PREFIX)}
        result.foreign_orders += len(working - ours)
        result.differences += [
            f"{portfolio.account_id}: order {name} works at the venue, but {what}"
            for name, what in sorted((await _not_open(sender, portfolio, ours)).items())
        ]
    return result


async def _not_open(sender: Sender, portfolio: Portfolio, names: set[str]) -> dict[str, str]:
    """Of the names of orders with our mark, those that are not open in the books, and what they are there."""
    unfinished = (
        (Outbox.intent_id == Intent.intent_id) & (Outbox.user_id == Intent.user_id) & (Outbox.state != SETTLING)
    )
    async with sender.databases.group_async(sender.lease.group_id) as session:
        rows = await session.execute(
            select(Intent.client_order_id, Outbox.intent_id)
            .outerjoin(Outbox, unfinished)
            .where(Intent.client_order_id.in_(names), Intent.account_id == portfolio.account_id)
        )
        found: dict[str, str | None] = dict(rows.tuples().all())
    return {
        name: "is finished in the books" if name in found else "the books have never heard of it"
        for name in names
        if found.get(name) is None
    }


def compare(
    portfolio: Portfolio, balances: Mapping[str, Decimal], instruments: Mapping[Symbol, Instrument]
) -> list[str]:
    """Holdings that the venue's balances do not cover, one line each. More than we know of, long or short, is somebody
    else's."""
    held: dict[str, Decimal] = {}
    for holding in portfolio.holdings.values():
        instrument = instruments.get(holding.contract)
        if instrument is None:
            return [f"{portfolio.account_id}: {holding.contract} is held, but the venue does not trade it"]
        held[instrument.base] = held.get(instrument.base, ZERO) + holding.quantity
    return [
        f"{portfolio.account_id}: {quantity} {asset} held by the books, {balances.get(asset, ZERO)} at the venue"
        for asset, quantity in sorted(held.items())
        if (balances.get(asset, ZERO) < quantity if quantity > ZERO else balances.get(asset, ZERO) > quantity)
    ]


async def say(found: Reconciled, databases: Databases, lease: GroupLease, dataset_id: DatasetId) -> None:
    """Raise or resolve the alert, and put differences on the audit trail."""
    title, labels = "Books and venue differ", {"group": lease.group_id}
    async with databases.control_async() as session:
        if found.differences:
            await session.run_sync(
                lambda sync: raise_alert(
                    sync, severity="critical", source="reconciliation", title=title,
                    detail="; ".join(found.differences)[:1000], labels=labels,
                )
            )  # fmt: skip
        else:
            await session.run_sync(
                lambda sync: resolve_alert(sync, source="reconciliation", title=title, labels=labels)
            )
    if found.differences:
        async with databases.group_async(lease.group_id) as session:
            await lease.check(session)
            record(
                session, user_id="*", actor=ACTOR, event_type="RECON", status="DIFFERS", dataset_id=dataset_id,
                detail={"differences": found.differences},
            )  # fmt: skip
