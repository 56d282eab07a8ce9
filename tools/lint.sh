#!/usr/bin/env bash
# usage: tools/lint.sh
#
# What needs no server: formatting, lints, and the checks of dependencies and scripts whose tools are installed.
set -euo pipefail

cd "$(dirname "$0")/.."
major=$(tools/pg.sh major)

if_installed() {
    local program=$1
    shift
    if command -v "$program" >/dev/null; then
        echo "$*"
        "$@"
    fi
}

cargo fmt --all --check
tools/cargo.sh clippy -p pg_tenancy --lib --no-default-features --features "pg$major" -- -D warnings
tools/cargo.sh clippy -p tenancy-tests -p tenancy-bench --all-targets -- -D warnings
if_installed shellcheck shellcheck tools/*.sh .ci/run
if_installed cargo-deny cargo deny check
if_installed cargo-audit cargo audit
