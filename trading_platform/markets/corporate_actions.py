"""Splits, bonuses, dividends and demergers: what they do to prices of before, and to what is held.

Prices before an ex-date are multiplied by a factor, volumes divided by it (for actions that change the number of shares),
so that a return across the date is what a holder had. An adjusted series is of a day: `known_on` keeps actions out that
were not yet ex then, so that a backtest sees what was seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_DOWN, Decimal
from typing import Literal

import polars as pl

from trading_platform.identifiers import Symbol

Kind = Literal["split", "bonus", "dividend", "demerger"]
PRICES = ("open", "high", "low", "close")
ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class CorporateAction:
    """One action. `ratio`: new shares for `per` old ones (split 10 for 1, bonus 1 for 2, a demerger's shares of `into`).

    `amount`: rupees a share of a dividend. `retained`: the part of a share's value that stays in the old company at a
    demerger, as the company announces it for the cost of acquisition.
    """

    symbol: Symbol
    ex_date: date
    kind: Kind
    ratio: Decimal = ONE
    per: Decimal = ONE
    amount: Decimal = Decimal(0)
    retained: Decimal = ONE
    into: Symbol | None = None
    """The company that a demerger makes, once its symbol is known."""

    @property
    def shares(self) -> Decimal:
        """Shares held after it for one held before."""
        if self.kind == "split":
            return self.ratio / self.per
        return ONE + self.ratio / self.per if self.kind == "bonus" else ONE

    def price_factor(self, close_before: Decimal) -> Decimal:
        """What prices before the ex-date are multiplied by. Raises ValueError for a dividend above the price."""
        if self.kind == "dividend":
            if self.amount >= close_before:
                raise ValueError(f"a dividend of {self.amount} on {self.symbol} at {close_before} is not believable")
            return ONE - self.amount / close_before
        return self.retained if self.kind == "demerger" else ONE / self.shares


def adjust(bars: pl.DataFrame, actions: Sequence[CorporateAction], known_on: date) -> pl.DataFrame:
    """Bars of one symbol (columns session_date, open, high, low, close, volume) as they were seen on `known_on`.

    Bars on and after an ex-date are untouched. Actions of other symbols are ignored.
    """
    name = bars["symbol"][0] if len(bars) and "symbol" in bars.columns else None
    done = bars.sort("session_date")
    in_force = sorted(
        (each for each in actions if each.ex_date <= known_on and name in (None, each.symbol)),
        key=lambda each: each.ex_date,
        reverse=True,
    )
    for action in in_force:
        before = bars.filter(pl.col("session_date") < action.ex_date)
        if before.is_empty():
            continue
        close = Decimal(repr(before.sort("session_date")["close"][-1]))
        factor, shares = float(action.price_factor(close)), float(action.shares)
        earlier = pl.col("session_date") < action.ex_date
        done = done.with_columns(
            *(pl.when(earlier).then(pl.col(each) * factor).otherwise(pl.col(each)).alias(each) for each in PRICES),
            pl.when(earlier).then(pl.col("volume") * shares).otherwise(pl.col("volume")).alias("volume"),
        )
    return done


@dataclass(frozen=True, slots=True)
class Received:
    """Shares of a company that a demerger made."""

    symbol: Symbol
    quantity: Decimal
    average_price: Decimal


@dataclass(frozen=True, slots=True)
class AdjustedPosition:
    """A holding after an action: whole shares, their average price, and rupees paid out or for a fraction."""

    quantity: Decimal
    average_price: Decimal
    cash: Decimal
    received: Received | None = None


def adjust_position(quantity: Decimal, average_price: Decimal, action: CorporateAction, last_price: Decimal) -> AdjustedPosition:  # fmt: skip
    """What is held after the ex-date. Cost is kept: average price falls as shares grow; a fraction is paid in cash.

    `last_price`: before the action; fractions are paid at its adjusted value.
    """
    if action.kind == "dividend":
        return AdjustedPosition(quantity, average_price, quantity * action.amount)
    if action.kind == "demerger":
        return _demerged(quantity, average_price, action, last_price)
    whole, fraction = _whole(quantity * action.shares)
    return AdjustedPosition(whole, average_price / action.shares, fraction * last_price / action.shares)


def _demerged(
    quantity: Decimal, average_price: Decimal, action: CorporateAction, last_price: Decimal
) -> AdjustedPosition:
    """The cost is parted by `retained`. Without the new company's symbol its shares are not booked yet."""
    old_price, parted = average_price * action.retained, ONE - action.retained
    if action.into is None:
        return AdjustedPosition(quantity, old_price, Decimal(0))
    each = action.ratio / action.per
    whole, fraction = _whole(quantity * each)
    received = Received(action.into, whole, average_price * parted / each)
    return AdjustedPosition(quantity, old_price, fraction * last_price * parted / each, received)


def _whole(exact: Decimal) -> tuple[Decimal, Decimal]:
    whole = exact.to_integral_value(ROUND_DOWN)
    return whole, exact - whole
