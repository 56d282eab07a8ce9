"""A test database from a template that has the extension, and per test one transaction that is rolled back."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from app import db
from migrations.once import let_protect

NAME = "test_sqlalchemy"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def database() -> Iterator[URL]:
    """The migrator has CREATEDB and may SET tenancy.allow_rebind, which is the test database's, and never the application's."""
    migrator = make_url(os.environ["MIGRATOR_URL"])
    template, name = sql.Identifier(os.environ["TEST_TEMPLATE"]), sql.Identifier(NAME)
    with psycopg.connect(os.environ["MIGRATOR_URL"], autocommit=True) as connection:
        search_path = connection.execute("SELECT current_setting('search_path')").fetchone()
        assert search_path is not None
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, template))
        connection.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))
        connection.execute(sql.SQL("ALTER DATABASE {} SET search_path = {}").format(name, sql.SQL(search_path[0])))
        connection.execute(sql.SQL("ALTER DATABASE {} SET tenancy.allow_rebind = on").format(name))
        let_protect(make_url(os.environ["ADMIN_URL"]).set(database=NAME), migrator)
        alembic = Config(Path(__file__).parents[1] / "alembic.ini")
        alembic.set_main_option("sqlalchemy.url", migrator.set(database=NAME).render_as_string(hide_password=False))
        command.upgrade(alembic, "head")
        yield migrator.set(database=NAME, username=make_url(os.environ["APP_URL"]).username)
        connection.execute(sql.SQL("DROP DATABASE {}").format(name))


@pytest.fixture
async def sessions(database: URL) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions one after another in one transaction: their commits end savepoints, and each binds its tenant anew."""
    event.listen(db.TenantSession, "after_begin", unbind, insert=True)
    engine = db.engine(database.render_as_string(hide_password=False))
    async with engine.connect() as connection, connection.begin() as transaction:
        yield db.sessions(connection)
        await transaction.rollback()
    await engine.dispose()
    event.remove(db.TenantSession, "after_begin", unbind)


def unbind(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    """What the session before has bound outlives its savepoint."""
    if not transaction.nested:
        connection.execute(text("SELECT clear_tenant()"))
