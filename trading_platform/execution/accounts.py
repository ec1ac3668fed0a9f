"""From rows to portfolios: which accounts a group trades on a dataset, and what they hold.

An engine builds portfolios when it starts, and again whenever it cannot be sure that memory and books agree.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.accounts.vault import Vault
from trading_platform.execution.portfolio import Holding, Portfolio, Stake
from trading_platform.execution.risk import Limits
from trading_platform.identifiers import AccountId, DatasetId, StrategyId, Symbol, UserId
from trading_platform.settings import Settings
from trading_platform.storage.group import (
    Account,
    Credential,
    Intent,
    Order,
    Outbox,
    Outcome,
    Position,
    RiskLimits,
    Subscription,
)
from trading_platform.venues.binance import BinanceVenue

if TYPE_CHECKING:
    from ccxt.async_support import binance

ZERO = Decimal(0)
SAFE_LIMITS = Limits(ZERO, ZERO, 0, 0, 0, ZERO)
"""For a user without limits: nothing may be entered until somebody has set them."""


async def account_ids(session: AsyncSession, dataset_id: DatasetId) -> set[str]:
    """Open accounts of the group that trade on this dataset."""
    rows = await session.scalars(
        select(Account.account_id).where(Account.dataset_id == dataset_id, Account.closed_at.is_(None))
    )
    return set(rows.all())


async def load_portfolios(
    session: AsyncSession, settings: Settings, dataset_id: DatasetId, market_time: datetime | None,
    markets_from: "binance | None" = None,
) -> list[Portfolio]:  # fmt: skip
    """All accounts of the dataset with stakes, limits, holdings and the day's counts; cash is asked of the venue later."""
    vault = Vault(settings)
    accounts = await session.scalars(
        select(Account)
        .where(Account.dataset_id == dataset_id, Account.closed_at.is_(None))
        .order_by(Account.account_id)
    )
    portfolios = []
    for account in accounts.all():
        keys = await _keys(session, vault, account)
        armed = account.kind == "live" and account.armed_at is not None
        venue = BinanceVenue(
            settings.sandbox_url if account.kind == "sandbox" else None,
            keys["api_key"],
            keys["api_secret"],
            armed=armed,
            markets_from=markets_from,
        )
        portfolio = Portfolio(
            user_id=UserId(account.user_id),
            account_id=AccountId(account.account_id),
            kind=account.kind,
            armed=armed,
            currency=account.currency,
            venue=venue,
            limits=await _limits(session, account.user_id),
            stakes=await _stakes(session, account),
            holdings=await _holdings(session, account),
        )
        await _add_unknown(session, portfolio)
        if market_time is not None:
            await _count_day(session, portfolio, market_time)
        portfolios.append(portfolio)
    return portfolios


async def _keys(session: AsyncSession, vault: Vault, account: Account) -> Mapping[str, str]:
    rows = await session.scalars(
        select(Credential).where(Credential.user_id == account.user_id, Credential.account_id == account.account_id)
    )
    return {row.name: vault.open(row).get_secret_value() for row in rows}


async def _limits(session: AsyncSession, user_id: str) -> Limits:
    row = (
        await session.scalars(
            select(RiskLimits).where(RiskLimits.user_id == user_id).order_by(RiskLimits.revision.desc()).limit(1)
        )
    ).one_or_none()
    if row is None:
        return SAFE_LIMITS
    return Limits(
        row.max_order_notional, row.max_position_notional, row.max_open_positions, row.max_orders_per_second,
        row.max_orders_per_day, row.max_daily_loss,
    )  # fmt: skip


async def _stakes(session: AsyncSession, account: Account) -> dict[StrategyId, Stake]:
    rows = await session.scalars(
        select(Subscription).where(
            Subscription.user_id == account.user_id, Subscription.account_id == account.account_id
        )
    )
    return {
        StrategyId(row.strategy_id): Stake(
            StrategyId(row.strategy_id), row.capital_fraction, row.allow_uncertified, row.enabled
        )
        for row in rows
    }


async def _holdings(session: AsyncSession, account: Account) -> dict[tuple[StrategyId, Symbol], Holding]:
    rows = await session.execute(
        select(Position, Intent)
        .join(Intent, (Intent.intent_id == Position.entry_intent_id) & (Intent.user_id == Position.user_id))
        .where(Position.user_id == account.user_id, Position.account_id == account.account_id, Position.quantity > 0)
    )
    return {
        (StrategyId(position.strategy_id), Symbol(position.symbol)): Holding(
            symbol=Symbol(position.symbol),
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


async def _add_unknown(session: AsyncSession, portfolio: Portfolio) -> None:
    rows = await session.scalars(
        select(Intent.symbol)
        .join(Outbox, Outbox.intent_id == Intent.intent_id)
        .where(Outbox.account_id == portfolio.account_id, Intent.user_id == portfolio.user_id)
    )
    portfolio.unknown = {Symbol(symbol) for symbol in rows}


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
    net = await session.scalar(
        select(func.sum(Outcome.net_pnl)).where(
            Outcome.user_id == portfolio.user_id, Outcome.exit_time >= midnight,
            Outcome.account_id == portfolio.account_id,
        )
    )  # fmt: skip
    portfolio.net_today = net or ZERO
