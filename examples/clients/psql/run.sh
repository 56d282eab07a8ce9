#!/usr/bin/env bash
# The story. What is in the environment: ../README.md. There is nothing to install besides psql.
set -euo pipefail
cd "$(dirname "$0")"

psql() {
    command psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

kept() {
    echo "   ✓ $*"
}

fail() {
    echo "NOT AS PROMISED: $*" >&2
    exit 1
}

# One request from the shell: --single-transaction, the binding first, and then any script.
request() {
    psql --single-transaction "$APP_URL" -c "SELECT set_tenant_by_slug('$1')" -f "$2" | tail -n +2
}

psql "$APP_URL" -f story.sql
psql "$MIGRATOR_URL" -f migrations/001_notes.sql
psql "$APP_URL" -f notes.sql

[ "$(request acme owners.sql)" = 'acme: Ada' ] && [ "$(request globex owners.sql)" = 'globex: Ada' ] || fail 'owners by request'
kept 'from the shell, psql --single-transaction with the binding first is a request'

# 16 sessions at once, 13 requests each: pgbench does this better, if it is about speed.
workers=()
seen=$(mktemp)
trap 'rm -f "$seen"' EXIT
for n in {1..8}; do
    for tenant in acme globex; do
        psql "$APP_URL" -v tenant="$tenant" -f requests.sql >>"$seen" &
        workers+=($!)
    done
done
for worker in "${workers[@]}"; do
    wait "$worker" || fail 'a session ended early'
done
[ "$(sort "$seen" | uniq -c | tr -s ' ' | tr '\n' ';')" = ' 104 acme sees acme; 104 globex sees globex;' ] || fail "$(sort "$seen" | uniq -c)"
kept '208 requests of two tenants at once, and each saw its own rows only'

psql "$TEST_URL" -f test.sql
