"""What the models of protected tables have in common."""

import uuid

from django.db import models


class CurrentTenant(models.Func):
    """current_tenant(): the default that protect_table() gives the tenant column."""

    function = "current_tenant"
    arity = 0
    output_field = models.UUIDField()


class TenantModel(models.Model):
    """A row of a protected table.

    The table's key is (tenant_id, id). Django's is id: a transaction sees one tenant's rows only, and among them it is the key.
    tenant_id is never written: INSERT says DEFAULT. An explicit None would be NULL, which is refused (42501).
    """

    tenant_id = models.UUIDField(db_default=CurrentTenant(), editable=False)
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)

    class Meta:
        abstract = True
