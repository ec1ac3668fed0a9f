"""Every statement that the API sends, in one place, so that a test can ask PostgreSQL how each would be run.

Lists are paged by key, newest first: the cursor is the last row's key, so a page costs the same wherever it is.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Extract, Select, and_, extract, func, literal, or_, select, true, tuple_
from sqlalchemy.orm import InstrumentedAttribute, aliased

from trading_platform.api.problems import ProblemError
from trading_platform.identifiers import DatasetId, GroupId, UserId
from trading_platform.storage.control import (
    Alert,
    Dataset,
    Deployment,
    DriftReport,
    Experiment,
    Group,
    Halt,
    Lease,
    MarketProgress,
    ModelVersion,
    ServiceStatus,
    Signal,
    User,
)
from trading_platform.storage.group import (
    Account,
    BreakerRow,
    EngineLease,
    EquityPoint,
    Fill,
    Intent,
    Order,
    Outcome,
    Position,
    RiskLimits,
    Subscription,
)

Cursor = Sequence[Any]

ORDER_KEY = (Order.market_time, Order.client_order_id)
FILL_KEY = (Fill.market_time, Fill.account_id, Fill.symbol, Fill.trade_id)
DENIAL_KEY = (Intent.created_at, Intent.intent_id)
OUTCOME_KEY = (Outcome.exit_time, Outcome.outcome_id)

# --- what belongs to a user (group schema) ---------------------------------------------------------------------------


def accounts(user_id: UserId) -> Select[Account]:
    return select(Account).where(Account.user_id == user_id).order_by(Account.created_at.desc())


def account(user_id: UserId, account_id: str) -> Select[Account]:
    return select(Account).where(Account.user_id == user_id, Account.account_id == account_id)


def orders(
    user_id: UserId, after: Cursor | None, limit: int, *, symbol: str | None = None, state: str | None = None
) -> Select[Order]:
    statement = select(Order).where(Order.user_id == user_id)
    if symbol is not None:
        statement = statement.where(Order.symbol == symbol)
    if state is not None:
        statement = statement.where(Order.state == state)
    return _page(statement, ORDER_KEY, after, limit)


def denials(user_id: UserId, after: Cursor | None, limit: int) -> Select[Intent]:
    """Decisions that risk kept back."""
    return _page(select(Intent).where(Intent.user_id == user_id, Intent.denial.is_not(None)), DENIAL_KEY, after, limit)


def fills(user_id: UserId, after: Cursor | None, limit: int, *, symbol: str | None = None) -> Select[Fill]:
    statement = select(Fill).where(Fill.user_id == user_id)
    if symbol is not None:
        statement = statement.where(Fill.symbol == symbol)
    return _page(statement, FILL_KEY, after, limit)


def outcomes(user_id: UserId, after: Cursor | None, limit: int, *, symbol: str | None = None) -> Select[Outcome]:
    statement = select(Outcome).where(Outcome.user_id == user_id)
    if symbol is not None:
        statement = statement.where(Outcome.symbol == symbol)
    return _page(statement, OUTCOME_KEY, after, limit)


def positions(user_id: UserId, *, flat: bool = False) -> Select[Position]:
    statement = select(Position).where(Position.user_id == user_id)
    if not flat:
        statement = statement.where(Position.quantity != 0)
    return statement.order_by(Position.account_id, Position.strategy_id, Position.symbol)


def equity(user_id: UserId, account_id: str, before: datetime | None, limit: int) -> Select[EquityPoint]:
    """The newest points of one account's curve before a market time."""
    statement = select(EquityPoint).where(EquityPoint.user_id == user_id, EquityPoint.account_id == account_id)
    if before is not None:
        statement = statement.where(EquityPoint.market_time < before)
    return statement.order_by(EquityPoint.market_time.desc()).limit(limit)


def subscriptions(user_id: UserId) -> Select[Subscription]:
    return (
        select(Subscription)
        .where(Subscription.user_id == user_id)
        .order_by(Subscription.account_id, Subscription.strategy_id)
    )


def risk_limits(scope: str, scope_id: str, currency: str, limit: int) -> Select[RiskLimits]:
    """Newest revision first: the first one is in force."""
    ours = (RiskLimits.scope == scope, RiskLimits.scope_id == scope_id, RiskLimits.currency == currency)
    return select(RiskLimits).where(*ours).order_by(RiskLimits.revision.desc()).limit(limit)


# --- live stream: one statement for all users of a group who are watching --------------------------------------------


def live_equity(user_ids: Sequence[UserId]) -> Select[Account, EquityPoint]:
    """Each open account of these users with its newest equity point."""
    newest = aliased(
        EquityPoint,
        select(EquityPoint)
        .where(EquityPoint.user_id == Account.user_id, EquityPoint.account_id == Account.account_id)
        .order_by(EquityPoint.market_time.desc())
        .limit(1)
        .lateral(),
    )
    return (
        select(Account, newest)
        .join(newest, true(), isouter=True)
        .where(Account.user_id.in_(user_ids), Account.closed_at.is_(None))
        .order_by(Account.created_at.desc())
    )


def live_positions(user_ids: Sequence[UserId]) -> Select[Position]:
    return select(Position).where(Position.user_id.in_(user_ids))


def closed_trades(user_id: UserId) -> Select[int]:
    return select(func.count()).select_from(Outcome).where(Outcome.user_id == user_id)


def engine_lease(group_id: GroupId) -> Select[EngineLease, float, bool]:
    """(lease, seconds since its renewal, whether it is valid) by PostgreSQL's clock."""
    return select(EngineLease, _age(EngineLease.renewed_at), EngineLease.expires_at > func.now()).where(
        EngineLease.group_id == group_id
    )


# --- shared by all users (control database) --------------------------------------------------------------------------


def group_of_user(user_id: UserId) -> Select[str]:
    return select(User.group_id).where(User.user_id == user_id)


def group_ids() -> Select[str]:
    return select(Group.group_id).order_by(Group.group_id)


def latest_dataset() -> Select[str]:
    """The dataset that the scorer worked on last: what lists show when none is named."""
    return select(MarketProgress.dataset_id).order_by(MarketProgress.updated_at.desc()).limit(1)


def dataset_with_progress(dataset_id: DatasetId) -> Select[Dataset, MarketProgress]:
    return (
        select(Dataset, MarketProgress)
        .join(MarketProgress, MarketProgress.dataset_id == Dataset.dataset_id, isouter=True)
        .where(Dataset.dataset_id == dataset_id)
    )


def signals(
    dataset_id: DatasetId,
    before: int | None,
    limit: int,
    *,
    symbol: str | None = None,
    state: str | None = None,
    role: str | None = None,
) -> Select[Signal]:
    statement = select(Signal).where(Signal.dataset_id == dataset_id)
    for column, wanted in ((Signal.symbol, symbol), (Signal.state, state), (Signal.role, role)):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if before is not None:
        statement = statement.where(Signal.seq < before)
    return statement.order_by(Signal.seq.desc()).limit(limit)


def signals_since(dataset_id: DatasetId, seq: int, limit: int) -> Select[Signal]:
    return select(Signal).where(Signal.dataset_id == dataset_id, Signal.seq > seq).order_by(Signal.seq).limit(limit)


def market_progress() -> Select[MarketProgress]:
    return select(MarketProgress).order_by(MarketProgress.updated_at.desc())


def models(dataset_id: DatasetId, limit: int, strategy_id: str | None = None) -> Select[ModelVersion]:
    statement = select(ModelVersion).where(ModelVersion.dataset_id == dataset_id)
    if strategy_id is not None:
        statement = statement.where(ModelVersion.strategy_id == strategy_id)
    return statement.order_by(ModelVersion.created_at.desc()).limit(limit)


def model(version_id: str) -> Select[ModelVersion]:
    return select(ModelVersion).where(ModelVersion.version_id == version_id)


def deployments(dataset_id: DatasetId, limit: int) -> Select[Deployment]:
    return (
        select(Deployment)
        .where(Deployment.dataset_id == dataset_id)
        .order_by(Deployment.deployment_id.desc())
        .limit(limit)
    )


def experiments(dataset_id: DatasetId, limit: int, strategy_id: str | None = None) -> Select[Experiment]:
    statement = select(Experiment).where(Experiment.dataset_id == dataset_id)
    if strategy_id is not None:
        statement = statement.where(Experiment.strategy_id == strategy_id)
    return statement.order_by(Experiment.started_at.desc()).limit(limit)


def drift(dataset_id: DatasetId, before: int | None, limit: int, version_id: str | None = None) -> Select[DriftReport]:
    statement = select(DriftReport).where(DriftReport.dataset_id == dataset_id)
    if version_id is not None:
        statement = statement.where(DriftReport.version_id == version_id)
    if before is not None:
        statement = statement.where(DriftReport.report_id < before)
    return statement.order_by(DriftReport.report_id.desc()).limit(limit)


def breakers(*, is_open: bool) -> Select[BreakerRow]:
    """A row a symbol, exchange or account that ever opened: few."""
    statement = select(BreakerRow).order_by(BreakerRow.name)
    return statement.where(BreakerRow.state != "CLOSED") if is_open else statement


def halts(limit: int, visible: ColumnElement[bool], *, active: bool) -> Select[Halt]:
    statement = select(Halt).where(visible)
    if active:
        statement = statement.where(Halt.cleared_at.is_(None))
    return statement.order_by(Halt.halt_id.desc()).limit(limit)


def halt(halt_id: int) -> Select[Halt]:
    return select(Halt).where(Halt.halt_id == halt_id)


def halts_of(user_id: UserId, group_id: GroupId, account_ids: Sequence[str]) -> ColumnElement[bool]:
    """The latches that touch one user."""
    return or_(
        Halt.scope == "platform",
        and_(Halt.scope == "group", Halt.scope_id == group_id),
        and_(Halt.scope == "user", Halt.scope_id == user_id),
        and_(Halt.scope == "account", Halt.scope_id.in_(account_ids)),
    )


def alerts(limit: int, before: int | None, *, is_open: bool, about_user: UserId | None) -> Select[Alert]:
    """Newest first; for a trader those that are labelled as theirs."""
    statement = select(Alert)
    if is_open:
        statement = statement.where(Alert.resolved_at.is_(None))
    if about_user is not None:
        statement = statement.where(Alert.labels["user_id"].astext == about_user)
    if before is not None:
        statement = statement.where(Alert.alert_id < before)
    return statement.order_by(Alert.alert_id.desc()).limit(limit)


def services() -> Select[ServiceStatus, float]:
    """(status, seconds since the last beat) by PostgreSQL's clock."""
    return select(ServiceStatus, _age(ServiceStatus.beat_at)).order_by(ServiceStatus.service)


def leases() -> Select[Lease, float, bool]:
    return select(Lease, _age(Lease.renewed_at), Lease.expires_at > func.now()).order_by(Lease.name)


# --- paging ----------------------------------------------------------------------------------------------------------


def encoded(key: Sequence[Any]) -> str:
    """A row's key as an opaque cursor."""
    return base64.urlsafe_b64encode(orjson.dumps(list(key))).decode().rstrip("=")


def decoded(cursor: str | None, key: Sequence[InstrumentedAttribute[Any]]) -> Cursor | None:
    """The key inside a cursor that `encoded` made for the same list."""
    if cursor is None:
        return None
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        first, *rest = values
        if len(values) != len(key) or not all(isinstance(value, str) for value in values):
            raise ValueError(cursor)
        time = datetime.fromisoformat(first)
        if time.tzinfo is None:
            raise ValueError(cursor)
    except (ValueError, TypeError, binascii.Error):
        raise ProblemError(
            422, "Cursor not understood", f"the cursor {cursor[:40]!r} was not made for this list",
            expected="the `next` of an earlier answer of the same list", remedy="Start again without `after`.",
        ) from None  # fmt: skip
    return [time, *rest]


def _page(statement: Select[Any], key: Sequence[Any], after: Cursor | None, limit: int) -> Select[Any]:
    if after is not None:
        values = [literal(value, column.type) for column, value in zip(key, after, strict=True)]
        statement = statement.where(tuple_(*key) < tuple_(*values))
    return statement.order_by(*(column.desc() for column in key)).limit(limit)


def _age(moment: InstrumentedAttribute[datetime]) -> Extract:
    return extract("epoch", func.clock_timestamp() - moment)
