"""The books: what the venue's answers change, written once and in one transaction with their audit entries.

A fill is known by (account, symbol, trade id) and can be applied once only; position, cash and outcome follow from fills
that were new. Spot fees are taken in the asset received, so a buy gives a little less than its quantity. The arithmetic
of a closed trade is in `outcomes.py`.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, Numeric, Text, bindparam, delete, func, null, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.compliance.audit import record_all
from trading_platform.execution import trail
from trading_platform.execution.order_states import FILLED, REJECTED, Cause, OrderRecord, move
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.positions import Change, move_positions
from trading_platform.execution.probes import LATE_SECONDS
from trading_platform.identifiers import TradeId, VenueOrderId
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.group import Fill, Intent, Order, Outbox
from trading_platform.storage.types import table_of
from trading_platform.venues.port import Accepted, Result, VenueFill

ASK_AGAIN_AFTER = timedelta(seconds=1)
"""For an order that the venue has, but has not finished, or whose fills it has not all told."""
LOOK_AT_STOPS_AFTER = timedelta(seconds=15)
"""For a stop that waits: it is looked at with every bar as well."""
PROBING, SETTLING = "PROBING", "SETTLING"
"""Of an outbox row: the outcome is being asked for; the order has ended, and is still asked for as `probes.py` says, for
fills that come late."""

# Made once, and on tables: in the way of every order, mapped objects would take most of the time.
_INTENTS, _ORDERS, _FILLS, _OUTBOX = table_of(Intent), table_of(Order), table_of(Fill), table_of(Outbox)
_OF_THESE = bindparam("intents", type_=ARRAY(Text))
_STANDING = (
    select(
        _INTENTS.c.intent_id, _INTENTS.c.state.label("intent_state"), _INTENTS.c.attempts, _ORDERS.c.client_order_id,
        _ORDERS.c.quantity, _ORDERS.c.state, _ORDERS.c.venue_order_id, _ORDERS.c.filled_quantity,
    )
    .join(_ORDERS, (_ORDERS.c.user_id == _INTENTS.c.user_id) & (_ORDERS.c.intent_id == _INTENTS.c.intent_id))
    .where(_ORDERS.c.intent_id == func.any(_OF_THESE))
)  # fmt: skip
_KNOWN_FILLS = select(
    _FILLS.c.client_order_id, _FILLS.c.trade_id, _FILLS.c.price, _FILLS.c.quantity, _FILLS.c.fee, _FILLS.c.fee_currency,
    _FILLS.c.market_time,
).where(_FILLS.c.client_order_id == func.any(bindparam("orders", type_=ARRAY(Text))))  # fmt: skip
_NEW_FILLS = insert(_FILLS).on_conflict_do_nothing().returning(_FILLS.c.client_order_id, _FILLS.c.trade_id)
_HEARD = (
    func.unnest(
        *(bindparam(name, type_=ARRAY(Text)) for name in ("users", "intents", "numbers", "states", "intent_states")),
        *(bindparam(name, type_=ARRAY(Numeric)) for name in ("filled", "averages")),
    )
    .table_valued("user_id", "intent_id", "number", "state", "intent_state", "filled", "average", name="heard")
    .render_derived()
)
_ORDERS_HEARD_OF = (
    update(_ORDERS)
    .where(_ORDERS.c.intent_id == _HEARD.c.intent_id)
    .values(
        venue_order_id=_HEARD.c.number, state=_HEARD.c.state, filled_quantity=_HEARD.c.filled,
        average_price=_HEARD.c.average, updated_at=func.clock_timestamp(),
        acknowledged_at=func.coalesce(_ORDERS.c.acknowledged_at, func.clock_timestamp()),
    )
)  # fmt: skip
_INTENTS_HEARD_OF = (
    update(_INTENTS)
    .where(_INTENTS.c.user_id == _HEARD.c.user_id, _INTENTS.c.intent_id == _HEARD.c.intent_id)
    .values(state=_HEARD.c.intent_state, updated_at=func.now())
)
_FORGET = delete(_OUTBOX).where(_OUTBOX.c.intent_id == func.any(_OF_THESE))
_ASKING = insert(_OUTBOX).values(next_try_at=func.now() + bindparam("after", type_=Interval), verdict=null())
_ASK_AGAIN = _ASKING.on_conflict_do_update(
    index_elements=["intent_id"],
    set_={
        "state": _ASKING.excluded.state, "next_try_at": _ASKING.excluded.next_try_at, "verdict": _ASKING.excluded.verdict
    },
).returning(_OUTBOX.c.intent_id)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OnTheWire:
    """When an order was sent (nanoseconds since 1970, UTC), and how long its answer took."""

    sent_at: int
    nanoseconds: int


@dataclass(frozen=True)
class Answer:
    """What became of an order: the venue's answer, or how an operator says that it ended."""

    portfolio: Portfolio
    intent: Intent
    instrument: Instrument
    result: Result
    wire: OnTheWire | None = None
    """None where the venue was asked for it later."""
    cause: Cause = Cause.VENUE

    @property
    def latency_ms(self) -> float | None:
        return None if self.wire is None else self.wire.nanoseconds / 1e6

    @property
    def accepted(self) -> Accepted | None:
        return self.result if isinstance(self.result, Accepted) else None


@dataclass(frozen=True)
class Booked:
    """An answer, and the order as it is after it; `new`: the fills that were not known."""

    answer: Answer
    told: Accepted
    after: OrderRecord
    new: list[VenueFill]
    was_submitted: bool


async def take_answers(session: AsyncSession, answers: Sequence[Answer]) -> Iterator[bool]:
    """Apply what was said of orders that the venue has, in a few statements for all; for each whether it is done.

    The caller has checked the lease in this transaction; portfolios are changed in step with the rows, so the caller
    must drop them and rebuild if the commit fails.
    """
    if not answers:
        return iter(())
    before = await _records(session, answers)
    inserted = await _insert_fills(session, [
        (answer.intent, fill)
        for answer in answers if answer.accepted is not None
        for fill in before[answer.intent.intent_id][0].new_fills(answer.accepted.fills)
    ])  # fmt: skip
    booked = []
    for answer in answers:
        (record, was_submitted), told = before[answer.intent.intent_id], answer.accepted
        assert told is not None
        new = [
            fill for fill in record.new_fills(told.fills) if (answer.intent.client_order_id, fill.trade_id) in inserted
        ]
        booked.append(Booked(answer, told, record.heard(told, answer.cause), new, was_submitted))
    await _write_orders(session, booked)
    changes = [
        Change(each.answer.portfolio, each.answer.intent, each.answer.instrument, each.new)
        for each in booked
        if each.new
    ]
    await move_positions(session, changes)
    await _turn_outbox(session, booked)
    await record_all(session, [entry for each in booked for entry in _entries(each)])
    return iter([each.after.done for each in booked])


def _entries(booked: Booked) -> Iterator[dict[str, Any]]:
    """For the trail. An order that rests is asked for often, and told of once."""
    answer = booked.answer
    if booked.new or booked.after.done or not booked.was_submitted:
        yield trail.acknowledged(answer.portfolio, answer.intent, booked.told, answer.latency_ms)
    for fill in booked.new:
        yield trail.filled(answer.portfolio, answer.intent, booked.told, fill)


async def _records(session: AsyncSession, answers: Sequence[Answer]) -> dict[str, tuple[OrderRecord, bool]]:
    """{intent id: the order as the books have it, and whether its intent is SUBMITTED}"""
    rows = await session.execute(_STANDING, {"intents": [answer.intent.intent_id for answer in answers]})
    standing = {row.intent_id: row for row in rows}
    filled = [row.client_order_id for row in standing.values() if row.filled_quantity]
    fills: dict[str, dict[TradeId, VenueFill]] = {}
    if filled:
        for row in await session.execute(_KNOWN_FILLS, {"orders": filled}):
            known = VenueFill(
                TradeId(row.trade_id), row.price, row.quantity, row.fee, row.fee_currency, row.market_time
            )
            fills.setdefault(row.client_order_id, {})[known.trade_id] = known
    for answer in answers:
        answer.intent.attempts = standing[answer.intent.intent_id].attempts  # the trail tells of which try it was
    return {
        row.intent_id: (
            OrderRecord(
                row.quantity, row.state, VenueOrderId(row.venue_order_id) if row.venue_order_id else None,
                fills.get(row.client_order_id, {}), row.filled_quantity,
            ),
            row.intent_state == "SUBMITTED",
        )
        for row in standing.values()
    }  # fmt: skip


async def _insert_fills(
    session: AsyncSession, fills: Sequence[tuple[Intent, VenueFill]]
) -> Collection[tuple[str, str]]:
    """(client order id, trade id) of those that were new. In one statement: an order may be filled by thousands."""
    if not fills:
        return set()
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
        for intent, fill in fills
    ]
    inserted = await session.execute(_NEW_FILLS, rows)
    return {(row.client_order_id, row.trade_id) for row in inserted}


async def _write_orders(session: AsyncSession, booked: Sequence[Booked]) -> None:
    heard = {
        "users": [each.answer.intent.user_id for each in booked],
        "intents": [each.answer.intent.intent_id for each in booked],
        "numbers": [each.after.venue_order_id for each in booked],
        "states": [each.after.state for each in booked],
        "intent_states": ["DONE" if each.after.done else "SUBMITTED" for each in booked],
        "filled": [each.after.filled for each in booked],
        "averages": [each.after.average_price for each in booked],
    }
    await session.execute(_ORDERS_HEARD_OF, heard)
    await session.execute(_INTENTS_HEARD_OF, heard)


async def _turn_outbox(session: AsyncSession, booked: Sequence[Booked]) -> None:
    """Filled to the last unit: nothing more can come. Else the order is asked for again."""
    await _forget(session, [each.answer.intent for each in booked if each.after.done and each.after.state == FILLED])
    ended = [each.answer.intent for each in booked if each.after.done and each.after.state != FILLED]
    await _ask_again(session, ended, SETTLING, timedelta(seconds=LATE_SECONDS[0]))
    open_ = [each.answer.intent for each in booked if not each.after.done]
    stops = [intent for intent in open_ if intent.purpose == "stop"]
    await _ask_again(session, stops, PROBING, LOOK_AT_STOPS_AFTER)
    await _ask_again(session, [each for each in open_ if each.purpose != "stop"], PROBING, ASK_AGAIN_AFTER)


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
    await _ask_again(session, [intent], SETTLING, timedelta(seconds=LATE_SECONDS[0]))
    intent.state = "REJECTED" if cause == Cause.VENUE else "ABANDONED"
    intent.updated_at = func.now()
    trail.refused(session, portfolio, intent, code, text)


async def _forget(session: AsyncSession, intents: Sequence[Intent]) -> None:
    if intents:
        await session.execute(_FORGET, {"intents": [intent.intent_id for intent in intents]})


async def _ask_again(session: AsyncSession, intents: Sequence[Intent], state: str, after: timedelta) -> None:
    """Also where nothing was asked any more: an order that was given up may turn up."""
    rows = [
        {
            "intent_id": intent.intent_id,
            "user_id": intent.user_id,
            "account_id": intent.account_id,
            "epoch": intent.epoch,
            "state": state,
            "after": after,
        }
        for intent in intents
    ]
    if rows:
        await session.execute(_ASK_AGAIN, rows)
