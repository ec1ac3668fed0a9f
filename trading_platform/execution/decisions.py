"""From one market time's signals to intents: exits first, then entries, each through the risk check.

Pure but for the identifiers' hashes: the same signals and the same portfolio give the same intents, with the same
decision keys, whoever asks and however often.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from trading_platform.execution.portfolio import Holding, Portfolio, Stake
from trading_platform.execution.risk import ZERO, Wish, check
from trading_platform.identifiers import ClientOrderId, GroupId, IntentId, StrategyId, Symbol, content_id
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.control import Signal
from trading_platform.venues.port import Side

DENIED, SENDING = "DENIED", "SENDING"
OUR_PREFIX = "tp_"
"""Of every client order id of the platform; other orders of an account are somebody else's."""


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
    contract: Symbol

    @property
    def intent_id(self) -> IntentId:
        return IntentId(content_id("i", self.decision_key))

    @property
    def client_order_id(self) -> ClientOrderId:
        """At most 36 characters, unique a decision: the venue sees the same id however often it is sent."""
        return ClientOrderId(content_id(OUR_PREFIX.rstrip("_"), self.decision_key, length=30))

    @property
    def state(self) -> str:
        return SENDING if self.denial is None else DENIED


@dataclass(frozen=True)
class Situation:
    """What holds for all accounts of the group at this moment."""

    instruments: Mapping[Symbol, Instrument]
    flattening: bool
    seconds: Callable[[datetime], float]
    """The clock by which orders per second are counted (see `clock.py`)."""
    halted: Callable[[Portfolio], str | None]
    """The scope of the halt that applies to an account, if any."""


def decide(
    portfolio: Portfolio, signals: Sequence[Signal], market_time: datetime, situation: Situation, now: datetime
) -> list[Decision]:
    """Decisions of one account on the signals of the arm it follows, all of one market time: exits, then entries.

    `now`: market time as far as it is known. It is later than `market_time` when the engine catches up on what it missed;
    then positions are still left, but nothing is entered on signals that have run out.
    """
    portfolio.turn_day(market_time)
    before = dict(portfolio.prices)
    portfolio.prices.update((Symbol(signal.symbol), signal.price) for signal in signals)
    held = {signal.signal_id: portfolio.holdings.get(_key(signal)) for signal in signals}
    decisions = [
        _exit(portfolio, signal, holding, market_time, situation)
        for signal in signals
        if (holding := held[signal.signal_id]) is not None
        and (situation.flattening or holding.exit_reason(signal.price, market_time))
    ]
    entered, spent = 0, ZERO
    leaving = sum(decision.denial is None for decision in decisions)
    for signal in signals:
        stake = portfolio.stakes.get(StrategyId(signal.strategy_id))
        wanted = signal.state == "ok" and signal.direction == "long" and held[signal.signal_id] is None
        if stake is None or not stake.enabled or not wanted:
            continue
        last = before.get(Symbol(signal.symbol))
        decision = _entry(portfolio, signal, stake, market_time, situation, now, last, leaving, entered, spent)
        decisions.append(decision)
        if decision.denial is None:
            entered += 1
            spent += decision.quantity * signal.price
    return decisions


def flatten(
    portfolio: Portfolio, latest: Mapping[Symbol, Signal], market_time: datetime, situation: Situation
) -> list[Decision]:
    """Leave everything now, at the latest bar known: the next one may be an hour away."""
    return [
        _exit(portfolio, latest[holding.symbol], holding, market_time, situation)
        for holding in portfolio.holdings.values()
        if holding.symbol in latest and holding.symbol not in portfolio.unsettled
    ]


def _key(signal: Signal) -> tuple[StrategyId, Symbol]:
    return StrategyId(signal.strategy_id), Symbol(signal.symbol)


def decision_key(portfolio: Portfolio, signal: Signal, purpose: str) -> str:
    """The same decision has the same key: account, strategy, symbol, bar, purpose."""
    return content_id(
        "d", portfolio.account_id, signal.strategy_id, signal.symbol, signal.bar_open_time.isoformat(), purpose
    )


def _exit(portfolio: Portfolio, signal: Signal, held: Holding, market_time: datetime, situation: Situation) -> Decision:
    instrument = situation.instruments.get(held.contract)
    quantity = instrument.round_quantity(held.quantity) if instrument else ZERO
    wish = _wish(portfolio, signal, instrument, quantity, situation, market_time, entry=False)
    denial = check(wish, portfolio.limits)
    return Decision(
        portfolio,
        signal,
        "exit",
        "sell",
        quantity,
        denial,
        held,
        decision_key(portfolio, signal, "exit"),
        held.contract,
    )


def _entry(
    portfolio: Portfolio, signal: Signal, stake: Stake, market_time: datetime, situation: Situation, now: datetime,
    last: Decimal | None, leaving: int, entered: int, spent: Decimal,
) -> Decision:  # fmt: skip
    contract = portfolio.venue.contract_for(Symbol(signal.symbol), market_time)
    instrument = situation.instruments.get(contract)
    notional = portfolio.equity * stake.capital_fraction
    quantity = instrument.round_quantity(notional / signal.price) if instrument else ZERO
    wish = replace(
        _wish(portfolio, signal, instrument, quantity, situation, market_time, entry=True, sending=leaving + entered),
        last_price=last,
        cash=portfolio.cash - spent,
        open_positions=len(portfolio.holdings) + len(portfolio.working) + entered,
        stale=now >= signal.expires_at,
        certified_enough=portfolio.kind != "live" or signal.certified or stake.allow_uncertified,
    )
    denial = check(wish, portfolio.limits)
    return Decision(
        portfolio, signal, "entry", "buy", quantity, denial, None, decision_key(portfolio, signal, "entry"), contract
    )


def _wish(
    portfolio: Portfolio, signal: Signal, instrument: Instrument | None, quantity: Decimal, situation: Situation,
    market_time: datetime, *, entry: bool, sending: int = 0,
) -> Wish:  # fmt: skip
    """What holds for exits and entries alike. `sending`: orders of this account that are already decided on."""
    symbol = Symbol(signal.symbol)
    return Wish(
        entry=entry,
        quantity=quantity,
        price=signal.price,
        last_price=None,
        minimum_notional=instrument.minimum_notional if instrument else ZERO,
        cash=portfolio.cash,
        position_notional=portfolio.position_notional(symbol),
        open_positions=len(portfolio.holdings),
        orders_this_second=portfolio.orders_since(situation.seconds(market_time) - 1.0) + sending,
        orders_today=portfolio.orders_today + sending,
        lost_today=max(-portfolio.net_today, ZERO),
        halted=situation.halted(portfolio),
        flattening=situation.flattening,
        armed=portfolio.kind != "live" or portfolio.armed,
        tradable=instrument is not None and instrument.tradable,
        unknown_outcome=symbol in portfolio.unsettled,
    )


def halt_of(portfolio: Portfolio, group_id: GroupId, scopes: set[tuple[str, str]]) -> str | None:
    """The halt that applies to an account: the widest one is named."""
    for scope, scope_id in (
        ("platform", "*"), ("group", group_id), ("user", portfolio.user_id), ("account", portfolio.account_id),
    ):  # fmt: skip
        if (scope, scope_id) in scopes:
            return scope
    return None
