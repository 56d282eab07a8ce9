#!/usr/bin/env bash
# usage: tools/lint.sh
#
# What needs no server: formatting, lints, and the checks of dependencies and scripts whose tools are installed.
set -euo pipefail

cd "$(dirname "$0")/.."
major=$(tools/pg.sh major)

# The linker flag of cargo-pgrx, which it gives to everything: with another one here, cargo would compile the
# build scripts and macros of pgrx a second time.
readonly linker_flag='target."cfg(all(target_family = \"unix\", not(target_os = \"macos\")))".rustflags = ["-C", "link-arg=-Wl,--no-gc-sections"]'

if_installed() {
    local program=$1
    shift
    if command -v "$program" >/dev/null; then
        echo "$*"
        "$@"
    fi
}

cargo fmt --all --check
cargo clippy --release -p pg_tenancy --all-targets --no-default-features --features "pg$major" \
    --config "$linker_flag" -- -D warnings
cargo clippy -p tenancy-tests -p tenancy-bench --all-targets -- -D warnings
if_installed shellcheck shellcheck tools/*.sh .ci/run
if_installed cargo-deny cargo deny check
if_installed cargo-audit cargo audit
