#!/usr/bin/env bash
# The demo: an example on a private, throwaway PostgreSQL server that goes on running afterwards.
#
#   tools/demo.sh         builds the server anew, replacing a previous demo of the same user, and tells the story
#   tools/demo.sh stop    stops the server and removes its directory
#
# EXAMPLE names the example, agent_platform, workspaces, crm, capital_planning or hybrid; PG the PostgreSQL major version, for
# which the extension must have been packaged: make demo does that first.
# Local users who did not start the demo cannot enter it: its socket lies in a private directory, and TCP asks
# for a password and refuses the superuser.
set -euo pipefail
umask 022

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PG=${PG:-$("$repo/tools/pg.sh" major)}
export PG
user=$(id -un)
home=/tmp/pg_tenancy_demo.$user
example=${EXAMPLE:-agent_platform}
readonly repo user home example

# Settings of the caller's own servers must not reach this one.
for variable in "${!PG@}"; do
    case $variable in PG | PG_CONFIG) ;; *) unset "$variable" ;; esac
done
unset RUST_BACKTRACE # the server would add it to every error's detail

fail() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

# PostgreSQL does not run as root.
as_server() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && runuser -u postgres -- "$@")
    else
        (cd / && "$@")
    fi
}

# /tmp belongs to everyone: a directory somebody else made there is not followed.
check_home() {
    if [ -L "$home" ] || { [ -e "$home" ] && ! { [ -d "$home" ] && [ -O "$home" ]; }; }; then
        fail "$home exists and is not a directory of $user's; remove it first"
    fi
}

stop_server() {
    local pg_ctl=$home/pg/bin/pg_ctl
    if [ -x "$pg_ctl" ] && as_server "$pg_ctl" status -D "$home/data" >/dev/null 2>&1; then
        as_server "$pg_ctl" stop -D "$home/data" -m fast -w >/dev/null || fail "the server in $home/data does not stop"
    fi
}

stop_demo() {
    check_home
    [ -d "$home" ] || return 1
    stop_server
    rm -rf -- "$home" || fail "cannot remove $home"
}

make_home() {
    mkdir -m 0755 "$home" # fails if somebody was faster
    mkdir -m 0700 "$home/data" "$home/run"
    if [ "$(id -u)" -eq 0 ]; then
        chown postgres: "$home/data" "$home/run"
    fi
}

init_cluster() {
    as_server "$bin/initdb" -D "$home/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$home/initdb.log" 2>&1 ||
        fail "initdb failed, see $home/initdb.log"
    as_server tee "$home/data/pg_hba.conf" >/dev/null <<'HBA'
local all all                   trust
host  all postgres 127.0.0.1/32 reject
host  all all      127.0.0.1/32 scram-sha-256
HBA
    as_server tee -a "$home/data/postgresql.conf" >/dev/null <<CONF
shared_preload_libraries = 'pg_tenancy'
listen_addresses = '127.0.0.1'
unix_socket_directories = '$home/run'
cluster_name = 'pg_tenancy_demo'
password_encryption = 'scram-sha-256'
fsync = off             # a throwaway
CONF
}

port_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

start_server() {
    for port in {54321..54399}; do
        port_taken "$port" && continue
        if as_server "$bin/pg_ctl" start -D "$home/data" -w -l "$home/data/server.log" -o "-p $port" >/dev/null 2>&1; then
            return
        fi
        # Another program may have taken the port since; anything else will not get better.
        as_server tail -n 20 "$home/data/server.log" | grep -q 'Address already in use' || break
    done
    as_server tail -n 20 "$home/data/server.log" >&2 || true
    fail "the server does not start, see above"
}

# The one command that a visitor needs: psql with the demo's address built in.
write_psql() {
    cat >"$home/psql" <<SH
#!/bin/sh
PGHOST=$home/run PGPORT=$port PGDATABASE=$example exec $bin/psql "\$@"
SH
    chmod 0755 "$home/psql"
}

# Notices and errors lose psql's "psql:file:line:" prefix; a terminal gets some colour.
present() {
    local strip='s/^psql:[^:]+:[0-9]+: //'
    if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
        local bold=$'\033[1m' green=$'\033[32m' yellow=$'\033[33m' plain=$'\033[0m'
        sed -u -E -e "$strip" -e "s/^==.*/$bold&$plain/" -e "s/^   ✓.*/$green&$plain/" -e "s/^(ERROR|HINT|DETAIL):.*/$yellow&$plain/"
    else
        sed -u -E -e "$strip"
    fi
}

tell_story() {
    "$home/psql" -X -q -U postgres -d postgres -v ON_ERROR_STOP=1 -c "CREATE DATABASE $example"
    if ! "$home/psql" -X -q -U postgres -f "$repo/examples/$example/run.sql" 2>&1 | tee "$home/story.log" | present; then
        fail "the story did not get to its end: $(grep -oE '^psql:[^:]+:[0-9]+: (ERROR|FATAL)' "$home/story.log" | tail -n 1) (all of it is in $home/story.log)"
    fi
}

set_passwords() {
    password=$(head -c 18 /dev/urandom | base64 | tr '+/' '-_')
    "$home/psql" -X -q -U postgres -v ON_ERROR_STOP=1 -v "password=$password" <<'SQL'
SELECT format('ALTER ROLE %I PASSWORD %L', rolname, :'password') FROM pg_roles WHERE rolcanlogin AND NOT rolsuper \gexec
SQL
}

show_agent_platform() {
    cat <<TEXT
  $home/psql -U platform_app        the backend: binds a tenant per transaction
  $home/psql -U platform_client     may not choose a tenant
  $home/psql -U platform_operator   runs the tenants' lifecycle
  $home/psql -U platform_admin      protects tables, purges
  $home/psql -U platform_owner      owns the tables
  $home/psql -U postgres            the superuser

  From a driver: postgresql://platform_app:$password@127.0.0.1:$port/$example

As platform_app, read as Acme; then the same without the bind, or try to become somebody else:
  BEGIN; SELECT set_tenant_by_slug('acme'); SELECT status, count(*) FROM workflow_executions GROUP BY status; COMMIT;
  SELECT * FROM workflows;
  BEGIN; SELECT set_tenant_by_slug('acme'); SELECT set_tenant_by_slug('globex'); ROLLBACK;
As platform_app, reach a limit of Hooli's plan, and see what the month has used:
  BEGIN; SELECT set_tenant_by_slug('hooli'); SELECT * FROM check_limit('agents'); SELECT * FROM monthly_usage(); COMMIT;
  BEGIN; SELECT set_tenant_by_slug('hooli'); SELECT consume_quota('tasks', 1000000); ROLLBACK;
As platform_operator, see who is bound now, stop a tenant, read what was refused:
  SELECT * FROM tenancy.activity;
  SELECT suspend_tenant(id, 'just trying') FROM tenancy.tenants WHERE slug = 'acme';
  SELECT * FROM tenancy.refusals;
As platform_owner: the tables' owner sees no tenant's rows either.
  SELECT count(*) FROM workflow_executions;
As postgres: a superuser is told which role to create instead.
  BEGIN; SELECT set_tenant_by_slug('acme'); ROLLBACK;
TEXT
}

show_workspaces() {
    cat <<TEXT
  $home/psql -U workspaces_app        the log-in service: checks passwords, issues tokens
  $home/psql -U workspaces_client     the API server: needs a token or a key for each transaction
  $home/psql -U workspaces_operator   makes workspaces
  $home/psql -U workspaces_admin      protects tables, keeps the keys that sign tokens
  $home/psql -U workspaces_owner      owns the tables
  $home/psql -U postgres              the superuser

  From a driver: postgresql://workspaces_client:$password@127.0.0.1:$port/$example

As workspaces_app, log in as Ada, look where she may go, and take a token; log_in() with another password finds nobody:
  SELECT log_in('ada@example.com', 'correct horse battery') AS ada \gset
  SELECT * FROM user_tenants(:'ada');
  BEGIN; SELECT set_tenant_by_slug('acme', :'ada'); SELECT issue_jwt(:'ada', scopes => '{*}') AS token \gset
  COMMIT;
In the same psql, become the API server; then the same without the token, or with a letter of it changed:
  \connect - workspaces_client
  BEGIN; SELECT * FROM authenticate_jwt(:'token'); SELECT * FROM tasks; COMMIT;
  SELECT * FROM tasks;
As the API server still, see what the workspace has used and may use; start more tasks than its plan runs at once:
  BEGIN; SELECT role FROM authenticate_jwt(:'token'); SELECT * FROM usage(); SELECT * FROM check_limit('concurrent_tasks'); COMMIT;
  BEGIN; SELECT role FROM authenticate_jwt(:'token'); INSERT INTO tasks (agent_id, title, status) SELECT id, 'Many', 'running' FROM agents, generate_series(1, 21); ROLLBACK;
As workspaces_operator, see which credentials were refused and why, and who did what:
  SELECT * FROM tenancy.failed_attempts;
  SELECT at, principal, action, target FROM tenancy.audit_log ORDER BY at DESC LIMIT 20;
TEXT
}

show_crm() {
    cat <<TEXT
  $home/psql -U crm_app        the backend: binds a tenant per transaction
  $home/psql -U crm_readonly   reports: binds a tenant, and may only read
  $home/psql -U crm_operator   makes tenants with their first user, sees numbers of all
  $home/psql -U crm_admin      templates, migrations, purges
  $home/psql -U crm_backup     reads everything: what tools/tenant-backup.sh initech DIRECTORY needs
  $home/psql -U postgres       the superuser

  From a driver: postgresql://crm_app:$password@127.0.0.1:$port/$example

As crm_app, work for Acme, whose subdomain is acme-holding by now; then reach for Initech's schema:
  BEGIN; SELECT set_tenant_by_slug('acme-holding'); SELECT * FROM pipeline; SELECT full_name FROM contacts LIMIT 3; COMMIT;
  BEGIN; SELECT set_tenant_by_slug('acme-holding'); SELECT * FROM tenant_initech.contacts; ROLLBACK;
As crm_admin, change the template and every tenant with it; change your mind:
  SELECT add_migration('crm', '004', 'ALTER TABLE deals ADD COLUMN lost_reason text', down_sql => 'ALTER TABLE deals DROP COLUMN lost_reason');
  CALL migrate_tenants('crm', canary => '{"stage": "staging"}');
  CALL rollback_tenants('crm', '003');
As crm_operator, see how far that is, what differs from the template, how much there is of what:
  SELECT slug, version, status FROM tenancy.migration_status ORDER BY slug, version;
  SELECT slug, kind, object, difference FROM tenancy.schema_drift;
  SELECT slug, table_name, row_count, table_bytes, index_scans FROM tenant_statistics(exact => true) ORDER BY 1, 2;
TEXT
}

show_capital_planning() {
    cat <<TEXT
  $home/psql -U planning_app        the backend: binds a tenant per transaction
  $home/psql -U planning_operator   runs the tenants' lifecycle and their tiers
  $home/psql -U planning_admin      the template, clones, migrations
  $home/psql -U planning_owner      owns the template and its copies
  $home/psql -U postgres            the superuser

  From a driver: postgresql://planning_app:$password@127.0.0.1:$port/$example

As planning_app, plan for the demo tenant:
  BEGIN; SELECT set_tenant_by_slug('demo-works'); SELECT * FROM cash_conversion ORDER BY month DESC, company LIMIT 5; COMMIT;
  SELECT * FROM products;
As planning_app, bring the demo tenant more products than its tier has:
  BEGIN; SELECT set_tenant_by_slug('demo-works'); SELECT * FROM check_limit('skus', 441);
  INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'NEW-' || n, 'New', 1, 2 FROM companies, generate_series(1, 441) AS n; ROLLBACK;
As planning_operator, register somebody, who gets a schema with the plan; see what there is:
  SELECT create_tenant('Dynamo Motors', plan => 'starter');
  SELECT name, plan, status, schema_name FROM tenancy.tenants;
As planning_admin, give the tenant whose copy of the demo was deleted another one, with all the data:
  SELECT clone_tenant_schema(find_tenant('demo-works'), find_tenant('demo-copy'));
TEXT
}

show_hybrid() {
    cat <<TEXT
  $home/psql -U hybrid_app        the log-in service: issues tokens, records usage
  $home/psql -U hybrid_client     the API server: needs a token or a key for each transaction
  $home/psql -U hybrid_operator   organizations, plans, subscriptions, bills
  $home/psql -U hybrid_admin      protects and limits tables
  $home/psql -U hybrid_owner      owns the tables
  $home/psql -U postgres          the superuser

  From a driver: postgresql://hybrid_client:$password@127.0.0.1:$port/$example

As hybrid_app, take a session token for Ada in Acme; in the same psql, become the API server, look at what is used, and make a sixth agent:
  BEGIN; SELECT set_tenant_by_slug('acme', find_user('ada@example.com'));
  SELECT 'Bearer ' || issue_jwt(find_user('ada@example.com'), scopes => '{*}') AS header \gset
  COMMIT;
  \connect - hybrid_client
  BEGIN; SELECT role FROM authenticate(:'header'); SELECT * FROM usage(); SELECT * FROM check_limit('agents'); COMMIT;
  BEGIN; SELECT role FROM authenticate(:'header'); INSERT INTO agents (name) VALUES ('One more'); ROLLBACK;
As hybrid_operator, let Acme have it, see what it used, and stop its writes by what the billing system says:
  SELECT change_plan(find_tenant('acme'), 'starter');
  SELECT * FROM tenant_usage(find_tenant('acme'));
  SELECT set_subscription(find_tenant('acme'), 'past_due', grace => '0'); SELECT apply_subscription_grace();
  SELECT set_subscription(find_tenant('acme'), 'active');
TEXT
}

say_goodbye() {
    printf '\n== Try more: the server goes on running (PostgreSQL %s, port %s)\n\n' "$PG" "$port"
    "show_$example"
    printf '\nStop the server and remove it: make demo-stop\n'
}

unfinished() {
    stop_server
}

start_demo() {
    declare -F "show_$example" >/dev/null || fail "there is no example $example: it is agent_platform, workspaces, crm, capital_planning or hybrid"
    check_home
    if [ -d "$home" ]; then
        stop_demo
    fi
    make_home
    "$repo/tools/stage.sh" "$home/pg" >"$home/stage.log" 2>&1 ||
        { cat "$home/stage.log" >&2; fail "staging a private PostgreSQL failed, see above"; }
    chmod -R a+rX "$home/pg"
    bin=$home/pg/bin
    init_cluster
    trap unfinished EXIT
    start_server
    write_psql
    tell_story
    set_passwords
    trap - EXIT
    say_goodbye
}

case ${1:-start} in
start) start_demo ;;
stop)
    if stop_demo; then
        echo "The demo is stopped and removed."
    else
        echo "There is no demo of $user's."
    fi
    ;;
*) fail "usage: tools/demo.sh [stop]" ;;
esac
