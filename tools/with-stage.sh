#!/usr/bin/env bash
# usage: tools/with-stage.sh COMMAND [ARGUMENT ...]
#
# Runs a command with PG_TENANCY_STAGE naming a fresh stage of the package, which is removed afterwards. PG_TENANCY_PACKAGE
# names another package than that of `make package`.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
stage=$(mktemp -d "${TMPDIR:-/tmp}/pg_tenancy_stage.XXXXXX")
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"

"$root/tools/stage.sh" "$stage" ${PG_TENANCY_PACKAGE:+"$PG_TENANCY_PACKAGE"}
PG_TENANCY_STAGE=$stage "$@"
