"""What migrations say about tables, in the words of pg_tenancy."""

import os

from alembic import op
from sqlalchemy import make_url, text

# In a deployment these are names.
APP = f'"{make_url(os.environ["APP_URL"]).username}"'
CLIENT = f'"{make_url(os.environ["CLIENT_URL"]).username}"'


def give(table: str) -> None:
    """To the schema's owner: one with BYPASSRLS would let the table's triggers and views see every tenant."""
    owner = op.get_bind().scalar(text("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = current_schema()"))
    op.execute(f"ALTER TABLE {table} OWNER TO {owner}")


def protect(table: str) -> None:
    """In the transaction that makes the table, and before anybody may read it."""
    give(table)
    op.execute(f"SELECT protect_table('{table}')")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {CLIENT}")
