"""Kite's binary market data: frames into ticks, whole frames at once.

A frame is big-endian: a count, then for each packet its length and the packet. The length says what is in it: 8 bytes last
price, 28 and 32 an index (quote, full), 44 quote, 184 full with five bids and five offers. `decode` gives arrays, one per
kind of packet, for whoever wants speed; `ticks` gives one object a tick. Prices are integers divided by the segment's
divisor. Times are epoch seconds: aware UTC here, whatever zone the machine keeps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mode = Literal["ltp", "quote", "full"]
LENGTHS = {8: "ltp", 28: "index_quote", 32: "index_full", 44: "quote", 184: "full"}
INDICES = 9
DIVISORS = {3: 10_000_000, 6: 10_000, 12: 10_000}
"""By segment (low byte of the token); 100 for all others. BCD and NCO have four decimals, currency at NSE seven."""
MOST_PACKETS = 3_000

_INT = ">i4"
_LTP = [("token", ">u4"), ("last", _INT)]
_INDEX = [*_LTP, ("high", _INT), ("low", _INT), ("open", _INT), ("close", _INT), ("change", _INT)]
_QUOTE = [
    *_LTP, ("quantity", _INT), ("average", _INT), ("volume", ">u4"), ("bought", ">u4"), ("sold", ">u4"),
    ("open", _INT), ("high", _INT), ("low", _INT), ("close", _INT),
]  # fmt: skip
_LEVEL = np.dtype([("quantity", ">u4"), ("price", _INT), ("orders", ">u2"), ("pad", ">u2")])
_FULL = [
    *_QUOTE, ("traded_at", _INT), ("oi", ">u4"), ("oi_high", ">u4"), ("oi_low", ">u4"), ("at", _INT),
    ("depth", _LEVEL, (10,)),
]  # fmt: skip
TYPES = {
    8: np.dtype(_LTP), 28: np.dtype(_INDEX), 32: np.dtype([*_INDEX, ("at", _INT)]), 44: np.dtype(_QUOTE),
    184: np.dtype(_FULL),
}  # fmt: skip
assert all(dtype.itemsize == length for length, dtype in TYPES.items())


class BadFrameError(ValueError):
    """A binary frame that is not what it says it is; the message says where."""


@dataclass(frozen=True, slots=True)
class Level:
    """One price of the order book."""

    price: Decimal
    quantity: int
    orders: int


@dataclass(frozen=True, slots=True)
class Tick:
    """One instrument at one moment. What the mode does not carry is None; rupees, aware UTC."""

    instrument_token: int
    mode: Mode
    tradable: bool
    last_price: Decimal
    last_quantity: int | None = None
    average_price: Decimal | None = None
    volume: int | None = None
    buy_quantity: int | None = None
    sell_quantity: int | None = None
    open: Decimal | None = None
    high: Decimal | None = None
    low: Decimal | None = None
    close: Decimal | None = None
    last_trade_at: datetime | None = None
    oi: int | None = None
    oi_day_high: int | None = None
    oi_day_low: int | None = None
    exchange_at: datetime | None = None
    bids: tuple[Level, ...] = ()
    offers: tuple[Level, ...] = ()


def split(frame: bytes) -> list[tuple[int, int]]:
    """(offset, length) of every packet of a frame. A frame of one byte is a heartbeat: no packets.

    Raises `BadFrameError` for a frame that is cut off, has bytes left over, or a packet of unknown length.
    """
    if len(frame) < 2:
        return []
    count = int.from_bytes(frame[:2], "big")
    offset, spans = 2, []
    for number in range(count):
        length = int.from_bytes(frame[offset : offset + 2], "big")
        start = offset + 2
        if len(frame) < start or start + length > len(frame):
            raise BadFrameError(
                f"packet {number + 1} of {count} is cut off at byte {offset} of a frame of {len(frame)}"
            )
        if length not in LENGTHS:
            raise BadFrameError(f"packet {number + 1} of {count} has {length} bytes; known are {sorted(LENGTHS)}")
        spans.append((start, length))
        offset = start + length
    if offset != len(frame):
        raise BadFrameError(f"{len(frame) - offset} bytes are left over after {count} packets")
    return spans


def decode(frame: bytes) -> dict[int, NDArray[np.void]]:
    """{packet length: structured array of its packets} (`TYPES`), in the frame's order; prices as sent, undivided.

    One copy a kind, none where all packets are of one kind, as in a stream of one mode. Raises `BadFrameError`.
    """
    if len(frame) < 2:
        return {}
    uniform = _uniform(frame)
    if uniform is not None:
        return uniform
    by_length: dict[int, list[bytes]] = {}
    for start, length in split(frame):
        by_length.setdefault(length, []).append(frame[start : start + length])
    return {length: np.frombuffer(b"".join(parts), TYPES[length]) for length, parts in by_length.items()}


def divisors(tokens: NDArray[np.uint32]) -> NDArray[np.float64]:
    """What the prices of these tokens are divided by."""
    return np.asarray(_DIVISOR_OF[tokens & 0xFF], np.float64)


def ticks(frame: bytes) -> Iterator[Tick]:
    """The ticks of a frame, prices as decimals. Raises `BadFrameError` before the first one."""
    for start, length in split(frame):
        yield _tick(np.frombuffer(frame, TYPES[length], 1, start)[0], length)


def _uniform(frame: bytes) -> dict[int, NDArray[np.void]] | None:
    """The fast way: all packets of one length, seen without a loop. None where that is not so."""
    count, length = int.from_bytes(frame[:2], "big"), int.from_bytes(frame[2:4], "big")
    if count == 0 or length not in TYPES or len(frame) != 2 + count * (2 + length):
        return None
    rows = np.frombuffer(frame, np.dtype([("length", ">u2"), ("packet", TYPES[length])]), count, 2)
    return {length: rows["packet"]} if bool((rows["length"] == length).all()) else None


def _tick(row: np.void, length: int) -> Tick:
    token = int(row["token"])
    divisor = Decimal(DIVISORS.get(token & 0xFF, 100))
    last = int(row["last"]) / divisor
    if length == 8:
        return Tick(token, "ltp", (token & 0xFF) != INDICES, last)
    day = Tick(
        token, "quote", True, last, open=int(row["open"]) / divisor, high=int(row["high"]) / divisor,
        low=int(row["low"]) / divisor, close=int(row["close"]) / divisor,
    )  # fmt: skip
    if length == 28:
        return replace(day, tradable=False)
    if length == 32:
        return replace(day, tradable=False, mode="full", exchange_at=_moment(row["at"]))
    trade = replace(
        day, last_quantity=int(row["quantity"]), average_price=int(row["average"]) / divisor,
        volume=int(row["volume"]), buy_quantity=int(row["bought"]), sell_quantity=int(row["sold"]),
    )  # fmt: skip
    if length == 44:
        return trade
    levels = tuple(
        Level(int(level["price"]) / divisor, int(level["quantity"]), int(level["orders"])) for level in row["depth"]
    )
    return replace(
        trade, mode="full", last_trade_at=_moment(row["traded_at"]), oi=int(row["oi"]), oi_day_high=int(row["oi_high"]),
        oi_day_low=int(row["oi_low"]), exchange_at=_moment(row["at"]), bids=levels[:5], offers=levels[5:],
    )  # fmt: skip


def _moment(seconds: int) -> datetime | None:
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None


_DIVISOR_OF = np.full(256, 100.0)
for _segment, _value in DIVISORS.items():
    _DIVISOR_OF[_segment] = _value
