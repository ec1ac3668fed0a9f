"""What a table's columns mean: by their names, or, in a headerless file, by what they hold.

Prices show themselves: of four columns one is the row-wise maximum (high), one the minimum (low); of the other two, the
open is the one that continues the previous row's other (the close).
"""

from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trading_platform.market_data.tables import UnreadableFileError
from trading_platform.market_data.timestamps import are_clock_times, are_times

ALIASES: dict[str, tuple[str, ...]] = {
    "time": ("time", "datetime", "timestamp", "date", "open_time", "opentime", "ts", "t", "unix", "date1", "day"),
    "clock": ("clock", "time"),
    "symbol": ("symbol", "ticker", "tradingsymbol", "pair", "instrument"),
    "series": ("series",),
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "v", "vol", "ttl_trd_qnty", "volume_base"),
    "price": ("price", "ltp", "last_price", "last"),
    "amount": ("amount", "volume", "qty", "quantity", "size", "last_quantity"),
}
PRICES = ("open", "high", "low", "close")
TICK = ("time", "price")
ENOUGH = 0.95
SAMPLE = 4_000
Prices = NDArray[np.float64]
BINANCE_KLINE_WIDTH = 12


@dataclass(frozen=True)
class Columns:
    """Role -> column name. Roles: time, clock, symbol, series, the four prices, volume; or price and amount."""

    roles: dict[str, str]
    shape: str
    """`ohlcv`, `binance klines`, `bitfinex candles`, `bhavcopy` or `ticks`."""
    inferred: bool = False
    """The order was found from the values, not from names."""

    @property
    def are_ticks(self) -> bool:
        return "open" not in self.roles


def find_columns(table: pl.DataFrame, *, named: bool, given: tuple[str, ...] = (), file: str = "") -> Columns:
    """Raises `UnreadableFileError` where a time or prices are missing."""
    if given:
        return _given(table, given, file)
    return _by_name(table, file) if named else _by_content(table, file)


def _given(table: pl.DataFrame, given: tuple[str, ...], file: str) -> Columns:
    """`given` names the columns from left to right; `-` leaves one out."""
    unknown = set(given) - set(ALIASES) - {"-", "oi"}
    if unknown or len(given) > len(table.columns):
        raise UnreadableFileError(
            f"{file}: --columns {','.join(given)} does not fit a table of {len(table.columns)} columns; "
            f"use {', '.join(ALIASES)} or - for one to leave out"
        )
    roles = {role: name for role, name in zip(given, table.columns, strict=False) if role not in {"-", "oi"}}
    return _checked(roles, table, file)


def _by_name(table: pl.DataFrame, file: str) -> Columns:
    lowered = {name.strip().lower().replace(" ", "_"): name for name in reversed(table.columns)}
    roles: dict[str, str] = {}
    for role, aliases in ALIASES.items():
        found = next((lowered[alias] for alias in aliases if alias in lowered), None)
        if found is not None:
            roles[role] = found
    if "date" in lowered and "time" in lowered and are_clock_times(table[lowered["time"]].cast(pl.String)):
        roles |= {"time": lowered["date"], "clock": lowered["time"]}
    else:
        roles.pop("clock", None)
    return _checked(roles, table, file)


def _checked(roles: dict[str, str], table: pl.DataFrame, file: str) -> Columns:
    if all(role in roles for role in ("time", *PRICES)):
        kept = {role: name for role, name in roles.items() if role not in {"price", "amount"}}
        return Columns(kept, "bhavcopy" if "series" in roles else "ohlcv")
    if all(role in roles for role in TICK) and not any(role in roles for role in ("open", "high", "low")):
        kept = {role: name for role, name in roles.items() if role in {"time", "clock", "symbol", "price", "amount"}}
        return Columns(kept, "ticks")
    missing = [role for role in ("time", *PRICES) if role not in roles]
    raise UnreadableFileError(
        f"{file}: no column for {', '.join(missing)}. Found columns: {', '.join(table.columns)}. Expected a time and "
        "open, high, low, close (and volume), or a time and a price (ticks). Name them with --columns if they are there"
    )


def _by_content(table: pl.DataFrame, file: str) -> Columns:
    roles = _time_and_symbol(table)
    if "time" not in roles:
        raise UnreadableFileError(
            f"{file}: no header, and none of the {len(table.columns)} columns holds times. First row: "
            f"{table.row(0)}. Expected a time and open, high, low, close, volume; name them with --columns"
        )
    rest = [name for name in table.columns if name not in roles.values() and _is_numeric(table[name])]
    if len(table.columns) == BINANCE_KLINE_WIDTH and are_times(table[table.columns[6]]):
        return Columns(dict(zip(("time", *PRICES, "volume"), table.columns, strict=False)), "binance klines")
    if len(rest) < len(PRICES):
        if rest:
            names = dict(zip(("price", "amount"), rest, strict=False))
            return Columns(roles | names, "ticks", inferred=True)
        raise UnreadableFileError(f"{file}: no header, and no column of numbers beside the time; found {table.row(0)}")
    prices = _infer_prices(table, rest, file)
    after = [name for name in rest if name not in prices.values()]
    if after:
        prices["volume"] = after[0]
    order = [role for name in rest for role, column in prices.items() if column == name]
    is_bitfinex = order[:5] == ["open", "close", "high", "low", "volume"]
    return Columns(roles | prices, "bitfinex candles" if is_bitfinex else "ohlcv", inferred=True)


def _time_and_symbol(table: pl.DataFrame) -> dict[str, str]:
    roles: dict[str, str] = {}
    for name in table.columns:
        values = table[name]
        if "clock" not in roles and are_clock_times(values):
            roles["clock"] = name
        elif "time" not in roles and are_times(values):
            roles["time"] = name
        elif "symbol" not in roles and values.dtype == pl.String and not _is_numeric(values):
            roles["symbol"] = name
    return roles


def _infer_prices(table: pl.DataFrame, names: list[str], file: str) -> dict[str, str]:
    """Role -> column of the four prices among numeric columns. The four nearest to each other that fit win."""
    values = table.head(SAMPLE).select(pl.col(names).cast(pl.Float64, strict=False)).drop_nulls().to_numpy()
    best: tuple[float, dict[str, str]] | None = None
    for chosen in combinations(range(len(names)), 4):
        four = values[:, list(chosen)]
        found = _order_of(four)
        if found is None:
            continue
        low = np.abs(four).min(axis=1)
        spread = float(np.median(np.abs(four).max(axis=1) / np.where(low > 0, low, np.nan)))
        spread = np.inf if np.isnan(spread) else spread
        if best is None or spread < best[0]:
            best = spread, {role: names[chosen[position]] for role, position in found.items()}
    if best is None:
        raise UnreadableFileError(
            f"{file}: no header, and no four of the columns {', '.join(names)} behave like open, high, low, close "
            f"(one the largest, one the smallest of its row). First row: {table.row(0)}. Name them with --columns"
        )
    return best[1]


def _order_of(four: Prices) -> dict[str, int] | None:
    """Role -> position of four columns, or None where they are no prices. Ties keep the usual order."""
    largest, smallest = four.max(axis=1), four.min(axis=1)
    best: tuple[float, float] | None = None
    roles: dict[str, int] | None = None
    for order in ((0, 1, 2, 3), *permutations(range(4))):
        opens, high, low, close = (four[:, position] for position in order)
        fits = float(((high == largest) & (low == smallest)).mean())
        key = (fits, -_typical_jump(close[:-1], opens[1:]))
        if fits >= ENOUGH and (best is None or key > best):
            best, roles = key, dict(zip(PRICES, order, strict=True))
    return roles


def _typical_jump(closes: Prices, next_opens: Prices) -> float:
    """Mean relative step from a close to the next open, each counted as 100 % at most so that bad rows weigh little."""
    if not len(closes):
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        jumps = np.abs(next_opens / closes - 1)
    return float(np.minimum(np.nan_to_num(jumps, nan=1.0), 1.0).mean())


def _is_numeric(values: pl.Series) -> bool:
    known = values.drop_nulls().head(SAMPLE)
    return len(known) > 0 and known.cast(pl.Float64, strict=False).null_count() <= len(known) // 20
