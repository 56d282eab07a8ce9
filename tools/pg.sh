#!/usr/bin/env bash
# usage: tools/pg.sh major|config
#
# Which PostgreSQL to build for. `major` prints PG if set, else the newest of 15 to 18 whose server and headers
# are installed, else the one that the system's packages offer; `config` prints the path of its pg_config.
set -euo pipefail

# Debian has a pg_config for each major version; elsewhere the one in PATH counts.
config_of() {
    local candidate
    for candidate in "/usr/lib/postgresql/$1/bin/pg_config" "/usr/pgsql-$1/bin/pg_config" "$(command -v pg_config)"; do
        if [ -x "$candidate" ] && [[ $("$candidate" --version) == "PostgreSQL $1"[.a-z]* ]]; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

is_installed() {
    local config
    config=$(config_of "$1") && [ -x "$("$config" --bindir)/postgres" ] &&
        [ -e "$("$config" --includedir-server)/postgres.h" ]
}

major() {
    local candidate
    if [ -n "${PG:-}" ]; then
        echo "$PG"
        return
    fi
    for candidate in 18 17 16 15; do
        if is_installed "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    for candidate in 15 16 17 18; do
        if apt-cache show "postgresql-server-dev-$candidate" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo 15
}

case ${1:-} in
major) major ;;
config)
    wanted=$(major)
    config_of "$wanted" || echo "/usr/lib/postgresql/$wanted/bin/pg_config"
    ;;
installed) is_installed "$(major)" ;;
*)
    echo "usage: tools/pg.sh major|config|installed" >&2
    exit 2
    ;;
esac
