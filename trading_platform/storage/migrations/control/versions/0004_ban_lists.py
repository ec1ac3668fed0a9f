"""F&O ban lists by day

Revision: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('ban_lists',
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('underlyings', sa.ARRAY(sa.String()), nullable=False),
    sa.Column('source', sa.String(), nullable=False),
    sa.Column('fetched_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('day', name=op.f('pk_ban_lists')),
    schema='control'
    )


def downgrade() -> None:
    op.drop_table('ban_lists', schema='control')
