"""Every step of an order's way by name, and a death exactly there.

`arm` patches the engine's own process; the product has no such switches. Before signals have come nothing happens, except at
the points of settling, where a successor dies while it takes over.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import aiohttp

from trading_platform.execution import books, engine
from trading_platform.execution.engine import Engine
from trading_platform.execution.intents import StepWriter
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.outgoing import Outgoing
from trading_platform.execution.sender import Sender
from trading_platform.execution.stops import StopKeeper
from trading_platform.execution.watched_venue import WatchedVenue
from trading_platform.venues.wire import Connection, Wire

REACHES_THE_WIRE_SECONDS = 0.05


def always(*_: Any) -> bool:
    return True


def posts_an_order(response: aiohttp.ClientResponse, *_: Any) -> bool:
    return response.method == "POST" and "/order" in response.url.path


def is_about_to_post(session: aiohttp.ClientSession, method: str, url: object, *_: Any) -> bool:
    return method.upper() == "POST" and "/order" in str(url)


def writes_a_post(wire: object, request: bytes, *_: Any) -> bool:
    return request.startswith(b"POST ")


def has_any(owner: object, things: Sized, *_: Any) -> bool:
    return len(things) > 0


def sends_a_stop(sender: object, order: Outgoing, *_: Any) -> bool:
    return order.intent.purpose == "stop"


def writes_stops(writer: object, rows: Sequence[Mapping[str, Any]], *_: Any) -> bool:
    return any(row["purpose"] == "stop" for row in rows)


@dataclass(frozen=True)
class Point:
    """`owner.name` is a coroutine function; death comes before it is called, after it has returned or during its first
    wait (`when`), if `applies`; `on_the_wire`: when what was written can have reached the other side."""

    owner: Any
    name: str
    when: str
    applies: Callable[..., bool] = always
    on_the_wire: bool = False


SEND_POINTS: dict[str, tuple[Point, ...]] = {
    "signals read, nothing decided": (Point(Engine, "take", "before"),),
    "decided, nothing written": (Point(StepWriter, "write", "before"),),
    "being written, whether committed or not": (Point(StepWriter, "write_rows", "during", has_any),),
    "SENDING committed, nothing sent": (Point(Sender, "place", "before"),),
    "before the door": (Point(WatchedVenue, "place_market", "before"),),
    # Of each venue's own way to the wire: Binance's, then Zerodha's.
    "signed, not on the wire": (
        Point(Wire, "ask", "before", writes_a_post),
        Point(aiohttp.ClientSession, "_request", "before", is_about_to_post),
    ),
    "bytes on the wire, answer not read": (
        Point(Connection, "ask", "during", writes_a_post, on_the_wire=True),
        Point(aiohttp.ClientResponse, "start", "before", posts_an_order, on_the_wire=True),
    ),
    "answer read, not understood": (
        Point(Wire, "ask", "after", writes_a_post),
        Point(aiohttp.ClientResponse, "read", "after", posts_an_order),
    ),
    "answer understood": (Point(WatchedVenue, "place_market", "after"),),
    "before the books": (Point(Sender, "book", "before"),),
    "fill written, not committed": (Point(books, "_insert_fills", "after", has_any),),
    "position moved, not committed": (Point(books, "move_positions", "after", has_any),),
    "outbox row gone or changed, not committed": (
        Point(books, "_forget", "after", has_any),
        Point(books, "_ask_again", "after", has_any),
    ),
    "acknowledgement written, not committed": (Point(books, "take_answers", "after", has_any),),
    "acknowledgement committed": (Point(Sender, "book", "after"),),
    "before the equity point": (Point(engine, "write_equity", "before"),),
    "step done, clock not told": (Point(Engine, "take", "after"),),
    "stop being written, whether committed or not": (Point(StepWriter, "write_rows", "during", writes_stops),),
    "stop SENDING, nothing sent": (Point(Sender, "place", "before", sends_a_stop),),
    "stop answered, not booked": (Point(WatchedVenue, "place_stop", "after"),),
    "cancel noted, not sent": (Point(StopKeeper, "_note_cancel", "after"),),
    "cancel answered, end not known": (Point(WatchedVenue, "cancel", "after"),),
}
SETTLE_POINTS: dict[str, tuple[Point, ...]] = {
    "lease taken": (Point(GroupLease, "acquire", "after"),),
    "before the venue is asked": (Point(WatchedVenue, "find_order", "before"),),
    "venue asked, nothing booked": (Point(WatchedVenue, "find_order", "after"),),
    "UNKNOWN written, not committed": (Point(Sender, "_say_unknown", "after"),),
    "issued anew, not sent again": (Point(Sender, "_issue", "after"),),
    "sent again, not booked": (Point(WatchedVenue, "place_market", "after"),),
}


def arm(point: str, signum: int = signal.SIGKILL) -> None:
    """Let this process get `signum` at a point, once."""
    settling = point in SETTLE_POINTS
    state = {"armed": settling}
    if not settling:
        take = Engine.take

        async def noted(running: Engine, signals: Any) -> None:
            state["armed"] = True
            await take(running, signals)

        Engine.take = noted  # type: ignore[assignment,method-assign]
    for each in (SETTLE_POINTS if settling else SEND_POINTS)[point]:
        _patch(each, state, signum)


def _patch(point: Point, state: dict[str, bool], signum: int) -> None:
    original = getattr(point.owner, point.name)

    async def struck(*arguments: Any, **named: Any) -> Any:
        here = point.applies(*arguments)
        if point.when == "before" and here and (state["armed"] or point.name == "take"):
            if point.on_the_wire:
                await asyncio.sleep(REACHES_THE_WIRE_SECONDS)
            _strike(state, signum)
        running = asyncio.ensure_future(original(*arguments, **named))
        if point.when == "during" and here and state["armed"]:
            await asyncio.sleep(REACHES_THE_WIRE_SECONDS if point.on_the_wire else 0)
            _strike(state, signum)
        result = await running
        if point.when == "after" and here and state["armed"]:
            _strike(state, signum)
        return result

    setattr(point.owner, point.name, struck)


def _strike(state: dict[str, bool], signum: int) -> None:
    state["armed"] = False
    os.kill(os.getpid(), signum)
