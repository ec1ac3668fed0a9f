"""Between which prices a contract may trade today, and what its last price is.

A share's or future's band is a tenth around the last close of the day before; where the data go beyond it the band has been
flexed, a twentieth at a time. Indices and options have none (0 and 0). In the closing auction it is the exchange's band
around the reference price. A band may be set by hand: that is how a test locks a market at its limit.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from zoneinfo import ZoneInfo

from trading_platform.markets.contracts import Contract, ContractBook
from trading_platform.markets.price_bands import CircuitLimits, closing_auction_limits
from trading_platform.markets.sessions import Phase, PhaseSpan, Segment, phase_at
from trading_platform.markets.ticks import round_price
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.margin_ledger import DAY_MS, IST_MS, day_of

IST = ZoneInfo("Asia/Kolkata")
NONE = CircuitLimits(Decimal(0), Decimal(0))
WIDTH, FLEX = Decimal("0.10"), Decimal("0.05")
REFERENCE_FROM = time(15)
IN_CLOSING_AUCTION = frozenset({Phase.CAS_REFERENCE, Phase.CAS_ENTRY, Phase.CAS_LIMIT_ONLY, Phase.CAS_MATCH})
SEGMENTS: dict[str, Segment] = {"NSE": "NSE", "BSE": "BSE", "NFO": "NFO", "BFO": "BFO", "CDS": "CDS", "BCD": "BCD", "MCX": "MCX", "NCO": "MCX"}  # fmt: skip


@dataclass
class Bands:
    """Of all contracts of an exchange, at its market time."""

    exchange: Exchange
    book: ContractBook
    by_hand: dict[str, CircuitLimits] = field(default_factory=dict)
    _bases: dict[tuple[str, int], Decimal] = field(default_factory=dict)
    _auctioned: dict[str, bool] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.exchange.now / 1_000, UTC)

    def last(self, contract: Contract) -> Decimal | None:
        market = self.exchange.markets.get(contract.tradingsymbol)
        if market is not None:
            return market.last
        candles = self.exchange.candles.get(contract.tradingsymbol)
        return Decimal(repr(candles.row(len(candles) - 1)[4])) if candles else None

    def has_closing_auction(self, contract: Contract) -> bool:
        """Shares that have derivatives do."""
        symbol = contract.tradingsymbol
        if symbol not in self._auctioned:
            named = contract.name or symbol
            derivatives = any(self.book.futures(each) for each in {named, symbol})
            self._auctioned[symbol] = not contract.is_derivative and not contract.is_index and derivatives
        return self._auctioned[symbol]

    def phase(self, contract: Contract, when: datetime | None = None) -> PhaseSpan:
        segment = SEGMENTS[contract.exchange]
        return phase_at(segment, when or self.now, closing_auction=self.has_closing_auction(contract))

    def limits(self, contract: Contract) -> CircuitLimits:
        symbol, last = contract.tradingsymbol, self.last(contract)
        if symbol in self.by_hand:
            return self.by_hand[symbol]
        if contract.is_index or contract.is_option or last is None:
            return NONE
        if self.has_closing_auction(contract) and self.phase(contract).phase in IN_CLOSING_AUCTION:
            return closing_auction_limits(self.reference(contract), contract.tick_size, self.now.astimezone(IST).date())
        base, width = self.base(contract), WIDTH
        while not base * (1 - width) <= last <= base * (1 + width):
            width += FLEX
        lower = max(round_price(base * (1 - width), contract.tick_size, "up"), contract.tick_size)
        return CircuitLimits(lower, round_price(base * (1 + width), contract.tick_size, "down"))

    def reference(self, contract: Contract) -> Decimal:
        """The closing auction's reference: the average price, by volume, from 15:00 to 15:15; else the last price."""
        day = self.now.astimezone(IST).date()
        first = int(datetime.combine(day, REFERENCE_FROM, IST).timestamp() * 1_000)
        rows = self.exchange.candles[contract.tradingsymbol].between(first, first + 899_999, 1_000)
        volume = sum(row[5] for row in rows)
        if not volume:
            return self.last(contract) or Decimal(0)
        return Decimal(repr(round(sum(row[4] * row[5] for row in rows) / volume, 4)))

    def impose(self) -> None:
        """Let nobody offer beyond the bands of the moment."""
        for contract in self.book:
            market = self.exchange.markets.get(contract.tradingsymbol)
            if market is not None and (limits := self.limits(contract)).apply:
                market.liquidity.limit(limits.lower, limits.upper)

    def base(self, contract: Contract) -> Decimal:
        """The last close before today; without one, the first price of today."""
        day = day_of(self.exchange.now)
        key = (contract.tradingsymbol, day)
        if key not in self._bases:
            candles = self.exchange.candles[contract.tradingsymbol]
            before = candles.between(None, day * DAY_MS - IST_MS - 1, 1)
            self._bases[key] = Decimal(repr(before[-1][4])) if before else self.last(contract) or Decimal(0)
        return self._bases[key]
