"""Every step of an order's way by name, and a death exactly there.

`arm` patches the engine's own process; the product has no such switches. Before signals have come nothing happens, except at
the points of settling, where a successor dies while it takes over.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import aiohttp

from trading_platform.execution import books, engine, stops
from trading_platform.execution.engine import Engine
from trading_platform.execution.lease import GroupLease
from trading_platform.execution.sender import Sender
from trading_platform.execution.stops import StopKeeper
from trading_platform.execution.watched_venue import WatchedVenue

REACHES_THE_WIRE_SECONDS = 0.05


def always(*_: Any) -> bool:
    return True


def posts_an_order(response: aiohttp.ClientResponse, *_: Any) -> bool:
    return response.method == "POST" and "/order" in response.url.path


def is_about_to_post(session: aiohttp.ClientSession, method: str, url: object, *_: Any) -> bool:
    return method.upper() == "POST" and "/order" in str(url)


def sends_a_stop(sender: object, portfolio: object, intent: Any, *_: Any) -> bool:
    return bool(intent.purpose == "stop")


def has_fills(session: object, intent: object, fills: Sized) -> bool:
    return len(fills) > 0


@dataclass(frozen=True)
class Point:
    """`owner.name` is a coroutine function; death comes `when` it is called or has returned, if `applies`."""

    owner: Any
    name: str
    when: str
    applies: Callable[..., bool] = always
    on_the_wire: bool = False


SEND_POINTS: dict[str, tuple[Point, ...]] = {
    "signals read, nothing decided": (Point(Engine, "take", "before"),),
    "cursor moved, nothing written": (Point(engine, "write_intents", "before"),),
    "intent and outbox written, not committed": (Point(engine, "write_intents", "after"),),
    "SENDING committed, nothing sent": (Point(Sender, "send", "before"),),
    "before the door": (Point(WatchedVenue, "place_market", "before"),),
    "signed, not on the wire": (Point(aiohttp.ClientSession, "_request", "before", is_about_to_post),),
    "bytes on the wire, answer not read": (Point(aiohttp.ClientResponse, "start", "before", posts_an_order, True),),
    "answer read, not understood": (Point(aiohttp.ClientResponse, "read", "after", posts_an_order),),
    "answer understood": (Point(WatchedVenue, "place_market", "after"),),
    "before the books": (Point(Sender, "_take", "before"),),
    "fill written, not committed": (Point(books, "_insert_fills", "after", has_fills),),
    "position moved, not committed": (Point(books, "_move_position", "after"),),
    "outbox row gone or changed, not committed": (
        Point(books, "_forget", "after"),
        Point(books, "_ask_again", "after"),
    ),
    "acknowledgement written, not committed": (Point(books, "take_answer", "after"),),
    "acknowledgement committed": (Point(Sender, "_take", "after"),),
    "before the equity point": (Point(books, "write_equity", "before"),),
    "step done, clock not told": (Point(Engine, "take", "after"),),
    "stop written, not committed": (Point(stops, "mark_sending", "after"),),
    "stop SENDING, nothing sent": (Point(Sender, "send", "before", sends_a_stop),),
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
        result = await original(*arguments, **named)
        if point.when == "after" and here and state["armed"]:
            _strike(state, signum)
        return result

    setattr(point.owner, point.name, struck)


def _strike(state: dict[str, bool], signum: int) -> None:
    state["armed"] = False
    os.kill(os.getpid(), signum)
