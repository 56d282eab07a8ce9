#!/usr/bin/env bash
# usage: tests/interop/install.sh pyjwt|jose DIR
#
# Puts a library and the program that uses it into DIR, once: later calls find it there. Waits for a package
# registry for seconds, not minutes.
set -euo pipefail

library=$1
directory=$2
here=$(cd "$(dirname "$0")" && pwd)

pyjwt() {
    cp "$here/requirements.txt" "$here/pyjwt.py" "$1"
    python3 -m pip install --quiet --disable-pip-version-check --no-input --retries 1 --timeout 10 \
        --target "$1/packages" --requirement "$1/requirements.txt"
}

jose() {
    cp "$here/package.json" "$here/package-lock.json" "$here/jose.mjs" "$1"
    npm ci --prefix "$1" --loglevel=error --no-audit --no-fund --ignore-scripts --fetch-retries=1 --fetch-timeout=10000
}

# Complete or not there at all, whoever else does the same.
current() {
    for file in "$directory"/*.{txt,py,json,mjs}; do
        [ ! -f "$file" ] || cmp -s "$file" "$here/$(basename "$file")" || return 1
    done
    [ -d "$directory" ]
}

current && exit
mkdir -p "$(dirname "$directory")"
fresh=$(mktemp -d "$directory.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
"$library" "$fresh"
rm -rf "$directory"
mv -T "$fresh" "$directory"
