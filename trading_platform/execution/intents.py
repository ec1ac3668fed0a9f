"""Intents into the books: written before anything is sent, with their marks and the cursor, by one call of the database.

Whether an intent is new is the database's word: its decision key is unique, so the same decision written by two engines,
or twice by one, is sent once.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from trading_platform.execution import trail
from trading_platform.execution.decisions import Decision
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.outgoing import Outgoing, made_out
from trading_platform.identifiers import DatasetId, Symbol
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.databases import Databases
from trading_platform.storage.direct_call import DirectCall
from trading_platform.storage.group import Intent

Row = dict[str, Any]
TYPES = ("text", "text", "int8", "text", "int8", "timestamptz", "timestamptz", "timestamptz", "json")
"""Of the parameters of `write_step`."""


@dataclass(frozen=True)
class Cursor:
    """All signals of a dataset up to `seq` are consumed; `market_time` is that of the last one."""

    dataset_id: DatasetId
    seq: int
    market_time: datetime


@dataclass
class StepWriter:
    """Writes what an engine has decided, under its lease.

    It keeps a connection of its own: every order waits for this write, and a session of the pool would take twice the
    time of the write itself.
    """

    databases: Databases
    lease: GroupLease
    _call: DirectCall | None = field(default=None, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def write(
        self, decisions: Sequence[Decision], instruments: Mapping[Symbol, Instrument], market_time: datetime,
        issued_at: datetime, market_sent_at: datetime, cursor: Cursor | None = None,
    ) -> list[Outgoing]:  # fmt: skip
        """Write the decisions that are new; returns the orders to be sent. Raises `LeaseLostError`.

        They were decided on what was known at `market_time`, and go out now: `issued_at` is wall time, which is signed
        later, `market_sent_at` the market's clock. They are of no session: what was decided never changes.
        """
        rows = [_columns(decision, market_time, self.lease.epoch) for decision in decisions]
        entries = (trail.planned(each.portfolio, each.signal, each.denial, each.purpose) for each in decisions)
        orders: list[Outgoing] = []

        def make_out() -> None:
            orders.extend(
                made_out(each.portfolio, intent_of(row), instruments[each.contract], issued_at)
                for each, row in zip(decisions, rows, strict=True)
                if each.denial is None
            )

        new = await self.write_rows(rows, entries, issued_at, market_sent_at, cursor, make_out)
        return [order for order in orders if order.intent.intent_id in new]

    async def write_rows(
        self, rows: Sequence[Row], entries: Iterable[Row], issued_at: datetime, market_sent_at: datetime,
        cursor: Cursor | None = None, meanwhile: Callable[[], None] = lambda: None,
    ) -> set[str]:  # fmt: skip
        """Like `write`, from columns of intents and what the trail says of each; returns the ids of those that are new.

        `meanwhile` is called once the database has it, and before it has answered.
        """
        decided = orjson.dumps([row | entry for row, entry in zip(rows, entries, strict=True)], default=str)
        consumed = (cursor.dataset_id, cursor.seq, cursor.market_time) if cursor else (None, None, None)
        lease = (self.lease.group_id, self.lease.holder, self.lease.epoch)
        values = [_as_text(each) for each in (*lease, *consumed, issued_at, market_sent_at)]
        async with self._turn:
            call = await self._connected()
            try:
                answer = call.send([*values, decided])
                meanwhile()
                new = await answer
            except BaseException:  # whoever calls next must not take this answer for his own
                call.close()
                raise
        if new is None:
            raise self.lease.lost()
        return set(new.decode().split())

    async def move_cursor(self, cursor: Cursor) -> None:
        """Signals are consumed that led to nothing."""
        await self.write_rows([], [], cursor.market_time, cursor.market_time, cursor)

    async def close(self) -> None:
        if self._call is not None:
            self._call.close()

    async def _connected(self) -> DirectCall:
        if self._call is None or self._call.closed:
            _, schema = self.databases.group_address(self.lease.group_id)
            numbered = ", ".join(f"${number}" for number in range(1, len(TYPES) + 1))
            command = f"select array_to_string(\"{schema}\".write_step({numbered}), ' ')"
            self._call = DirectCall(await self.databases.connect_async(self.lease.group_id), command, TYPES)
        return self._call


def _as_text(value: str | int | datetime | None) -> bytes | None:
    """A value as PostgreSQL reads it."""
    if value is None:
        return None
    return (value.isoformat() if isinstance(value, datetime) else str(value)).encode()


def intent_of(row: Row) -> Intent:
    """As if it had been loaded: assigning column by column takes longer than all of risk."""
    intent = Intent()
    intent.__dict__.update(row, attempts=0)
    return intent


def _columns(decision: Decision, market_time: datetime, epoch: int) -> Row:
    signal, held = decision.signal, decision.holding
    return {
        "user_id": decision.portfolio.user_id,
        "intent_id": decision.intent_id,
        "decision_key": decision.decision_key,
        "client_order_id": decision.client_order_id,
        "account_id": decision.portfolio.account_id,
        "dataset_id": signal.dataset_id,
        "strategy_id": signal.strategy_id,
        "version_id": held.version_id if held else signal.version_id,
        "arm": held.arm if held else signal.role,
        "signal_id": signal.signal_id,
        "purpose": decision.purpose,
        "entry_intent_id": held.entry_intent_id if held else None,
        "symbol": signal.symbol,
        "contract": decision.contract,
        "side": decision.side,
        "order_type": "MARKET",
        "quantity": decision.quantity,
        "reference_price": signal.price,
        "target_price": None if held else signal.target_price,
        "stop_price": None if held else signal.stop_price,
        "exit_by": None if held else signal.exit_by,
        "market_time": market_time,
        "state": decision.state,
        "denial": decision.denial,
        "epoch": epoch,
        "trace_id": signal.trace_id,
    }
