"""Paper trading beside the backtest of the same bars and signals: trade by trade what differs, and why. Pure.

A trade is known by its symbol and the moment it was decided. The backtest fills at the close that decided (on an exchange
that is shut by then, at the next open) and in full; the difference in net profit of a trade both have is then the sum of
what each cause cost:

    exit price or exit time   (paper exit - backtest exit) x quantity filled
    entry price              -(paper entry - backtest entry) x quantity filled
    partial                   (backtest exit - backtest entry) x (quantity filled - quantity meant)
    charges                  -(paper costs - backtest costs)

An entry that risk denied, or of which nothing was filled, is taken out of the backtest as well, so that one difference
does not make the next ones; what it would have brought is reported with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

ZERO = Decimal(0)
WHOLE = ("denied", "unfilled", "missed", "unexpected", "still_open")
"""Causes that are about a trade as a whole."""
CAUSES = ("entry_price", "exit_price", "exit_time", "exit_reason", "partial", "charges", *WHOLE)


@dataclass(frozen=True)
class Expected:
    """A trade of the backtest: decision times in UTC, prices in quote currency. `exit_*` None: open at the end."""

    symbol: str
    decided_at: datetime
    entry_price: Decimal
    exit_decided_at: datetime | None
    exit_price: Decimal | None
    reason: str | None


@dataclass(frozen=True)
class Traded:
    """A trade of the books. `meant`: quantity decided; `denial`: why risk kept it, `state` of the intent if nothing was
    filled; money in quote currency, None while open."""

    symbol: str
    decided_at: datetime
    meant: Decimal
    filled: Decimal
    entry_price: Decimal | None
    exit_decided_at: datetime | None = None
    exit_price: Decimal | None = None
    reason: str | None = None
    net: Decimal | None = None
    costs: Decimal | None = None
    denial: str | None = None
    state: str = "DONE"

    @property
    def entered(self) -> bool:
        return self.filled > ZERO


@dataclass(frozen=True)
class Difference:
    """One cause: `money` is what paper trading made more (or, below zero, less) than the backtest because of it."""

    symbol: str
    decided_at: datetime
    cause: str
    money: Decimal | None
    detail: str


@dataclass(frozen=True)
class Pair:
    """A trade that both have, closed in both. `expected_net`: of the quantity meant, charges included."""

    traded: Traded
    expected: Expected
    expected_net: Decimal
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Parity:
    """`pairs` in order of time; `others`: what only one side has."""

    pairs: tuple[Pair, ...]
    others: tuple[Difference, ...]

    @property
    def differences(self) -> list[Difference]:
        own = (difference for pair in self.pairs for difference in pair.differences)
        return sorted([*own, *self.others], key=lambda found: (found.decided_at, found.symbol, found.cause))

    @property
    def agreeing(self) -> int:
        """Pairs that were decided alike: same exit, same reason, filled in full; prices and charges may differ."""
        return sum(all(d.cause in ("entry_price", "exit_price", "charges") for d in p.differences) for p in self.pairs)

    def money_by_cause(self) -> dict[str, Decimal]:
        """What each cause made or cost in all, over the causes that have an amount."""
        totals: dict[str, Decimal] = {}
        for difference in self.differences:
            if difference.money is not None:
                totals[difference.cause] = totals.get(difference.cause, ZERO) + difference.money
        return totals


def compare(
    traded: Sequence[Traded], expected: Sequence[Expected], cost_per_side: Decimal,
    would_have: Sequence[Expected] = (),
) -> Parity:  # fmt: skip
    """`cost_per_side`: charges of the backtest, a fraction of the value of each order. `would_have`: what the denied and
    unfilled entries would have come to, each for itself."""
    by_key = {(trade.symbol, trade.decided_at): trade for trade in expected}
    alone = {(trade.symbol, trade.decided_at): trade for trade in would_have}
    pairs: list[Pair] = []
    others: list[Difference] = []
    for trade in sorted(traded, key=lambda trade: (trade.decided_at, trade.symbol)):
        key = (trade.symbol, trade.decided_at)
        twin = by_key.pop(key, None) if trade.entered else None
        if not trade.entered:
            by_key.pop(key, None)
            others.append(_not_entered(trade, alone.get(key), cost_per_side))
        elif twin is None:
            others.append(
                _only(trade, "unexpected", trade.net, "the backtest holds the symbol already, or saw no signal")
            )
        elif trade.net is None or twin.exit_price is None:
            if (trade.net is None) != (twin.exit_price is None):
                others.append(_only(trade, "still_open", None, _which_is_open(trade)))
        else:
            pairs.append(_pair(trade, twin, cost_per_side))
    for left in by_key.values():
        others.append(
            Difference(left.symbol, left.decided_at, "missed", None, "no decision was written: no engine ran, or the signal had run out")
        )  # fmt: skip
    return Parity(tuple(pairs), tuple(others))


def net_of(trade: Expected, quantity: Decimal, cost_per_side: Decimal) -> Decimal:
    """Net profit of a closed trade of the backtest at some quantity."""
    assert trade.exit_price is not None
    return (trade.exit_price - trade.entry_price) * quantity - costs_of(trade, quantity, cost_per_side)


def costs_of(trade: Expected, quantity: Decimal, cost_per_side: Decimal) -> Decimal:
    assert trade.exit_price is not None
    return (trade.exit_price + trade.entry_price) * quantity * cost_per_side


def _pair(trade: Traded, twin: Expected, cost_per_side: Decimal) -> Pair:
    assert trade.entry_price is not None and trade.exit_price is not None and trade.costs is not None
    assert trade.net is not None and twin.exit_price is not None
    same_exit = trade.exit_decided_at == twin.exit_decided_at
    left = (trade.exit_price - twin.exit_price) * trade.filled
    entered = (twin.entry_price - trade.entry_price) * trade.filled
    partial = (twin.exit_price - twin.entry_price) * (trade.filled - trade.meant)
    charged = costs_of(twin, trade.meant, cost_per_side) - trade.costs
    found = [
        (entered != 0, "entry_price", entered, f"{trade.entry_price:.8g} for {twin.entry_price:.8g}{_points(trade.entry_price, twin.entry_price)}"),
        (same_exit and left != 0, "exit_price", left, f"{trade.exit_price:.8g} for {twin.exit_price:.8g}{_points(trade.exit_price, twin.exit_price)}"),
        (not same_exit, "exit_time", left, f"left on the decision of {_moment(trade.exit_decided_at)}, backtest {_moment(twin.exit_decided_at)}"),
        (trade.reason != twin.reason, "exit_reason", None, f"left for {trade.reason}, backtest for {twin.reason}"),
        (trade.filled != trade.meant, "partial", partial, f"{trade.filled:.8g} filled of {trade.meant:.8g}"),
        (charged != 0, "charges", charged, f"{trade.costs:.8g} for {costs_of(twin, trade.meant, cost_per_side):.8g}"),
    ]  # fmt: skip
    differences = tuple(
        Difference(trade.symbol, trade.decided_at, cause, money, detail)
        for holds, cause, money, detail in found
        if holds
    )
    return Pair(trade, twin, net_of(twin, trade.meant, cost_per_side), differences)


def _not_entered(trade: Traded, twin: Expected | None, cost_per_side: Decimal) -> Difference:
    known = twin is not None and twin.exit_price is not None
    money = -net_of(twin, trade.meant, cost_per_side) if known and twin is not None else None
    if trade.denial is not None:
        return _only(trade, "denied", money, trade.denial)
    return _only(trade, "unfilled", money, f"the order ended {trade.state} with nothing filled")


def _only(trade: Traded, cause: str, money: Decimal | None, detail: str) -> Difference:
    return Difference(trade.symbol, trade.decided_at, cause, money, detail)


def _which_is_open(trade: Traded) -> str:
    return (
        "open in paper trading, closed in the backtest"
        if trade.net is None
        else "closed in paper trading, open in the backtest"
    )


def _points(got: Decimal, meant: Decimal) -> str:
    return f" ({(got / meant - 1) * 10_000:+.2f} bp)"


def _moment(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def counts(differences: Iterable[Difference]) -> dict[str, int]:
    """How often each cause is there, every cause named."""
    found = list(differences)
    return {cause: sum(difference.cause == cause for difference in found) for cause in CAUSES}
