"""The tables that were there before Django: ../../../../agent_platform/schema.sql. Django hears of them, the database does nothing."""

import uuid

import django.db.models.functions.datetime
from django.db import migrations, models
from django.db.models.deletion import PROTECT

import tenancy.models
import tenancy.operations


def row(*fields):
    return [
        ("tenant_id", models.UUIDField(db_default=tenancy.models.CurrentTenant(), editable=False)),
        ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
        *fields,
    ]


def created_at(name="created_at"):
    return (name, models.DateTimeField(db_default=django.db.models.functions.datetime.Now()))


def unique(table, column):
    return models.UniqueConstraint(fields=["tenant_id", column], name=f"{table}_tenant_id_{column}_key")


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    tables = [
        migrations.CreateModel(
            "User",
            row(
                ("external_auth_id", models.TextField()),
                ("email", models.TextField()),
                ("name", models.TextField()),
                ("role", models.TextField(default="member")),
                ("last_login_at", models.DateTimeField(null=True)),
                created_at(),
            ),
            {"db_table": "users", "constraints": [unique("users", "email"), unique("users", "external_auth_id")]},
        ),
        migrations.CreateModel(
            "Agent",
            row(
                ("name", models.TextField()),
                ("config", models.JSONField(blank=True, default=dict)),
                created_at(),
            ),
            {"db_table": "agents", "constraints": [unique("agents", "name")]},
        ),
        migrations.CreateModel(
            "Workflow",
            row(
                (
                    "created_by",
                    models.ForeignKey(
                        "agents.user", PROTECT, db_column="created_by", db_constraint=False, db_index=False, related_name="workflows"
                    ),
                ),
                ("name", models.TextField()),
                ("description", models.TextField(null=True)),
                ("status", models.TextField(default="draft")),
                ("config", models.JSONField(default=dict)),
                ("temporal_workflow_id", models.TextField(null=True)),
                ("temporal_run_id", models.TextField(null=True)),
                created_at(),
                created_at("updated_at"),
            ),
            {"db_table": "workflows", "constraints": [unique("workflows", "name")]},
        ),
        migrations.CreateModel(
            "Execution",
            row(
                ("workflow", models.ForeignKey("agents.workflow", PROTECT, db_constraint=False, db_index=False, related_name="executions")),
                ("status", models.TextField(default="running")),
                created_at("started_at"),
                ("completed_at", models.DateTimeField(null=True)),
                ("input", models.JSONField(default=dict)),
                ("output", models.JSONField(null=True)),
                ("error", models.TextField(null=True)),
                ("agent_minutes_consumed", models.DecimalField(decimal_places=2, default=0, max_digits=10)),
                ("task_count", models.IntegerField(default=0)),
            ),
            {"db_table": "workflow_executions", "ordering": ["started_at"]},
        ),
    ]

    # runserver and makemigrations look into Django's own table as the application.
    operations = [
        migrations.SeparateDatabaseAndState(state_operations=tables),
        migrations.RunSQL(f"GRANT SELECT ON django_migrations TO {tenancy.operations.APP}", migrations.RunSQL.noop),
    ]
