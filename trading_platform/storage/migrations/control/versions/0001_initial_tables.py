"""Initial tables

Revision: 0001
Revises: 
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('alerts',
    sa.Column('alert_id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('fingerprint', sa.String(), nullable=False),
    sa.Column('severity', sa.String(), nullable=False),
    sa.Column('source', sa.String(), nullable=False),
    sa.Column('title', sa.String(), nullable=False),
    sa.Column('detail', sa.String(), server_default='', nullable=False),
    sa.Column('labels', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('count', sa.Integer(), server_default='1', nullable=False),
    sa.Column('raised_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('last_seen_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('acknowledged_by', sa.String(), nullable=True),
    sa.Column('resolved_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('notified_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("severity in ('info', 'warning', 'critical')", name=op.f('ck_alerts_severity')),
    sa.PrimaryKeyConstraint('alert_id', name=op.f('pk_alerts')),
    schema='control'
    )
    op.create_index('ix_alerts_raised_at', 'alerts', ['raised_at'], unique=False, schema='control')
    op.create_index('ix_alerts_untold', 'alerts', ['alert_id'], unique=False, schema='control', postgresql_where=sa.text('notified_at is null'))
    op.create_index('uq_alerts_open', 'alerts', ['fingerprint'], unique=True, schema='control', postgresql_where=sa.text('resolved_at is null'))
    op.create_table('datasets',
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('venue', sa.String(), nullable=False),
    sa.Column('source', sa.String(), nullable=False),
    sa.Column('interval_seconds', sa.Integer(), nullable=False),
    sa.Column('symbols', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('replay_from', sa.DateTime(timezone=True), nullable=True),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("kind in ('venue', 'files', 'synthetic')", name=op.f('ck_datasets_kind')),
    sa.PrimaryKeyConstraint('dataset_id', name=op.f('pk_datasets')),
    schema='control'
    )
    op.create_table('halts',
    sa.Column('halt_id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('scope', sa.String(), nullable=False),
    sa.Column('scope_id', sa.String(), nullable=False),
    sa.Column('action', sa.String(), server_default='block', nullable=False),
    sa.Column('reason', sa.String(), nullable=False),
    sa.Column('set_by', sa.String(), nullable=False),
    sa.Column('set_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('cleared_by', sa.String(), nullable=True),
    sa.Column('cleared_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('clear_reason', sa.String(), nullable=True),
    sa.CheckConstraint("action in ('block', 'cancel', 'flatten')", name=op.f('ck_halts_action')),
    sa.CheckConstraint("scope in ('platform', 'group', 'account', 'user')", name=op.f('ck_halts_scope')),
    sa.PrimaryKeyConstraint('halt_id', name=op.f('pk_halts')),
    schema='control'
    )
    op.create_index('uq_halts_active', 'halts', ['scope', 'scope_id'], unique=True, schema='control', postgresql_where=sa.text('cleared_at is null'))
    op.create_table('leases',
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('holder', sa.String(), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('renewed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_leases')),
    schema='control'
    )
    op.create_table('login_events',
    sa.Column('event_id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('user_id', sa.String(), nullable=True),
    sa.Column('email', sa.String(), nullable=True),
    sa.Column('action', sa.String(), nullable=False),
    sa.Column('result', sa.String(), nullable=False),
    sa.Column('source_ip', sa.String(), nullable=True),
    sa.Column('user_agent', sa.String(), nullable=True),
    sa.PrimaryKeyConstraint('event_id', name=op.f('pk_login_events')),
    schema='control'
    )
    op.create_index(op.f('ix_login_events_at'), 'login_events', ['at'], unique=False, schema='control')
    op.create_index(op.f('ix_login_events_user_id'), 'login_events', ['user_id'], unique=False, schema='control')
    op.create_table('service_status',
    sa.Column('service', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('detail', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('beat_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('service', name=op.f('pk_service_status')),
    schema='control'
    )
    op.create_table('shards',
    sa.Column('shard_id', sa.String(), nullable=False),
    sa.Column('url_key', sa.String(), nullable=False),
    sa.Column('state', sa.String(), server_default='open', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('shard_id', name=op.f('pk_shards')),
    schema='control'
    )
    op.create_table('strategy_configs',
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('config', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('changed_by', sa.String(), nullable=False),
    sa.Column('changed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('strategy_id', 'revision', name=op.f('pk_strategy_configs')),
    schema='control'
    )
    op.create_table('groups',
    sa.Column('group_id', sa.String(), nullable=False),
    sa.Column('shard_id', sa.String(), nullable=False),
    sa.Column('schema_name', sa.String(), nullable=False),
    sa.Column('desired_state', sa.String(), server_default='RUN', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("desired_state in ('RUN', 'FLATTEN')", name=op.f('ck_groups_desired_state')),
    sa.ForeignKeyConstraint(['shard_id'], ['control.shards.shard_id'], name=op.f('fk_groups_shard_id_shards')),
    sa.PrimaryKeyConstraint('group_id', name=op.f('pk_groups')),
    sa.UniqueConstraint('schema_name', name=op.f('uq_groups_schema_name')),
    schema='control'
    )
    op.create_table('market_progress',
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('scored_through', sa.DateTime(timezone=True), nullable=False),
    sa.Column('last_seq', sa.BigInteger(), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['dataset_id'], ['control.datasets.dataset_id'], name=op.f('fk_market_progress_dataset_id_datasets')),
    sa.PrimaryKeyConstraint('dataset_id', name=op.f('pk_market_progress')),
    schema='control'
    )
    op.create_table('model_versions',
    sa.Column('version_id', sa.String(), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('parent_id', sa.String(), nullable=True),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('origin', sa.String(), nullable=False),
    sa.Column('data_version', sa.String(), nullable=False),
    sa.Column('feature_hash', sa.String(), nullable=False),
    sa.Column('code_version', sa.String(), nullable=False),
    sa.Column('lock_hash', sa.String(), nullable=False),
    sa.Column('params', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('seed', sa.Integer(), nullable=False),
    sa.Column('trained_from', sa.DateTime(timezone=True), nullable=True),
    sa.Column('trained_to', sa.DateTime(timezone=True), nullable=True),
    sa.Column('rows', sa.Integer(), nullable=False),
    sa.Column('metrics', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('artifact_path', sa.String(), nullable=False),
    sa.Column('artifact_sha256', sa.String(), nullable=False),
    sa.Column('certified', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['dataset_id'], ['control.datasets.dataset_id'], name=op.f('fk_model_versions_dataset_id_datasets')),
    sa.ForeignKeyConstraint(['parent_id'], ['control.model_versions.version_id'], name=op.f('fk_model_versions_parent_id_model_versions')),
    sa.PrimaryKeyConstraint('version_id', name=op.f('pk_model_versions')),
    schema='control'
    )
    op.create_index('ix_model_versions_dataset_strategy', 'model_versions', ['dataset_id', 'strategy_id', 'created_at'], unique=False, schema='control')
    op.create_table('audit_anchors',
    sa.Column('group_id', sa.String(), nullable=False),
    sa.Column('seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('hash', sa.String(), nullable=False),
    sa.Column('anchored_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['group_id'], ['control.groups.group_id'], name=op.f('fk_audit_anchors_group_id_groups')),
    sa.PrimaryKeyConstraint('group_id', 'seq', name=op.f('pk_audit_anchors')),
    schema='control'
    )
    op.create_table('deployments',
    sa.Column('deployment_id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('role', sa.String(), nullable=False),
    sa.Column('version_id', sa.String(), nullable=False),
    sa.Column('from_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('to_time', sa.DateTime(timezone=True), nullable=True),
    sa.Column('reason', sa.String(), nullable=False),
    sa.Column('decided_by', sa.String(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("role in ('champion', 'challenger')", name=op.f('ck_deployments_role')),
    sa.ForeignKeyConstraint(['dataset_id'], ['control.datasets.dataset_id'], name=op.f('fk_deployments_dataset_id_datasets')),
    sa.ForeignKeyConstraint(['version_id'], ['control.model_versions.version_id'], name=op.f('fk_deployments_version_id_model_versions')),
    sa.PrimaryKeyConstraint('deployment_id', name=op.f('pk_deployments')),
    schema='control'
    )
    op.create_index('uq_deployments_serving', 'deployments', ['dataset_id', 'strategy_id', 'role'], unique=True, schema='control', postgresql_where=sa.text('to_time is null'))
    op.create_table('drift_reports',
    sa.Column('report_id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('version_id', sa.String(), nullable=False),
    sa.Column('window_from', sa.DateTime(timezone=True), nullable=False),
    sa.Column('window_to', sa.DateTime(timezone=True), nullable=False),
    sa.Column('features', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('error', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('decision', sa.String(), nullable=False),
    sa.Column('run_key', sa.String(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("decision in ('none', 'warning', 'retrain')", name=op.f('ck_drift_reports_decision')),
    sa.ForeignKeyConstraint(['dataset_id'], ['control.datasets.dataset_id'], name=op.f('fk_drift_reports_dataset_id_datasets')),
    sa.ForeignKeyConstraint(['version_id'], ['control.model_versions.version_id'], name=op.f('fk_drift_reports_version_id_model_versions')),
    sa.PrimaryKeyConstraint('report_id', name=op.f('pk_drift_reports')),
    sa.UniqueConstraint('version_id', 'window_to', name='uq_drift_reports_version_window'),
    schema='control'
    )
    op.create_index('ix_drift_reports_decision', 'drift_reports', ['decision', 'report_id'], unique=False, schema='control')
    op.create_table('experiments',
    sa.Column('experiment_id', sa.String(), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('champion_id', sa.String(), nullable=False),
    sa.Column('challenger_id', sa.String(), nullable=False),
    sa.Column('split_basis_points', sa.Integer(), server_default='5000', nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('decision', sa.String(), server_default='continue', nullable=False),
    sa.Column('samples', sa.Integer(), server_default='0', nullable=False),
    sa.Column('lower', sa.Double(), nullable=True),
    sa.Column('upper', sa.Double(), nullable=True),
    sa.Column('evidence', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("decision in ('continue', 'promote', 'keep', 'rollback')", name=op.f('ck_experiments_decision')),
    sa.ForeignKeyConstraint(['challenger_id'], ['control.model_versions.version_id'], name=op.f('fk_experiments_challenger_id_model_versions')),
    sa.ForeignKeyConstraint(['champion_id'], ['control.model_versions.version_id'], name=op.f('fk_experiments_champion_id_model_versions')),
    sa.ForeignKeyConstraint(['dataset_id'], ['control.datasets.dataset_id'], name=op.f('fk_experiments_dataset_id_datasets')),
    sa.PrimaryKeyConstraint('experiment_id', name=op.f('pk_experiments')),
    schema='control'
    )
    op.create_index('ix_experiments_dataset_strategy', 'experiments', ['dataset_id', 'strategy_id', 'started_at'], unique=False, schema='control')
    op.create_table('signals',
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('signal_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('version_id', sa.String(), nullable=False),
    sa.Column('role', sa.String(), nullable=False),
    sa.Column('symbol', sa.String(), nullable=False),
    sa.Column('bar_open_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('available_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('price', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('probability', sa.Double(), nullable=True),
    sa.Column('confidence', sa.Double(), nullable=True),
    sa.Column('confidence_lower', sa.Double(), nullable=True),
    sa.Column('confidence_upper', sa.Double(), nullable=True),
    sa.Column('threshold', sa.Double(), nullable=False),
    sa.Column('certified', sa.Boolean(), nullable=False),
    sa.Column('direction', sa.String(), nullable=False),
    sa.Column('target_price', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('stop_price', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('exit_by', sa.DateTime(timezone=True), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('volatility', sa.String(), nullable=False),
    sa.Column('trend', sa.String(), nullable=False),
    sa.Column('liquidity', sa.String(), nullable=False),
    sa.Column('session', sa.String(), nullable=False),
    sa.Column('trace_id', sa.String(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("direction in ('long', 'flat')", name=op.f('ck_signals_direction')),
    sa.CheckConstraint("state in ('ok', 'abstain', 'outlier', 'expired')", name=op.f('ck_signals_state')),
    sa.ForeignKeyConstraint(['dataset_id'], ['control.datasets.dataset_id'], name=op.f('fk_signals_dataset_id_datasets')),
    sa.ForeignKeyConstraint(['version_id'], ['control.model_versions.version_id'], name=op.f('fk_signals_version_id_model_versions')),
    sa.PrimaryKeyConstraint('dataset_id', 'seq', name=op.f('pk_signals')),
    sa.UniqueConstraint('signal_id', name=op.f('uq_signals_signal_id')),
    schema='control'
    )
    op.create_index('ix_signals_created_at', 'signals', ['created_at'], unique=False, schema='control')
    op.create_index('ix_signals_version_bar', 'signals', ['version_id', 'bar_open_time'], unique=False, schema='control')
    op.create_table('users',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('email', sa.String(), nullable=False),
    sa.Column('display_name', sa.String(), nullable=False),
    sa.Column('password_hash', sa.String(), nullable=False),
    sa.Column('role', sa.String(), nullable=False),
    sa.Column('group_id', sa.String(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('disabled_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("role in ('trader', 'compliance', 'engineer', 'admin')", name=op.f('ck_users_role')),
    sa.ForeignKeyConstraint(['group_id'], ['control.groups.group_id'], name=op.f('fk_users_group_id_groups')),
    sa.PrimaryKeyConstraint('user_id', name=op.f('pk_users')),
    sa.UniqueConstraint('email', name=op.f('uq_users_email')),
    schema='control'
    )
    op.create_index(op.f('ix_users_group_id'), 'users', ['group_id'], unique=False, schema='control')
    make_append_only('audit_anchors')


def make_append_only(*tables: str) -> None:
    """Refuse UPDATE, DELETE and TRUNCATE in the database itself, also for replication roles (ENABLE ALWAYS)."""
    op.execute("""
        create function control.refuse_change() returns trigger language plpgsql as $$
        begin
            raise exception '%.% is append-only: % refused', tg_table_schema, tg_table_name, tg_op
                using errcode = 'insufficient_privilege', hint = 'Record a correcting entry instead.';
        end $$
    """)
    for table in tables:
        op.execute(f"""
            create trigger append_only before update or delete or truncate on control.{table}
            for each statement execute function control.refuse_change()
        """)
        op.execute(f'alter table control.{table} enable always trigger append_only')


def downgrade() -> None:
    op.drop_index(op.f('ix_users_group_id'), table_name='users', schema='control')
    op.drop_table('users', schema='control')
    op.drop_index('ix_signals_version_bar', table_name='signals', schema='control')
    op.drop_index('ix_signals_created_at', table_name='signals', schema='control')
    op.drop_table('signals', schema='control')
    op.drop_index('ix_experiments_dataset_strategy', table_name='experiments', schema='control')
    op.drop_table('experiments', schema='control')
    op.drop_index('ix_drift_reports_decision', table_name='drift_reports', schema='control')
    op.drop_table('drift_reports', schema='control')
    op.drop_index('uq_deployments_serving', table_name='deployments', schema='control', postgresql_where=sa.text('to_time is null'))
    op.drop_table('deployments', schema='control')
    op.drop_table('audit_anchors', schema='control')
    op.drop_index('ix_model_versions_dataset_strategy', table_name='model_versions', schema='control')
    op.drop_table('model_versions', schema='control')
    op.drop_table('market_progress', schema='control')
    op.drop_table('groups', schema='control')
    op.drop_table('strategy_configs', schema='control')
    op.drop_table('shards', schema='control')
    op.drop_table('service_status', schema='control')
    op.drop_index(op.f('ix_login_events_user_id'), table_name='login_events', schema='control')
    op.drop_index(op.f('ix_login_events_at'), table_name='login_events', schema='control')
    op.drop_table('login_events', schema='control')
    op.drop_table('leases', schema='control')
    op.drop_index('uq_halts_active', table_name='halts', schema='control', postgresql_where=sa.text('cleared_at is null'))
    op.drop_table('halts', schema='control')
    op.drop_table('datasets', schema='control')
    op.drop_index('uq_alerts_open', table_name='alerts', schema='control', postgresql_where=sa.text('resolved_at is null'))
    op.drop_index('ix_alerts_untold', table_name='alerts', schema='control', postgresql_where=sa.text('notified_at is null'))
    op.drop_index('ix_alerts_raised_at', table_name='alerts', schema='control')
    op.drop_table('alerts', schema='control')
    op.execute('drop function control.refuse_change()')
