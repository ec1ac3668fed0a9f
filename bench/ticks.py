"""Ticks decoded a second beside the official client's parser, in one sitting: `python bench/ticks.py [--instruments 3000]`.

One frame of full-mode packets, every instrument with prices, quantities and times of its own. Three ways of ours: arrays in
rupees (`values`), one exact object a tick (`ticks`), and the raw arrays alone (`decode`), which converts nothing and is
shown only so that nobody takes it for the figure that counts. The ratio is what counts; a busy machine slows all.
"""

import argparse
import json
import random
import struct
import time
from collections.abc import Callable
from types import SimpleNamespace

from kiteconnect import KiteTicker
from rich.console import Console
from rich.table import Table

from trading_platform.venues.zerodha.packets import decode, ticks, values

START = 1_754_540_000
AIM = 10.0


def frame_of(instruments: int, seed: int = 7) -> bytes:
    """A frame as a connection with that many subscriptions in full mode gets it."""
    draw = random.Random(seed)
    parts = [struct.pack(">H", instruments)]
    for number in range(1, instruments + 1):
        last = draw.randrange(5_000, 5_000_000, 5)
        quote = [
            number * 256 + draw.choice((1, 2, 4, 5)), last, draw.randrange(1, 900), last, draw.randrange(1 << 30),
            draw.randrange(1 << 24), draw.randrange(1 << 24), last - 100, last + 500, last - 500, last - 50,
        ]  # fmt: skip
        rest = [START + number, draw.randrange(1 << 24), 1 << 24, 0, START + number + 1]
        depth = b"".join(
            struct.pack(">IIHH", draw.randrange(1, 9_000), last + 5 * (level - 5), draw.randrange(1, 90), 0)
            for level in range(10)
        )
        parts.append(struct.pack(">H16I", 184, *quote, *rest) + depth)
    return b"".join(parts)


def official_parser() -> Callable[[bytes], object]:
    """The official client's parser without its connection."""
    parser = SimpleNamespace(
        EXCHANGE_MAP=KiteTicker.EXCHANGE_MAP, MODE_FULL=KiteTicker.MODE_FULL, MODE_QUOTE=KiteTicker.MODE_QUOTE,
        MODE_LTP=KiteTicker.MODE_LTP,
    )  # fmt: skip
    parser._split_packets = lambda data: KiteTicker._split_packets(parser, data)
    parser._unpack_int = lambda *given, **named: KiteTicker._unpack_int(parser, *given, **named)
    return lambda frame: KiteTicker._parse_binary(parser, frame)


def rate(read: Callable[[bytes], object], frame: bytes, instruments: int, rounds: int) -> float:
    """Ticks a second, the best of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        read(frame)
        best = min(best, time.perf_counter() - began)
    return instruments / best


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--instruments", type=int, default=3_000)
    arguments.add_argument("--rounds", type=int, default=7)
    asked = arguments.parse_args()
    frame = frame_of(asked.instruments)
    readers: dict[str, Callable[[bytes], object]] = {
        "official parser": official_parser(),
        "values (arrays, rupees)": lambda data: [values(rows) for rows in decode(data).values()],
        "ticks (exact objects)": lambda data: list(ticks(data)),
        "decode (raw arrays)": decode,
    }
    found = {name: rate(read, frame, asked.instruments, asked.rounds) for name, read in readers.items()}
    official = found["official parser"]
    table = Table("reader", "ticks/s", "x official", title=f"{asked.instruments} instruments a frame, full mode")
    for name, each in found.items():
        table.add_row(name, f"{each:,.0f}", f"{each / official:,.2f}")
    Console().print(table)
    ratio = found["values (arrays, rupees)"] / official
    print(
        json.dumps(
            {
                "bench": "ticks", "instruments": asked.instruments, "mode": "full", "aim": AIM, "ratio": round(ratio, 1),
                "ticks_per_second": {name: round(each) for name, each in found.items()},
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
