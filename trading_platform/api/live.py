"""The live stream: one poller a process, fanned out to every open page.

A query per client and second would cost a thousand queries a second for a thousand users; here it is three per group
whose users are watching. Every user gets a `snapshot` of their own and everybody the new `signals`. A client that
reads slowly gets the newest snapshot next, not a queue of old ones.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
import structlog

from trading_platform.accounts.sessions import SessionUser
from trading_platform.api import queries
from trading_platform.api.schemas import EquityOut, PositionOut, SignalOut
from trading_platform.identifiers import DatasetId, GroupId, UserId
from trading_platform.observability import metrics
from trading_platform.storage.control import MarketProgress
from trading_platform.storage.databases import Databases

POLL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 15.0
STREAMS_OF_ONE_USER = 10
SIGNALS_KEPT = 100
log = structlog.get_logger(__name__)


class TooManyStreamsError(RuntimeError):
    """A user has opened more streams than one person can look at."""


class LiveHub:
    """Polls while somebody watches; `stream` is what a client reads."""

    def __init__(self, databases: Databases, poll_seconds: float = POLL_SECONDS) -> None:
        self._databases = databases
        self._poll_seconds = poll_seconds
        self._watching: Counter[tuple[GroupId, UserId]] = Counter()
        self._snapshots: dict[UserId, bytes] = {}
        self._trades: dict[UserId, tuple[Any, int]] = {}
        self._signals: deque[tuple[int, bytes]] = deque(maxlen=SIGNALS_KEPT)
        self._signal_number = 0
        self._dataset: DatasetId | None = None
        self._last_seq = 0
        self._changed = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    async def stream(self, user: SessionUser) -> AsyncIterator[bytes]:
        """Server-sent events for one client until it goes or the hub closes. Raises `TooManyStreamsError`."""
        who = (user.group_id, user.user_id)
        self._watching[who] += 1
        metrics.API_STREAMS.inc()
        try:
            self._ensure_polling()
            yield b"retry: 2000\n\n"
            shown: bytes | None = None
            signal_number = max(0, self._signal_number - 20)
            while not self._closed:
                changed = self._changed
                snapshot = self._snapshots.get(user.user_id)
                if snapshot is not None and snapshot != shown:
                    shown = snapshot
                    yield event("snapshot", snapshot)
                for number, signal in [entry for entry in self._signals if entry[0] > signal_number]:
                    signal_number = number
                    yield event("signal", signal)
                try:
                    await asyncio.wait_for(changed.wait(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            metrics.API_STREAMS.dec()
            self._watching[who] -= 1
            if self._watching[who] <= 0:
                del self._watching[who]
                self._snapshots.pop(user.user_id, None)
                self._trades.pop(user.user_id, None)

    def require_room(self, user: SessionUser) -> None:
        """Raise `TooManyStreamsError` where the user has too many streams open."""
        if self._watching[(user.group_id, user.user_id)] >= STREAMS_OF_ONE_USER:
            raise TooManyStreamsError(f"{STREAMS_OF_ONE_USER} streams are open for this user")

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._wake()
        if self._poller is not None:
            self._poller.cancel()
            with suppress(asyncio.CancelledError):
                await self._poller

    def _ensure_polling(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll_while_watched())

    async def _poll_while_watched(self) -> None:
        while self._watching and not self._closed:
            try:
                await self._poll()
            except Exception as error:
                log.warning("live_poll_failed", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._poll_seconds)

    async def _poll(self) -> None:
        progress = await self._poll_signals()
        groups: defaultdict[GroupId, list[UserId]] = defaultdict(list)
        for group_id, user_id in list(self._watching):
            groups[group_id].append(user_id)
        for group_id, user_ids in groups.items():
            self._snapshots.update(await self._snapshots_of(group_id, user_ids, progress))
        self._wake()

    async def _poll_signals(self) -> MarketProgress | None:
        async with self._databases.control_async() as session:
            progress = await session.scalar(queries.market_progress().limit(1))
            if progress is None:
                return None
            if progress.dataset_id != self._dataset:
                self._dataset = DatasetId(progress.dataset_id)
                self._last_seq = max(0, progress.last_seq - SIGNALS_KEPT)
            fresh = await session.scalars(queries.signals_since(self._dataset, self._last_seq, SIGNALS_KEPT))
            for signal in fresh:
                self._last_seq = signal.seq
                self._signal_number += 1
                self._signals.append((self._signal_number, SignalOut.model_validate(signal).model_dump_json().encode()))
        return progress

    async def _snapshots_of(
        self, group_id: GroupId, user_ids: list[UserId], progress: MarketProgress | None
    ) -> dict[UserId, bytes]:
        async with self._databases.group_async(group_id) as session:
            accounts = (await session.execute(queries.live_equity(user_ids))).all()
            positions = (await session.scalars(queries.live_positions(user_ids))).all()
            lease = (await session.execute(queries.engine_lease(group_id))).one_or_none()
            for user_id in user_ids:
                newest = max((row.updated_at for row in positions if row.user_id == user_id), default=None)
                if self._trades.get(user_id, (0, 0))[0] != newest or user_id not in self._trades:
                    self._trades[user_id] = (newest, await session.scalar(queries.closed_trades(user_id)) or 0)
        engine = {
            "state": lease[0].state if lease else "none",
            "alive": bool(lease and lease[2]),
            "market_time": lease[0].detail.get("market_time") if lease else None,
        }
        found: dict[UserId, bytes] = {}
        for user_id in user_ids:
            own = [row for row in positions if row.user_id == user_id]
            points = [point for account, point in accounts if account.user_id == user_id and point is not None]
            current = points[0] if points else None
            traded = [row for row in own if current is not None and row.account_id == current.account_id]
            found[user_id] = orjson.dumps(
                {
                    "equity": _text(current.equity if current else None),
                    "cash": _text(current.cash if current else None),
                    "currency": current.currency if current else None,
                    "account_id": current.account_id if current else None,
                    "realized_pnl": _text(
                        sum((row.realized_pnl - row.fees for row in traded), Decimal(0)) if current else None
                    ),
                    "open_positions": sum(row.quantity != 0 for row in own),
                    "closed_trades": self._trades[user_id][1],
                    "market_time": _moment(current, progress),
                    "dataset_id": progress.dataset_id if progress else None,
                    "engine": engine,
                    "accounts": [EquityOut.model_validate(point).model_dump(mode="json") for point in points],
                    "positions": [
                        PositionOut.model_validate(row).model_dump(mode="json") for row in own if row.quantity
                    ],
                }
            )
        return found

    def _wake(self) -> None:
        woken, self._changed = self._changed, asyncio.Event()
        woken.set()


def event(name: str, data: bytes) -> bytes:
    """One server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _text(value: Decimal | None) -> str | None:
    return None if value is None else format(value.normalize(), "f")


def _moment(current: Any, progress: MarketProgress | None) -> datetime | None:
    times: Iterable[datetime] = [
        *([current.market_time] if current else []),
        *([progress.scored_through] if progress else []),
    ]
    return max(times, default=None)
