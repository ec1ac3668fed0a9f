"""From one market time's signals to intents: exits first, then entries, each through the risk check.

Pure but for the identifiers' hashes: the same signals and the same portfolio give the same intents, with the same
decision keys, whoever asks and however often.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from trading_platform.execution.portfolio import Holding, Portfolio, Stake
from trading_platform.execution.risk import ZERO, Wish, check
from trading_platform.identifiers import ClientOrderId, IntentId, StrategyId, Symbol, content_id
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.control import Signal
from trading_platform.venues.port import Side

DENIED, SENDING = "DENIED", "SENDING"


@dataclass(frozen=True)
class Decision:
    """An intent to be written: to be sent at once (born SENDING), or denied and kept for the record."""

    portfolio: Portfolio
    signal: Signal
    purpose: str
    side: Side
    quantity: Decimal
    denial: str | None
    holding: Holding | None
    decision_key: str

    @property
    def intent_id(self) -> IntentId:
        return IntentId(content_id("i", self.decision_key))

    @property
    def client_order_id(self) -> ClientOrderId:
        """At most 36 characters, unique a decision: the venue sees the same id however often it is sent."""
        return ClientOrderId(content_id("tp", self.decision_key, length=30))

    @property
    def state(self) -> str:
        return SENDING if self.denial is None else DENIED


@dataclass(frozen=True)
class Situation:
    """What holds for all accounts of the group at this moment."""

    instruments: Mapping[Symbol, Instrument]
    flattening: bool
    halted: Callable[[Portfolio], str | None]
    """The scope of the halt that applies to an account, if any."""


def decide(
    portfolio: Portfolio, signals: Sequence[Signal], market_time: datetime, situation: Situation
) -> list[Decision]:
    """Decisions of one account on the signals of the arm it follows, all of one market time."""
    portfolio.turn_day(market_time)
    for signal in signals:
        portfolio.prices[Symbol(signal.symbol)] = signal.price
    decisions = []
    entered = 0
    spent = ZERO
    for signal in signals:
        strategy, symbol = StrategyId(signal.strategy_id), Symbol(signal.symbol)
        held = portfolio.holdings.get((strategy, symbol))
        if held is not None:
            if situation.flattening or held.exit_reason(signal.price, market_time):
                decisions.append(_exit(portfolio, signal, held, situation))
            continue
        stake = portfolio.stakes.get(strategy)
        if stake is None or not stake.enabled or signal.state != "ok" or signal.direction != "long":
            continue
        decision = _entry(portfolio, signal, stake, market_time, situation, (entered, spent))
        decisions.append(decision)
        if decision.denial is None:
            entered += 1
            spent += decision.quantity * signal.price
    return decisions


def decision_key(portfolio: Portfolio, signal: Signal, purpose: str) -> str:
    """The same decision has the same key: account, strategy, symbol, bar, purpose."""
    return content_id(
        "d", portfolio.account_id, signal.strategy_id, signal.symbol, signal.bar_open_time.isoformat(), purpose
    )


def _exit(portfolio: Portfolio, signal: Signal, held: Holding, situation: Situation) -> Decision:
    instrument = situation.instruments.get(held.symbol)
    quantity = instrument.round_quantity(held.quantity) if instrument else ZERO
    wish = _wish(portfolio, signal, instrument, quantity, situation, entry=False)
    denial = check(wish, portfolio.limits)
    return Decision(portfolio, signal, "exit", "sell", quantity, denial, held, decision_key(portfolio, signal, "exit"))


def _entry(
    portfolio: Portfolio, signal: Signal, stake: Stake, market_time: datetime, situation: Situation,
    already: tuple[int, Decimal],
) -> Decision:  # fmt: skip
    instrument = situation.instruments.get(Symbol(signal.symbol))
    notional = portfolio.equity * stake.capital_fraction
    quantity = instrument.round_quantity(notional / signal.price) if instrument else ZERO
    wish = _wish(
        portfolio, signal, instrument, quantity, situation, entry=True, already=already,
        stale=market_time >= signal.expires_at,
        certified_enough=portfolio.kind != "live" or signal.certified or stake.allow_uncertified,
    )  # fmt: skip
    denial = check(wish, portfolio.limits)
    return Decision(portfolio, signal, "entry", "buy", quantity, denial, None, decision_key(portfolio, signal, "entry"))


def _wish(
    portfolio: Portfolio, signal: Signal, instrument: Instrument | None, quantity: Decimal, situation: Situation,
    *, entry: bool, already: tuple[int, Decimal] = (0, ZERO), stale: bool = False, certified_enough: bool = True,
) -> Wish:  # fmt: skip
    symbol = Symbol(signal.symbol)
    entered, spent = already
    return Wish(
        entry=entry,
        quantity=quantity,
        price=signal.price,
        last_price=portfolio.prices.get(symbol),
        minimum_notional=instrument.minimum_notional if instrument else ZERO,
        cash=portfolio.cash - spent,
        position_notional=portfolio.position_notional(symbol),
        open_positions=len(portfolio.holdings) + entered,
        orders_this_second=portfolio.orders_since(time.time() - 1.0) + entered,
        orders_today=portfolio.orders_today + entered,
        lost_today=max(-portfolio.net_today, ZERO),
        halted=situation.halted(portfolio),
        flattening=situation.flattening,
        armed=portfolio.kind != "live" or portfolio.armed,
        certified_enough=certified_enough,
        stale=stale,
        tradable=instrument is not None and instrument.tradable,
        unknown_outcome=symbol in portfolio.unknown,
    )
