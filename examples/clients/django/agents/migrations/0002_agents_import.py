"""Where agents are copied to before they move on: not protected, and empty whenever a transaction ends."""

from django.db import migrations

from tenancy.operations import APP, give


class Migration(migrations.Migration):
    dependencies = [("agents", "0001_initial")]

    operations = [
        migrations.RunSQL(
            [
                "CREATE UNLOGGED TABLE agents_import (name text NOT NULL, config jsonb NOT NULL)",
                give("agents_import"),
                f"GRANT SELECT, INSERT, DELETE ON agents_import TO {APP}",
            ],
            "DROP TABLE agents_import",
        )
    ]
