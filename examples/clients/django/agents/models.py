"""The tables of ../../agent_platform. Keys and references begin with the tenant; the models leave it to the database."""

from typing import Any

from django.db import models
from django.db.models.functions import Now

from tenancy.models import TenantModel


def reference(to: str, on_delete: Any, **options: Any) -> models.ForeignKey:
    """The table's foreign key is (tenant_id, column), and so is the index: both are the migration's."""
    return models.ForeignKey(to, on_delete, db_constraint=False, db_index=False, **options)


class User(TenantModel):
    external_auth_id = models.TextField()
    email = models.TextField()
    name = models.TextField()
    role = models.TextField(default="member")
    last_login_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "users"
        constraints = [
            models.UniqueConstraint(fields=["tenant_id", "email"], name="users_tenant_id_email_key"),
            models.UniqueConstraint(fields=["tenant_id", "external_auth_id"], name="users_tenant_id_external_auth_id_key"),
        ]


class Agent(TenantModel):
    name = models.TextField()
    config = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "agents"
        constraints = [models.UniqueConstraint(fields=["tenant_id", "name"], name="agents_tenant_id_name_key")]


class Workflow(TenantModel):
    created_by = reference("User", models.PROTECT, db_column="created_by", related_name="workflows")
    name = models.TextField()
    description = models.TextField(null=True)
    status = models.TextField(default="draft")
    config = models.JSONField(default=dict)
    temporal_workflow_id = models.TextField(null=True)
    temporal_run_id = models.TextField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    priority = models.IntegerField(db_default=0)

    class Meta:
        db_table = "workflows"
        constraints = [models.UniqueConstraint(fields=["tenant_id", "name"], name="workflows_tenant_id_name_key")]


class Execution(TenantModel):
    workflow = reference("Workflow", models.PROTECT, related_name="executions")
    status = models.TextField(default="running")
    started_at = models.DateTimeField(db_default=Now())
    completed_at = models.DateTimeField(null=True)
    input = models.JSONField(default=dict)
    output = models.JSONField(null=True)
    error = models.TextField(null=True)
    agent_minutes_consumed = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    task_count = models.IntegerField(default=0)

    class Meta:
        db_table = "workflow_executions"
        ordering = ["started_at"]


class Note(TenantModel):
    workflow = reference("Workflow", models.CASCADE, related_name="notes")
    body = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "notes"
        indexes = [models.Index(fields=["tenant_id", "workflow"], name="notes_tenant_id_workflow_id")]
