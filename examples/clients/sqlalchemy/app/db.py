"""Engines, and sessions that bind their tenant first in each transaction."""

import os
from typing import NamedTuple

from sqlalchemy import Connection, TextClause, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction


class Binding(NamedTuple):
    """What binds a session's transactions: a statement, and the value that goes with it as a parameter."""

    statement: TextClause
    value: str


def tenant(slug: str) -> Binding:
    """For the backend (level app), which is trusted to choose."""
    return Binding(text("SELECT set_tenant_by_slug(:value)"), slug)


def api_key(key: str) -> Binding:
    """For the API server (level client), whose tenant is that of the key."""
    return Binding(text("SELECT FROM authenticate_api_key(:value)"), key)


class BindingRefused(Exception):
    """The tenant was not bound: unknown, suspended, wrong key, ... The cause has the SQLSTATE."""

    def __init__(self, cause: DBAPIError) -> None:
        super().__init__(message(cause))
        self.sqlstate = sqlstate(cause)


class TenantSession(Session):
    """Bound to info["binding"]. Without one it is bound to nobody, and protected tables refuse it (42501)."""


@event.listens_for(TenantSession, "after_begin")
def bind(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    binding: Binding | None = session.info.get("binding")
    if binding is None or transaction.nested:  # a savepoint: its transaction is bound
        return
    try:
        connection.execute(binding.statement, {"value": binding.value})
    except DBAPIError as error:
        raise BindingRefused(error) from error


def sessions(bind: AsyncEngine | AsyncConnection) -> async_sessionmaker[AsyncSession]:
    """`async with sessions(engine)(info={"binding": tenant("acme")}) as session: ...`"""
    return async_sessionmaker(bind, sync_session_class=TenantSession, expire_on_commit=False, join_transaction_mode="create_savepoint")


def engine(url: str) -> AsyncEngine:
    # PgBouncer before 1.21 knows no named prepared statements; without it they may stay (psycopg: from the 5th execution on).
    pooled = os.environ.get("POOLED") == "1"
    return create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=3,
        max_overflow=0,
        connect_args={"prepare_threshold": None} if pooled else {},
    )


def sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def message(error: DBAPIError) -> str:
    return getattr(getattr(error.orig, "diag", None), "message_primary", None) or str(error.orig)
