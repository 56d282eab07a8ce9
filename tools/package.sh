#!/usr/bin/env bash
# usage: tools/package.sh
#
# Builds the extension for PG_CONFIG's PostgreSQL, as a release, and leaves library, control file and SQL script
# below target/package/pgN at the paths where they belong. A build that fails leaves the former package alone.
set -euo pipefail

cd "$(dirname "$0")/.."
pg_config=${PG_CONFIG:-$(tools/pg.sh config)}
major=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
package=target/package/pg$major

rm -rf "$package.new"
cargo pgrx package --pg-config "$pg_config" --no-default-features --features "pg$major" --out-dir "$package.new"
rm -rf "$package"
mv "$package.new" "$package"
