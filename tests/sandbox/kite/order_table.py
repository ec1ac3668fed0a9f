"""Every variety x type x validity of an order, tried with the official client: `python -m tests.sandbox.kite.order_table`.

Prints docs/kite-orders.md. A test tries them all again and compares; write the file anew with
`python -m tests.sandbox.kite.order_table > docs/kite-orders.md`.
"""

import asyncio
import itertools
import sys
import tempfile
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import structlog
from kiteconnect import KiteConnect
from kiteconnect.exceptions import KiteException

from tests.sandbox.kite.broker import FRIDAY, IST, MONDAY, Broker, broker, call
from trading_platform.markets.kite_orders import KiteOrder, OrderType, Product, Surroundings, Validity, Variety, check

AUCTION = "77"
PRICES: dict[str, dict[str, int]] = {
    "MARKET": {"market_protection": -1}, "LIMIT": {"price": 1400}, "SL": {"price": 1590, "trigger_price": 1590},
    "SL-M": {"trigger_price": 1590, "market_protection": -1},
}  # fmt: skip
OF_VARIETY: dict[str, dict[str, Any]] = {
    "regular": {}, "amo": {}, "co": {"product": "MIS", "trigger_price": 1390},
    "iceberg": {"quantity": 20, "iceberg_legs": 2}, "auction": {"transaction_type": "SELL", "auction_number": AUCTION},
}  # fmt: skip
HEAD = """# Orders at Zerodha: every variety, type and validity, and what came of it

One order each for shares of INFY (last price about 1,500 rupees), tried at the sandbox with the official Python client:
regular, cover and iceberg orders at 09:17 IST, after-market orders at 18:00, an auction offer on the next day for shares held.
LIMIT rests at 1,400; SL and SL-M trigger at 1,590; MARKET and SL-M carry `market_protection=-1`; TTL is 2 minutes; a cover
order's stop is at 1,390. `Before the wire` is what the platform's own check says (`trading_platform/markets/kite_orders.py`):
what it denies, the platform never sends; here it was sent all the same, to see what comes back. `After the session` is 18:00,
for after-market orders the next morning at 09:16. The sandbox's texts are its own where the broker's are not known. This
file is generated, and compared with the sandbox by a test.

| variety | type | validity | before the wire | answer | in the book at once | after the session |
|---|---|---|---|---|---|---|
"""
PRODUCTS = """
## Products

| exchange | product | before the wire | answer | in the book at once |
|---|---|---|---|---|
"""


@dataclass
class Tried:
    """One order: what our check said, what was answered, and what its row showed."""

    words: list[str]
    denial: str
    answer: str
    number: str | None = None
    at_once: str = "no row"
    later: str = "no row"

    def line(self, *shown: str) -> str:
        return f"| {' | '.join([*self.words, self.denial, self.answer, *shown])} |"


async def attempt(made: Broker, kite: KiteConnect, words: list[str], fields: dict[str, Any]) -> Tried:
    """Send it whatever our own check says."""
    answer, number = "accepted", None
    sent = fields | ({"iceberg_quantity": fields["quantity"] // 2} if "iceberg_legs" in fields else {})
    try:
        number = str(await call(kite.place_order, **sent))
    except KiteException as error:
        answer = f"{error.code} {type(error).__name__}: {error}"
    found = Tried(words, _denial(made, fields), answer.replace("|", "/"), number)
    found.at_once = await _status(kite, number)
    return found


def _denial(made: Broker, fields: dict[str, Any]) -> str:
    assert made.sandbox.kite is not None
    contract = made.sandbox.kite.desk.contracts[fields["tradingsymbol"]]
    values = {
        name: Decimal(value) if name in ("price", "trigger_price", "market_protection") else value
        for name, value in fields.items()
        if name != "transaction_type"
    }
    order = KiteOrder(side=fields["transaction_type"], **values)
    now = datetime.fromtimestamp((made.sandbox.exchange.market_time or 0) / 1_000, IST)
    denial = check(order, Surroundings(contract, now))
    return "passes" if denial is None else f"`{denial.code}`"


async def _status(kite: KiteConnect, number: str | None) -> str:
    if number is None:
        return "no row"
    last = (await call(kite.order_history, number))[-1]
    filled = f", {last['filled_quantity']} of {last['quantity']}" if last["filled_quantity"] else ""
    reason = f": {last['status_message']}" if last["status"] == "REJECTED" else ""
    return f"{last['status']} ({last['order_type']}{filled}){reason}".replace("|", "/")


def _fields(variety: str, kind: str, validity: str) -> dict[str, Any]:
    fields = {
        "variety": variety, "exchange": "NSE", "tradingsymbol": "INFY", "transaction_type": "BUY", "quantity": 10,
        "product": "CNC", "order_type": kind, "validity": validity,
    }  # fmt: skip
    ttl = {"validity_ttl": 2} if validity == "TTL" else {}
    return fields | PRICES[kind] | OF_VARIETY[variety] | ttl


def _at(made: Broker, day: date, clock: time) -> None:
    made.sandbox.exchange.market_time = int(datetime.combine(day, clock, IST).timestamp() * 1_000)


async def tables(folder: Path) -> str:
    """The whole document."""
    async with broker(folder) as made:
        kite = await made.client()
        assert made.sandbox.kite is not None
        combinations = list(itertools.product(get_args(Variety), get_args(OrderType), get_args(Validity)))
        tried: dict[tuple[str, str, str], Tried] = {}
        products: list[Tried] = []

        async def these(*varieties: str) -> None:
            for each in combinations:
                if each[0] in varieties:
                    tried[each] = await attempt(made, kite, list(each), _fields(*each))

        await these("regular", "co", "iceberg")
        for exchange, symbol, quantity in (("NSE", "INFY", 10), ("NFO", "NIFTY26DECFUT", 65)):
            for product in get_args(Product):
                fields = _fields("regular", "MARKET", "DAY")
                fields |= {"exchange": exchange, "tradingsymbol": symbol, "quantity": quantity, "product": product}
                products.append(await attempt(made, kite, [exchange, product], fields))
        await made.until(FRIDAY, time(15, 30))
        _at(made, FRIDAY, time(18))
        for each in [each for each in tried.values() if each.words[0] != "amo"]:
            each.later = await _status(kite, each.number)
        await these("amo")
        await made.until(MONDAY, time(9, 16))
        for each in [each for each in tried.values() if each.words[0] == "amo"]:
            each.later = await _status(kite, each.number)
        made.sandbox.kite.desk.auctions[AUCTION] = "INFY"
        await these("auction")
        _at(made, MONDAY, time(15, 0))
        made.sandbox.clock.on_step()
        for each in [each for each in tried.values() if each.words[0] == "auction"]:
            each.later = await _status(kite, each.number)
        lines = [tried[each].line(tried[each].at_once, tried[each].later) for each in combinations]
        rows = [each.line(each.at_once) for each in products]
        return HEAD + "\n".join(lines) + "\n" + PRODUCTS + "\n".join(rows) + "\n"


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(tables(Path(folder))), end="")


if __name__ == "__main__":
    main()
