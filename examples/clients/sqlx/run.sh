#!/usr/bin/env bash
# The story. What is in the environment: ../README.md. Statements are checked against .sqlx, without a database.
set -euo pipefail
cd "$(dirname "$0")"
unset DATABASE_URL
export SQLX_OFFLINE=true CARGO_TARGET_DIR=$PWD/target
if [ "${SKIP_INSTALL:-0}" != 1 ]; then
    cargo build --locked --quiet --all-targets
fi
cargo run --locked --offline --quiet
cargo test --locked --offline --quiet --test two_tenants
echo '   ✓ cargo test: two tenants in one transaction, which is rolled back'
