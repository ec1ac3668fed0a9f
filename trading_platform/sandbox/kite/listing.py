"""What the exchange trades, as Kite's instruments dump: shares of the dataset, and futures that follow its indices.

A dataset of an index has nothing to buy in it. Its futures are derived: monthly contracts whose price is the index carried
to expiry at `CARRY` a year, marked by the name `…(derived)`, so that nobody takes them for recorded prices.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from zlib import crc32
from zoneinfo import ZoneInfo

from trading_platform.identifiers import Symbol, Venue
from trading_platform.markets.contracts import MONTHS, Contract, ContractBook
from trading_platform.markets.instruments import Instrument, is_index
from trading_platform.markets.quantities import lot_of
from trading_platform.markets.sessions import is_trading_day
from trading_platform.markets.ticks import round_price
from trading_platform.sandbox.events import BarClosed
from trading_platform.sandbox.sources import Source, Step

IST = ZoneInfo("Asia/Kolkata")
CARRY = 0.06
FUTURE_TICK = Decimal("0.05")
CONTRACTS_AHEAD = 3
INDEX_NAMES = {"NIFTY 50": "NIFTY", "NIFTY BANK": "BANKNIFTY"}
EXPIRY_TUESDAY_FROM = date(2025, 9, 1)
THURSDAY, TUESDAY = 3, 1
NSE, NFO, INDICES = 1, 2, 9


def monthly_expiry(year: int, month: int) -> date:
    """The last Thursday (Tuesday since September 2025) of a month, or the trading day before."""
    following = date(year + month // 12, month % 12 + 1, 1)
    weekday = TUESDAY if following > EXPIRY_TUESDAY_FROM + timedelta(days=30) else THURSDAY
    day = following - timedelta(days=1)
    while day.weekday() != weekday:
        day -= timedelta(days=1)
    while not is_trading_day("NFO", day):
        day -= timedelta(days=1)
    return day


def futures_of(index: str, first: date, last: date) -> list[Contract]:
    """Monthly futures of an index from `first` until three expiries after `last`."""
    name, found, year, month = INDEX_NAMES.get(index, index), [], first.year, first.month
    after = 0
    while after < CONTRACTS_AHEAD:
        expiry = monthly_expiry(year, month)
        if expiry >= first:
            symbol = f"{name}{year % 100:02d}{MONTHS[month - 1]}FUT"
            found.append(
                Contract(
                    _token(symbol, NFO), _token(symbol, NFO) >> 8, symbol, name, Decimal(0), expiry, Decimal(0),
                    FUTURE_TICK, lot_of(name, expiry) or 1, "FUT", "NFO-FUT", "NFO",
                )
            )  # fmt: skip
            after += expiry > last
        year, month = year + month // 12, month % 12 + 1
    return found


def share(symbol: str, tick: Decimal) -> Contract:
    kind = INDICES if is_index(Symbol(symbol)) else NSE
    segment = "INDICES" if kind == INDICES else "NSE"
    token = _token(symbol, kind)
    return Contract(token, token >> 8, symbol, symbol, Decimal(0), None, Decimal(0), tick, 1, "EQ", segment, "NSE")


def listing(symbols: Iterable[str], first: date, last: date) -> ContractBook:
    """Everything that a dataset of these symbols lists between two days."""
    contracts: list[Contract] = []
    for symbol in sorted(symbols):
        contracts.append(share(symbol, Decimal("0.05")))
        if is_index(Symbol(symbol)):
            contracts += futures_of(symbol, first, last)
    return ContractBook(contracts, first)


def instruments(book: ContractBook) -> list[Instrument]:
    """What the exchange matches: shares and futures, paid for in rupees and counted in whole units."""
    return [
        Instrument(
            Venue("nse"), Symbol(each.tradingsymbol), each.tradingsymbol, "INR", each.tick_size,
            Decimal(each.lot_size), Decimal(0),
        )
        for each in book
        if not each.is_index
    ]  # fmt: skip


@dataclass
class FuturesSource:
    """The steps of another source, each with the bars of the futures that follow its indices."""

    source: Source
    book: ContractBook

    async def steps(self, after: int | None) -> AsyncIterator[Step]:
        async for step in self.source.steps(after):
            day = datetime.fromtimestamp(step.time / 1_000, IST).date()
            derived = [
                future_bar(bar, contract, day)
                for bar in step.bars
                if is_index(Symbol(bar.symbol))
                for contract in self.book.futures(INDEX_NAMES.get(bar.symbol, bar.symbol))
                if contract.expiry is not None and contract.expiry >= day
            ]
            yield replace(step, bars=[*step.bars, *derived])


def future_bar(bar: BarClosed, contract: Contract, day: date) -> BarClosed:
    """A future's bar: the index's, carried to expiry, on the tick. Traded volume is that of a busy contract."""
    assert contract.expiry is not None
    factor = 1 + CARRY * (contract.expiry - day).days / 365

    def carried(price: float) -> float:
        return float(round_price(Decimal(repr(price * factor)), contract.tick_size))

    return BarClosed(
        contract.tradingsymbol, bar.open_time, carried(bar.open), carried(bar.high), carried(bar.low),
        carried(bar.close), float(contract.lot_size * 2_000),
    )  # fmt: skip


def _token(symbol: str, segment: int) -> int:
    """A stable number: the low byte says the segment, as in the broker's tokens."""
    return (crc32(symbol.encode()) % (1 << 22) + 1) << 8 | segment
