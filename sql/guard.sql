-- Read off the objects themselves. A function is exempt while it has the SET clause; the label says why.
CREATE VIEW tenancy.definer_exemptions AS
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS object,
           CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END AS kind,
           pg_catalog.substr(s.label, 9) AS reason
    FROM pg_catalog.pg_seclabel s
    JOIN pg_catalog.pg_class c ON c.oid = s.objoid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE s.provider = 'pg_tenancy' AND s.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.label LIKE 'exempt: %'
    UNION ALL
    SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.oidvectortypes(p.proargtypes)), 'function',
           pg_catalog.substr(s.label, 9)
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    LEFT JOIN pg_catalog.pg_seclabel s ON s.objoid = p.oid AND s.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND s.provider = 'pg_tenancy'
    WHERE 'tenancy.definer_exempt=on' = ANY (p.proconfig);
COMMENT ON VIEW tenancy.definer_exemptions IS
    'Views, materialized views and SECURITY DEFINER functions that may use protected tables with the rights of an owner who bypasses row security, and why. Kept by allow_definer() and disallow_definer(), on the objects themselves. Level admin.';

COMMENT ON FUNCTION allow_definer(text, text) IS
    'Exempts a view, materialized view or SECURITY DEFINER function, named as schema.view or schema.function(argument types), from the check that stops objects of bypassing owners: it may then see the rows of every tenant. Give the reason. An object that is replaced loses its exemption. Errors: 22023 no such object, no reason. Level admin. Example: SELECT allow_definer(''reports.totals()'', ''monthly figures over all tenants'');';
COMMENT ON FUNCTION disallow_definer(text) IS
    'Takes an exemption of allow_definer() back; false when there was none. Level admin. Example: SELECT disallow_definer(''reports.totals()'');';

-- What statements are planned with in place of PostgreSQL's own, where tenants have schemas: volatile, strict and unsafe in parallel as those are.
CREATE FUNCTION tenancy.nextval(regclass) RETURNS bigint LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pg_tenancy_nextval';
COMMENT ON FUNCTION tenancy.nextval(regclass) IS
    'Internal: nextval() of a sequence that the session may use; 42501 for one of another tenant. Statements that call nextval() call this, where tenants have schemas. Level public.';
CREATE FUNCTION tenancy.setval(regclass, bigint) RETURNS bigint LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pg_tenancy_setval';
COMMENT ON FUNCTION tenancy.setval(regclass, bigint) IS 'Internal: setval(), as tenancy.nextval(). Level public.';
CREATE FUNCTION tenancy.setval(regclass, bigint, boolean) RETURNS bigint LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pg_tenancy_setval3';
COMMENT ON FUNCTION tenancy.setval(regclass, bigint, boolean) IS 'Internal: setval(), as tenancy.nextval(). Level public.';
