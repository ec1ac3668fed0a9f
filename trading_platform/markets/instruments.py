"""What may be traded: an instrument's currencies, its price tick, quantity step and smallest order."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from trading_platform.identifiers import Symbol, Venue

DATA = Path(__file__).parent / "data" / "instruments.toml"
SIGNIFICANT_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Instrument:
    """One thing on one venue. Prices in `quote`, quantities in `base`; `tradable` is False for an index."""

    venue: Venue
    symbol: Symbol
    base: str
    quote: str
    tick: Decimal
    step: Decimal
    minimum_notional: Decimal
    tradable: bool = True

    def round_price(self, price: Decimal) -> Decimal:
        """The nearest multiple of the tick at or below `price`."""
        return _down_to(price, self.tick)

    def round_quantity(self, quantity: Decimal) -> Decimal:
        """The nearest multiple of the step at or below `quantity`: never more than asked for."""
        return _down_to(quantity, self.step)

    @classmethod
    def from_ccxt(cls, venue: Venue, market: Mapping[str, Any]) -> "Instrument":
        """From a market of ccxt whose precision mode is TICK_SIZE (Binance's is). Missing filters raise KeyError."""
        precision, limits = market["precision"], market["limits"]
        return cls(
            venue=venue,
            symbol=Symbol(market["symbol"]),
            base=market["base"],
            quote=market["quote"],
            tick=Decimal(str(precision["price"])),
            step=Decimal(str(precision["amount"])),
            minimum_notional=Decimal(str(limits["cost"]["min"] or 0)),
            tradable=bool(market.get("active", True)),
        )

    @classmethod
    def from_file(cls, venue: Venue, symbol: Symbol, price: Decimal) -> "Instrument":
        """The defaults of `data/instruments.toml` for a symbol known from a file only, last seen at `price`."""
        defaults = _data()["defaults"]
        if venue == "nse":
            row = defaults["nse"]
            return cls(
                venue, symbol, symbol, row["quote"], Decimal(row["tick"]), Decimal(row["step"]),
                Decimal(row["minimum_notional"]), tradable=not is_index(symbol),
            )  # fmt: skip
        row = defaults["crypto"]
        base, _, quote = symbol.partition("/")
        tick = Decimal(1).scaleb(price.adjusted() - SIGNIFICANT_DIGITS + 1)
        return cls(
            venue, symbol, base, quote, min(tick, Decimal("0.01")), Decimal(row["step"]),
            Decimal(row["minimum_notional"]), tradable=bool(quote),
        )  # fmt: skip


def platform_symbol(name: str, venue: str | None = None) -> Symbol:
    """The platform's spelling of a symbol as files write it.

    >>> platform_symbol("BTCUSDT"), platform_symbol("btc_usdt"), platform_symbol("nifty"), platform_symbol("M&M", "nse")
    ('BTC/USDT', 'BTC/USDT', 'NIFTY 50', 'M&M')
    """
    name = name.strip().upper()
    if venue in (None, "nse") and name in _data()["aliases"]["nse"]:
        return Symbol(_data()["aliases"]["nse"][name])
    if venue == "nse" or "/" in name:
        return Symbol(name)
    if "_" in name:
        return Symbol(name.replace("_", "/", 1))
    for quote in _data()["quotes"]:
        if name.endswith(quote) and len(name) >= len(quote) + 2:
            return Symbol(f"{name.removesuffix(quote)}/{quote}")
    return Symbol(name)


def is_index(symbol: Symbol, venue: str = "nse") -> bool:
    """Whether a symbol is a level that is published and cannot be bought."""
    return symbol in _data()["defaults"].get(venue, {}).get("indices", ())


def _down_to(value: Decimal, unit: Decimal) -> Decimal:
    return (value / unit).to_integral_value(ROUND_DOWN) * unit


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    return tomllib.loads(DATA.read_text())
