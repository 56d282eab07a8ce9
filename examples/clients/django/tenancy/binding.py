"""Transactions that are bound to a tenant. Outside of one, protected tables refuse every statement (42501)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from django.db import DatabaseError, connection, transaction


class Binding(NamedTuple):
    """What binds a transaction: a statement, and the value that goes with it as a parameter."""

    statement: str
    value: str


def tenant(slug: str) -> Binding:
    """For the backend (level app), which is trusted to choose."""
    return Binding("SELECT set_tenant_by_slug(%s)", slug)


def api_key(key: str) -> Binding:
    """For the API server (level client), whose tenant is that of the key."""
    return Binding("SELECT FROM authenticate_api_key(%s)", key)


class BindingRefused(Exception):
    """The tenant was not bound: unknown, suspended, wrong key, ... The cause has the SQLSTATE."""

    def __init__(self, cause: DatabaseError) -> None:
        super().__init__(message(cause))
        self.sqlstate = sqlstate(cause)


@contextmanager
def bound(by: Binding) -> Iterator[None]:
    """A transaction of its own, for requests, commands and jobs: `with bound(tenant("acme")): ...`"""
    with transaction.atomic(durable=True):
        try:
            with connection.cursor() as cursor:
                cursor.execute(by.statement, [by.value])
        except DatabaseError as error:
            raise BindingRefused(error) from error
        yield
    if connection.in_atomic_block:  # that of a TestCase, which goes on
        with connection.cursor() as cursor:
            cursor.execute("SELECT clear_tenant()")


def sqlstate(error: DatabaseError) -> str:
    return getattr(error.__cause__, "sqlstate", None) or ""


def message(error: DatabaseError) -> str:
    return getattr(getattr(error.__cause__, "diag", None), "message_primary", None) or str(error)
