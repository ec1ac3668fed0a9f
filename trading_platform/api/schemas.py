"""What the API sends and takes. Amounts are decimal strings, times ISO 8601 in UTC, shares between 0 and 1."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema, computed_field, model_validator

from trading_platform.execution.denial_codes import ABOUT, About
from trading_platform.execution.square_off import VENUES_THAT_CLOSE

T = TypeVar("T")
UNCERTIFIED = "trade uncertified signals with real money"
EXPLAINED: dict[str, About] = {code.value: about for code, about in ABOUT.items()}


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f")


Amount = Annotated[
    Decimal,
    PlainSerializer(_plain, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "decimal", "examples": ["0.0125"]}, mode="serialization"),
]


class Row(BaseModel):
    """Read from a table's row."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[T]):
    """A page of a list, newest first."""

    items: list[T]
    next: str | None = Field(None, description="Pass it as `after` for the next page; null on the last one.")


class LogInRequest(BaseModel):
    email: str = Field(max_length=254, examples=["alice@example.com"])
    password: str = Field(max_length=256, examples=["correct horse battery staple"])


class SessionCreated(BaseModel):
    token: str = Field(description="Send it as `Authorization: Bearer <token>`. It is shown this once.")
    expires_at: datetime


class Me(BaseModel):
    user_id: str = Field(examples=["alice"])
    email: str
    display_name: str
    role: Literal["trader", "compliance", "engineer", "admin"]
    group_id: str = Field(examples=["g1"])
    expires_at: datetime = Field(description="When the session ends at the latest.")


class AccountOut(Row):
    account_id: str
    user_id: str
    venue: str = Field(examples=["binance"])
    kind: Literal["sandbox", "live"]
    dataset_id: str | None
    currency: str = Field(examples=["USDT"])
    armed_at: datetime | None = Field(description="Live accounts: when the owner armed them.")
    created_at: datetime
    closed_at: datetime | None

    @computed_field(description="Whether its market has a session's end, so that `overnight` can be false.")
    def closes(self) -> bool:
        return self.venue in VENUES_THAT_CLOSE

    @computed_field(
        description="Live accounts: the words to confirm with that a strategy trades uncertified signals, too."
    )
    def uncertified_confirmation(self) -> str | None:
        return UNCERTIFIED if self.kind == "live" else None


class SignalOut(Row):
    signal_id: str
    seq: int = Field(description="Gap-free position in the dataset's sequence.")
    dataset_id: str
    strategy_id: str
    version_id: str
    role: Literal["champion", "challenger"]
    symbol: str = Field(examples=["BTC/USDT"])
    bar_open_time: datetime
    available_at: datetime
    price: Amount
    state: Literal["ok", "abstain", "outlier", "expired"]
    probability: float | None
    confidence: float | None = Field(description="Calibrated probability that the trade, net of costs, is a success.")
    confidence_lower: float | None
    confidence_upper: float | None
    threshold: float
    certified: bool
    direction: Literal["long", "flat"]
    target_price: Amount
    stop_price: Amount
    exit_by: datetime
    expires_at: datetime
    volatility: str
    trend: str
    liquidity: str
    session: str
    trace_id: str | None


class OrderOut(Row):
    client_order_id: str
    user_id: str
    intent_id: str
    account_id: str
    venue_order_id: str | None
    symbol: str
    side: Literal["buy", "sell"]
    order_type: str
    quantity: Amount
    filled_quantity: Amount
    average_price: Amount | None
    state: str = Field(examples=["FILLED"])
    reject_code: str | None
    reject_text: str | None
    market_time: datetime
    sent_at: datetime | None
    acknowledged_at: datetime | None


class DenialOut(Row):
    """An order that risk kept back. `meaning` and `remedy` are None for rules of a market, which explain themselves."""

    intent_id: str
    user_id: str
    account_id: str
    dataset_id: str
    strategy_id: str
    purpose: Literal["entry", "exit", "stop"]
    symbol: str
    contract: str
    side: Literal["buy", "sell"]
    quantity: Amount
    reference_price: Amount
    market_time: datetime
    created_at: datetime
    denial: str = Field(examples=["RATE_DAY: scope=user id=alice currency=INR orders=51 limit=50"])

    @computed_field
    def code(self) -> str:
        return self.denial.partition(":")[0]

    @computed_field
    def meaning(self) -> str | None:
        about = EXPLAINED.get(self.denial.partition(":")[0])
        return about.meaning if about else None

    @computed_field
    def remedy(self) -> str | None:
        about = EXPLAINED.get(self.denial.partition(":")[0])
        return about.remedy if about else None


class FillOut(Row):
    trade_id: str
    user_id: str
    account_id: str
    client_order_id: str
    symbol: str
    side: Literal["buy", "sell"]
    price: Amount
    quantity: Amount
    fee: Amount
    fee_currency: str
    market_time: datetime
    received_at: datetime


class PositionOut(Row):
    user_id: str
    account_id: str
    strategy_id: str
    symbol: str
    contract: str | None
    """What is held: the symbol itself, or a future or an option of it."""
    quantity: Amount
    """Negative where it is short: the sold leg of a spread."""
    average_price: Amount
    realized_pnl: Amount
    fees: Amount
    last_price: Amount | None
    stop_price: Amount | None
    """At which the stop that waits at the venue goes off."""
    updated_at: datetime


class EquityOut(Row):
    account_id: str
    market_time: datetime
    cash: Amount
    positions_value: Amount
    equity: Amount
    currency: str


class OutcomeOut(Row):
    outcome_id: str
    user_id: str
    account_id: str
    dataset_id: str
    strategy_id: str
    version_id: str
    arm: Literal["champion", "challenger", "hedge", "spread", "sold"]
    signal_id: str
    symbol: str
    currency: str
    confidence: float
    certified: bool
    volatility: str
    trend: str
    liquidity: str
    session: str
    entry_time: datetime
    exit_time: datetime
    exit_reason: str
    quantity: Amount
    entry_price: Amount
    exit_price: Amount
    gross_pnl: Amount
    costs: Amount
    net_pnl: Amount
    net_return: float
    success: bool


class StrategyOut(BaseModel):
    strategy_id: str
    description: str
    capital_fraction: Amount = Field(description="Share of equity in one position, where a subscription says no other.")


class SubscriptionOut(Row):
    user_id: str
    account_id: str
    strategy_id: str
    capital_fraction: Amount
    allow_uncertified: bool
    enabled: bool
    hedge_away: Amount | None
    overnight: bool
    spread_away: Amount | None
    changed_at: datetime
    changed_by: str


class SubscriptionIn(BaseModel):
    """What a strategy may do with an account."""

    capital_fraction: Decimal = Field(gt=0, le=1, decimal_places=12, examples=["0.1"])
    enabled: bool = True
    allow_uncertified: bool = False
    hedge_away: Decimal | None = Field(
        None, gt=0, lt=1, decimal_places=12, examples=["0.03"],
        description="Buy a put so far below the market before each entry into an index, and keep it as long as the position. "
        "Where none is to be had, nothing is entered.",
    )  # fmt: skip
    overnight: bool = Field(
        True, description="False: every position that the strategy takes is left ahead of the session's end, and nothing is "
        "entered from then on. For markets that close alone.",
    )  # fmt: skip
    spread_away: Decimal | None = Field(
        None, gt=0, lt=1, decimal_places=12, examples=["0.02"],
        description="Enter an index by a bull call spread instead of its future: buy the call nearest to the market, sell the "
        "one nearest to so far above it. The loss is bounded by what the spread costs. Excludes `hedge_away`.",
    )  # fmt: skip
    confirmation: str | None = Field(
        None,
        description="Needed to let a strategy trade uncertified signals on a live account; the error says the text.",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> "SubscriptionIn":
        if self.hedge_away is not None and self.spread_away is not None:
            raise ValueError(
                "hedge_away and spread_away exclude each other: an entry is a future under a put, or a spread; leave one out"
            )
        return self


class RiskLimitsBody(BaseModel):
    max_order_notional: Annotated[Amount, Field(ge=0, decimal_places=12, max_digits=38)]
    max_position_notional: Annotated[Amount, Field(ge=0, decimal_places=12, max_digits=38)]
    max_open_positions: int = Field(ge=0, le=10_000)
    max_orders_per_second: int = Field(ge=0, le=10_000)
    max_orders_per_day: int = Field(ge=0, le=10_000_000)
    max_daily_loss: Annotated[Amount, Field(ge=0, decimal_places=12, max_digits=38)]
    max_order_quantity: Annotated[Amount, Field(ge=0, decimal_places=12, max_digits=38)] | None = None
    max_gross_notional: Annotated[Amount, Field(ge=0, decimal_places=12, max_digits=38)] | None = None
    max_open_orders: int | None = Field(None, ge=0, le=10_000)
    max_orders_per_minute: int | None = Field(None, ge=0, le=1_000)
    max_drawdown: Annotated[Amount, Field(ge=0, le=1, decimal_places=12)] | None = Field(
        None, description="Fraction of the highest equity. None, as with the four above it: no such limit."
    )


class RiskLimitsIn(RiskLimitsBody):
    revision: int = Field(description="The revision these limits were made from: a change in between is a conflict.")


class RiskLimitsOut(RiskLimitsBody, Row):
    scope: str
    scope_id: str
    currency: str
    revision: int
    changed_by: str
    changed_at: datetime


class RiskLimitsHistory(BaseModel):
    in_force: RiskLimitsOut | None
    history: list[RiskLimitsOut] = Field(description="Newest first, the one in force included.")


class HaltIn(BaseModel):
    scope: Literal["user", "account", "group", "platform"] = "user"
    scope_id: str | None = Field(None, description="User, account or group id. Default: yourself; platform needs none.")
    user_id: str | None = Field(None, description="For staff who halt an account: its owner.")
    action: Literal["block", "cancel", "flatten"] = Field(
        "cancel", description="Block entries; also cancel those that work; also leave every position."
    )
    reason: str = Field(min_length=3, max_length=500, examples=["Prices look wrong"])


class HaltOut(Row):
    halt_id: int
    scope: str
    scope_id: str
    action: str
    reason: str
    set_by: str
    set_at: datetime
    cleared_by: str | None
    cleared_at: datetime | None
    clear_reason: str | None


class ModelOut(Row):
    version_id: str
    dataset_id: str
    strategy_id: str
    parent_id: str | None
    kind: str
    origin: str
    data_version: str
    feature_hash: str
    code_version: str
    params: dict[str, Any]
    trained_from: datetime | None
    trained_to: datetime | None
    rows: int
    metrics: dict[str, Any]
    artifact_sha256: str
    certified: bool
    expires_at: datetime | None
    created_at: datetime


class DeploymentOut(Row):
    deployment_id: int
    dataset_id: str
    strategy_id: str
    role: Literal["champion", "challenger"]
    version_id: str
    from_time: datetime
    to_time: datetime | None
    reason: str
    decided_by: str


class ModelsOut(BaseModel):
    models: list[ModelOut]
    deployments: list[DeploymentOut] = Field(description="What served from when to when, newest first.")


class ExperimentOut(Row):
    experiment_id: str
    dataset_id: str
    strategy_id: str
    champion_id: str
    challenger_id: str
    split_basis_points: int
    started_at: datetime
    ended_at: datetime | None
    decision: Literal["continue", "promote", "keep", "rollback"]
    samples: int
    lower: float | None
    upper: float | None
    evidence: dict[str, Any]
    updated_at: datetime


class DriftOut(Row):
    report_id: int
    dataset_id: str
    strategy_id: str
    version_id: str
    window_from: datetime
    window_to: datetime
    features: dict[str, Any]
    error: dict[str, Any]
    conditions: dict[str, Any] = Field(description="By question, condition and value; `said` where it drifted.")
    decision: Literal["none", "warning", "retrain"]
    run_key: str
    created_at: datetime


class AlertOut(Row):
    alert_id: int
    severity: Literal["info", "warning", "critical"]
    source: str
    title: str
    detail: str
    labels: dict[str, Any]
    count: int
    raised_at: datetime
    last_seen_at: datetime
    acknowledged_by: str | None
    resolved_at: datetime | None


class Live(BaseModel):
    status: Literal["live"] = "live"


class Ready(BaseModel):
    status: Literal["ready", "not ready"]
    postgres: str = Field(examples=["ok"])
    valkey: str = Field(examples=["ok"])


class ServiceOut(BaseModel):
    service: str
    state: str
    detail: dict[str, Any]
    started_at: datetime
    beat_age_seconds: float
    stale: bool


class LeaseOut(BaseModel):
    name: str = Field(description="`engine:<group>`, `scorer:<dataset>`, …")
    holder: str
    epoch: int
    age_seconds: float
    valid: bool = Field(description="Whether the holder may act: this, never a process's state, is what live means.")
    state: str | None = None
    detail: dict[str, Any] = {}


class ServicesHealth(BaseModel):
    services: list[ServiceOut]
    leases: list[LeaseOut]
