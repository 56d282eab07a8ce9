"""Workflows have a priority"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("workflows", sa.Column("priority", sa.Integer, server_default="0"))
    op.execute("UPDATE workflows SET priority = CASE status WHEN 'active' THEN 1 ELSE 0 END")  # of every tenant: the migrator bypasses
    op.alter_column("workflows", "priority", nullable=False)


def downgrade() -> None:
    op.drop_column("workflows", "priority")
