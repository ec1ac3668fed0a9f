"""The two sides of the parity report from where they lie: trades from a group's books, the backtest from lake and signals."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from trading_platform.backtest.charges import FlatSchedule
from trading_platform.backtest.files import as_bars
from trading_platform.backtest.kernel import HOLD, LONG, Funds, Wishes
from trading_platform.backtest.parity import ZERO, Expected, Parity, Traded, compare
from trading_platform.backtest.simulation import MICROSECONDS, Backtest, run
from trading_platform.backtest.strategies import as_engine
from trading_platform.execution.portfolio import LEGS
from trading_platform.identifiers import AccountId, DatasetId, GroupId, StrategyId, content_id
from trading_platform.market_data.lake import Lake
from trading_platform.market_data.reading import UNITS
from trading_platform.storage.control import Signal
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Intent, Order, Outcome, SignalCursor

PLENTY = 1e15
"""Cash of the backtest: it trades one unit at a time, and quantities are those that were meant."""


@dataclass(frozen=True)
class Run:
    """One account's paper trades of one strategy on one dataset, beside the backtest of the same."""

    account_id: AccountId
    strategy_id: StrategyId
    parity: Parity


def reports(databases: Databases, lake: Lake, group_id: GroupId, dataset_id: DatasetId) -> list[Run]:
    """A report for every account and strategy with intents on the dataset, as far as the group has consumed its signals."""
    with databases.group(group_id) as session:
        cursor = session.get(SignalCursor, dataset_id)
        intents = session.scalars(
            select(Intent)
            .where(Intent.dataset_id == dataset_id, Intent.arm.not_in(LEGS))
            .order_by(Intent.market_time, Intent.intent_id)
        ).all()
        if cursor is None:
            return []
        by_account = _by_account([intent for intent in intents if intent.market_time <= cursor.market_time])
        books = {key: (rows, traded_of(session, rows, cursor.market_time)) for key, rows in by_account.items()}
    if not books:
        return []
    with databases.control() as session:
        signals = session.scalars(
            select(Signal).where(Signal.dataset_id == dataset_id, Signal.available_at <= cursor.market_time)
        ).all()
    bars = lake.bars(dataset_id, start=min(signal.bar_open_time for signal in signals))
    found = []
    for (account_id, strategy_id), (rows, traded) in books.items():
        followed = _followed([s for s in signals if s.strategy_id == strategy_id], rows)
        parity = backtested(bars, followed, traded)
        found.append(Run(AccountId(account_id), StrategyId(strategy_id), parity))
    return found


def traded_of(session: Session, intents: Sequence[Intent], until: datetime) -> list[Traded]:
    """The trades that an account's intents led to, from orders and outcomes. What was left later than `until` is open."""
    entries = [intent for intent in intents if intent.purpose == "entry"]
    orders = {
        order.intent_id: order
        for order in session.scalars(select(Order).where(Order.intent_id.in_([entry.intent_id for entry in entries])))
    }
    ids = {content_id("o", entry.intent_id): entry.intent_id for entry in entries}
    outcomes = {ids[row.outcome_id]: row for row in session.scalars(select(Outcome).where(Outcome.outcome_id.in_(ids)))}
    exits = {
        intent.entry_intent_id: intent for intent in intents if intent.purpose == "exit" and intent.state == "DONE"
    }
    return [
        _traded(entry, orders.get(entry.intent_id), outcomes.get(entry.intent_id), exits.get(entry.intent_id), until)
        for entry in entries
    ]


def _traded(
    entry: Intent, order: Order | None, outcome: Outcome | None, left: Intent | None, until: datetime
) -> Traded:
    common: dict[str, Any] = {"symbol": entry.symbol, "decided_at": entry.market_time, "meant": entry.quantity}
    if order is None or not order.filled_quantity:
        return Traded(**common, filled=ZERO, entry_price=None, denial=entry.denial, state=entry.state)
    common |= {"filled": order.filled_quantity, "entry_price": order.average_price}
    if outcome is None:
        return Traded(**common)
    decided_at = left.market_time if left else outcome.exit_time  # a stop at the venue decides when it goes off
    if decided_at > until:
        return Traded(**common)
    return Traded(
        **common,
        exit_decided_at=decided_at,
        exit_price=outcome.exit_price,
        reason=outcome.exit_reason,
        net=outcome.net_pnl,
        costs=outcome.costs,
    )


def backtested(
    bars: pl.DataFrame, signals: Sequence[Signal], traded: Sequence[Traded], rate: Decimal | None = None
) -> Parity:
    """Play the signals over the bars, without the entries that were not made, and compare.

    `rate`: charges a side; by default what paper trading paid on average, so that only deviations from it show.
    """
    not_made = {(trade.symbol, trade.decided_at) for trade in traded if not trade.entered}
    by_symbol: dict[str, list[Signal]] = defaultdict(list)
    for signal in signals:
        by_symbol[signal.symbol].append(signal)
    expected: list[Expected] = []
    would_have: list[Expected] = []
    for symbol, own in sorted(by_symbol.items()):
        frame = bars.filter(pl.col("symbol") == symbol).join(
            pl.DataFrame({"open_time": [signal.bar_open_time for signal in own]}, schema={"open_time": pl.Datetime("us", "UTC")}),
            on="open_time", how="semi",
        )  # fmt: skip
        if frame.is_empty():
            continue
        by_open = {signal.bar_open_time: signal for signal in own}
        line = [by_open[moment] for moment in frame["open_time"]]
        skipped = {moment for name, moment in not_made if name == symbol}
        expected += _trades(_play(frame, line, lambda signal, skipped=skipped: signal.available_at not in skipped))
        for moment in sorted(skipped):
            alone = _trades(_play(frame, line, lambda signal, moment=moment: signal.available_at == moment))
            would_have += alone[:1]
    return compare(traded, expected, rate if rate is not None else _rate_paid(traded), would_have)


def _play(frame: pl.DataFrame, signals: Sequence[Signal], allowed: Any) -> Backtest:
    bars = as_bars(frame)
    horizons = Counter(signal.exit_by - signal.available_at for signal in signals)
    if len(horizons) > 1:
        raise ValueError(f"signals of several horizons ({sorted(horizons)}): compare each version's trades by itself")
    wanted = [
        LONG if signal.state == "ok" and signal.direction == "long" and allowed(signal) else HOLD for signal in signals
    ]
    wishes = Wishes(
        np.array(wanted, dtype=np.int8),
        np.array([float(signal.stop_price) for signal in signals]),
        np.array([float(signal.target_price) for signal in signals]),
    )
    shut = bars.venue == "nse" and bars.interval_seconds >= UNITS["d"]
    horizon: timedelta = next(iter(horizons))
    rules = as_engine(int(horizon.total_seconds()) * MICROSECONDS, next_open=shut)
    return run(bars, wishes, rules, Funds(PLENTY, 1.0, 0.0, 0.0, 0.0, fee_in_base=False), FlatSchedule(ZERO))


def _trades(result: Backtest) -> list[Expected]:
    rows = list(result.orders.iter_rows(named=True))
    found = []
    for number in range(0, len(rows), 2):
        entry, left = rows[number], rows[number + 1] if number + 1 < len(rows) else None
        found.append(
            Expected(
                symbol=result.bars.symbol,
                decided_at=entry["decided_at"],
                entry_price=Decimal(repr(entry["price"])),
                exit_decided_at=left["decided_at"] if left else None,
                exit_price=Decimal(repr(left["price"])) if left else None,
                reason=left["reason"] if left else None,
            )
        )
    return found


def _rate_paid(traded: Sequence[Traded]) -> Decimal:
    closed = [trade for trade in traded if trade.net is not None and trade.entry_price and trade.exit_price]
    value = sum((trade.filled * ((trade.entry_price or ZERO) + (trade.exit_price or ZERO)) for trade in closed), ZERO)
    return sum((trade.costs or ZERO for trade in closed), ZERO) / value if value else ZERO


def _by_account(intents: Sequence[Intent]) -> dict[tuple[str, str], list[Intent]]:
    found: dict[tuple[str, str], list[Intent]] = defaultdict(list)
    for intent in intents:
        found[intent.account_id, intent.strategy_id].append(intent)
    return found


def _followed(signals: Sequence[Signal], intents: Sequence[Intent]) -> list[Signal]:
    """Signals of the arm that an account followed at each time: that of its latest entry until then, or of its first."""
    moments: list[datetime] = [intent.market_time for intent in intents if intent.purpose == "entry"]
    arms = [intent.arm for intent in intents if intent.purpose == "entry"]
    if not arms:
        return [signal for signal in signals if signal.role == "champion"]
    at = np.searchsorted(
        np.array([moment.timestamp() for moment in moments]),
        np.array([signal.available_at.timestamp() for signal in signals]), side="right",
    )  # fmt: skip
    return [signal for signal, number in zip(signals, at, strict=True) if signal.role == arms[max(0, int(number) - 1)]]
