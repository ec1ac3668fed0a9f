"""Positions, and the outcomes of trades that end: what new fills change, in memory and in the books alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.execution.outcomes import closed_trade, fee_in_quote
from trading_platform.execution.portfolio import Holding, Portfolio
from trading_platform.identifiers import StrategyId, Symbol, content_id
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.group import AuditRow, EquityPoint, Fill, Intent, Outcome, Position
from trading_platform.storage.types import table_of
from trading_platform.venues.port import VenueFill

ZERO = Decimal(0)
_POSITIONS = table_of(Position)
_MOVING = insert(_POSITIONS).values(updated_at=func.clock_timestamp())
_MOVE = _MOVING.on_conflict_do_update(
    index_elements=["user_id", "account_id", "strategy_id", "symbol"],
    set_={
        **{name: _MOVING.excluded[name] for name in ("quantity", "average_price", "entry_intent_id", "last_price")},
        "realized_pnl": _POSITIONS.c.realized_pnl + _MOVING.excluded.realized_pnl,
        "fees": _POSITIONS.c.fees + _MOVING.excluded.fees,
        "updated_at": func.clock_timestamp(),
    },
).returning(_POSITIONS.c.symbol)
"""Returning makes it one statement for many rows."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Change:
    """An order's new fills."""

    portfolio: Portfolio
    intent: Intent
    instrument: Instrument
    fills: Sequence[VenueFill]


async def move_positions(session: AsyncSession, changes: Sequence[Change]) -> None:
    """Let new fills, which are in the books, change cash, holdings and positions; close trades of which nothing sellable
    is left."""
    if not changes:
        return
    rows: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    over = []
    for change in changes:
        row, is_over = _moved(change)
        of = (row["user_id"], row["account_id"], row["strategy_id"], row["symbol"])
        if (before := rows.get(of)) is not None:  # one statement can move a position only once
            row |= {name: before[name] + row[name] for name in ("realized_pnl", "fees")}
        rows[of] = row
        over += [change] * is_over
    await session.execute(_MOVE, list(rows.values()))
    for change in over:
        grown = await _close(session, change.intent, change.instrument, change.portfolio.prices)
        change.portfolio.book_result(StrategyId(change.intent.strategy_id), grown)


def _moved(change: Change) -> tuple[dict[str, Any], bool]:
    """Changes the portfolio; returns what the position's row becomes, and whether a trade is over.

    Only an entry opens a position, and nothing turns one into its opposite: of a fill that is larger than what it leaves
    the rest moves the cash alone, and reconciliation tells what the venue has.
    """
    portfolio, intent, instrument = change.portfolio, change.intent, change.instrument
    key = (StrategyId(intent.strategy_id), Symbol(intent.symbol))
    holding = portfolio.holdings.get(key)
    worth = _worth(instrument.quote, portfolio.prices)
    realized = fees = ZERO
    buys = intent.side == "buy"
    opens = intent.purpose == "entry" and (holding is None or (holding.quantity > ZERO) == buys)
    for fill in change.fills:
        gained_fee = fill.fee if fill.fee_currency == instrument.base else ZERO
        quote_fee = fill.fee if fill.fee_currency == instrument.quote else ZERO
        fees += gained_fee * fill.price + fee_in_quote(fill, instrument.base, instrument.quote, worth)
        portfolio.cash += (-1 if buys else 1) * fill.price * fill.quantity - quote_fee
        units = fill.quantity - gained_fee if buys else -fill.quantity
        if opens:
            holding = _grown(holding, intent, units, fill.price)
        elif holding is not None:
            gained, beyond = holding.reduce(units, fill.price)
            realized += gained
            if beyond:
                log.error("filled_beyond_position", intent_id=intent.intent_id, beyond=str(beyond))
    closed = holding is not None and not opens and abs(holding.quantity) < instrument.step
    late = holding is None and intent.purpose != "entry"  # a late fill of a trade that was over
    if closed:
        portfolio.holdings.pop(key, None)
        holding = None
    elif holding is not None:
        portfolio.holdings[key] = holding
    return {
        "user_id": intent.user_id,
        "account_id": intent.account_id,
        "strategy_id": intent.strategy_id,
        "symbol": intent.symbol,
        "quantity": holding.quantity if holding else ZERO,
        "average_price": holding.average_price if holding else ZERO,
        "entry_intent_id": holding.entry_intent_id if holding else None,
        "last_price": change.fills[-1].price,
        "realized_pnl": realized,
        "fees": fees,
    }, late or (closed and intent.purpose != "entry")


def _grown(holding: Holding | None, intent: Intent, quantity: Decimal, price: Decimal) -> Holding:
    if holding is None:
        return Holding(
            symbol=Symbol(intent.symbol),
            contract=Symbol(intent.contract),
            strategy_id=StrategyId(intent.strategy_id),
            quantity=quantity,
            average_price=price,
            entry_intent_id=intent.intent_id,
            version_id=intent.version_id,
            arm=intent.arm,
            signal_id=intent.signal_id,
            target=intent.target_price or ZERO,
            stop=intent.stop_price or ZERO,
            exit_by=intent.exit_by or intent.market_time,
        )
    total = holding.quantity + quantity
    holding.average_price = (holding.average_price * holding.quantity + price * quantity) / total
    holding.quantity = total
    return holding


async def _close(
    session: AsyncSession, exit_intent: Intent, instrument: Instrument, prices: Mapping[Symbol, Decimal]
) -> Decimal:
    """Write the outcome of a trade, from all fills of its entry and its exits; returns by how much its net grew."""
    entry = await session.get_one(Intent, (exit_intent.user_id, exit_intent.entry_intent_id))
    exits = await session.scalars(select(Intent.client_order_id).where(Intent.entry_intent_id == entry.intent_id))
    trade = closed_trade(
        await _fills_of(session, entry.user_id, [entry.client_order_id]),
        await _fills_of(session, entry.user_id, exits.all()),
        base=instrument.base,
        quote=instrument.quote,
        worth=_worth(instrument.quote, prices),
        short=entry.side == "sell",
    )
    tags = await _signal_tags(session, entry)
    key = (entry.user_id, content_id("o", entry.intent_id))
    before = await session.get(Outcome, key)
    known = before.net_pnl if before is not None else ZERO
    outcome = Outcome(
        user_id=key[0],
        outcome_id=key[1],
        account_id=entry.account_id,
        dataset_id=entry.dataset_id,
        strategy_id=entry.strategy_id,
        version_id=entry.version_id,
        arm=entry.arm,
        signal_id=entry.signal_id,
        symbol=entry.symbol,
        contract=entry.contract,
        currency=instrument.quote,
        entry_time=trade.entry_time,
        exit_time=trade.exit_time,
        exit_reason=_reason(entry, exit_intent),
        quantity=trade.quantity,
        entry_price=trade.entry_price,
        exit_price=trade.exit_price,
        gross_pnl=trade.gross,
        costs=trade.costs,
        net_pnl=trade.net,
        net_return=trade.net_return,
        success=trade.net > 0,
        **tags,
    )
    await session.merge(outcome)
    return trade.net - known


async def _fills_of(session: AsyncSession, user_id: str, client_ids: Sequence[str]) -> Sequence[Fill]:
    rows = await session.scalars(select(Fill).where(Fill.user_id == user_id, Fill.client_order_id.in_(client_ids)))
    return rows.all()


def _worth(quote: str, prices: Mapping[Symbol, Decimal]) -> Callable[[str], Decimal]:
    """What a third asset is worth in `quote`, by the last price seen; nothing where its market is not followed."""

    def worth(asset: str) -> Decimal:
        price = prices.get(Symbol(f"{asset}/{quote}"))
        if price is None:
            log.warning("fee_without_price", asset=asset, quote=quote)
        return price or ZERO

    return worth


async def _signal_tags(session: AsyncSession, entry: Intent) -> dict[str, Any]:
    """Market condition and confidence at entry, as they were written on the entry's audit entry."""
    plan = await session.scalars(
        select(AuditRow.detail).where(
            AuditRow.user_id == entry.user_id, AuditRow.intent_id == entry.intent_id, AuditRow.event_type == "PLAN"
        )
    )
    detail = plan.first() or {}
    return {
        "confidence": float(detail.get("confidence", 0.0)),
        "certified": bool(detail.get("certified", False)),
        **{name: str(detail.get(name, "unknown")) for name in ("volatility", "trend", "liquidity", "session")},
    }


def _reason(entry: Intent, exit_intent: Intent) -> str:
    price = exit_intent.reference_price
    if entry.target_price is not None and price >= entry.target_price:
        return "target"
    if entry.stop_price is not None and price <= entry.stop_price:
        return "stop"
    return "time" if entry.exit_by is not None and exit_intent.market_time >= entry.exit_by else "flatten"


async def write_equity(session: AsyncSession, portfolios: Sequence[Portfolio], market_time: datetime) -> None:
    """One point of every account's equity curve."""
    points = [
        {
            "user_id": portfolio.user_id,
            "account_id": portfolio.account_id,
            "market_time": market_time,
            "cash": portfolio.cash,
            "positions_value": portfolio.holdings_value,
            "equity": portfolio.equity,
            "currency": portfolio.currency,
        }
        for portfolio in portfolios
    ]
    await session.execute(insert(EquityPoint).on_conflict_do_nothing(), points)
