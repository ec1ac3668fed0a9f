"""Books against the venue: before an account is traded, and ever again while it is.

Unfinished orders are settled by asking for them; holdings are compared with balances; an order of ours that works at the
venue while the books have finished it is a difference; orders that are not ours are counted and left alone. A question
without an answer is a failed comparison, never "nothing there". Differences are named; nothing is repaired in a way
that could add risk.

An account whose books differ, or that its venue does not answer for, is set aside: nothing is decided for it but what a
halt asks for, until a later comparison matches. The group's other accounts go on.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from operator import itemgetter

from sqlalchemy import select

from trading_platform.compliance.audit import record
from trading_platform.execution.at_once import LANES, at_once
from trading_platform.execution.books import SETTLING
from trading_platform.execution.decisions import OUR_PREFIX
from trading_platform.execution.late_fills import take_late_fills
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.sender import Sender
from trading_platform.execution.trail import ACTOR
from trading_platform.identifiers import AccountId, DatasetId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.observability.alerts import raise_alert, resolve_alert
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Outbox
from trading_platform.venues.port import AuthLostError, QueryFailedError

ZERO = Decimal(0)


AGAIN_SECONDS = 5.0
"""For an account that is set aside."""
EVERY_SECONDS = 60.0
SECONDS_AN_ACCOUNT = 2.0
"""A venue counts questions by address: many accounts are compared one after the other, each the more seldom."""


@dataclass
class Compared:
    """What the last comparison of one account found."""

    open_outcomes: int = 0
    foreign_orders: int = 0
    late_fills: int = 0
    """Orders that had ended, and of which the venue told more; that is in the books now."""
    differences: list[str] = field(default_factory=list)
    unanswered: QueryFailedError | None = None


@dataclass
class Reconciled:
    """The last comparisons of a group's accounts; `matches` says that all did.

    An order whose outcome is unknown blocks its own symbol for its own account, and is no difference.
    """

    at: datetime
    accounts: int
    set_aside: int
    open_outcomes: int
    foreign_orders: int
    late_fills: int
    differences: list[str]

    @property
    def matches(self) -> bool:
        return not self.differences

    @property
    def nothing_matches(self) -> bool:
        return self.accounts > 0 and self.set_aside == self.accounts

    def shown(self) -> dict[str, object]:
        return {
            "at": self.at.isoformat(),
            "matches": self.matches,
            "set_aside": self.set_aside,
            "open_outcomes": self.open_outcomes,
            "foreign_orders": self.foreign_orders,
            "late_fills": self.late_fills,
            "differences": self.differences,
        }


@dataclass
class Reconciliation:
    """Compares a group's accounts, for the engine that holds the lease, and sets aside those that do not match."""

    sender: Sender
    _found: dict[AccountId, Compared] = field(default_factory=dict)
    _looked: dict[AccountId, float] = field(default_factory=dict)

    def due(self, portfolios: Sequence[Portfolio]) -> list[Portfolio]:
        """Whose turn it is now: the longest waiting first, so many as are compared at once."""
        every, now = max(EVERY_SECONDS, SECONDS_AN_ACCOUNT * len(portfolios)), time.monotonic()
        waiting = [
            (looked, portfolio)
            for portfolio in portfolios
            if now - (looked := self._looked.get(portfolio.account_id, 0.0))
            > (every if portfolio.set_aside is None else AGAIN_SECONDS)
        ]
        return [portfolio for _, portfolio in sorted(waiting, key=itemgetter(0))[:LANES]]

    async def compare(
        self, portfolios: Sequence[Portfolio], instruments: Mapping[Symbol, Instrument], now: datetime | None,
        clock_seconds: float,
    ) -> None:  # fmt: skip
        """Compare these accounts, several at once. Raises `AuthLostError`, and whatever is wrong with our own books."""

        async def one(portfolio: Portfolio) -> None:
            try:
                found = await reconcile(self.sender, portfolio, instruments, now, clock_seconds)
            except AuthLostError:
                raise
            except QueryFailedError as error:
                found = Compared(unanswered=error)
            self._found[portfolio.account_id] = found
            self._looked[portfolio.account_id] = time.monotonic()
            portfolio.set_aside = _why(found)

        await at_once(map(one, portfolios))

    def result(self, portfolios: Sequence[Portfolio]) -> Reconciled:
        """What is known of a group's accounts. Raises `QueryFailedError` where its venue answered for none of them."""
        known = [self._found[each.account_id] for each in portfolios if each.account_id in self._found]
        silent = [each.unanswered for each in known if each.unanswered is not None]
        if silent and len(silent) == len(portfolios):
            raise silent[0]
        return Reconciled(
            datetime.now(UTC),
            len(portfolios),
            sum(portfolio.set_aside is not None for portfolio in portfolios),
            sum(each.open_outcomes for each in known),
            sum(each.foreign_orders for each in known),
            sum(each.late_fills for each in known),
            [line for portfolio in portfolios for line in self._lines(portfolio)],
        )

    def _lines(self, portfolio: Portfolio) -> list[str]:
        found = self._found.get(portfolio.account_id)
        if found is None:
            return []
        if found.unanswered is not None:
            return [f"{portfolio.account_id}: not compared, {found.unanswered}"[:300]]
        return found.differences


def _why(found: Compared) -> str | None:
    if found.unanswered is not None:
        return "the venue does not answer"
    return "books and venue differ" if found.differences else None


async def reconcile(
    sender: Sender, portfolio: Portfolio, instruments: Mapping[Symbol, Instrument], now: datetime | None,
    clock_seconds: float,
) -> Compared:  # fmt: skip
    """Compare one account. Raises `QueryFailedError` where the venue does not answer."""
    await portfolio.venue.measure_route()
    open_outcomes = await sender.settle(portfolio, instruments, now, clock_seconds, all_now=True)
    late = await take_late_fills(sender, [portfolio], instruments, all_now=True)
    balances = await portfolio.venue.balances()
    portfolio.cash = balances.get(portfolio.currency, ZERO)
    differences = compare(portfolio, balances, instruments)
    working = await portfolio.venue.open_client_order_ids()
    ours = {name for name in working if name.startswith(OUR_PREFIX)}
    differences += [
        f"{portfolio.account_id}: order {name} works at the venue, but {what}"
        for name, what in sorted((await _not_open(sender, portfolio, ours)).items())
    ]
    return Compared(open_outcomes, len(working - ours), late, differences)


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
