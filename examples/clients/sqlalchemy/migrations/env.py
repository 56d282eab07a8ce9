"""Migrations run as a role of their own, past PgBouncer: member of the owner, BYPASSRLS, level admin (README.md, Migrate)."""

import os

from alembic import context
from sqlalchemy import create_engine, make_url, pool

from app.models import Base

url = make_url(context.config.get_main_option("sqlalchemy.url") or os.environ["MIGRATOR_URL"])
engine = create_engine(url.set(drivername="postgresql+psycopg"), poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
