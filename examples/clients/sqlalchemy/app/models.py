"""The tables of ../../agent_platform. Keys and references begin with the tenant; the classes leave it to the database."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import TIMESTAMP, Column, FetchedValue, ForeignKeyConstraint, Index, MetaData, Numeric, Table, Text, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={  # PostgreSQL's own names
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        }
    )
    type_annotation_map = {str: Text, datetime: TIMESTAMP(timezone=True), dict[str, Any]: JSONB}


class TenantRow:
    """A row of a protected table.

    The table's key is (tenant_id, id). To a session, which sees one tenant's rows only, id alone is the key: get(Agent, id).
    tenant_id is never written: protect_table() has given it the bound tenant as default, and an explicit NULL would defeat that.
    """

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=FetchedValue(), sort_order=-2)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4, insert_sentinel=True, sort_order=-1)
    __mapper_args__ = {"primary_key": ["id"]}


def reference(column: str, table: str, ondelete: str | None = None) -> ForeignKeyConstraint:
    """The foreign key (tenant_id, column). Relationships join by the id alone, since what they join by they also write and clear."""
    return ForeignKeyConstraint(["tenant_id", column], [f"{table}.tenant_id", f"{table}.id"], ondelete=ondelete)


class User(TenantRow, Base):
    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("tenant_id", "email"), UniqueConstraint("tenant_id", "external_auth_id"))

    external_auth_id: Mapped[str]
    email: Mapped[str]
    name: Mapped[str]
    role: Mapped[str] = mapped_column(default="member")
    last_login_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Agent(TenantRow, Base):
    __tablename__ = "agents"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    name: Mapped[str]
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Workflow(TenantRow, Base):
    __tablename__ = "workflows"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        reference("created_by", "users"),
        Index(None, "tenant_id", "status"),
        Index(None, "tenant_id", "created_by"),
    )

    created_by_id: Mapped[UUID] = mapped_column("created_by")
    name: Mapped[str]
    description: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="draft")
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    temporal_workflow_id: Mapped[str | None]
    temporal_run_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    priority: Mapped[int] = mapped_column(default=0)

    created_by: Mapped[User] = relationship(primaryjoin="foreign(Workflow.created_by_id) == User.id")
    executions: Mapped[list["Execution"]] = relationship(
        primaryjoin="Workflow.id == foreign(Execution.workflow_id)", order_by="Execution.started_at", back_populates="workflow"
    )
    notes: Mapped[list["Note"]] = relationship(primaryjoin="Workflow.id == foreign(Note.workflow_id)", passive_deletes=True)


class Execution(TenantRow, Base):
    __tablename__ = "workflow_executions"
    __table_args__ = (
        reference("workflow_id", "workflows"),
        Index(None, "tenant_id", "workflow_id"),
        Index(None, "tenant_id", "started_at"),
    )

    workflow_id: Mapped[UUID]
    status: Mapped[str] = mapped_column(default="running")
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]
    input: Mapped[dict[str, Any]] = mapped_column(default=dict)
    output: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    agent_minutes_consumed: Mapped[Decimal] = mapped_column(Numeric(10, 2), default=Decimal(0))
    task_count: Mapped[int] = mapped_column(default=0)

    workflow: Mapped[Workflow] = relationship(primaryjoin="foreign(Execution.workflow_id) == Workflow.id", back_populates="executions")


class Note(TenantRow, Base):
    __tablename__ = "notes"
    __table_args__ = (reference("workflow_id", "workflows", ondelete="CASCADE"), Index(None, "tenant_id", "workflow_id"))

    workflow_id: Mapped[UUID]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


# Where COPY goes: not protected, and empty whenever a transaction ends.
agents_import = Table(
    "agents_import",
    Base.metadata,
    Column("name", Text, nullable=False),
    Column("config", JSONB, nullable=False),
    prefixes=["UNLOGGED"],
)
