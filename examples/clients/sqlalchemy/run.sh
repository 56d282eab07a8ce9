#!/bin/sh
# The whole story; ../README.md says what is in the environment.
set -eu
cd "$(dirname "$0")"
if [ "${SKIP_INSTALL:-0}" != 1 ]; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
fi
PATH=$PWD/.venv/bin:$PATH
python -m migrations.once
alembic upgrade head
python story.py
pytest -q
echo '   ✓ pytest: two tenants in one transaction, which is rolled back'
