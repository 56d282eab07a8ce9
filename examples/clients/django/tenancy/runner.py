"""The test database: a copy of a template that has the extension, in which one transaction may bind one tenant after another."""

from typing import Any

from django.db import connections
from django.db.models.signals import pre_migrate
from django.test.runner import DiscoverRunner

# A copy has its template's objects, but neither its settings nor its rights.
SETTINGS = """
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %1$I SET search_path = agent_platform, public', current_database());
        EXECUTE format('ALTER DATABASE %1$I SET tenancy.allow_rebind = on', current_database());
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %1$I FROM PUBLIC', current_database());
    END $$"""


def settle(using: str, **_: Any) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(SETTINGS)
    connections[using].close()  # the next one has them


class TenantRunner(DiscoverRunner):
    def get_databases(self, suite: Any) -> Any:
        return {"migrator": False, **super().get_databases(suite)}

    def setup_databases(self, **kwargs: Any) -> Any:
        pre_migrate.connect(settle)
        try:
            return super().setup_databases(**kwargs)
        finally:
            pre_migrate.disconnect(settle)
