"""Kite's binary market data: frames into ticks, whole frames at once.

A frame is big-endian: a count, then for each packet its length and the packet. The length says what is in it: 8 bytes last
price, 28 and 32 an index (quote, full), 44 quote, 184 full with five bids and five offers. Three ways to read one:

    rows = decode(frame)[184]       # arrays of the packets as sent, without a copy
    values(rows)["last"]            # the same in rupees, floats, times as datetime64: for whoever wants speed
    ticks(frame)                    # one object a tick, exact decimals, aware times: for whoever wants to read

Prices are integers divided by the segment's divisor. Times are epoch seconds: aware UTC here, whatever zone the machine
keeps.
"""

import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Mode = Literal["ltp", "quote", "full"]
LENGTHS = {8: "ltp", 28: "index_quote", 32: "index_full", 44: "quote", 184: "full"}
INDICES = 9
DIVISORS = {3: 10_000_000, 6: 10_000, 12: 10_000}
"""By segment (low byte of the token); 100 for all others. BCD and NCO have four decimals, currency at NSE seven."""
PRICES = frozenset({"last", "average", "open", "high", "low", "close", "change"})
TIMES = frozenset({"traded_at", "at"})

_INT = ">i4"
_LTP = [("token", ">u4"), ("last", _INT)]
_INDEX = [*_LTP, ("high", _INT), ("low", _INT), ("open", _INT), ("close", _INT), ("change", _INT)]
_QUOTE = [
    *_LTP, ("quantity", _INT), ("average", _INT), ("volume", ">u4"), ("bought", ">u4"), ("sold", ">u4"),
    ("open", _INT), ("high", _INT), ("low", _INT), ("close", _INT),
]  # fmt: skip
_LEVEL = np.dtype([("quantity", ">u4"), ("price", _INT), ("orders", ">u2"), ("pad", ">u2")])
_FULL_PACKET = [
    *_QUOTE, ("traded_at", _INT), ("oi", ">u4"), ("oi_high", ">u4"), ("oi_low", ">u4"), ("at", _INT),
    ("depth", _LEVEL, (10,)),
]  # fmt: skip
TYPES = {
    8: np.dtype(_LTP), 28: np.dtype(_INDEX), 32: np.dtype([*_INDEX, ("at", _INT)]), 44: np.dtype(_QUOTE),
    184: np.dtype(_FULL_PACKET),
}  # fmt: skip
assert all(dtype.itemsize == length for length, dtype in TYPES.items())


class BadFrameError(ValueError):
    """A binary frame that is not what it says it is; the message says where."""


class Level(NamedTuple):
    """One price of the order book. (Named tuples: a frame has up to 33,000 of these, and they are twice as quick.)"""

    price: Decimal
    quantity: int
    orders: int


class Tick(NamedTuple):
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


def values(rows: NDArray[np.void]) -> dict[str, NDArray[np.generic]]:
    """{field: array} of packets of one kind, in the machine's own numbers.

    Prices are floats in rupees, quantities integers, times datetime64[s] in UTC with NaT where the exchange said 0. Of the
    depth there are three arrays of shape (packets, 10), bids first: depth_price, depth_quantity, depth_orders.
    """
    divisor = divisors(rows["token"])
    found: dict[str, NDArray[np.generic]] = {}
    for name in rows.dtype.names or ():
        if name == "depth":
            levels = rows["depth"]
            found["depth_price"] = levels["price"] / divisor[:, None]
            found["depth_quantity"] = levels["quantity"].astype(np.int64)
            found["depth_orders"] = levels["orders"].astype(np.int64)
        elif name in PRICES:
            found[name] = rows[name] / divisor
        elif name in TIMES:
            seconds = rows[name].astype("datetime64[s]")
            seconds[rows[name] == 0] = np.datetime64("NaT")
            found[name] = seconds
        else:
            found[name] = rows[name].astype(np.int64)
    return found


def ticks(frame: bytes) -> Iterator[Tick]:
    """The ticks of a frame, prices as decimals. Raises `BadFrameError` before the first one."""
    for start, length in split(frame):
        yield _READERS[length](frame, start)


def _uniform(frame: bytes) -> dict[int, NDArray[np.void]] | None:
    """The fast way: all packets of one length, seen without a loop. None where that is not so."""
    count, length = int.from_bytes(frame[:2], "big"), int.from_bytes(frame[2:4], "big")
    if count == 0 or length not in TYPES or len(frame) != 2 + count * (2 + length):
        return None
    rows = np.frombuffer(frame, np.dtype([("length", ">u2"), ("packet", TYPES[length])]), count, 2)
    return {length: rows["packet"]} if bool((rows["length"] == length).all()) else None


_LAST, _INDEX_AT, _QUOTE_AT = struct.Struct(">Ii"), struct.Struct(">I6i"), struct.Struct(">I3i3I4i")
_SECONDS, _OPEN_INTEREST, _DEPTH = struct.Struct(">i"), struct.Struct(">i3Ii"), struct.Struct(">" + "IiH2x" * 10)


def _ltp(frame: bytes, start: int) -> Tick:
    token, last = _LAST.unpack_from(frame, start)
    return Tick(token, "ltp", token & 0xFF != INDICES, Decimal(last).scaleb(_scale(token)))


def _index_quote(frame: bytes, start: int, mode: Mode = "quote", at: datetime | None = None) -> Tick:
    token, last, high, low, opened, close, _change = _INDEX_AT.unpack_from(frame, start)
    scale = _scale(token)
    return Tick(
        token, mode, False, Decimal(last).scaleb(scale), open=Decimal(opened).scaleb(scale),
        high=Decimal(high).scaleb(scale), low=Decimal(low).scaleb(scale), close=Decimal(close).scaleb(scale),
        exchange_at=at,
    )  # fmt: skip


def _index_full(frame: bytes, start: int) -> Tick:
    return _index_quote(frame, start, "full", _moment(*_SECONDS.unpack_from(frame, start + 28)))


def _quote(frame: bytes, start: int) -> Tick:
    token, last, quantity, average, volume, bought, sold, opened, high, low, close = _QUOTE_AT.unpack_from(frame, start)
    scale = _scale(token)
    return Tick(
        token, "quote", True, Decimal(last).scaleb(scale), quantity, Decimal(average).scaleb(scale), volume, bought, sold,
        Decimal(opened).scaleb(scale), Decimal(high).scaleb(scale), Decimal(low).scaleb(scale),
        Decimal(close).scaleb(scale),
    )  # fmt: skip


def _full(frame: bytes, start: int) -> Tick:
    quote = _quote(frame, start)
    traded_at, oi, oi_high, oi_low, at = _OPEN_INTEREST.unpack_from(frame, start + 44)
    scale, flat = _scale(quote.instrument_token), _DEPTH.unpack_from(frame, start + 64)
    levels = [
        Level(Decimal(price).scaleb(scale), quantity, orders)
        for quantity, price, orders in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    ]
    return Tick(
        quote.instrument_token, "full", *quote[2:13], _moment(traded_at), oi, oi_high, oi_low, _moment(at),
        tuple(levels[:5]), tuple(levels[5:]),
    )  # fmt: skip


_READERS: dict[int, Callable[[bytes, int], Tick]] = {8: _ltp, 28: _index_quote, 32: _index_full, 44: _quote, 184: _full}


def _scale(token: int) -> int:
    return _SCALE_OF.get(token & 0xFF, -2)


def _moment(seconds: int) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


_SCALE_OF = {segment: 1 - len(str(divisor)) for segment, divisor in DIVISORS.items()}
_DIVISOR_OF = np.full(256, 100.0)
for _segment, _value in DIVISORS.items():
    _DIVISOR_OF[_segment] = _value
