"""What migrations say about tables, in the words of pg_tenancy."""

import os
from urllib.parse import urlsplit

from django.db.migrations import RunSQL

# In a deployment these are names.
APP = f'"{urlsplit(os.environ["APP_URL"]).username}"'
CLIENT = f'"{urlsplit(os.environ["CLIENT_URL"]).username}"'


def give(table: str) -> str:
    """To the schema's owner: one with BYPASSRLS would let the table's triggers and views see every tenant."""
    owner = "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = current_schema()"
    return f"DO $$ BEGIN EXECUTE format('ALTER TABLE {table} OWNER TO %s', ({owner})); END $$"


def protect(table: str, references: dict[str, str]) -> RunSQL:
    """After CreateModel, in its migration: keys that begin with the tenant, protection, and only then the application's rights."""
    return RunSQL(
        [
            f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD PRIMARY KEY (tenant_id, id)",
            *(f"ALTER TABLE {table} ADD FOREIGN KEY (tenant_id, {column}) REFERENCES {key}" for column, key in references.items()),
            give(table),
            f"SELECT protect_table('{table}')",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP}",
            f"GRANT SELECT, INSERT, UPDATE ON {table} TO {CLIENT}",
        ],
        reverse_sql=RunSQL.noop,
    )
