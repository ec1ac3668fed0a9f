"""What every scope has already, counted over the accounts of a group: positions, orders and losses of a user, an
account, a strategy and the group, each in one currency, live and paper apart.

Built once a step and told of every order that is decided on, so that the orders of one step share their limits whoever
they belong to. A scope is counted when it is first asked for, and only where it has limits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from trading_platform.execution.limits import LimitBook, Limits, Scope
from trading_platform.execution.portfolio import Portfolio
from trading_platform.execution.risk import ZERO, Standing
from trading_platform.identifiers import GroupId, StrategyId, Symbol
from trading_platform.venues.port import Side

ScopeKey = tuple[Scope, str, str, str]
"""Scope, its id, currency, kind of account."""


@dataclass
class Count:
    """The running figures of one scope."""

    positions: dict[Symbol, Decimal] = field(default_factory=dict)
    open_positions: int = 0
    open_orders: int = 0
    second: int = 0
    minute: int = 0
    today: int = 0
    net_today: Decimal = ZERO
    equity: Decimal = ZERO
    peak: Decimal = ZERO

    def order(self) -> None:
        self.second += 1
        self.minute += 1
        self.today += 1
        self.open_orders += 1

    def entry(self, symbol: Symbol, notional: Decimal) -> None:
        self.positions[symbol] = self.positions.get(symbol, ZERO) + notional
        self.open_positions += 1


class Exposures:
    """The counts of one step. `seconds`: now, by the clock that orders per second are counted by."""

    def __init__(self, group_id: GroupId, portfolios: Sequence[Portfolio], limits: LimitBook, seconds: float) -> None:
        self._group_id, self._portfolios, self._limits, self._seconds = group_id, portfolios, limits, seconds
        self._counts: dict[ScopeKey, Count] = {}
        self._sides: dict[tuple[str, Symbol], set[Side]] = {}
        self._decided: set[str] = set()
        self._by_user: dict[str, list[Portfolio]] = {}
        for portfolio in portfolios:
            self._by_user.setdefault(portfolio.user_id, []).append(portfolio)

    def standings(self, portfolio: Portfolio, strategy_id: StrategyId, symbol: Symbol) -> tuple[Standing, ...]:
        """Of the scopes that an order of this account and strategy counts towards and that have limits; the user's too
        where it has none."""
        found = []
        for key in self._keys(portfolio, strategy_id):
            limits = self._limits_of(key, portfolio)
            if limits is None:
                if key[0] == "user":
                    found.append(Standing("user", key[1], key[2], None))
                continue
            count = self._count(key)
            found.append(
                Standing(
                    key[0], key[1], key[2], limits, count.positions.get(symbol, ZERO),
                    sum(count.positions.values(), ZERO), count.open_positions, count.open_orders, count.second,
                    count.minute, count.today, max(-count.net_today, ZERO), _drawdown(count),
                )
            )  # fmt: skip
        return tuple(found)

    def decided(self, decision_key: str) -> bool:
        """Whether the same decision was made in this step already."""
        return decision_key in self._decided

    def opposes(self, portfolio: Portfolio, contract: Symbol, side: Side) -> bool:
        """Whether the same person has an order on the other side of the contract, working or of this step."""
        other: Side = "sell" if side == "buy" else "buy"
        if other in self._sides.get((portfolio.user_id, contract), ()):
            return True
        mine = (each for each in self._by_user.get(portfolio.user_id, ()) if each.kind == portfolio.kind)
        return any(other in _working_sides(each, contract) for each in mine)

    def add(
        self, portfolio: Portfolio, strategy_id: StrategyId, symbol: Symbol, contract: Symbol, side: Side,
        decision_key: str, entered: Decimal | None,
    ) -> None:  # fmt: skip
        """An order was decided on. `entered`: its notional, None for an exit, which counts as an order alone."""
        self._decided.add(decision_key)
        self._sides.setdefault((portfolio.user_id, contract), set()).add(side)
        for key in self._keys(portfolio, strategy_id):
            if self._limits_of(key, portfolio) is None:
                continue
            count = self._count(key)
            count.order()
            if entered is not None:
                count.entry(symbol, entered)

    def _limits_of(self, key: ScopeKey, portfolio: Portfolio) -> Limits | None:
        return portfolio.limits if key[0] == "user" else self._limits.find(key[0], key[1], key[2])

    def _keys(self, portfolio: Portfolio, strategy_id: StrategyId) -> tuple[ScopeKey, ...]:
        currency, kind = portfolio.currency, portfolio.kind
        return (
            ("user", portfolio.user_id, currency, kind),
            ("account", portfolio.account_id, currency, kind),
            ("strategy", strategy_id, currency, kind),
            ("group", self._group_id, currency, kind),
        )

    def _count(self, key: ScopeKey) -> Count:
        if key not in self._counts:
            self._counts[key] = _counted(self._members(key), key, self._seconds)
        return self._counts[key]

    def _members(self, key: ScopeKey) -> Iterable[Portfolio]:
        scope, scope_id, currency, kind = key
        candidates = self._by_user.get(scope_id, []) if scope == "user" else self._portfolios
        return (
            each
            for each in candidates
            if each.currency == currency and each.kind == kind and (scope != "account" or each.account_id == scope_id)
        )


def _counted(members: Iterable[Portfolio], key: ScopeKey, seconds: float) -> Count:
    """A strategy's share of an account is its positions and results; orders are counted by account."""
    strategy = StrategyId(key[1]) if key[0] == "strategy" else None
    count = Count()
    for portfolio in members:
        for held in portfolio.holdings.values():
            if strategy in (None, held.strategy_id):
                value = abs(portfolio.value_of(held))
                count.positions[held.symbol] = count.positions.get(held.symbol, ZERO) + value
                count.open_positions += 1
        entering = sum(1 for symbol in portfolio.unsettled if not _is_held(portfolio, symbol))
        count.open_positions += entering if strategy is None else 0
        count.open_orders += len(portfolio.unsettled)
        count.second += portfolio.orders_since(seconds - 1.0)
        count.minute += portfolio.orders_since(seconds - 60.0)
        count.today += portfolio.orders_today
        count.net_today += portfolio.net_today if strategy is None else portfolio.net_by_strategy.get(strategy, ZERO)
        count.equity += portfolio.equity
        count.peak += max(portfolio.peak_equity, portfolio.equity)
    return count


def _working_sides(portfolio: Portfolio, contract: Symbol) -> tuple[Side, ...]:
    """The sides that the order that works in a contract may have: it leaves what is held, and else enters. What is entered
    is bought, but for an option, which may be the sold leg of a spread."""
    for symbol in portfolio.unsettled:
        held = next((each for each in portfolio.holdings.values() if each.symbol == symbol), None)
        if (held.contract if held else symbol) == contract:
            if held is not None:
                return (held.leaving_side,)
            listed = portfolio.venue.listed(contract)
            return ("buy", "sell") if listed is not None and listed.is_option else ("buy",)
    return ()


def _is_held(portfolio: Portfolio, symbol: Symbol) -> bool:
    return any(held.symbol == symbol for held in portfolio.holdings.values())


def _drawdown(count: Count) -> Decimal:
    return ZERO if count.peak <= ZERO else max(1 - count.equity / count.peak, ZERO)
