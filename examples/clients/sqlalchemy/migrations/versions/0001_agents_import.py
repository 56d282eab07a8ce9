"""Where agents are copied to before they move on"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import APP, give

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "agents_import",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("config", JSONB, nullable=False),
        prefixes=["UNLOGGED"],
    )
    give("agents_import")
    op.execute(f"GRANT SELECT, INSERT, DELETE ON agents_import TO {APP}")


def downgrade() -> None:
    op.drop_table("agents_import")
