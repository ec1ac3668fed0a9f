"""Subscriptions that hold nothing overnight

Revision: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import context, op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('subscriptions', sa.Column('overnight', sa.Boolean(), server_default=sa.text('true'), nullable=False), schema=_schema())


def downgrade() -> None:
    op.drop_column('subscriptions', 'overnight', schema=_schema())


def _schema() -> str:
    """ALTER TABLE is not put into a group's schema by itself, as CREATE TABLE is."""
    return str(context.config.attributes['schema'])
