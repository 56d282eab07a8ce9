#!/usr/bin/env bash
# The story. Where it finds the database: ../README.md.
set -euo pipefail
cd "$(dirname "$0")"
if [ "${SKIP_INSTALL:-0}" != 1 ]; then
    npm ci --silent --no-audit --no-fund
    npm run --silent check
fi
npm run --silent story
