#!/usr/bin/env bash
# usage: tools/tenant-backup.sh SLUG DIRECTORY
#
# Writes one tenant into DIRECTORY, which is made and must not exist, as of one moment, while everybody goes on working; only a
# sequence may be ahead of it, since sequences stand outside of transactions. Of a tenant in a schema:
#
#     schema.dump      an archive of pg_dump -Fc: the schema alone, with its rows and definitions
#     registry.json    the tenant's row of the registry, its applied migrations, its allowed drift
#
# Of a tenant in shared tables or in a database of its own:
#
#     tenant.export    what export_tenant() gives: its rows, and what is known of it (people, keys, limits, usage, bills)
#
# The server, the database and the role come from libpq's environment variables (PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSFILE,
# PGSERVICE ...); psql and pg_dump, which should be as new as the server, from the PATH; PGDATABASE is the database that has the
# registry. For a tenant in a schema the least role needs no level of pg_tenancy, but must see every row of the tenant; for the others
# it needs level admin:
#
#     CREATE ROLE backup LOGIN BYPASSRLS IN ROLE pg_read_all_data;
#     PGDATABASE=crm PGUSER=backup tools/tenant-backup.sh acme /backups/acme-2026-11-22
#
# Not in the backup of a tenant in a schema: its rows in shared tables, its members, keys and invitations. In none: plans, roles,
# extensions, templates, definitions of shared tables; those belong to the database, whose backup is pg_dump of the whole.
# tools/tenant-restore.sh brings a tenant back.
#
# Ends with status 0, with 1 when there is no backup (a message says why, and no directory is left), with 2 when called wrongly.
set -euo pipefail
umask 077

if [ $# -ne 2 ] || [ -z "$1" ] || [ -z "$2" ]; then
    sed -n '2,/^set -e/ { /^#/ s/^# \{0,1\}//p; }' "$0" >&2
    exit 2
fi
slug=$1
directory=$2
readonly slug directory

# Names of schemas reach pg_dump by its command line: in the encoding that it speaks with the server.
export PGCLIENTENCODING=UTF8

fail() {
    printf 'tenant-backup: %s\n' "$*" >&2
    exit 1
}

if [ -e "$directory" ] || [ -L "$directory" ]; then
    fail "$directory exists already"
fi
mkdir -- "$directory" || fail "cannot make $directory"
home=$(cd -- "$directory" && pwd -P)
readonly home
finished=
trap '[ -n "$finished" ] || rm -rf -- "$home"' EXIT

# psql keeps the snapshot that both parts are read with, and starts pg_dump. As backslash commands tell no status before
# PostgreSQL 16, a file says that pg_dump has succeeded.
export TENANT_BACKUP_HOME=$home
psql -X -q -A -t -v ON_ERROR_STOP=1 -v slug="$slug" -f - <<'SQL' || fail "the backup of $slug failed, see above"
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
\o /dev/null
SELECT pg_catalog.set_config('search_path', '', true);
-- This session waits for pg_dump as long as that takes.
SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout');
\o

SELECT CASE
    WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_tenancy') THEN 'database "' || pg_catalog.current_database() || '" has no pg_tenancy'
    ELSE '' END AS problem \gset
SELECT :'problem' <> '' AS refused \gset
\if :refused
    \warn tenant-backup: :problem
    \quit
\endif

SELECT pg_catalog.quote_ident(n.nspname) || '.export_tenant' AS export,
    pg_catalog.has_function_privilege(pg_catalog.quote_ident(n.nspname) || '.export_tenant(uuid)', 'EXECUTE') AS is_admin
FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'pg_tenancy' \gset
SELECT CASE WHEN r.rolsuper OR r.rolbypassrls OR :'is_admin' THEN ''
    ELSE 'role "' || r.rolname || '" may not read every row: it needs BYPASSRLS and membership in pg_read_all_data, or level admin for a tenant that is in no schema'
    END AS problem
FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user \gset
SELECT :'problem' <> '' AS refused \gset
\if :refused
    \warn tenant-backup: :problem
    \quit
\endif

SELECT CASE WHEN t.id IS NULL THEN 'there is no tenant "' || :'slug' || '"'
    WHEN t.isolation <> 'schema' AND NOT :'is_admin' THEN 'role "' || current_user || '" needs level admin: tenant "' || t.slug || '" is in no schema'
    ELSE '' END AS problem, coalesce(t.isolation <> 'schema', false) AS is_exported, t.id
FROM (VALUES (1)) AS one LEFT JOIN tenancy.tenants AS t ON t.slug = :'slug' \gset
SELECT :'problem' <> '' AS refused \gset
\if :refused
    \warn tenant-backup: :problem
    \quit
\endif
\if :is_exported
    \cd `printf %s "$TENANT_BACKUP_HOME"`
    COPY (SELECT seq, kind, name, data FROM :export(:'id') ORDER BY seq) TO STDOUT (ENCODING 'UTF8') \g tenant.export
    COMMIT;
    \! : >finished
    \quit
\endif

SELECT CASE WHEN r.rolsuper OR r.rolbypassrls THEN ''
    ELSE 'role "' || r.rolname || '" may not read every row: it needs BYPASSRLS and membership in pg_read_all_data' END AS problem
FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user \gset
SELECT :'problem' <> '' AS refused \gset
\if :refused
    \warn tenant-backup: :problem
    \quit
\endif

SELECT CASE
    WHEN t.id IS NULL THEN 'there is no tenant "' || :'slug' || '"'
    WHEN t.status IN ('provisioning', 'moving') THEN 'tenant "' || t.slug || '" is ' || t.status || ': try again when it is not'
    WHEN t.schema_name IS NULL THEN 'tenant "' || t.slug || '" has no schema'
    WHEN n.oid IS NULL THEN 'schema "' || t.schema_name || '" of tenant "' || t.slug || '" does not exist'
    WHEN l.label IS NULL THEN 'schema "' || n.nspname || '" is not labelled as that of tenant "' || t.slug || '"'
    ELSE '' END AS problem, t.id, '"' || pg_catalog.replace(n.nspname, '"', '""') || '"' AS pattern
FROM (VALUES (1)) AS one LEFT JOIN tenancy.tenants AS t ON t.slug = :'slug'
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema_name
LEFT JOIN pg_catalog.pg_seclabel AS l ON l.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND l.objoid = n.oid
    AND l.provider = 'pg_tenancy' AND l.label = 'tenant: ' || t.id \gset
SELECT :'problem' <> '' AS refused \gset
\if :refused
    \warn tenant-backup: :problem
    \quit
\endif

\cd `printf %s "$TENANT_BACKUP_HOME"`
\o registry.json
SELECT pg_catalog.jsonb_pretty(pg_catalog.jsonb_build_object(
    'format', 1,
    'taken_at', pg_catalog.now(),
    'database', pg_catalog.current_database(),
    'extension_version', (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_tenancy'),
    'tenant', (SELECT pg_catalog.to_jsonb(t) FROM tenancy.tenants AS t WHERE t.id = :'id'),
    'applied_migrations', (
        SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(a) || pg_catalog.jsonb_build_object('checksum', m.checksum) ORDER BY m.position), '[]')
        FROM tenancy.applied_migrations AS a LEFT JOIN tenancy.migrations AS m USING (template, version) WHERE a.tenant_id = :'id'),
    'allowed_drift', (
        SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(d) ORDER BY d.object), '[]')
        FROM tenancy.allowed_drift AS d WHERE d.tenant_id = :'id')));
\o
SELECT pg_catalog.pg_export_snapshot() AS snapshot \gset
\setenv TENANT_BACKUP_SNAPSHOT :snapshot
\setenv TENANT_BACKUP_PATTERN :pattern
\! pg_dump -Fc --snapshot="$TENANT_BACKUP_SNAPSHOT" --strict-names -n "$TENANT_BACKUP_PATTERN" -f schema.dump </dev/null && : >finished
COMMIT;
SQL

[ -e "$home/finished" ] || fail "there is no backup of $slug"
[ -s "$home/registry.json" ] || [ -s "$home/tenant.export" ] || fail "cannot write into $directory"
rm -- "$home/finished"
finished=yes
printf 'tenant %s is in %s\n' "$slug" "$directory"
