"""Workflows have a priority"""

from django.db import migrations, models


def fill_in(apps, schema_editor):
    """Of every tenant: the migrator bypasses row security."""
    workflows = apps.get_model("agents", "Workflow").objects.using(schema_editor.connection.alias)
    workflows.filter(status="active").update(priority=1)
    workflows.exclude(status="active").update(priority=0)


class Migration(migrations.Migration):
    dependencies = [("agents", "0003_note")]

    operations = [
        migrations.AddField("workflow", "priority", models.IntegerField(null=True)),
        migrations.RunPython(fill_in, migrations.RunPython.noop),
        migrations.AlterField("workflow", "priority", models.IntegerField(db_default=0)),
    ]
