#!/usr/bin/env bash
# usage: tools/stage.sh DIR [PACKAGE]
#
# Makes in DIR a private copy of PostgreSQL that has pg_tenancy, so that tests, demo and bench neither need
# root nor touch what the system's own servers have loaded. PACKAGE is what `make package` built, by default
# target/package/pgN; PG_CONFIG names the PostgreSQL to copy. The programs are found in DIR/bin.
#
# PostgreSQL finds its libraries and share files relative to its program: so the programs are copied and the
# rest is linked, in the same tree. An existing stage in DIR is brought up to date; a running server keeps the
# library that it has loaded. DIR must be readable by whoever runs the servers (the user postgres, for root).
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n 's/^# \{0,1\}//; 2p' "$0" >&2
    exit 2
fi

root=$(cd "$(dirname "$0")/.." && pwd)
pg_config=${PG_CONFIG:-$("$root/tools/pg.sh" config)}
major=$("$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
package=${2:-$root/target/package/pg$major}

bin=$("$pg_config" --bindir)
lib=$("$pg_config" --pkglibdir)
share=$("$pg_config" --sharedir)

if [ ! -e "$package$lib/pg_tenancy.so" ]; then
    echo "$package holds no pg_tenancy for PostgreSQL $major: run make package" >&2
    exit 1
fi

umask 022
mkdir -p "$1"
stage=$(cd "$1" && pwd)

if [ ! -e "$stage/bin" ]; then
    mkdir -p "$stage$bin" "$stage$lib" "$stage$share"
    cp -R "$bin/." "$stage$bin/"
    cp -Rs "$lib/." "$stage$lib/"
    cp -Rs "$share/." "$stage$share/"
    ln -s "${bin#/}" "$stage/bin"
fi

# What a `make install` put into the system, perhaps another version, is not to be seen here.
find "$stage$share/extension" -name 'pg_tenancy*' -delete

# By rename: a running server must not see its library change under it.
for file in "$package$lib"/pg_tenancy.so "$package$share"/extension/pg_tenancy*; do
    target=$stage${file#"$package"}
    cp "$file" "$target.new"
    mv -f "$target.new" "$target"
done
