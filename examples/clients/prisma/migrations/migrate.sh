#!/usr/bin/env bash
# Each migration in a transaction as the role of migrations, then what only an admin may do.
set -euo pipefail
cd "$(dirname "$0")"
for migration in */; do
    psql "$MIGRATOR_URL" --no-psqlrc --quiet --single-transaction --set ON_ERROR_STOP=1 --file "$migration/migration.sql"
    psql "$ADMIN_URL" --no-psqlrc --quiet --single-transaction --set ON_ERROR_STOP=1 --output /dev/null --file "$migration/admin.sql"
done
