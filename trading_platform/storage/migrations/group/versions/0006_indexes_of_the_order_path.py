"""Indexes that an order pays for: none that nothing reads, and those that a trade's end is found by

Revision: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import context, op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is unfinished is found by the outbox. Partial indexes over `state` made every change of a state a new entry in
    all indexes of its row; and a trade's end read all intents, and all of the user's trail.
    """
    schema = context.config.attributes['schema']
    op.drop_index('ix_intents_unfinished', table_name='intents', schema=schema)
    op.drop_index('ix_orders_open', table_name='orders', schema=schema)
    op.drop_index('ix_audit_log_event_ts', table_name='audit_log', schema=schema)
    op.create_index('ix_audit_log_event_ts', 'audit_log', ['event_ts'], schema=schema, postgresql_using='brin')
    op.create_index(
        'ix_audit_log_plan', 'audit_log', ['intent_id'], schema=schema,
        postgresql_where=sa.text("event_type = 'PLAN'"),
    )
    op.create_index(
        'ix_intents_entry', 'intents', ['entry_intent_id'], schema=schema,
        postgresql_where=sa.text('entry_intent_id is not null'),
    )


def downgrade() -> None:
    schema = context.config.attributes['schema']
    op.drop_index('ix_intents_entry', table_name='intents', schema=schema)
    op.drop_index('ix_audit_log_plan', table_name='audit_log', schema=schema)
    op.drop_index('ix_audit_log_event_ts', table_name='audit_log', schema=schema)
    op.create_index('ix_audit_log_event_ts', 'audit_log', ['event_ts'], schema=schema)
    op.create_index(
        'ix_orders_open', 'orders', ['account_id'], schema=schema,
        postgresql_where=sa.text("state in ('SUBMITTED', 'WORKING', 'PARTIALLY_FILLED', 'UNKNOWN')"),
    )
    op.create_index(
        'ix_intents_unfinished', 'intents', ['account_id', 'created_at'], schema=schema,
        postgresql_where=sa.text("state in ('PLANNED', 'SENDING', 'SUBMITTED', 'UNKNOWN')"),
    )
