#!/usr/bin/env bash
# usage: tools/tenant-restore.sh [--no-template] DIRECTORY
#
# Brings a tenant back from what tools/tenant-backup.sh wrote into DIRECTORY. It is the same tenant by its id.
#
# One that was in shared tables or in a database of its own is loaded by import_tenant(): where the database knows it, its rows are
# replaced wherever it is now, and the rest stays; where it does not, it comes as it was, into the isolation that it had. The role
# needs level admin, and TEMPORARY on the database. Of one that was in a schema:
#
# - Where the database knows it, its schema is replaced: tables, rows, positions of sequences, applied migrations and allowed drift
#   become those of the backup. What the registry says otherwise (slug, name, plan, state) stays, as do members and keys.
# - Where it does not, in another database or after a purge, the tenant is registered with the id, slug, name, plan, metadata,
#   external id and state that it had. One that was deleted comes as cancelled; restore_tenant() opens it. Its plan must exist.
#
# All of it is one transaction: whatever fails leaves everything as it was. Other tenants are not touched and go on working; the
# tenant's own transactions wait until its schema is replaced. The schema gets the name that it had.
#
# The template that the schema was made from must be registered, with every migration that the backup has, of the same content:
# migrate_tenants() goes on from there. --no-template leaves the tenant without one, out of the reach of migrations.
#
# The server, the database and the role come from libpq's environment variables (PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSFILE,
# PGSERVICE ...); psql and pg_restore, no older than the pg_dump of the backup, from the PATH. The role must be a superuser, since
# it is a label on the schema that makes it the tenant's. Roles and extensions that the schema names must exist. As with any restore,
# what the schema's owner wrote into checks and defaults runs as that superuser: restore only what you trust.
#
#     PGDATABASE=crm PGUSER=postgres tools/tenant-restore.sh /backups/acme-2026-11-22
#
# Ends with status 0, with 1 when nothing was restored (a message says why), with 2 when called wrongly. ANALYZE afterwards:
# SELECT maintenance_commands('ANALYZE', find_tenant('acme')) \gexec
set -euo pipefail

usage() {
    sed -n '2,/^set -e/ { /^#/ s/^# \{0,1\}//p; }' "$0" >&2
    exit 2
}

fail() {
    printf 'tenant-restore: %s\n' "$*" >&2
    exit 1
}

with_template=true
if [ "${1-}" = --no-template ]; then
    with_template=false
    shift
fi
if [ $# -ne 1 ] || [ -z "$1" ]; then
    usage
fi
case $1 in -*) usage ;; esac

home=$(cd -- "$1" && pwd -P) || fail "there is no directory $1"
readonly home with_template
if [ -r "$home/tenant.export" ]; then
    [ "$with_template" = true ] || fail "--no-template is for tenants in a schema"
    export PGCLIENTENCODING=UTF8 TENANT_RESTORE_HOME=$home
    answer=$(psql -X -q -A -t -v ON_ERROR_STOP=1 -f - <<'SQL'
\o /dev/null
SELECT pg_catalog.set_config('search_path', '', false);
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout');
\cd `printf %s "$TENANT_RESTORE_HOME"`
CREATE TEMPORARY TABLE tenant_export (seq bigint, kind text, name text, data text);
\copy pg_temp.tenant_export FROM 'tenant.export'
SELECT pg_catalog.quote_ident(x.nspname) || '.import_tenant' AS import, coalesce(h.data::jsonb ->> 'isolation', '') AS isolation,
       EXISTS (SELECT FROM tenancy.tenants AS t WHERE t.id::text = h.name) AS is_known
FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS x ON x.oid = e.extnamespace
LEFT JOIN pg_temp.tenant_export AS h ON h.kind = 'header' WHERE e.extname = 'pg_tenancy' \gset
\if :is_known
    CALL :import('pg_temp.tenant_export', 'replace');
\else
    CALL :import('pg_temp.tenant_export', isolation => :'isolation');
\endif
\o
\echo restored
SQL
    ) || fail "nothing was restored, see above"
    [ "$answer" = restored ] || fail "nothing was restored"
    printf 'the tenant of %s is restored\n' "$1"
    exit 0
fi
for file in registry.json schema.dump; do
    [ -r "$home/$file" ] || fail "$1 is no backup of a tenant: it has no $file"
done
pg_restore -l "$home/schema.dump" >/dev/null || fail "$1/schema.dump cannot be read"

export PGCLIENTENCODING=UTF8
export TENANT_RESTORE_REGISTRY=$home/registry.json

# Makes room for the tenant's schema.
before() {
    cat <<'SQL'
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT pg_catalog.set_config('search_path', '', true);
SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout');
\set registry `cat "$TENANT_RESTORE_REGISTRY"`

SELECT CASE
    WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_tenancy') THEN 'database "' || pg_catalog.current_database() || '" has no pg_tenancy'
    WHEN NOT r.rolsuper THEN 'role "' || r.rolname || '" is no superuser, and only a superuser may label schemas'
    WHEN :'registry'::jsonb ->> 'format' IS DISTINCT FROM '1' THEN 'the backup is of another format than this script knows'
    ELSE '' END AS problem
FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user \gset
SELECT :'problem' <> '' AS refused \gset
\if :refused
    \warn tenant-restore: :problem
    \quit
\endif

CREATE TEMPORARY TABLE restored ON COMMIT DROP AS
SELECT t.*, CASE WHEN :with_template THEN t.template END AS new_template
FROM pg_catalog.jsonb_populate_record(NULL::tenancy.tenants, :'registry'::jsonb -> 'tenant') AS t;
CREATE TEMPORARY TABLE restored_migrations ON COMMIT DROP AS
SELECT m.version, m.checksum, m.applied_at
FROM pg_catalog.jsonb_to_recordset(:'registry'::jsonb -> 'applied_migrations') AS m (version text, checksum text, applied_at timestamptz);
-- It cannot go meanwhile.
SELECT FROM tenancy.templates WHERE template = (SELECT new_template FROM pg_temp.restored) FOR SHARE;

SELECT CASE
    WHEN t.isolation <> 'schema' THEN 'tenant "' || t.slug || '" has no schema of its own here, but isolation ' || t.isolation
    WHEN t.status IN ('deleted', 'provisioning', 'moving') THEN 'tenant "' || t.slug || '" is ' || t.status
        || CASE t.status WHEN 'deleted' THEN ': call restore_tenant() first' ELSE ': try again when it is not' END
    WHEN t.id IS NULL AND o.id IS NOT NULL THEN 'slug "' || r.slug || '" is another tenant''s here'
    WHEN r.new_template IS NOT NULL AND NOT EXISTS (SELECT FROM tenancy.templates AS e WHERE e.template = r.new_template)
        THEN 'there is no template "' || r.new_template || '" here: register_template() makes it, or --no-template does without'
    WHEN r.new_template IS NOT NULL AND EXISTS (
        SELECT FROM pg_temp.restored_migrations AS a LEFT JOIN tenancy.migrations AS m ON m.template = r.new_template AND m.version = a.version COLLATE "C"
        WHERE m.checksum IS DISTINCT FROM a.checksum)
        THEN 'the backup has migrations that template "' || r.new_template || '" here has not, or not with this content: '
        || (SELECT pg_catalog.string_agg(a.version, ', ' ORDER BY a.version)
            FROM pg_temp.restored_migrations AS a LEFT JOIN tenancy.migrations AS m ON m.template = r.new_template AND m.version = a.version COLLATE "C"
            WHERE m.checksum IS DISTINCT FROM a.checksum)
        || '; add_migration() adds them, or --no-template does without'
    ELSE '' END AS problem, t.id IS NOT NULL AS is_known, x.nspname AS extension_schema
FROM pg_temp.restored AS r LEFT JOIN tenancy.tenants AS t ON t.id = r.id LEFT JOIN tenancy.tenants AS o ON o.slug = r.slug
CROSS JOIN pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS x ON x.oid = e.extnamespace WHERE e.extname = 'pg_tenancy' \gset
SELECT :'problem' <> '' AS refused \gset
\if :refused
    \warn tenant-restore: :problem
    \quit
\endif

\if :is_known
    SELECT :"extension_schema".delete_tenant_schema(id) FROM pg_temp.restored;
\else
    SELECT :"extension_schema".create_tenant(name, slug => slug, plan => plan, isolation => 'row', metadata => metadata, id => id, external_id => external_id)
    FROM pg_temp.restored;
    UPDATE tenancy.tenants AS t
    SET isolation = 'schema', created_at = r.created_at, status_since = r.status_since, status_reason = r.status_reason,
        status = CASE r.status WHEN 'deleted' THEN 'cancelled' ELSE r.status END
    FROM pg_temp.restored AS r WHERE t.id = r.id;
\endif
SQL
}

# Tells the registry about the schema, whose label has made it the tenant's; the commit.
after() {
    cat <<'SQL'
UPDATE tenancy.tenants AS t SET template = r.new_template, updated_at = pg_catalog.now() FROM pg_temp.restored AS r WHERE t.id = r.id;
-- A schema that was dropped by hand has left these.
DELETE FROM tenancy.applied_migrations WHERE tenant_id = (SELECT id FROM pg_temp.restored);
DELETE FROM tenancy.failed_migrations WHERE tenant_id = (SELECT id FROM pg_temp.restored);
DELETE FROM tenancy.allowed_drift WHERE tenant_id = (SELECT id FROM pg_temp.restored);
INSERT INTO tenancy.applied_migrations (template, tenant_id, version, applied_at)
SELECT r.new_template, r.id, a.version, a.applied_at FROM pg_temp.restored AS r, pg_temp.restored_migrations AS a WHERE r.new_template IS NOT NULL;
INSERT INTO tenancy.allowed_drift
SELECT d.* FROM pg_catalog.jsonb_populate_recordset(NULL::tenancy.allowed_drift, :'registry'::jsonb -> 'allowed_drift') AS d
WHERE d.tenant_id = (SELECT id FROM pg_temp.restored);
INSERT INTO tenancy.audit_log (session_user_name, outer_user_name, tenant_id, action, target, after)
SELECT session_user, current_user, t.id, 'tenant.restore_schema', t.slug, pg_catalog.jsonb_build_object(
    'schema_name', t.schema_name, 'template', t.template, 'taken_at', :'registry'::jsonb -> 'taken_at', 'from', :'registry'::jsonb -> 'database')
FROM tenancy.tenants AS t JOIN pg_temp.restored AS r USING (id);

SELECT NOT EXISTS (
    SELECT FROM pg_temp.restored AS r JOIN tenancy.tenants AS t USING (id) JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
    JOIN pg_catalog.pg_seclabel AS l ON l.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND l.objoid = n.oid
    WHERE l.provider = 'pg_tenancy' AND l.label = 'tenant: ' || t.id AND n.nspname = r.schema_name) AS refused \gset
\if :refused
    \warn tenant-restore: schema.dump does not make the schema that registry.json tells of
    \quit
\endif
COMMIT;
\echo restored
SQL
}

# The commit is sent when pg_restore has succeeded; without it the end of psql's session undoes everything.
answer=$({ before && pg_restore -f - "$home/schema.dump" && after; } | psql -X -q -A -t -o /dev/null -v ON_ERROR_STOP=1 -v with_template="$with_template" -f -) ||
    fail "nothing was restored, see above"
[ "$answer" = restored ] || fail "nothing was restored"
printf 'the tenant of %s is restored\n' "$1"
