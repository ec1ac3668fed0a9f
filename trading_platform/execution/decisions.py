"""From one market time's signals to intents: exits first, then entries, each through the risk check.

Pure but for the identifiers' hashes: the same signals and the same portfolio give the same intents, with the same
decision keys, whoever asks and however often.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property, partial
from operator import itemgetter

from trading_platform.execution.exposures import Exposures
from trading_platform.execution.limits import LimitBook
from trading_platform.execution.portfolio import Holding, Portfolio, PositionKey, Stake
from trading_platform.execution.risk import ZERO, Wish, check
from trading_platform.identifiers import ClientOrderId, GroupId, IntentId, StrategyId, Symbol, content_id
from trading_platform.markets.instruments import Instrument
from trading_platform.storage.control import Signal
from trading_platform.venues.port import OptionVenue, Side

NO_GROUP = GroupId("")
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

    @cached_property
    def intent_id(self) -> IntentId:
        return IntentId(content_id("i", self.decision_key))

    @cached_property
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
    group_id: GroupId = NO_GROUP
    limits: LimitBook = field(default_factory=lambda: LimitBook({}))
    """Of accounts, strategies and the group; a user's are in the portfolio."""
    breaker: Callable[[Portfolio, Symbol], str | None] = lambda portfolio, symbol: None
    """The breaker that keeps an account from entering a symbol, if any."""
    leaving: Callable[[Portfolio], bool] = lambda portfolio: False
    """Whether a halt asks for this account's positions to be left."""

    def leaves(self, portfolio: Portfolio) -> bool:
        return self.flattening or self.leaving(portfolio)

    def exposures(self, portfolios: Sequence[Portfolio], market_time: datetime) -> Exposures:
        """The counts of a step, before anything is decided in it."""
        return Exposures(self.group_id, portfolios, self.limits, self.seconds(market_time))


def decide(
    portfolio: Portfolio, signals: Sequence[Signal], market_time: datetime, situation: Situation, now: datetime,
    exposures: Exposures | None = None,
) -> list[Decision]:  # fmt: skip
    """Decisions of one account on the signals of the arm it follows, all of one market time: exits, then entries.

    `now`: market time as far as it is known. It is later than `market_time` when the engine catches up on what it missed;
    then positions are still left, but nothing is entered on signals that have run out. `exposures`: the step's, shared
    by the accounts that are decided on in it; None where the account is alone.
    """
    portfolio.turn_day(market_time)
    counts = exposures or situation.exposures([portfolio], market_time)
    before = dict(portfolio.prices)
    portfolio.prices.update((Symbol(signal.symbol), signal.price) for signal in signals)
    held = {signal.signal_id: portfolio.holdings.get(_key(signal)) for signal in signals}
    decisions = [
        _exit(portfolio, signal, holding, market_time, situation)
        for signal in signals
        if portfolio.set_aside is None
        and (holding := held[signal.signal_id]) is not None
        and (situation.leaves(portfolio) or holding.exit_reason(signal.price, market_time))
    ]
    for leaving in decisions:
        _count(leaving, counts)
    spent = ZERO
    for signal in signals:
        stake = portfolio.stakes.get(StrategyId(signal.strategy_id))
        wanted = signal.state == "ok" and signal.direction == "long" and held[signal.signal_id] is None
        if stake is None or not stake.enabled or not wanted:
            continue
        last = before.get(Symbol(signal.symbol))
        decision = _entry(portfolio, signal, stake, market_time, situation, now, last, counts, spent)
        decisions.append(decision)
        _count(decision, counts)
        if decision.denial is None:
            spent += decision.quantity * signal.price
    return decisions


def flatten(
    portfolio: Portfolio, latest: Mapping[Symbol, Signal], market_time: datetime, situation: Situation,
    only: Collection[PositionKey] | None = None, occasion: str = "",
) -> list[Decision]:  # fmt: skip
    """Leave everything now, or the positions in `only`, at the latest bar known: the next one may be an hour away.

    A position is left once a bar, and once more on every `occasion` that has a name of its own.
    """
    return [
        _exit(portfolio, latest[holding.symbol], holding, market_time, situation, occasion)
        for key, holding in portfolio.holdings.items()
        if holding.symbol in latest and holding.symbol not in portfolio.unsettled and (only is None or key in only)
    ]


def in_turn(decisions: Sequence[Decision]) -> list[Decision]:
    """The first decision of every user, then the second of every user: who has very many keeps nobody waiting."""
    places: Counter[str] = Counter()
    ordered = []
    for decision in decisions:
        user = decision.portfolio.user_id
        ordered.append((places[user], decision))
        places[user] += 1
    return [decision for _, decision in sorted(ordered, key=itemgetter(0))]


def _key(signal: Signal) -> tuple[StrategyId, Symbol]:
    return StrategyId(signal.strategy_id), Symbol(signal.symbol)


def decision_key(portfolio: Portfolio, signal: Signal, purpose: str) -> str:
    """The same decision has the same key: account, strategy, symbol, bar, purpose."""
    return content_id(
        "d", portfolio.account_id, signal.strategy_id, signal.symbol, signal.bar_open_time.isoformat(), purpose
    )


def _exit(
    portfolio: Portfolio, signal: Signal, held: Holding, market_time: datetime, situation: Situation, occasion: str = ""
) -> Decision:
    instrument = situation.instruments.get(held.contract)
    quantity, side = instrument.round_quantity(abs(held.quantity)) if instrument else ZERO, held.leaving_side
    if portfolio.broker is not None and (largest := portfolio.broker.largest_order(held.contract)):
        quantity = min(quantity, largest)  # the rest follows: `slices.py`
    denial = check(_wish(portfolio, signal, held.contract, instrument, side, quantity, entry=False))
    key = decision_key(portfolio, signal, f"exit{occasion}")
    return Decision(portfolio, signal, "exit", side, quantity, denial, held, key, held.contract)


def _entry(
    portfolio: Portfolio, signal: Signal, stake: Stake, market_time: datetime, situation: Situation, now: datetime,
    last: Decimal | None, counts: Exposures, spent: Decimal,
) -> Decision:  # fmt: skip
    symbol = Symbol(signal.symbol)
    spread = spread_of(stake, portfolio, signal, market_time)
    contract = spread[0] if spread else portfolio.venue.contract_for(symbol, market_time)
    instrument = situation.instruments.get(contract)
    notional = portfolio.equity * stake.capital_fraction
    quantity = instrument.round_quantity(notional / signal.price) if instrument else ZERO
    return enter(portfolio, signal, stake, contract, quantity, situation, now, last, counts, spent)


def enter(
    portfolio: Portfolio, signal: Signal, stake: Stake, contract: Symbol, quantity: Decimal, situation: Situation,
    now: datetime, last: Decimal | None, counts: Exposures, spent: Decimal, side: Side = "buy",
) -> Decision:  # fmt: skip
    """Whether so much of a contract may be bought, or sold as a leg, on a signal. `spent`: what the step's other entries
    take of the cash."""
    symbol, key = Symbol(signal.symbol), decision_key(portfolio, signal, "entry")
    wish = _wish(portfolio, signal, contract, situation.instruments.get(contract), side, quantity, entry=True)
    wish.last_price = last
    wish.cash = portfolio.cash - spent
    wish.standings = counts.standings(portfolio, StrategyId(signal.strategy_id), symbol)
    wish.halted = situation.halted(portfolio)
    wish.flattening = situation.leaves(portfolio)
    wish.set_aside = portfolio.set_aside
    wish.stale_session = _ended(portfolio, now)
    wish.other_address = _other_address(portfolio)
    wish.session_ending = None if stake.overnight else _squaring_off(portfolio, contract, now)
    wish.duplicate = counts.decided(key)
    wish.own_opposite = counts.opposes(portfolio, contract, side)
    wish.stale = now >= signal.expires_at
    wish.certified_enough = portfolio.kind != "live" or signal.certified or stake.allow_uncertified
    wish.breaker = partial(situation.breaker, portfolio, symbol)
    return Decision(portfolio, signal, "entry", side, quantity, check(wish), None, key, contract)


def spread_of(
    stake: Stake, portfolio: Portfolio, signal: Signal, market_time: datetime
) -> tuple[Symbol, Symbol] | None:
    """The calls that are bought and sold where the stake asks for a spread; None where it does not, or none is listed."""
    venue = portfolio.venue
    if stake.spread_away is None or not isinstance(venue, OptionVenue):
        return None
    return venue.spread_for(Symbol(signal.symbol), market_time, signal.price, signal.price * (1 + stake.spread_away))


def _wish(
    portfolio: Portfolio,
    signal: Signal,
    contract: Symbol,
    instrument: Instrument | None,
    side: Side,
    quantity: Decimal,
    *,
    entry: bool,
) -> Wish:
    """What holds for exits and entries alike."""
    tradable = instrument is not None and instrument.tradable
    return Wish(
        entry=entry,
        quantity=quantity,
        price=signal.price,
        last_price=None,
        step=instrument.step if instrument else ZERO,
        minimum_notional=instrument.minimum_notional if instrument else ZERO,
        cash=portfolio.cash,
        armed=portfolio.kind != "live" or portfolio.armed,
        tradable=tradable,
        unknown_outcome=signal.symbol in portfolio.unknown or signal.symbol in portfolio.working,
        venue_rule=portfolio.venue.forbids(contract, side, quantity, reducing=not entry)
        if tradable and quantity > ZERO
        else None,
    )


def _count(decision: Decision, counts: Exposures) -> None:
    """Let the step's later orders know of one that goes out."""
    if decision.denial is not None:
        return
    signal, entry = decision.signal, decision.purpose == "entry"
    counts.add(
        decision.portfolio, StrategyId(signal.strategy_id), Symbol(signal.symbol), decision.contract, decision.side,
        decision.decision_key, decision.quantity * signal.price if entry else None,
    )  # fmt: skip


def _ended(portfolio: Portfolio, now: datetime) -> str | None:
    ends = portfolio.session_ends_at
    return None if ends is None or now < ends else f"ended {ends.isoformat()}"


def _squaring_off(portfolio: Portfolio, contract: Symbol, now: datetime) -> str | None:
    """Since when positions that are not held overnight are being left; a market without an end keeps them out for good."""
    broker = portfolio.broker
    if broker is None:
        return "ever: this market never closes"
    at = max(now, broker.now())
    due = broker.square_off(contract, at)
    return due.isoformat() if due is not None and at >= due else None


def _other_address(portfolio: Portfolio) -> str | None:
    registered, measured = portfolio.registered_address, portfolio.venue.route.source_ip
    return measured if registered is not None and measured not in (None, registered) else None
