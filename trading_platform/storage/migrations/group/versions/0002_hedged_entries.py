"""Hedged entries

Revision: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import context, op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('subscriptions', sa.Column('hedge_away', sa.Numeric(precision=38, scale=12), nullable=True), schema=_schema())


def downgrade() -> None:
    op.drop_column('subscriptions', 'hedge_away', schema=_schema())


def _schema() -> str:
    """ALTER TABLE is not put into a group's schema by itself, as CREATE TABLE is."""
    return str(context.config.attributes['schema'])
