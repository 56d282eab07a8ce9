"""What migrations say about tables, in the words of pg_tenancy."""

import os

from django.db.migrations import RunSQL

OWNER = os.environ.get("OWNER_ROLE", "owner")
APP = os.environ.get("APP_ROLE", "app")
CLIENT = os.environ.get("CLIENT_ROLE", "client")


def protect(table: str, references: dict[str, str]) -> RunSQL:
    """After CreateModel, in its migration: keys that begin with the tenant, protection, and only then the application's rights."""
    keys = [f"ALTER TABLE {table} ADD FOREIGN KEY (tenant_id, {column}) REFERENCES {target}" for column, target in references.items()]
    return RunSQL(
        [
            f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD PRIMARY KEY (tenant_id, id)",
            *keys,
            f"ALTER TABLE {table} OWNER TO {OWNER}",  # one with BYPASSRLS would let triggers and views see every tenant
            f"SELECT protect_table('{table}')",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP}",
            f"GRANT SELECT, INSERT, UPDATE ON {table} TO {CLIENT}",
        ],
        reverse_sql=RunSQL.noop,
    )
