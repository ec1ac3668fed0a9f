"""Drift by market condition

Revision: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('drift_reports', sa.Column('conditions', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False), schema='control')


def downgrade() -> None:
    op.drop_column('drift_reports', 'conditions', schema='control')
