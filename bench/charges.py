"""Contract notes computed a second, every head to the paisa: `python bench/charges.py [--notes N]`.

Beside it the floor: the same formula with rates fixed in the code, in binary floats and without rounding to the note, which
is what one would write in an afternoon; it cannot tell one date's rates from another's and is wrong in the last paise.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from trading_platform.markets.contract_note import Leg, charges_of

DAY = date(2026, 6, 1)
PRICE, QUANTITY = Decimal("1523.45"), 137


def delivery(number: int) -> Decimal:
    legs = [Leg("buy", QUANTITY + number % 7, PRICE), Leg("sell", QUANTITY + number % 7, PRICE + number % 5)]
    return charges_of("NSE", "delivery", legs, DAY).total


def intraday(number: int) -> Decimal:
    legs = [Leg("buy", QUANTITY + number % 7, PRICE), Leg("sell", QUANTITY + number % 7, PRICE + number % 5)]
    return charges_of("NSE", "intraday", legs, DAY).total


def futures(number: int) -> Decimal:
    legs = [Leg("buy", 65, PRICE * 15), Leg("sell", 65, PRICE * 15 + number % 5)]
    return charges_of("NFO", "futures", legs, DAY).total


def floor(number: int) -> float:
    quantity, bought, sold = QUANTITY + number % 7, 1523.45, 1523.45 + number % 5
    buy, sell = bought * quantity, sold * quantity
    turnover = buy + sell
    exchange, sebi = turnover * 0.0000307, turnover * 0.000001
    return turnover * 0.001 + exchange + sebi + buy * 0.00015 + 0.18 * (exchange + sebi) + 15.34


def rate(compute: Callable[[int], object], count: int) -> float:
    compute(0)
    began = time.perf_counter()
    for number in range(count):
        compute(number)
    return count / (time.perf_counter() - began)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--notes", type=int, default=20_000)
    count = arguments.parse_args().notes
    kinds = {"delivery": delivery, "intraday": intraday, "futures": futures, "floor (floats, fixed rates)": floor}
    found = {name: rate(compute, count) for name, compute in kinds.items()}
    bare = found["floor (floats, fixed rates)"]
    table = Table(
        "segment", "notes/s", "us a note", "share of floor", title=f"{count:,} notes of a purchase and a sale"
    )
    for name, each in found.items():
        table.add_row(name, f"{each:,.0f}", f"{1e6 / each:.1f}", f"{each / bare:.4f}")
    Console().print(table)
    print(json.dumps({"bench": "charges", "notes": count, "notes_per_second": {k: round(v) for k, v in found.items()}}))


if __name__ == "__main__":
    main()
