"""Initial tables

Revision: 0001
Revises: 
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


CHANGE_TIMES = (
    ('equity', 'recorded_at'), ('fills', 'received_at'), ('intents', 'updated_at'), ('orders', 'updated_at'),
    ('outcomes', 'recorded_at'),
)


def upgrade() -> None:
    op.create_table('accounts',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('venue', sa.String(), nullable=False),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=True),
    sa.Column('currency', sa.String(), nullable=False),
    sa.Column('armed_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('armed_by', sa.String(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('closed_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("kind in ('sandbox', 'live')", name=op.f('ck_accounts_kind')),
    sa.PrimaryKeyConstraint('user_id', 'account_id', name=op.f('pk_accounts')),
    sa.UniqueConstraint('account_id', name=op.f('uq_accounts_account_id')),
    schema='GROUP'
    )
    op.create_table('audit_log',
    sa.Column('seq', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('event_ts', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.Column('market_time', sa.DateTime(timezone=True), nullable=True),
    sa.Column('clock_offset_ms', sa.Double(), nullable=True),
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=True),
    sa.Column('dataset_id', sa.String(), nullable=True),
    sa.Column('strategy_id', sa.String(), nullable=True),
    sa.Column('strategy_version', sa.String(), nullable=True),
    sa.Column('intent_id', sa.String(), nullable=True),
    sa.Column('attempt', sa.Integer(), nullable=True),
    sa.Column('actor', sa.String(), nullable=False),
    sa.Column('event_type', sa.String(), nullable=False),
    sa.Column('client_order_id', sa.String(), nullable=True),
    sa.Column('venue_order_id', sa.String(), nullable=True),
    sa.Column('exchange_order_id', sa.String(), nullable=True),
    sa.Column('parent_order_id', sa.String(), nullable=True),
    sa.Column('trade_id', sa.String(), nullable=True),
    sa.Column('tag', sa.String(), nullable=True),
    sa.Column('tags', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('algo_id', sa.String(), nullable=True),
    sa.Column('exchange', sa.String(), nullable=True),
    sa.Column('symbol', sa.String(), nullable=True),
    sa.Column('instrument_token', sa.String(), nullable=True),
    sa.Column('isin', sa.String(), nullable=True),
    sa.Column('side', sa.String(), nullable=True),
    sa.Column('product', sa.String(), nullable=True),
    sa.Column('variety', sa.String(), nullable=True),
    sa.Column('order_type_sent', sa.String(), nullable=True),
    sa.Column('order_type_seen', sa.String(), nullable=True),
    sa.Column('validity', sa.String(), nullable=True),
    sa.Column('quantity', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('disclosed_quantity', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('filled_quantity', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('pending_quantity', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('price', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('trigger_price', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('average_price', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('market_protection', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('status_venue', sa.String(), nullable=True),
    sa.Column('status', sa.String(), nullable=True),
    sa.Column('status_message', sa.String(), nullable=True),
    sa.Column('status_message_raw', sa.String(), nullable=True),
    sa.Column('error_type', sa.String(), nullable=True),
    sa.Column('http_status', sa.Integer(), nullable=True),
    sa.Column('source_ip', sa.String(), nullable=True),
    sa.Column('latency_ms', sa.Double(), nullable=True),
    sa.Column('trace_id', sa.String(), nullable=True),
    sa.Column('detail', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.PrimaryKeyConstraint('seq', name=op.f('pk_audit_log')),
    schema='GROUP'
    )
    op.create_index('ix_audit_log_event_ts', 'audit_log', ['event_ts'], unique=False, schema='GROUP')
    op.create_index('ix_audit_log_user_seq', 'audit_log', ['user_id', 'seq'], unique=False, schema='GROUP')
    op.create_table('audit_seals',
    sa.Column('last_seq', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('first_seq', sa.BigInteger(), nullable=False),
    sa.Column('entries', sa.Integer(), nullable=False),
    sa.Column('previous_hash', sa.String(), nullable=False),
    sa.Column('hash', sa.String(), nullable=False),
    sa.Column('leaves', sa.LargeBinary(), nullable=False),
    sa.Column('sealed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('last_seq', name=op.f('pk_audit_seals')),
    schema='GROUP'
    )
    op.create_table('breakers',
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('reason', sa.String(), nullable=False),
    sa.Column('opened_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('arms_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('trips', sa.Integer(), nullable=False),
    sa.Column('arming_requested_by', sa.String(), nullable=True),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("state in ('CLOSED', 'OPEN', 'HALF_OPEN')", name=op.f('ck_breakers_state')),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_breakers')),
    schema='GROUP'
    )
    op.create_table('credentials',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('ciphertext', sa.LargeBinary(), nullable=False),
    sa.Column('nonce', sa.LargeBinary(), nullable=False),
    sa.Column('wrapped_key', sa.LargeBinary(), nullable=False),
    sa.Column('wrap_nonce', sa.LargeBinary(), nullable=False),
    sa.Column('master_key_version', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('user_id', 'account_id', 'name', name=op.f('pk_credentials')),
    schema='GROUP'
    )
    op.create_table('engine_lease',
    sa.Column('group_id', sa.String(), nullable=False),
    sa.Column('holder', sa.String(), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('renewed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('state', sa.String(), server_default='HALTED', nullable=False),
    sa.Column('detail', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.PrimaryKeyConstraint('group_id', name=op.f('pk_engine_lease')),
    schema='GROUP'
    )
    op.create_table('equity',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('market_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('cash', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('positions_value', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('equity', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('currency', sa.String(), nullable=False),
    sa.Column('recorded_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('user_id', 'account_id', 'market_time', name=op.f('pk_equity')),
    schema='GROUP'
    )
    op.create_table('fills',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('symbol', sa.String(), nullable=False),
    sa.Column('trade_id', sa.String(), nullable=False),
    sa.Column('client_order_id', sa.String(), nullable=False),
    sa.Column('side', sa.String(), nullable=False),
    sa.Column('price', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('quantity', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('fee', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('fee_currency', sa.String(), nullable=False),
    sa.Column('market_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('received_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('user_id', 'account_id', 'symbol', 'trade_id', name=op.f('pk_fills')),
    schema='GROUP'
    )
    op.create_index(op.f('ix_fills_client_order_id'), 'fills', ['client_order_id'], unique=False, schema='GROUP')
    op.create_index('ix_fills_user_time', 'fills', ['user_id', 'market_time'], unique=False, schema='GROUP')
    op.create_table('intents',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('intent_id', sa.String(), nullable=False),
    sa.Column('decision_key', sa.String(), nullable=False),
    sa.Column('client_order_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('version_id', sa.String(), nullable=False),
    sa.Column('arm', sa.String(), nullable=False),
    sa.Column('signal_id', sa.String(), nullable=False),
    sa.Column('purpose', sa.String(), nullable=False),
    sa.Column('entry_intent_id', sa.String(), nullable=True),
    sa.Column('symbol', sa.String(), nullable=False),
    sa.Column('contract', sa.String(), nullable=False),
    sa.Column('side', sa.String(), nullable=False),
    sa.Column('order_type', sa.String(), nullable=False),
    sa.Column('quantity', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('reference_price', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('target_price', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('stop_price', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('exit_by', sa.DateTime(timezone=True), nullable=True),
    sa.Column('market_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('denial', sa.String(), nullable=True),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('attempts', sa.Integer(), server_default='0', nullable=False),
    sa.Column('trace_id', sa.String(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("purpose in ('entry', 'exit', 'stop')", name=op.f('ck_intents_purpose')),
    sa.CheckConstraint("side in ('buy', 'sell')", name=op.f('ck_intents_side')),
    sa.PrimaryKeyConstraint('user_id', 'intent_id', name=op.f('pk_intents')),
    sa.UniqueConstraint('client_order_id', name=op.f('uq_intents_client_order_id')),
    sa.UniqueConstraint('decision_key', name=op.f('uq_intents_decision_key')),
    schema='GROUP'
    )
    op.create_index('ix_intents_unfinished', 'intents', ['account_id', 'created_at'], unique=False, schema='GROUP', postgresql_where=sa.text("state in ('PLANNED', 'SENDING', 'SUBMITTED', 'UNKNOWN')"))
    op.create_index('ix_intents_user_created', 'intents', ['user_id', 'created_at'], unique=False, schema='GROUP')
    op.create_table('legacy_sessions',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('session_id', sa.String(), nullable=False),
    sa.Column('venue', sa.String(), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('trades', sa.Integer(), nullable=False),
    sa.Column('wins', sa.Integer(), nullable=False),
    sa.Column('net_pnl', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('currency', sa.String(), nullable=False),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('imported_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('user_id', 'session_id', name=op.f('pk_legacy_sessions')),
    schema='GROUP'
    )
    op.create_table('orders',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('client_order_id', sa.String(), nullable=False),
    sa.Column('intent_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('venue_order_id', sa.String(), nullable=True),
    sa.Column('symbol', sa.String(), nullable=False),
    sa.Column('contract', sa.String(), nullable=False),
    sa.Column('side', sa.String(), nullable=False),
    sa.Column('order_type', sa.String(), nullable=False),
    sa.Column('quantity', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('filled_quantity', sa.Numeric(precision=38, scale=12), server_default='0', nullable=False),
    sa.Column('average_price', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('reject_code', sa.String(), nullable=True),
    sa.Column('reject_text', sa.String(), nullable=True),
    sa.Column('market_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('sent_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('acknowledged_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('user_id', 'client_order_id', name=op.f('pk_orders')),
    sa.UniqueConstraint('intent_id', name=op.f('uq_orders_intent_id')),
    schema='GROUP'
    )
    op.create_index('ix_orders_open', 'orders', ['account_id'], unique=False, schema='GROUP', postgresql_where=sa.text("state in ('SUBMITTED', 'WORKING', 'PARTIALLY_FILLED', 'UNKNOWN')"))
    op.create_index('ix_orders_user_time', 'orders', ['user_id', 'market_time'], unique=False, schema='GROUP')
    op.create_index('uq_orders_venue_order', 'orders', ['account_id', 'symbol', 'venue_order_id'], unique=True, schema='GROUP', postgresql_where=sa.text('venue_order_id is not null'))
    op.create_table('outbox',
    sa.Column('intent_id', sa.String(), nullable=False),
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('epoch', sa.BigInteger(), nullable=False),
    sa.Column('next_try_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('sent_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('market_sent_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('verdict', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('intent_id', name=op.f('pk_outbox')),
    schema='GROUP'
    )
    op.create_index('ix_outbox_account', 'outbox', ['account_id', 'created_at'], unique=False, schema='GROUP')
    op.create_table('outcomes',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('outcome_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('version_id', sa.String(), nullable=False),
    sa.Column('arm', sa.String(), nullable=False),
    sa.Column('signal_id', sa.String(), nullable=False),
    sa.Column('symbol', sa.String(), nullable=False),
    sa.Column('contract', sa.String(), nullable=False),
    sa.Column('currency', sa.String(), nullable=False),
    sa.Column('confidence', sa.Double(), nullable=False),
    sa.Column('certified', sa.Boolean(), nullable=False),
    sa.Column('volatility', sa.String(), nullable=False),
    sa.Column('trend', sa.String(), nullable=False),
    sa.Column('liquidity', sa.String(), nullable=False),
    sa.Column('session', sa.String(), nullable=False),
    sa.Column('entry_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('exit_time', sa.DateTime(timezone=True), nullable=False),
    sa.Column('exit_reason', sa.String(), nullable=False),
    sa.Column('quantity', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('entry_price', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('exit_price', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('gross_pnl', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('costs', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('net_pnl', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('net_return', sa.Double(), nullable=False),
    sa.Column('success', sa.Boolean(), nullable=False),
    sa.Column('recorded_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('user_id', 'outcome_id', name=op.f('pk_outcomes')),
    schema='GROUP'
    )
    op.create_index('ix_outcomes_user_exit', 'outcomes', ['user_id', 'exit_time'], unique=False, schema='GROUP')
    op.create_index('ix_outcomes_version', 'outcomes', ['version_id', 'exit_time'], unique=False, schema='GROUP')
    op.create_table('positions',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('symbol', sa.String(), nullable=False),
    sa.Column('quantity', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('average_price', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('entry_intent_id', sa.String(), nullable=True),
    sa.Column('realized_pnl', sa.Numeric(precision=38, scale=12), server_default='0', nullable=False),
    sa.Column('fees', sa.Numeric(precision=38, scale=12), server_default='0', nullable=False),
    sa.Column('last_price', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('user_id', 'account_id', 'strategy_id', 'symbol', name=op.f('pk_positions')),
    schema='GROUP'
    )
    op.create_table('risk_limits',
    sa.Column('scope', sa.String(), nullable=False),
    sa.Column('scope_id', sa.String(), nullable=False),
    sa.Column('currency', sa.String(), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('max_order_notional', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('max_position_notional', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('max_open_positions', sa.Integer(), nullable=False),
    sa.Column('max_orders_per_second', sa.Integer(), nullable=False),
    sa.Column('max_orders_per_day', sa.Integer(), nullable=False),
    sa.Column('max_daily_loss', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('max_order_quantity', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('max_gross_notional', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('max_open_orders', sa.Integer(), nullable=True),
    sa.Column('max_orders_per_minute', sa.Integer(), nullable=True),
    sa.Column('max_drawdown', sa.Numeric(precision=38, scale=12), nullable=True),
    sa.Column('changed_by', sa.String(), nullable=False),
    sa.Column('changed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("scope in ('user', 'account', 'strategy', 'group')", name=op.f('ck_risk_limits_scope')),
    sa.PrimaryKeyConstraint('scope', 'scope_id', 'currency', 'revision', name=op.f('pk_risk_limits')),
    schema='GROUP'
    )
    op.create_table('signal_cursors',
    sa.Column('dataset_id', sa.String(), nullable=False),
    sa.Column('seq', sa.BigInteger(), nullable=False),
    sa.Column('market_time', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('dataset_id', name=op.f('pk_signal_cursors')),
    schema='GROUP'
    )
    op.create_table('subscriptions',
    sa.Column('user_id', sa.String(), nullable=False),
    sa.Column('account_id', sa.String(), nullable=False),
    sa.Column('strategy_id', sa.String(), nullable=False),
    sa.Column('capital_fraction', sa.Numeric(precision=38, scale=12), nullable=False),
    sa.Column('allow_uncertified', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('enabled', sa.Boolean(), server_default=sa.text('true'), nullable=False),
    sa.Column('changed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('changed_by', sa.String(), nullable=False),
    sa.PrimaryKeyConstraint('user_id', 'account_id', 'strategy_id', name=op.f('pk_subscriptions')),
    schema='GROUP'
    )


    for table, column in CHANGE_TIMES:
        op.create_index(f'ix_{table}_{column}', table, [column], unique=False, schema='GROUP', postgresql_using='brin')
    make_append_only('audit_log', 'audit_seals')


def make_append_only(*tables: str) -> None:
    """Refuse UPDATE, DELETE and TRUNCATE in the database itself, also for replication roles (ENABLE ALWAYS)."""
    schema = context.config.attributes['schema']
    op.execute(f"""
        create function "{schema}".refuse_change() returns trigger language plpgsql as $$
        begin
            raise exception '%.% is append-only: % refused', tg_table_schema, tg_table_name, tg_op
                using errcode = 'insufficient_privilege', hint = 'Record a correcting entry instead.';
        end $$
    """)
    for table in tables:
        op.execute(f"""
            create trigger append_only before update or delete or truncate on "{schema}".{table}
            for each statement execute function "{schema}".refuse_change()
        """)
        op.execute(f'alter table "{schema}".{table} enable always trigger append_only')


def downgrade() -> None:
    op.drop_table('subscriptions', schema='GROUP')
    op.drop_table('signal_cursors', schema='GROUP')
    op.drop_table('risk_limits', schema='GROUP')
    op.drop_table('positions', schema='GROUP')
    op.drop_index('ix_outcomes_version', table_name='outcomes', schema='GROUP')
    op.drop_index('ix_outcomes_user_exit', table_name='outcomes', schema='GROUP')
    op.drop_table('outcomes', schema='GROUP')
    op.drop_index('ix_outbox_account', table_name='outbox', schema='GROUP')
    op.drop_table('outbox', schema='GROUP')
    op.drop_index('uq_orders_venue_order', table_name='orders', schema='GROUP', postgresql_where=sa.text('venue_order_id is not null'))
    op.drop_index('ix_orders_user_time', table_name='orders', schema='GROUP')
    op.drop_index('ix_orders_open', table_name='orders', schema='GROUP', postgresql_where=sa.text("state in ('SUBMITTED', 'WORKING', 'PARTIALLY_FILLED', 'UNKNOWN')"))
    op.drop_table('orders', schema='GROUP')
    op.drop_table('legacy_sessions', schema='GROUP')
    op.drop_index('ix_intents_user_created', table_name='intents', schema='GROUP')
    op.drop_index('ix_intents_unfinished', table_name='intents', schema='GROUP', postgresql_where=sa.text("state in ('PLANNED', 'SENDING', 'SUBMITTED', 'UNKNOWN')"))
    op.drop_table('intents', schema='GROUP')
    op.drop_index('ix_fills_user_time', table_name='fills', schema='GROUP')
    op.drop_index(op.f('ix_fills_client_order_id'), table_name='fills', schema='GROUP')
    op.drop_table('fills', schema='GROUP')
    op.drop_table('equity', schema='GROUP')
    op.drop_table('engine_lease', schema='GROUP')
    op.drop_table('credentials', schema='GROUP')
    op.drop_table('breakers', schema='GROUP')
    op.drop_table('audit_seals', schema='GROUP')
    op.drop_index('ix_audit_log_user_seq', table_name='audit_log', schema='GROUP')
    op.drop_index('ix_audit_log_event_ts', table_name='audit_log', schema='GROUP')
    op.drop_table('audit_log', schema='GROUP')
    op.drop_table('accounts', schema='GROUP')
    op.execute(f'drop function "{context.config.attributes["schema"]}".refuse_change()')
