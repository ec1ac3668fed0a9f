"""What the exchange trades, as Kite's instruments dump: shares of the dataset, and futures that follow its indices.

A dataset of an index has nothing to buy in it. Its futures are derived: monthly contracts whose price is the index carried
to expiry at `CARRY` a year. Where the index's price is known at the start, options of the nearest expiry are derived too, by
Black and Scholes at `VOLATILITY`. None of these are recorded prices.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Literal
from zlib import crc32
from zoneinfo import ZoneInfo

from trading_platform.identifiers import Symbol, Venue
from trading_platform.markets.contracts import MONTHS, Contract, ContractBook
from trading_platform.markets.instruments import Instrument, is_index
from trading_platform.markets.position_limits import option_price
from trading_platform.markets.quantities import lot_of
from trading_platform.markets.sessions import is_trading_day
from trading_platform.markets.ticks import round_price
from trading_platform.sandbox.events import BarClosed
from trading_platform.sandbox.sources import Source, Step

IST = ZoneInfo("Asia/Kolkata")
CARRY = 0.06
FUTURE_TICK = OPTION_TICK = Decimal("0.05")
VOLATILITY = 0.15
STRIKES_A_SIDE = 5
STRIKE_STEPS = ((30_000, 50), (float("inf"), 100))
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


def options_of(index: str, first: date, spot: float) -> list[Contract]:
    """Calls and puts of the first expiry after `first`, at strikes around `spot`."""
    name, expiry = INDEX_NAMES.get(index, index), _next_expiry(first)
    step = next(step for below, step in STRIKE_STEPS if spot < below)
    middle, found = round(spot / step) * step, []
    for number in range(-STRIKES_A_SIDE, STRIKES_A_SIDE + 1):
        strike = middle + number * step
        for kind in ("CE", "PE"):
            symbol = f"{name}{expiry.year % 100:02d}{MONTHS[expiry.month - 1]}{strike}{kind}"
            token = _token(symbol, NFO)
            found.append(
                Contract(
                    token, token >> 8, symbol, name, Decimal(0), expiry, Decimal(strike), OPTION_TICK,
                    lot_of(name, expiry) or 1, kind, "NFO-OPT", "NFO",
                )
            )  # fmt: skip
    return found


def _next_expiry(day: date) -> date:
    expiry = monthly_expiry(day.year, day.month)
    following = day.replace(day=1) + timedelta(days=32)
    return expiry if expiry > day + timedelta(days=2) else monthly_expiry(following.year, following.month)


def share(symbol: str, tick: Decimal) -> Contract:
    kind = INDICES if is_index(Symbol(symbol)) else NSE
    segment = "INDICES" if kind == INDICES else "NSE"
    token = _token(symbol, kind)
    return Contract(token, token >> 8, symbol, symbol, Decimal(0), None, Decimal(0), tick, 1, "EQ", segment, "NSE")


def listing(symbols: Iterable[str], first: date, last: date, spots: Mapping[str, float] | None = None) -> ContractBook:
    """Everything that a dataset of these symbols lists between two days. `spots`: {index: its price at the start}."""
    contracts: list[Contract] = []
    for symbol in sorted(symbols):
        contracts.append(share(symbol, Decimal("0.05")))
        if is_index(Symbol(symbol)):
            contracts += futures_of(symbol, first, last)
            if spots and symbol in spots:
                contracts += options_of(symbol, first, spots[symbol])
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
class DerivedSource:
    """The steps of another source, each with the bars of the futures and options that follow its indices."""

    source: Source
    book: ContractBook
    _by_index: dict[str, list[Contract]] = field(default_factory=dict)

    async def steps(self, after: int | None) -> AsyncIterator[Step]:
        async for step in self.source.steps(after):
            day = datetime.fromtimestamp(step.time / 1_000, IST).date()
            derived = [
                (option_bar if contract.is_option else future_bar)(bar, contract, day)
                for bar in step.bars
                if is_index(Symbol(bar.symbol))
                for contract in self._derivatives(bar.symbol)
                if contract.expiry is not None and contract.expiry >= day
            ]
            yield replace(step, bars=[*step.bars, *derived])

    def _derivatives(self, index: str) -> list[Contract]:
        if index not in self._by_index:
            name = INDEX_NAMES.get(index, index)
            self._by_index[index] = [each for each in self.book if each.is_derivative and each.name == name]
        return self._by_index[index]


def option_bar(bar: BarClosed, contract: Contract, day: date) -> BarClosed:
    """An option's bar: a call moves with the index, a put against it."""
    assert contract.expiry is not None
    kind: Literal["CE", "PE"] = "CE" if contract.instrument_type == "CE" else "PE"
    years, strike = ((contract.expiry - day).days + 0.5) / 365, float(contract.strike)

    def priced(spot: float) -> float:
        price = Decimal(repr(option_price(kind, spot, strike, years, VOLATILITY, CARRY)))
        return float(max(round_price(price, contract.tick_size), contract.tick_size))

    opened, close = priced(bar.open), priced(bar.close)
    ends = (priced(bar.high), priced(bar.low))
    volume = float(contract.lot_size * 1_000)
    return BarClosed(contract.tradingsymbol, bar.open_time, opened, max(ends), min(ends), close, volume)


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
