"""Whether a user who floods delays the others. `python bench/fairness.py --seconds 30 --rounds 3`

99 users trade at random moments through `FairShares` and the Binance client against the sandbox, over a socket, each
order timed from the moment that its user wants it to the venue's answer. Then the same with a hundredth user who pours
10,000 intents in at once. Rounds without and with him alternate; the last line is one JSON object.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import structlog
from rich.console import Console
from rich.progress import track
from rich.table import Table

from trading_platform.execution.shares import Errand, FairShares
from trading_platform.identifiers import AccountId, ClientOrderId, Symbol, UserId, content_id
from trading_platform.markets.instruments import Instrument
from trading_platform.venues.binance import BinanceVenue
from trading_platform.venues.port import Accepted

USERS, LANES = 99, 64
ALLOWED = 1.3
FLOODER = UserId("flooder")
Latencies = list[float]


class Desk:
    """Sends real orders for anybody and times them."""

    def __init__(self, venue: BinanceVenue, contract: Symbol, quantity: Decimal) -> None:
        self.venue, self.contract, self.quantity = venue, contract, quantity
        self.refused = self.flooded = 0

    async def send(self, name: str, wanted_at: float, latencies: Latencies | None) -> None:
        identifier = ClientOrderId(content_id("tp", name, time.time_ns(), length=30))
        side = "buy" if random.random() < 0.5 else "sell"
        answer = await self.venue.place_market(identifier, self.contract, side, self.quantity, datetime.now(UTC))
        self.refused += not isinstance(answer, Accepted)
        if latencies is None:
            self.flooded += 1
        else:
            latencies.append(time.perf_counter() - wanted_at)


async def trade(desk: Desk, seconds: float, a_second: float, flood: int, seed: int) -> Latencies:
    """One round: every user's orders at Poisson moments, and the flood, where there is one, at the beginning."""
    shares, latencies = FairShares(LANES), Latencies()
    generator, ends = random.Random(seed), time.perf_counter() + seconds

    async def flooding(name: str) -> None:
        if time.perf_counter() < ends:  # what is left is not worth waiting for
            await desk.send(name, 0.0, None)

    for number in range(flood):
        shares.put(Errand(FLOODER, AccountId("flood"), partial(flooding, f"f{number}")))

    async def user(name: str) -> None:
        while (pause := generator.expovariate(a_second)) and time.perf_counter() + pause < ends:
            await asyncio.sleep(pause)
            wanted = time.perf_counter()
            shares.put(Errand(UserId(name), AccountId(name), partial(desk.send, name, wanted, latencies)))

    await asyncio.gather(*(user(f"u{number}") for number in range(USERS)))
    if troubles := await shares.drained():
        raise troubles[0]
    return latencies


async def measure(info: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    venue = BinanceVenue(info["rest"], info["api_key"], info["api_secret"])
    try:
        instruments = await venue.instruments()
        contract = next(iter(instruments))
        desk = Desk(venue, contract, smallest(instruments[contract], await last_price(venue, contract)))
        await trade(desk, 3, options.rate, 0, 0)  # connections and caches
        alone, flooded = Latencies(), Latencies()
        for number in track(range(options.rounds), "rounds", console=Console(stderr=True)):
            alone += await trade(desk, options.seconds, options.rate, 0, number)
            flooded += await trade(desk, options.seconds, options.rate, options.flood, number)
    finally:
        await venue.close()
    one, two = percentiles(alone), percentiles(flooded)
    ratio = two["p99_ms"] / one["p99_ms"]
    return {
        "users": USERS, "flood": options.flood, "rounds": options.rounds, "orders_alone": len(alone),
        "orders_with_flood": len(flooded), "flooders_orders_sent": desk.flooded, "refused": desk.refused,
        "alone": one, "with_flood": two, "p99_ratio": round(ratio, 3), "allowed": ALLOWED, "ok": ratio <= ALLOWED,
    }  # fmt: skip


def smallest(instrument: Instrument, price: Decimal) -> Decimal:
    """Twice the venue's smallest order."""
    return instrument.round_quantity(2 * max(instrument.minimum_notional / price, instrument.step)) + instrument.step


async def last_price(venue: BinanceVenue, contract: Symbol) -> Decimal:
    answer = await venue.client.public_get_ticker_price({"symbol": contract.replace("/", "")})
    return Decimal(answer["price"])


def percentiles(latencies: Latencies) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100)
    return {"p50_ms": round(cuts[49] * 1e3, 2), "p99_ms": round(cuts[98] * 1e3, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of one round (default 30)")
    parser.add_argument("--rounds", type=int, default=3, help="without and with the flood (default 3 of each)")
    parser.add_argument("--rate", type=float, default=0.3, help="orders a second of each of the 99 (default 0.3)")
    parser.add_argument(
        "--flood", type=int, default=10_000, help="intents that the hundredth pours in (default 10,000)"
    )
    options = parser.parse_args()
    import logging

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    command = [sys.executable, "-m", "trading_platform.cli", "sandbox", "--no-limits"]
    sandbox = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert sandbox.stdout is not None
        info = json.loads(sandbox.stdout.readline())["binance"]
        found = asyncio.run(measure(info, options))
    finally:
        sandbox.terminate()
        sandbox.wait(20)
    table = Table("", "p50 ms", "p99 ms", title="Orders of the 99 others")
    for name in ("alone", "with_flood"):
        table.add_row(name.replace("_", " "), str(found[name]["p50_ms"]), str(found[name]["p99_ms"]))
    Console().print(table)
    print(json.dumps(found))
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
