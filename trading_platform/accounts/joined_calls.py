"""Calls that wait at the same moment travel together.

A thousand connections that each send their own GET need a thousand sockets or starve in a pool; joined, whoever waits
while one request is on the wire goes with the next. One connection then carries them all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
AT_MOST = 500


class JoinedCalls(Generic[K, V]):
    """`await joined(key)` answers what `send([..., key, ...])` answered at the key's place."""

    def __init__(self, send: Callable[[Sequence[K]], Awaitable[Sequence[V]]]) -> None:
        self._send = send
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def __call__(self, key: K) -> V:
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_waiting())
        return await answer

    async def _send_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:AT_MOST], self._waiting[AT_MOST:]
            try:
                answers = await self._send([key for key, _ in batch])
            except Exception as error:
                for _, waiting in batch:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for (_, waiting), answer in zip(batch, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)
