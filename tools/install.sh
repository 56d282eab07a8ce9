#!/usr/bin/env bash
# usage: tools/install.sh PACKAGE
#
# Copies what `make package` built in PACKAGE into the system, by sudo where the directories are not writable.
# Each file comes by rename: a running server that has the old library loaded would crash if it changed in place.
set -euo pipefail

package=${1:?"usage: tools/install.sh PACKAGE"}
if [ ! -d "$package" ]; then
    echo "$package holds nothing: run make package" >&2
    exit 1
fi

run() {
    if [ -w "$directory" ]; then
        "$@"
    else
        sudo "$@"
    fi
}

while IFS= read -r -d '' file; do
    target=/${file#"$package"/}
    directory=$(dirname "$target")
    run install -m 0644 "$file" "$target.new"
    run mv -f "$target.new" "$target"
    echo "installed $target"
done < <(find "$package" -type f -print0)

cat <<'NOTE'
Now name the library in postgresql.conf, restart the server, and create the extension in your database:
    shared_preload_libraries = 'pg_tenancy'
    CREATE EXTENSION pg_tenancy;
A server that has the former version loaded keeps it until it is restarted.
NOTE
