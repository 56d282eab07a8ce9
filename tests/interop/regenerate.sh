#!/usr/bin/env bash
# usage: tests/interop/regenerate.sh
#
# Makes tokens.json anew, with fresh keys, for the tenant and user of tests/access/jwt/specimens.rs. Needs jq.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
claims='{"claims": {
    "sub": "5eed0000-0000-4000-8000-000000000002", "tenant_id": "5eed0000-0000-4000-8000-000000000001",
    "scope": "files:read users:*", "iat": 1767225600, "exp": 4102444800}}'

"$here/install.sh" pyjwt "$build/pyjwt"
"$here/install.sh" jose "$build/jose"
{
    PYTHONPATH=$build/pyjwt/packages python3 "$build/pyjwt/pyjwt.py" sign <<<"$claims"
    node "$build/jose/jose.mjs" sign <<<"$claims"
} | jq --slurp add >"$here/tokens.json"
