"""What migrations say about tables, in the words of pg_tenancy."""

import os

from alembic import op

OWNER = os.environ.get("OWNER_ROLE", "owner")
APP = os.environ.get("APP_ROLE", "app")
CLIENT = os.environ.get("CLIENT_ROLE", "client")


def give(table: str) -> None:
    """To the owner of the others: one with BYPASSRLS would let the table's triggers and views see every tenant."""
    op.execute(f"ALTER TABLE {table} OWNER TO {OWNER}")


def protect(table: str) -> None:
    """In the transaction that makes the table, and before anybody may read it."""
    give(table)
    op.execute(f"SELECT protect_table('{table}')")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {CLIENT}")
