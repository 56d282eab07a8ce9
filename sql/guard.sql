CREATE TABLE tenancy.definer_exemptions (
    object text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('view', 'materialized view', 'function')),
    reason text NOT NULL,
    allowed_by name NOT NULL DEFAULT session_user,
    allowed_at timestamptz NOT NULL DEFAULT now()
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.definer_exemptions', '');
COMMENT ON TABLE tenancy.definer_exemptions IS
    'Views, materialized views and SECURITY DEFINER functions that may use protected tables with the rights of an owner who bypasses row security. Kept by allow_definer() and disallow_definer().';

COMMENT ON FUNCTION allow_definer(text, text) IS
    'Exempts a view, materialized view or SECURITY DEFINER function, named as schema.view or schema.function(argument types), from the check that stops objects of bypassing owners: it may then see the rows of every tenant. Give the reason. A function that is replaced loses its exemption. Errors: 22023 no such object, no reason. Level admin. Example: SELECT allow_definer(''reports.totals()'', ''monthly figures over all tenants'');';
COMMENT ON FUNCTION disallow_definer(text) IS
    'Takes an exemption of allow_definer() back; false when there was none. Level admin. Example: SELECT disallow_definer(''reports.totals()'');';
