"""Notes of workflows"""

import uuid

import django.db.models.functions.datetime
from django.db import migrations, models
from django.db.models.deletion import CASCADE

import tenancy.models
from tenancy.operations import protect


class Migration(migrations.Migration):
    dependencies = [("agents", "0002_agents_import")]

    operations = [
        migrations.CreateModel(
            "Note",
            [
                ("tenant_id", models.UUIDField(db_default=tenancy.models.CurrentTenant(), editable=False)),
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("workflow", models.ForeignKey("agents.workflow", CASCADE, db_constraint=False, db_index=False, related_name="notes")),
                ("body", models.TextField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            {
                "db_table": "notes",
                "indexes": [models.Index(fields=["tenant_id", "workflow"], name="notes_tenant_id_workflow_id")],
            },
        ),
        protect("notes", {"workflow_id": "workflows (tenant_id, id) ON DELETE CASCADE"}),
    ]
