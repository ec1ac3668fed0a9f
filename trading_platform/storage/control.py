"""Tables of the control database: one of each for the whole platform.

Market data, models and signals are shared by all user groups and therefore live here; what belongs to a user does not.
"""

from datetime import date

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from trading_platform.storage.types import Json, Money, Text, Time, metadata

SCHEMA = "control"
NOW = func.now()


class ControlBase(DeclarativeBase):
    metadata = metadata(SCHEMA)


# --- directory: users, groups, shards --------------------------------------------------------------------------------


class Shard(ControlBase):
    """A PostgreSQL server that holds groups. `url_key` names the setting that holds its address: never the address."""

    __tablename__ = "shards"
    shard_id: Mapped[Text] = mapped_column(primary_key=True)
    url_key: Mapped[Text]
    state: Mapped[Text] = mapped_column(server_default="open")
    created_at: Mapped[Time] = mapped_column(server_default=NOW)


DESIRED_STATES = ("RUN", "HALT", "FLATTEN")


class Group(ControlBase):
    """A user group: one schema, one engine lease, one Dagster partition, one quota pool."""

    __tablename__ = "groups"
    group_id: Mapped[Text] = mapped_column(primary_key=True)
    shard_id: Mapped[Text] = mapped_column(ForeignKey(Shard.shard_id))
    schema_name: Mapped[Text] = mapped_column(unique=True)
    desired_state: Mapped[Text] = mapped_column(server_default="RUN")
    """RUN, HALT (no entries) or FLATTEN: a request to the engine. Halts that hold until somebody has looked are latches of
    their own (`Halt`)."""
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (CheckConstraint("desired_state in ('RUN', 'HALT', 'FLATTEN')", name="desired_state"),)


class User(ControlBase):
    """A person who logs in. Credentials of exchanges are in the group's schema, encrypted."""

    __tablename__ = "users"
    user_id: Mapped[Text] = mapped_column(primary_key=True)
    email: Mapped[Text] = mapped_column(unique=True)
    display_name: Mapped[Text]
    password_hash: Mapped[Text]
    role: Mapped[Text]
    group_id: Mapped[Text] = mapped_column(ForeignKey(Group.group_id), index=True)
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    disabled_at: Mapped[Time | None]
    __table_args__ = (CheckConstraint("role in ('trader', 'compliance', 'engineer', 'admin')", name="role"),)


class LoginEvent(ControlBase):
    """Access audit: log-in, log-out, refusal, secret read, role or password change."""

    __tablename__ = "login_events"
    event_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[Time] = mapped_column(server_default=NOW, index=True)
    user_id: Mapped[Text | None] = mapped_column(index=True)
    email: Mapped[Text | None]
    action: Mapped[Text]
    result: Mapped[Text]
    source_ip: Mapped[Text | None]
    user_agent: Mapped[Text | None]


class Halt(ControlBase):
    """A latch that stops new entries in its scope until somebody clears it. The most restrictive one wins."""

    __tablename__ = "halts"
    halt_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    scope: Mapped[Text]
    scope_id: Mapped[Text]
    """The group, account or user id; '*' for the platform."""
    action: Mapped[Text] = mapped_column(server_default="block")
    """`block` entries, also `cancel` those that work, also `flatten` every position."""
    reason: Mapped[Text]
    set_by: Mapped[Text]
    set_at: Mapped[Time] = mapped_column(server_default=NOW)
    cleared_by: Mapped[Text | None]
    cleared_at: Mapped[Time | None]
    clear_reason: Mapped[Text | None]
    __table_args__ = (
        CheckConstraint("scope in ('platform', 'group', 'account', 'user')", name="scope"),
        CheckConstraint("action in ('block', 'cancel', 'flatten')", name="action"),
        Index("uq_halts_active", "scope", "scope_id", unique=True, postgresql_where=text("cleared_at is null")),
    )


class BanListRow(ControlBase):
    """The exchange's F&O ban list of a trading day, as it was checked when it was loaded. A day without a row has none."""

    __tablename__ = "ban_lists"
    day: Mapped[date] = mapped_column(primary_key=True)
    underlyings: Mapped[list[str]] = mapped_column(ARRAY(String))
    source: Mapped[Text]
    """Address or file that it came from."""
    fetched_at: Mapped[Time] = mapped_column(server_default=NOW)


class Alert(ControlBase):
    """Something a person should know. Equal open alerts (same fingerprint) count up instead of piling up."""

    __tablename__ = "alerts"
    alert_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    fingerprint: Mapped[Text]
    severity: Mapped[Text]
    source: Mapped[Text]
    title: Mapped[Text]
    detail: Mapped[Text] = mapped_column(server_default="")
    labels: Mapped[Json] = mapped_column(server_default="{}")
    count: Mapped[int] = mapped_column(server_default="1")
    raised_at: Mapped[Time] = mapped_column(server_default=NOW)
    last_seen_at: Mapped[Time] = mapped_column(server_default=NOW)
    acknowledged_by: Mapped[Text | None]
    resolved_at: Mapped[Time | None]
    notified_at: Mapped[Time | None]
    """When a notifier took it; null is still to be told."""
    __table_args__ = (
        CheckConstraint("severity in ('info', 'warning', 'critical')", name="severity"),
        Index("uq_alerts_open", "fingerprint", unique=True, postgresql_where=text("resolved_at is null")),
        Index("ix_alerts_raised_at", "raised_at"),
        Index("ix_alerts_untold", "alert_id", postgresql_where=text("notified_at is null")),
    )


# --- datasets, strategies, models ------------------------------------------------------------------------------------


class Dataset(ControlBase):
    """Where bars come from; nothing learned or traded on one dataset ever mixes with another."""

    __tablename__ = "datasets"
    dataset_id: Mapped[Text] = mapped_column(primary_key=True)
    kind: Mapped[Text]
    """`venue` (live market), `files` (replayed) or `synthetic` (seeded)."""
    venue: Mapped[Text]
    source: Mapped[Text]
    interval_seconds: Mapped[int]
    symbols: Mapped[Json]
    """{symbol: {first, last, bars}} as of the last ingestion, times as ISO UTC."""
    replay_from: Mapped[Time | None]
    """Open time of the first bar that the sandbox replays; everything before it is history. Null for `venue`."""
    details: Mapped[Json] = mapped_column(server_default="{}")
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    updated_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (CheckConstraint("kind in ('venue', 'files', 'synthetic')", name="kind"),)


class StrategyConfig(ControlBase):
    """A strategy's configuration, a row a revision: the newest one is in force, older ones are the history."""

    __tablename__ = "strategy_configs"
    strategy_id: Mapped[Text] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    config: Mapped[Json]
    changed_by: Mapped[Text]
    changed_at: Mapped[Time] = mapped_column(server_default=NOW)


class ModelVersion(ControlBase):
    """The registry: a trained version, its lineage, its hashed artifact and its out-of-sample figures."""

    __tablename__ = "model_versions"
    version_id: Mapped[Text] = mapped_column(primary_key=True)
    dataset_id: Mapped[Text] = mapped_column(ForeignKey(Dataset.dataset_id))
    strategy_id: Mapped[Text]
    parent_id: Mapped[Text | None] = mapped_column(ForeignKey("control.model_versions.version_id"))
    kind: Mapped[Text]
    """`lightgbm`, `logistic`, `legacy`."""
    origin: Mapped[Text]
    """What asked for it: `initial`, `weekly`, `drift`, `manual`, `import`."""
    data_version: Mapped[Text]
    feature_hash: Mapped[Text]
    code_version: Mapped[Text]
    lock_hash: Mapped[Text]
    params: Mapped[Json]
    seed: Mapped[int]
    trained_from: Mapped[Time | None]
    trained_to: Mapped[Time | None]
    """Open time of the last bar whose label was used."""
    rows: Mapped[int]
    metrics: Mapped[Json]
    artifact_path: Mapped[Text]
    """Relative to the artifacts folder."""
    artifact_sha256: Mapped[Text]
    certified: Mapped[bool] = mapped_column(server_default=text("false"))
    expires_at: Mapped[Time | None]
    """Market time after which its signals are `expired`."""
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (Index("ix_model_versions_dataset_strategy", "dataset_id", "strategy_id", "created_at"),)


class Deployment(ControlBase):
    """Which version served in which role from when to when: the answer to "what was live at that time"."""

    __tablename__ = "deployments"
    deployment_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    dataset_id: Mapped[Text] = mapped_column(ForeignKey(Dataset.dataset_id))
    strategy_id: Mapped[Text]
    role: Mapped[Text]
    version_id: Mapped[Text] = mapped_column(ForeignKey(ModelVersion.version_id))
    from_time: Mapped[Time]
    """Market time; `to_time` null means still serving."""
    to_time: Mapped[Time | None]
    reason: Mapped[Text]
    decided_by: Mapped[Text]
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (
        CheckConstraint("role in ('champion', 'challenger')", name="role"),
        Index(
            "uq_deployments_serving", "dataset_id", "strategy_id", "role",
            unique=True, postgresql_where=text("to_time is null"),
        ),
    )  # fmt: skip


class Experiment(ControlBase):
    """A champion against a challenger: both score every bar, the money is split by a sticky hash."""

    __tablename__ = "experiments"
    experiment_id: Mapped[Text] = mapped_column(primary_key=True)
    dataset_id: Mapped[Text] = mapped_column(ForeignKey(Dataset.dataset_id))
    strategy_id: Mapped[Text]
    champion_id: Mapped[Text] = mapped_column(ForeignKey(ModelVersion.version_id))
    challenger_id: Mapped[Text] = mapped_column(ForeignKey(ModelVersion.version_id))
    split_basis_points: Mapped[int] = mapped_column(server_default="5000")
    started_at: Mapped[Time]
    ended_at: Mapped[Time | None]
    decision: Mapped[Text] = mapped_column(server_default="continue")
    """continue, promote, keep (challenger rejected) or rollback (harm)."""
    samples: Mapped[int] = mapped_column(server_default="0")
    lower: Mapped[float | None]
    upper: Mapped[float | None]
    """Confidence sequence of the mean paired difference (champion's log-loss minus challenger's)."""
    evidence: Mapped[Json] = mapped_column(server_default="{}")
    updated_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (
        CheckConstraint("decision in ('continue', 'promote', 'keep', 'rollback')", name="decision"),
        Index("ix_experiments_dataset_strategy", "dataset_id", "strategy_id", "started_at"),
    )


class DriftReport(ControlBase):
    """One drift check. The retraining sensor fires on `decision = 'retrain'`, once a run key."""

    __tablename__ = "drift_reports"
    report_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    dataset_id: Mapped[Text] = mapped_column(ForeignKey(Dataset.dataset_id))
    strategy_id: Mapped[Text]
    version_id: Mapped[Text] = mapped_column(ForeignKey(ModelVersion.version_id))
    window_from: Mapped[Time]
    window_to: Mapped[Time]
    """Market time."""
    features: Mapped[Json]
    """{feature: {statistic, threshold, p_value, drifted}}"""
    error: Mapped[Json]
    """{detector: {state, since, statistic}} on the error and log-loss streams."""
    conditions: Mapped[Json] = mapped_column(server_default="{}")
    """{question condition=value: {expected, found, p_value, rows, drifted, said}}; `said` where it drifted."""
    decision: Mapped[Text]
    run_key: Mapped[Text]
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (
        CheckConstraint("decision in ('none', 'warning', 'retrain')", name="decision"),
        UniqueConstraint("version_id", "window_to", name="uq_drift_reports_version_window"),
        Index("ix_drift_reports_decision", "decision", "report_id"),
    )


# --- signals ---------------------------------------------------------------------------------------------------------


class Signal(ControlBase):
    """What one version says of one bar. Written by the scorer alone, in a gap-free sequence a dataset."""

    __tablename__ = "signals"
    dataset_id: Mapped[Text] = mapped_column(ForeignKey(Dataset.dataset_id), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    signal_id: Mapped[Text] = mapped_column(unique=True)
    """content id of (version, symbol, bar_open_time): scoring the same bar again mints nothing new."""
    strategy_id: Mapped[Text]
    version_id: Mapped[Text] = mapped_column(ForeignKey(ModelVersion.version_id))
    role: Mapped[Text]
    symbol: Mapped[Text]
    bar_open_time: Mapped[Time]
    available_at: Mapped[Time]
    """Market time at which the bar was complete; the engine's market clock."""
    price: Mapped[Money]
    """Close of the bar."""
    state: Mapped[Text]
    probability: Mapped[float | None]
    """Raw model output; null where the state is expired."""
    confidence: Mapped[float | None]
    """Calibrated probability that the trade, net of costs, ends in profit."""
    confidence_lower: Mapped[float | None]
    confidence_upper: Mapped[float | None]
    threshold: Mapped[float]
    certified: Mapped[bool]
    direction: Mapped[Text]
    target_price: Mapped[Money]
    stop_price: Mapped[Money]
    exit_by: Mapped[Time]
    """Market time of the time barrier."""
    expires_at: Mapped[Time]
    """Market time after which no entry may be made on it."""
    volatility: Mapped[Text]
    trend: Mapped[Text]
    liquidity: Mapped[Text]
    session: Mapped[Text]
    trace_id: Mapped[Text | None]
    created_at: Mapped[Time] = mapped_column(server_default=NOW)
    __table_args__ = (
        CheckConstraint("state in ('ok', 'abstain', 'outlier', 'expired')", name="state"),
        CheckConstraint("direction in ('long', 'flat')", name="direction"),
        Index("ix_signals_version_bar", "version_id", "bar_open_time"),
        Index("ix_signals_created_at", "created_at"),
    )


class MarketProgress(ControlBase):
    """How far the scorer has come with a dataset, written in the transaction that writes the signals."""

    __tablename__ = "market_progress"
    dataset_id: Mapped[Text] = mapped_column(ForeignKey(Dataset.dataset_id), primary_key=True)
    scored_through: Mapped[Time]
    """available_at of the last bar scored: the platform's market clock for this dataset."""
    last_seq: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[Time] = mapped_column(server_default=NOW)


class Lease(ControlBase):
    """Leases of services that are single but not a group's: the scorer and the collector of a dataset."""

    __tablename__ = "leases"
    name: Mapped[Text] = mapped_column(primary_key=True)
    holder: Mapped[Text]
    epoch: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[Time]
    renewed_at: Mapped[Time] = mapped_column(server_default=NOW)


class AuditAnchor(ControlBase):
    """The head of a group's audit chain, kept outside the group, so that a rewritten chain is found out."""

    __tablename__ = "audit_anchors"
    group_id: Mapped[Text] = mapped_column(ForeignKey(Group.group_id), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[Text]
    anchored_at: Mapped[Time] = mapped_column(server_default=NOW)


class ServiceStatus(ControlBase):
    """Heartbeats of supervised services, for the health page."""

    __tablename__ = "service_status"
    service: Mapped[Text] = mapped_column(primary_key=True)
    state: Mapped[Text]
    detail: Mapped[Json] = mapped_column(server_default="{}")
    started_at: Mapped[Time]
    beat_at: Mapped[Time] = mapped_column(server_default=NOW)
