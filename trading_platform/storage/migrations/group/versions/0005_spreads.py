"""Spreads

Revision: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import context, op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('subscriptions', sa.Column('spread_away', sa.Numeric(precision=38, scale=12), nullable=True), schema=_schema())
    op.create_check_constraint(
        op.f('ck_subscriptions_hedge_or_spread'), 'subscriptions', 'hedge_away is null or spread_away is null', schema=_schema()
    )


def downgrade() -> None:
    op.drop_constraint(op.f('ck_subscriptions_hedge_or_spread'), 'subscriptions', schema=_schema())
    op.drop_column('subscriptions', 'spread_away', schema=_schema())


def _schema() -> str:
    """ALTER TABLE is not put into a group's schema by itself, as CREATE TABLE is."""
    return str(context.config.attributes['schema'])
