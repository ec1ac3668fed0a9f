"""A group's engine may be asked to halt

Revision: 0003
Revises: 0002
"""

from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    _allow("'RUN', 'HALT', 'FLATTEN'")


def downgrade() -> None:
    op.execute("update control.groups set desired_state = 'RUN' where desired_state = 'HALT'")
    _allow("'RUN', 'FLATTEN'")


def _allow(states: str) -> None:
    op.drop_constraint(op.f('ck_groups_desired_state'), 'groups', schema='control', type_='check')
    op.create_check_constraint(op.f('ck_groups_desired_state'), 'groups', f'desired_state in ({states})', schema='control')
