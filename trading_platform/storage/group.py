"""Tables of one user group: credentials, intents, orders, fills, positions, outcomes, audit.

They are declared under the placeholder schema `GROUP`; `databases.GroupDatabase` translates it to the group's real
schema in every statement. `user_id` comes first in the keys that users read by. Live orders and fills are not
partitioned: their unique ids must hold.
"""

from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    LargeBinary,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedSQLExpression, column_property, mapped_column

from trading_platform.storage.types import Json, Money, Text, Time, metadata

SCHEMA = "GROUP"
NOW = func.now()


class GroupBase(DeclarativeBase):
    metadata = metadata(SCHEMA)


def _exported_by(column: str, table: str) -> Index:
    """The index by which the export finds what changed. BRIN: a few pages, and updates of the row stay cheap (HOT)."""
    return Index(f"ix_{table}_{column}", column, postgresql_using="brin")


# --- accounts and credentials ----------------------------------------------------------------------------------------


class Account(GroupBase):
    """A broker or exchange account, owned by one user; `sandbox` accounts belong to one dataset."""

    __tablename__ = "accounts"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    account_id: Mapped[Text] = mapped_column(primary_key=True)
    venue: Mapped[Text]
    kind: Mapped[Text]
    dataset_id: Mapped[Text | None]
    """The dataset whose prices this account trades on; null only for a live account."""
    currency: Mapped[Text]
    armed_at: Mapped[Time | None]
    """Live accounts only: when their owner armed them by typed confirmation."""
    armed_by: Mapped[Text | None]
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    closed_at: Mapped[Time | None]
    __table_args__ = (
        UniqueConstraint("account_id"),
        CheckConstraint("kind in ('sandbox', 'live')", name="kind"),
    )


class Credential(GroupBase):
    """A secret under envelope encryption: AES-256-GCM under a data key, the data key under a versioned master key."""

    __tablename__ = "credentials"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    account_id: Mapped[Text] = mapped_column(primary_key=True)
    name: Mapped[Text] = mapped_column(primary_key=True)
    """`api_key`, `api_secret`, `access_token`, …"""
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    nonce: Mapped[bytes] = mapped_column(LargeBinary)
    wrapped_key: Mapped[bytes] = mapped_column(LargeBinary)
    wrap_nonce: Mapped[bytes] = mapped_column(LargeBinary)
    master_key_version: Mapped[int]
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    """When it was sealed: an engine takes up new keys and sessions by it."""
    expires_at: Mapped[Time | None]
    """Of a session, which is worth nothing afterwards; null for keys."""


class Subscription(GroupBase):
    """A user lets a strategy trade one of the accounts."""

    __tablename__ = "subscriptions"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    account_id: Mapped[Text] = mapped_column(primary_key=True)
    strategy_id: Mapped[Text] = mapped_column(primary_key=True)
    capital_fraction: Mapped[Money]
    """Share of the account's equity put into one position, 0 to 1."""
    allow_uncertified: Mapped[bool] = mapped_column(server_default=text("false"))
    """Live accounts trade certified signals alone unless this is set by their owner in so many words."""
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    overnight: Mapped[bool] = mapped_column(server_default=text("true"))
    """Whether positions are held beyond the session's end; where not, they are left ahead of it."""
    hedge_away: Mapped[Money | None]
    """How far below the market the put is that each entry into an index is hedged with, 0 to 1; None: it is not."""
    spread_away: Mapped[Money | None]
    """How far above the market the call is that is sold where an index is entered by a bull call spread instead of its
    future, 0 to 1; None: it is not. Excludes `hedge_away`: a spread's loss is bounded already."""
    changed_at: Mapped[Time] = mapped_column(server_default=NOW)
    changed_by: Mapped[Text]
    __table_args__ = (CheckConstraint("hedge_away is null or spread_away is null", name="hedge_or_spread"),)


class RiskLimits(GroupBase):
    """Limits of a user, account, strategy or the group in one currency, a row a revision: the newest is in force."""

    __tablename__ = "risk_limits"
    scope: Mapped[Text] = mapped_column(primary_key=True)
    scope_id: Mapped[Text] = mapped_column(primary_key=True)
    currency: Mapped[Text] = mapped_column(primary_key=True)
    """Of all amounts in the row; it counts accounts of this currency alone."""
    revision: Mapped[int] = mapped_column(primary_key=True)
    max_order_notional: Mapped[Money]
    max_position_notional: Mapped[Money]
    max_open_positions: Mapped[int]
    max_orders_per_second: Mapped[int]
    max_orders_per_day: Mapped[int]
    max_daily_loss: Mapped[Money]
    max_order_quantity: Mapped[Money | None]
    max_gross_notional: Mapped[Money | None]
    max_open_orders: Mapped[int | None]
    max_orders_per_minute: Mapped[int | None]
    max_drawdown: Mapped[Money | None]
    """Fraction of the highest equity, 0 to 1; null: no such limit, as with the four above."""
    changed_by: Mapped[Text]
    changed_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (CheckConstraint("scope in ('user', 'account', 'strategy', 'group')", name="scope"),)


# --- the engine ------------------------------------------------------------------------------------------------------


class EngineLease(GroupBase):
    """The one row that says which process may write for this group. A takeover increments the epoch."""

    __tablename__ = "engine_lease"
    group_id: Mapped[Text] = mapped_column(primary_key=True)
    holder: Mapped[Text]
    epoch: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[Time]
    renewed_at: Mapped[Time] = mapped_column(server_default=NOW)
    state: Mapped[Text] = mapped_column(server_default="HALTED")
    """What the engine shows: STARTING, RECONCILING, RUNNING, HALTED, FLATTENING, STOPPED."""
    detail: Mapped[Json] = mapped_column(server_default="{}")
    """Last reconciliation, market time reached, order latency, open breakers."""


class BreakerRow(GroupBase):
    """A circuit breaker as the engine that holds the lease last wrote it."""

    __tablename__ = "breakers"
    name: Mapped[Text] = mapped_column(primary_key=True)
    """`market:<symbol>`, `market:*` for a whole exchange, `venue:<account id>`."""
    state: Mapped[Text]
    reason: Mapped[Text]
    opened_at: Mapped[Time | None]
    arms_at: Mapped[Time | None]
    """When it may arm by itself (market time; wall time for a venue); null while open: a person arms it."""
    trips: Mapped[int]
    arming_requested_by: Mapped[Text | None]
    updated_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (CheckConstraint("state in ('CLOSED', 'OPEN', 'HALF_OPEN')", name="state"),)


class SignalCursor(GroupBase):
    """How far a dataset's signals have been consumed; committed with the intents they led to."""

    __tablename__ = "signal_cursors"
    dataset_id: Mapped[Text] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    market_time: Mapped[Time]


class Intent(GroupBase):
    """A decision to trade, written with its client order id before anything is sent."""

    __tablename__ = "intents"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    intent_id: Mapped[Text] = mapped_column(primary_key=True)
    decision_key: Mapped[Text] = mapped_column(unique=True)
    """content id of (account, strategy, symbol, bar, purpose): the same decision can be written once only."""
    client_order_id: Mapped[Text] = mapped_column(unique=True)
    account_id: Mapped[Text]
    dataset_id: Mapped[Text]
    strategy_id: Mapped[Text]
    version_id: Mapped[Text]
    arm: Mapped[Text]
    """`champion` or `challenger`: whose signal this user's money follows; `hedge`: a leg that protects one that does."""
    signal_id: Mapped[Text]
    purpose: Mapped[Text]
    entry_intent_id: Mapped[Text | None]
    """For an exit or a stop: the entry it closes."""
    symbol: Mapped[Text]
    """What the signal was about."""
    contract: Mapped[Text]
    """What is traded for it, as the venue names it: a future where the symbol is an index, else the symbol itself."""
    side: Mapped[Text]
    order_type: Mapped[Text]
    quantity: Mapped[Money]
    reference_price: Mapped[Money]
    target_price: Mapped[Money | None]
    stop_price: Mapped[Money | None]
    exit_by: Mapped[Time | None]
    market_time: Mapped[Time]
    state: Mapped[Text]
    """DENIED (by risk), PLANNED, SENDING, SUBMITTED, UNKNOWN, DONE, REJECTED, ABANDONED (never sent, expired)."""
    denial: Mapped[Text | None]
    epoch: Mapped[int] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(server_default="0")
    trace_id: Mapped[Text | None]
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    updated_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (
        CheckConstraint("purpose in ('entry', 'exit', 'stop')", name="purpose"),
        CheckConstraint("side in ('buy', 'sell')", name="side"),
        # No index tells of `state`: one that did would make every change of it a change of all indexes.
        Index("ix_intents_entry", "entry_intent_id", postgresql_where=text("entry_intent_id is not null")),
        Index("ix_intents_user_created", "user_id", "created_at"),
        _exported_by("updated_at", "intents"),
    )  # fmt: skip


class Outbox(GroupBase):
    """Intents on their way to the venue. A row is gone once the venue has nothing more to say of the order."""

    __tablename__ = "outbox"
    intent_id: Mapped[Text] = mapped_column(primary_key=True)
    user_id: Mapped[Text]
    account_id: Mapped[Text]
    state: Mapped[Text]
    """QUEUED, SENDING (a call may be on the wire), PROBING (its outcome is being asked for), SETTLING (it has ended; late
    fills are being asked for)."""
    epoch: Mapped[int] = mapped_column(BigInteger)
    next_try_at: Mapped[Time] = mapped_column(server_default=NOW)
    sent_at: Mapped[Time | None]
    market_sent_at: Mapped[Time | None]
    """By the market's clock: of which session the order is, whenever it was decided."""
    verdict: Mapped[Json | None]
    """What an operator said of the order: {outcome, fills, by}. The engine carries it out if the venue knows no better."""
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (Index("ix_outbox_account", "account_id", "created_at"),)


class Order(GroupBase):
    """The venue's order as we know it."""

    __tablename__ = "orders"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    client_order_id: Mapped[Text] = mapped_column(primary_key=True)
    intent_id: Mapped[Text] = mapped_column(unique=True)
    account_id: Mapped[Text]
    venue_order_id: Mapped[Text | None]
    symbol: Mapped[Text]
    contract: Mapped[Text]
    side: Mapped[Text]
    order_type: Mapped[Text]
    quantity: Mapped[Money]
    filled_quantity: Mapped[Money] = mapped_column(server_default="0")
    average_price: Mapped[Money | None]
    state: Mapped[Text]
    """SUBMITTED, WORKING, PARTIALLY_FILLED, FILLED, CANCELLED, REJECTED, EXPIRED, UNKNOWN."""
    reject_code: Mapped[Text | None]
    reject_text: Mapped[Text | None]
    market_time: Mapped[Time]
    sent_at: Mapped[Time | None]
    acknowledged_at: Mapped[Time | None]
    epoch: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (
        Index("ix_orders_user_time", "user_id", "market_time"),
        Index(
            "uq_orders_venue_order", "account_id", "symbol", "venue_order_id",
            unique=True, postgresql_where=text("venue_order_id is not null"),
        ),
        _exported_by("updated_at", "orders"),
    )  # fmt: skip


class Fill(GroupBase):
    """A trade of an order. The venue's trade id makes it unique, so it can be applied once only."""

    __tablename__ = "fills"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    account_id: Mapped[Text] = mapped_column(primary_key=True)
    symbol: Mapped[Text] = mapped_column(primary_key=True)
    trade_id: Mapped[Text] = mapped_column(primary_key=True)
    client_order_id: Mapped[Text] = mapped_column(index=True)
    side: Mapped[Text]
    price: Mapped[Money]
    quantity: Mapped[Money]
    fee: Mapped[Money]
    fee_currency: Mapped[Text]
    market_time: Mapped[Time]
    received_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (Index("ix_fills_user_time", "user_id", "market_time"), _exported_by("received_at", "fills"))


class Position(GroupBase):
    """What a strategy holds in an account: `quantity` is negative where it was sold short, which spot never is."""

    __tablename__ = "positions"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    account_id: Mapped[Text] = mapped_column(primary_key=True)
    strategy_id: Mapped[Text] = mapped_column(primary_key=True)
    symbol: Mapped[Text] = mapped_column(primary_key=True)
    quantity: Mapped[Money]
    average_price: Mapped[Money]
    entry_intent_id: Mapped[Text | None]
    realized_pnl: Mapped[Money] = mapped_column(server_default="0")
    fees: Mapped[Money] = mapped_column(server_default="0")
    last_price: Mapped[Money | None]
    updated_at: Mapped[Time] = mapped_column(server_default=NOW)
    if TYPE_CHECKING:
        stop_price: MappedSQLExpression[Decimal | None]
        """At which the stop under it, waiting at the venue, goes off; None where there is none."""
        contract: MappedSQLExpression[str | None]
        """What was bought or sold for it: the symbol itself, or a future or an option of it; None for a flat one."""


Position.contract = column_property(
    select(Intent.contract)
    .where(Intent.user_id == Position.user_id, Intent.intent_id == Position.entry_intent_id)
    .correlate_except(Intent)
    .scalar_subquery()
)
Position.stop_price = column_property(
    select(Intent.stop_price)
    .where(
        Intent.account_id == Position.account_id, Intent.entry_intent_id == Position.entry_intent_id,
        Intent.purpose == "stop", Intent.state == "SUBMITTED",
    )
    .limit(1)
    .correlate_except(Intent)
    .scalar_subquery()
)  # fmt: skip


class EquityPoint(GroupBase):
    """Equity of an account at a market time, for curves and drawdown limits."""

    __tablename__ = "equity"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    account_id: Mapped[Text] = mapped_column(primary_key=True)
    market_time: Mapped[Time] = mapped_column(primary_key=True)
    cash: Mapped[Money]
    positions_value: Mapped[Money]
    equity: Mapped[Money]
    currency: Mapped[Text]
    recorded_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (_exported_by("recorded_at", "equity"),)


class Outcome(GroupBase):
    """A closed trade: what the loop learns from. Market conditions are those at entry."""

    __tablename__ = "outcomes"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    outcome_id: Mapped[Text] = mapped_column(primary_key=True)
    """content id of the entry intent: a trade has one outcome."""
    account_id: Mapped[Text]
    dataset_id: Mapped[Text]
    strategy_id: Mapped[Text]
    version_id: Mapped[Text]
    arm: Mapped[Text]
    signal_id: Mapped[Text]
    symbol: Mapped[Text]
    contract: Mapped[Text]
    currency: Mapped[Text]
    confidence: Mapped[float]
    certified: Mapped[bool]
    volatility: Mapped[Text]
    trend: Mapped[Text]
    liquidity: Mapped[Text]
    session: Mapped[Text]
    entry_time: Mapped[Time]
    exit_time: Mapped[Time]
    """Market time."""
    exit_reason: Mapped[Text]
    """target, stop, time, flatten."""
    quantity: Mapped[Money]
    entry_price: Mapped[Money]
    exit_price: Mapped[Money]
    gross_pnl: Mapped[Money]
    costs: Mapped[Money]
    net_pnl: Mapped[Money]
    net_return: Mapped[float]
    success: Mapped[bool]
    """Net of costs, the trade made money."""
    recorded_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (
        Index("ix_outcomes_user_exit", "user_id", "exit_time"),
        Index("ix_outcomes_version", "version_id", "exit_time"),
        _exported_by("recorded_at", "outcomes"),
    )


class LegacySession(GroupBase):
    """A trading session imported from the system this one replaces."""

    __tablename__ = "legacy_sessions"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    session_id: Mapped[Text] = mapped_column(primary_key=True)
    venue: Mapped[Text]
    started_at: Mapped[Time]
    ended_at: Mapped[Time | None]
    trades: Mapped[int]
    wins: Mapped[int]
    net_pnl: Mapped[Money]
    currency: Mapped[Text]
    details: Mapped[Json] = mapped_column(server_default="{}")
    imported_at: Mapped[Time] = mapped_column(server_default=NOW)


# --- audit -----------------------------------------------------------------------------------------------------------


class AuditRow(GroupBase):
    """Append-only order and trade audit. Written in the transaction of the change it describes; sealed in batches.

    The columns are those of a broker's order and trade audit log and cannot be filled in later.
    """

    __tablename__ = "audit_log"
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    event_ts: Mapped[Time] = mapped_column(server_default=func.clock_timestamp())
    """Wall time in UTC; the report shows it in IST beside it."""
    market_time: Mapped[Time | None]
    clock_offset_ms: Mapped[float | None]
    user_id: Mapped[Text]
    account_id: Mapped[Text | None]
    dataset_id: Mapped[Text | None]
    strategy_id: Mapped[Text | None]
    strategy_version: Mapped[Text | None]
    """Model version and code version that decided."""
    intent_id: Mapped[Text | None]
    attempt: Mapped[int | None]
    actor: Mapped[Text]
    event_type: Mapped[Text]
    """PLAN, RISK_PASS, RISK_BLOCK, SEND, ACK, UPDATE, FILL, CANCEL_REQ, CANCEL, REJECT, RECON, HALT, CLEAR, …"""
    client_order_id: Mapped[Text | None]
    venue_order_id: Mapped[Text | None]
    exchange_order_id: Mapped[Text | None]
    parent_order_id: Mapped[Text | None]
    trade_id: Mapped[Text | None]
    tag: Mapped[Text | None]
    tags: Mapped[Json | None]
    algo_id: Mapped[Text | None]
    exchange: Mapped[Text | None]
    symbol: Mapped[Text | None]
    instrument_token: Mapped[Text | None]
    isin: Mapped[Text | None]
    side: Mapped[Text | None]
    product: Mapped[Text | None]
    variety: Mapped[Text | None]
    order_type_sent: Mapped[Text | None]
    order_type_seen: Mapped[Text | None]
    validity: Mapped[Text | None]
    quantity: Mapped[Money | None]
    disclosed_quantity: Mapped[Money | None]
    filled_quantity: Mapped[Money | None]
    pending_quantity: Mapped[Money | None]
    price: Mapped[Money | None]
    trigger_price: Mapped[Money | None]
    average_price: Mapped[Money | None]
    market_protection: Mapped[Money | None]
    status_venue: Mapped[Text | None]
    status: Mapped[Text | None]
    status_message: Mapped[Text | None]
    status_message_raw: Mapped[Text | None]
    error_type: Mapped[Text | None]
    http_status: Mapped[int | None]
    source_ip: Mapped[Text | None]
    latency_ms: Mapped[float | None]
    trace_id: Mapped[Text | None]
    detail: Mapped[Json] = mapped_column(server_default="{}")
    __table_args__ = (
        Index("ix_audit_log_user_seq", "user_id", "seq"),
        Index("ix_audit_log_plan", "intent_id", postgresql_where=text("event_type = 'PLAN'")),
        Index("ix_audit_log_event_ts", "event_ts", postgresql_using="brin"),
    )


class AuditSeal(GroupBase):
    """The hash chain over `audit_log`, one row a sealed batch, in order of `last_seq`. Append-only, like the log."""

    __tablename__ = "audit_seals"
    last_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_seq: Mapped[int] = mapped_column(BigInteger)
    entries: Mapped[int]
    previous_hash: Mapped[Text]
    hash: Mapped[Text]
    leaves: Mapped[bytes] = mapped_column(LargeBinary)
    """seq (8 bytes, big-endian) and sha256 of every entry, so that verification can name the entry that changed."""
    sealed_at: Mapped[Time] = mapped_column(server_default=NOW)
