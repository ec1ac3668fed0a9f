"""The books: what the venue's answers change, written once and in one transaction with their audit entries.

A fill is known by (account, symbol, trade id) and can be applied once only; position, cash and outcome follow from fills
that were new. Spot fees are taken in the asset received, so a buy gives a little less than its quantity. The arithmetic
of a closed trade is in `outcomes.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy import Interval, bindparam, delete, func, null, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.execution import trail
from trading_platform.execution.order_states import FILLED, REJECTED, Cause, OrderRecord, move
from trading_platform.execution.outcomes import closed_trade, fee_in_quote
from trading_platform.execution.portfolio import Holding, Portfolio
from trading_platform.execution.probes import LATE_SECONDS
from trading_platform.identifiers import StrategyId, Symbol, TradeId, VenueOrderId, content_id
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.group import EquityPoint, Fill, Intent, Order, Outbox, Outcome, Position
from trading_platform.storage.types import table_of
from trading_platform.venues.port import Accepted, VenueFill

ZERO = Decimal(0)
ASK_AGAIN_AFTER = timedelta(seconds=1)
"""For an order that the venue has, but has not finished, or whose fills it has not all told."""
SETTLING = "SETTLING"
"""Of an outbox row: the order has ended, and is still asked for as `probes.py` says, for fills that come late."""
LOOK_AT_STOPS_AFTER = timedelta(seconds=15)
"""For a stop that waits: it is looked at with every bar as well."""
_INTENT_AND_ORDER = (
    select(Intent, Order)
    .join(Order, (Order.user_id == Intent.user_id) & (Order.intent_id == Intent.intent_id))
    .where(Intent.user_id == bindparam("user"), Intent.intent_id == bindparam("intent"))
)
_ASKING = insert(table_of(Outbox)).values(next_try_at=func.now() + bindparam("after", type_=Interval), verdict=null())
_ASK_AGAIN = _ASKING.on_conflict_do_update(
    index_elements=["intent_id"],
    set_={
        "state": _ASKING.excluded.state, "next_try_at": _ASKING.excluded.next_try_at, "verdict": _ASKING.excluded.verdict
    },
)  # fmt: skip
log = structlog.get_logger(__name__)


async def rows_of(session: AsyncSession, intent: Intent) -> tuple[Intent, Order]:
    """Intent and order as the books have them now. While the order is held, the session need not ask for it again."""
    found = await session.execute(_INTENT_AND_ORDER, {"user": intent.user_id, "intent": intent.intent_id})
    return found.tuples().one()


async def take_answer(
    session: AsyncSession, portfolio: Portfolio, intent: Intent, accepted: Accepted, instrument: Instrument,
    latency_ms: float | None, cause: Cause = Cause.VENUE,
) -> bool:  # fmt: skip
    """Apply what the venue said of an order, or how an operator says that it ended. Returns whether the order is done.

    The caller has checked the lease in this transaction; `portfolio` is changed in step with the rows, so the caller
    must drop it and rebuild if the commit fails.
    """
    order = await session.get_one(Order, (intent.user_id, intent.client_order_id))
    record = await _record(session, order)
    new = await _insert_fills(session, intent, record.new_fills(accepted.fills))
    after = record.heard(accepted, cause)
    if new or after.done or intent.state != "SUBMITTED":  # an order that rests is asked for often, and told of once
        trail.acknowledged(session, portfolio, intent, accepted, latency_ms)
    for fill in new:
        trail.filled(session, portfolio, intent, accepted, fill)
    order.venue_order_id, order.state = after.venue_order_id, after.state
    order.filled_quantity, order.average_price = after.filled, after.average_price
    if order.acknowledged_at is None:
        order.acknowledged_at = func.clock_timestamp()
    order.updated_at = func.clock_timestamp()
    if new:
        await _move_position(session, portfolio, intent, new, instrument)
    intent.state, intent.updated_at = "DONE" if after.done else "SUBMITTED", func.now()
    if after.done:
        await (_forget if after.state == FILLED else _ask_for_late_fills)(session, intent)
    else:
        wait = LOOK_AT_STOPS_AFTER if intent.purpose == "stop" else ASK_AGAIN_AFTER
        await _ask_again(session, intent, "PROBING", wait)
    return after.done


async def take_refusal(
    session: AsyncSession, portfolio: Portfolio, intent: Intent, code: str, text: str, cause: Cause = Cause.VENUE
) -> None:
    """The venue does not have the order and will not: the intent ends, with nothing filled.

    `cause`: the venue's refusal, or why the order was given up. Raises `ForbiddenTransitionError` for an order that the
    venue is known to have.
    """
    order = await session.get_one(Order, (intent.user_id, intent.client_order_id))
    order.state = move(order.state, REJECTED, cause)
    order.reject_code, order.reject_text = code, text[:1000]
    order.updated_at = func.clock_timestamp()
    await _ask_for_late_fills(session, intent)
    intent.state = "REJECTED" if cause == Cause.VENUE else "ABANDONED"
    intent.updated_at = func.now()
    trail.refused(session, portfolio, intent, code, text)


async def _record(session: AsyncSession, order: Order) -> OrderRecord:
    """The order as the books have it."""
    fills: dict[TradeId, VenueFill] = {}
    if order.filled_quantity:
        columns = (Fill.trade_id, Fill.price, Fill.quantity, Fill.fee, Fill.fee_currency, Fill.market_time)
        of_it = (Fill.user_id == order.user_id, Fill.client_order_id == order.client_order_id)
        for row in await session.execute(select(*columns).where(*of_it)):
            trade_id = TradeId(row.trade_id)
            fills[trade_id] = VenueFill(trade_id, *row[1:])
    number = VenueOrderId(order.venue_order_id) if order.venue_order_id else None
    return OrderRecord(order.quantity, order.state, number, fills, order.filled_quantity)


async def _forget(session: AsyncSession, intent: Intent) -> None:
    """Filled to the last unit: nothing more can come."""
    await session.execute(delete(Outbox).where(Outbox.intent_id == intent.intent_id))


async def _ask_for_late_fills(session: AsyncSession, intent: Intent) -> None:
    await _ask_again(session, intent, SETTLING, timedelta(seconds=LATE_SECONDS[0]))


async def _ask_again(session: AsyncSession, intent: Intent, state: str, after: timedelta) -> None:
    """Also where nothing was asked any more: an order that was given up may turn up."""
    await session.execute(
        _ASK_AGAIN,
        {
            "intent_id": intent.intent_id,
            "user_id": intent.user_id,
            "account_id": intent.account_id,
            "epoch": intent.epoch,
            "state": state,
            "after": after,
        },
    )


async def _insert_fills(session: AsyncSession, intent: Intent, fills: Sequence[VenueFill]) -> list[VenueFill]:
    """Those that were new. In one statement: an order may be filled by thousands."""
    if not fills:
        return []
    rows = [
        {
            "user_id": intent.user_id,
            "account_id": intent.account_id,
            "symbol": intent.symbol,
            "trade_id": fill.trade_id,
            "client_order_id": intent.client_order_id,
            "side": intent.side,
            "price": fill.price,
            "quantity": fill.quantity,
            "fee": fill.fee,
            "fee_currency": fill.fee_currency,
            "market_time": fill.time,
        }
        for fill in fills
    ]
    inserted = await session.scalars(insert(Fill).on_conflict_do_nothing().returning(Fill.trade_id), rows)
    new = set(inserted.all())
    return [fill for fill in fills if fill.trade_id in new]


async def _move_position(
    session: AsyncSession, portfolio: Portfolio, intent: Intent, fills: Sequence[VenueFill], instrument: Instrument
) -> None:
    """Let new fills change cash, holding and position; close the trade where nothing sellable is left."""
    key = (StrategyId(intent.strategy_id), Symbol(intent.symbol))
    holding = portfolio.holdings.get(key)
    worth = _worth(instrument.quote, portfolio.prices)
    realized = ZERO
    fees = ZERO
    for fill in fills:
        gained_fee = fill.fee if fill.fee_currency == instrument.base else ZERO
        quote_fee = fill.fee if fill.fee_currency == instrument.quote else ZERO
        fees += gained_fee * fill.price + fee_in_quote(fill, instrument.base, instrument.quote, worth)
        if intent.side == "buy":
            portfolio.cash -= fill.price * fill.quantity + quote_fee
            holding = _grown(holding, intent, fill.quantity - gained_fee, fill.price)
        else:
            portfolio.cash += fill.price * fill.quantity - quote_fee
            if holding is not None:
                realized += (fill.price - holding.average_price) * fill.quantity
                holding.quantity -= fill.quantity
    closed = holding is not None and intent.side == "sell" and holding.quantity < instrument.step
    if holding is not None and not closed:
        portfolio.holdings[key] = holding
    await _write_position(session, intent, None if closed else holding, realized, fees, fills[-1].price)
    if closed:
        portfolio.holdings.pop(key, None)
    if closed or (holding is None and intent.side == "sell"):  # the latter: a late fill of a trade that was over
        grown = await _close(session, intent, instrument, portfolio.prices)
        portfolio.book_result(StrategyId(intent.strategy_id), grown)


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


async def _write_position(
    session: AsyncSession, intent: Intent, holding: Holding | None, realized: Decimal, fees: Decimal, last: Decimal
) -> None:
    quantity = holding.quantity if holding else ZERO
    values = {
        "quantity": quantity,
        "average_price": holding.average_price if holding else ZERO,
        "entry_intent_id": holding.entry_intent_id if holding else None,
        "last_price": last,
        "updated_at": func.clock_timestamp(),
    }
    row = insert(Position).values(
        user_id=intent.user_id, account_id=intent.account_id, strategy_id=intent.strategy_id, symbol=intent.symbol,
        realized_pnl=realized, fees=fees, **values,
    )  # fmt: skip
    await session.execute(
        row.on_conflict_do_update(
            index_elements=[Position.user_id, Position.account_id, Position.strategy_id, Position.symbol],
            set_=values | {"realized_pnl": Position.realized_pnl + realized, "fees": Position.fees + fees},
        )
    )


async def _close(
    session: AsyncSession, exit_intent: Intent, instrument: Instrument, prices: Mapping[Symbol, Decimal]
) -> Decimal:
    """Write the outcome of a trade, from all fills of its entry and its exits; returns by how much its net grew."""
    entry = (await session.scalars(select(Intent).where(Intent.intent_id == exit_intent.entry_intent_id))).one()
    exits = await session.scalars(select(Intent.client_order_id).where(Intent.entry_intent_id == entry.intent_id))
    trade = closed_trade(
        await _fills_of(session, entry.user_id, [entry.client_order_id]),
        await _fills_of(session, entry.user_id, exits.all()),
        base=instrument.base,
        quote=instrument.quote,
        worth=_worth(instrument.quote, prices),
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
    from trading_platform.storage.group import AuditRow

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
