-- One request: the script in "script", in a transaction that is bound to the tenant in "tenant".
-- An error ends the script (ON_ERROR_STOP), and with it the transaction.
BEGIN;
SELECT set_tenant_by_slug(:'tenant') \g /dev/null
\ir :script
COMMIT;
