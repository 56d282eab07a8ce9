#!/usr/bin/env bash
# usage: tools/package.sh [PROFILE]
#
# Builds the extension for PG_CONFIG's PostgreSQL, and leaves library, control file and SQL script below
# target/package/pgN at the paths where they belong; with another profile of cargo than `release`, below
# target/package/PROFILE/pgN. A build that fails leaves the former package alone.
set -euo pipefail

cd "$(dirname "$0")/.."
pg_config=${PG_CONFIG:-$(tools/pg.sh config)}
major=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
profile=${1:-release}
package=target/package/pg$major
if [ "$profile" != release ]; then
    package=target/package/$profile/pg$major
fi

rm -rf "$package.new"
cargo pgrx package --pg-config "$pg_config" --profile "$profile" --no-default-features --features "pg$major" \
    --out-dir "$package.new"
rm -rf "$package"
mv "$package.new" "$package"
