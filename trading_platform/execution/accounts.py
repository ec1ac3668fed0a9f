"""From rows to portfolios: which accounts a group trades on a dataset, and what they hold.

An engine builds portfolios when it starts, and again whenever it cannot be sure that memory and books agree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache

from redis.asyncio import Redis
from sqlalchemy import ColumnElement, ScalarSelect, and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.accounts.sessions import valkey
from trading_platform.accounts.vault import Vault
from trading_platform.execution.books import SETTLING
from trading_platform.execution.breakers import VenueBreaker
from trading_platform.execution.limits import LimitBook
from trading_platform.execution.portfolio import Holding, Portfolio, RestingStop, Stake
from trading_platform.execution.watched_venue import WatchedVenue
from trading_platform.identifiers import AccountId, ClientOrderId, DatasetId, GroupId, StrategyId, Symbol, UserId
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import (
    Account,
    Credential,
    EquityPoint,
    Intent,
    Order,
    Outbox,
    Outcome,
    Position,
    RiskLimits,
    Subscription,
)
from trading_platform.venues.binance import BinanceVenue
from trading_platform.venues.port import OrderVenue, QueryFailedError
from trading_platform.venues.zerodha import vaulted
from trading_platform.venues.zerodha.limits import OrdersOnRecord, RateLimiter
from trading_platform.venues.zerodha.transport import ROOT as KITE
from trading_platform.venues.zerodha.transport import KiteTransport
from trading_platform.venues.zerodha.venue import ZerodhaVenue

ZERO = Decimal(0)
VENUES_WITH_LOGIN = ("zerodha",)
_ITS_OWN = (Credential.user_id == Account.user_id, Credential.account_id == Account.account_id)


@dataclass(frozen=True)
class Terms:
    """What owners allow at this moment: limits by scope and currency, stakes by (user, account)."""

    limits: LimitBook
    stakes: Mapping[tuple[str, str], dict[StrategyId, Stake]]

    def apply(self, portfolio: Portfolio) -> None:
        """Let a portfolio go by these terms from now on."""
        portfolio.limits = self.limits.find("user", portfolio.user_id, portfolio.currency)
        portfolio.stakes = self.stakes.get((portfolio.user_id, portfolio.account_id), {})


async def tradable_accounts(
    session: AsyncSession, dataset_id: DatasetId, live_venue: str | None
) -> list[tuple[str, str, datetime]]:
    """(user, account, when its keys changed last) of every open account that may trade on this dataset, in order.

    `live_venue`: the venue of a live market, whose armed accounts belong to it without naming it. A live account that
    its owner has not armed, that has no keys, or whose session is over is left out: nothing is sent for it, and it keeps
    nobody from trading.
    """
    rows = await session.execute(
        select(Account.user_id, Account.account_id, _keys_changed_at())
        .where(*_tradable(dataset_id, live_venue))
        .order_by(Account.account_id)
    )
    return [(user_id, account_id, changed_at) for user_id, account_id, changed_at in rows]


async def terms(session: AsyncSession) -> Terms:
    """The limits and subscriptions in force in the group."""
    key = (RiskLimits.scope, RiskLimits.scope_id, RiskLimits.currency)
    newest = select(RiskLimits).distinct(*key).order_by(*key, RiskLimits.revision.desc())
    limits = LimitBook.of(await session.scalars(newest))
    stakes: dict[tuple[str, str], dict[StrategyId, Stake]] = {}
    for row in await session.scalars(select(Subscription)):
        strategy = StrategyId(row.strategy_id)
        stake = Stake(
            strategy, row.capital_fraction, row.allow_uncertified, row.enabled, row.hedge_away, row.spread_away,
            row.overnight,
        )  # fmt: skip
        stakes.setdefault((row.user_id, row.account_id), {})[strategy] = stake
    return Terms(limits, stakes)


async def load_portfolios(
    databases: Databases, group_id: GroupId, session: AsyncSession, dataset_id: DatasetId, live_venue: str | None,
    market_time: datetime | None, now: Callable[[], datetime], watch: Callable[[str], VenueBreaker],
) -> list[Portfolio]:  # fmt: skip
    """All accounts of the dataset with terms, holdings and the day's counts; cash is asked of the venue later.

    `now`: the market's clock, by which venues with sessions decide what may be sent. `watch`: the breaker that counts
    the calls of an account.
    """
    vault = Vault(databases.settings)
    accounts = await session.execute(
        select(Account, _keys_changed_at()).where(*_tradable(dataset_id, live_venue)).order_by(Account.account_id)
    )
    in_force = await terms(session)
    portfolios = []
    for account, keys_changed_at in accounts.tuples().all():
        keys = await _keys(session, vault, account)
        venue = _venue(databases, group_id, account, keys, now)
        portfolio = Portfolio(
            user_id=UserId(account.user_id),
            account_id=AccountId(account.account_id),
            kind=account.kind,
            armed=account.kind == "live" and account.armed_at is not None,
            currency=account.currency,
            venue=WatchedVenue(venue, watch(account.account_id)),
            broker=venue if isinstance(venue, ZerodhaVenue) else None,
            keys_changed_at=keys_changed_at,
            limits=None,
            holdings=await _holdings(session, account),
            session_ends_at=await _session_end(session, account),
            registered_address=keys.get(vaulted.ADDRESS),
            peak_equity=await _peak_equity(session, account),
        )
        in_force.apply(portfolio)
        await _add_unfinished(session, portfolio)
        if market_time is not None:
            await _count_day(session, portfolio, market_time)
        portfolios.append(portfolio)
    return portfolios


def _tradable(dataset_id: DatasetId, live_venue: str | None) -> tuple[ColumnElement[bool], ...]:
    belongs = or_(
        Account.dataset_id == dataset_id,
        and_(Account.dataset_id.is_(None), Account.kind == "live", Account.venue == live_venue),
    )
    has_keys = exists().where(*_ITS_OWN, Credential.name == "api_secret")
    is_logged_in = or_(
        Account.kind == "sandbox", Account.venue.not_in(VENUES_WITH_LOGIN),
        exists().where(*_ITS_OWN, Credential.name == vaulted.TOKEN, Credential.expires_at > func.now()),
    )  # fmt: skip
    allowed = or_(Account.kind == "sandbox", Account.armed_at.is_not(None))
    return belongs, Account.closed_at.is_(None), allowed, has_keys, is_logged_in


def _keys_changed_at() -> ScalarSelect[datetime]:
    return select(func.max(Credential.created_at)).where(*_ITS_OWN).correlate(Account).scalar_subquery()


def _venue(
    databases: Databases, group_id: GroupId, account: Account, keys: Mapping[str, str], now: Callable[[], datetime]
) -> OrderVenue:
    settings = databases.settings
    live, armed = account.kind == "live", account.armed_at is not None
    sandbox = settings.sandbox_kite_url if account.venue == "zerodha" else settings.sandbox_url
    if not live and sandbox is None:
        raise QueryFailedError(
            f"paper account {account.account_id} needs the sandbox, and no address of it is known: start the platform "
            "(`trading-platform up`) or set TP_SANDBOX_URL and TP_SANDBOX_KITE_URL"
        )
    if account.venue == "zerodha":
        limiter = _kite_limits(databases, group_id, account, keys["api_key"]) if live else None
        transport = KiteTransport(
            keys["api_key"], keys.get(vaulted.TOKEN), root=KITE if live else sandbox or "",
            source_address=keys.get(vaulted.ADDRESS), limiter=limiter,
        )  # fmt: skip
        return ZerodhaVenue(transport, now, armed=armed, account_id=AccountId(account.account_id))
    return BinanceVenue(None if live else sandbox, keys["api_key"], keys["api_secret"], armed=armed)


def _kite_limits(databases: Databases, group_id: GroupId, account: Account, api_key: str) -> RateLimiter:
    """The broker's limits. A replay's days pass in minutes, so that the sandbox's accounts are not counted."""
    sent = OrdersOnRecord(databases, group_id, UserId(account.user_id), AccountId(account.account_id))
    return RateLimiter(_valkey(databases), account.account_id, api_key, sent)


@cache
def _valkey(databases: Databases) -> Redis:
    """One pool of connections for all accounts of a process."""
    return valkey(databases.settings)


async def _keys(session: AsyncSession, vault: Vault, account: Account) -> Mapping[str, str]:
    rows = await session.scalars(
        select(Credential).where(Credential.user_id == account.user_id, Credential.account_id == account.account_id)
    )
    return {row.name: vault.open(row).get_secret_value() for row in rows}


async def _holdings(session: AsyncSession, account: Account) -> dict[tuple[StrategyId, Symbol], Holding]:
    rows = await session.execute(
        select(Position, Intent)
        .join(Intent, (Intent.intent_id == Position.entry_intent_id) & (Intent.user_id == Position.user_id))
        .where(Position.user_id == account.user_id, Position.account_id == account.account_id, Position.quantity != 0)
    )
    return {
        (StrategyId(position.strategy_id), Symbol(position.symbol)): Holding(
            symbol=Symbol(position.symbol),
            contract=Symbol(intent.contract),
            strategy_id=StrategyId(position.strategy_id),
            quantity=position.quantity,
            average_price=position.average_price,
            entry_intent_id=intent.intent_id,
            version_id=intent.version_id,
            arm=intent.arm,
            signal_id=intent.signal_id,
            target=intent.target_price or ZERO,
            stop=intent.stop_price or ZERO,
            exit_by=intent.exit_by or intent.market_time,
        )
        for position, intent in rows.tuples()
    }


async def _add_unfinished(session: AsyncSession, portfolio: Portfolio) -> None:
    rows = await session.execute(
        select(Intent, Order.filled_quantity)
        .join(Outbox, Outbox.intent_id == Intent.intent_id)
        .join(Order, (Order.intent_id == Intent.intent_id) & (Order.user_id == Intent.user_id))
        .where(Outbox.account_id == portfolio.account_id, Intent.user_id == portfolio.user_id, Outbox.state != SETTLING)
    )
    for intent, filled in rows.tuples():
        symbol = Symbol(intent.symbol)
        if intent.purpose == "stop" and intent.state == "SUBMITTED":
            portfolio.stops[StrategyId(intent.strategy_id), symbol] = RestingStop(
                intent.intent_id, ClientOrderId(intent.client_order_id), Symbol(intent.contract),
                intent.quantity - filled,
            )  # fmt: skip
        else:
            portfolio.unknown.add(symbol)


async def _count_day(session: AsyncSession, portfolio: Portfolio, market_time: datetime) -> None:
    portfolio.turn_day(market_time)
    midnight = market_time.replace(hour=0, minute=0, second=0, microsecond=0)
    portfolio.orders_today = (
        await session.scalar(
            select(func.count()).select_from(Order).where(
                Order.user_id == portfolio.user_id, Order.market_time >= midnight,
                Order.account_id == portfolio.account_id,
            )
        )
    ) or 0  # fmt: skip
    results = await session.execute(
        select(Outcome.strategy_id, func.sum(Outcome.net_pnl))
        .where(
            Outcome.user_id == portfolio.user_id, Outcome.exit_time >= midnight,
            Outcome.account_id == portfolio.account_id,
        )
        .group_by(Outcome.strategy_id)
    )  # fmt: skip
    for strategy_id, net in results:
        portfolio.book_result(StrategyId(strategy_id), net)


async def _session_end(session: AsyncSession, account: Account) -> datetime | None:
    """When the session of a live account at a broker with daily log-ins ends; None for others."""
    if account.kind != "live" or account.venue not in VENUES_WITH_LOGIN:
        return None
    token = (
        Credential.user_id == account.user_id, Credential.account_id == account.account_id,
        Credential.name == vaulted.TOKEN,
    )  # fmt: skip
    return await session.scalar(select(Credential.expires_at).where(*token))


async def _peak_equity(session: AsyncSession, account: Account) -> Decimal:
    ours = (EquityPoint.user_id == account.user_id, EquityPoint.account_id == account.account_id)
    return await session.scalar(select(func.max(EquityPoint.equity)).where(*ours)) or ZERO
