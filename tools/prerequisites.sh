#!/usr/bin/env bash
# usage: tools/prerequisites.sh [clients]
#
# Installs what building and testing pg_tenancy need and this machine lacks, and says so: packages of Debian or
# Ubuntu (by sudo unless root), cargo-pgrx in the version of Cargo.toml, and its note of where PostgreSQL is.
# PG names the PostgreSQL to build for. Does nothing when all is there. With `clients`, also what those in
# examples/clients are installed with: Node.js and Python. Where the distribution's Node.js is too old, as Debian 12's is, one
# from the npm registry goes to target/node.
set -euo pipefail

with_clients=${1:-}
root=$(cd "$(dirname "$0")/.." && pwd)
pgrx_version=$(sed -n 's/^pgrx = .*"=\([0-9.]*\)".*/\1/p' "$root/Cargo.toml")
node_path=$root/target/node/node_modules/node/bin # tests/clients knows it, too
node_version=22
readonly with_clients root pgrx_version node_path node_version

fail() {
    echo "prerequisites: $*" >&2
    exit 1
}

say() {
    echo "prerequisites: $*"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "neither root nor sudo, to run: $*"
    fi
}

has_libclang() {
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || ldconfig -p | grep -q libclang
}

has_cargo_pgrx() {
    [ "$(cargo pgrx --version 2>/dev/null)" = "cargo-pgrx $pgrx_version" ]
}

# Prisma's is the newest that a client asks for.
has_node() {
    PATH=$node_path:$PATH node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
        process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)' 2>/dev/null
}

install_node() {
    [ "$with_clients" = clients ] || return 0
    has_node && return
    say "installing Node.js $node_version from the npm registry into target/node, since this machine's is older than 20.19"
    npm install --silent --no-fund --no-audit --no-save --prefix "$root/target/node" "node@$node_version"
    has_node || fail "no Node.js from 20.19 on here, nor in the npm registry: install it, then run this again"
}

# Prints the packages of everything that lacks except PostgreSQL itself, whose version the package lists decide.
missing_packages() {
    command -v cc >/dev/null && command -v make >/dev/null || echo build-essential
    command -v clang >/dev/null || echo clang
    has_libclang || echo libclang-dev
    command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || echo pgbouncer
    if ! has_cargo_pgrx; then
        command -v pkg-config >/dev/null || echo pkg-config
        pkg-config --exists openssl 2>/dev/null || echo libssl-dev
    fi
    if [ "$with_clients" = clients ]; then
        command -v node >/dev/null || echo nodejs
        command -v npm >/dev/null || echo npm
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    fi
}

install_packages() {
    local packages major
    mapfile -t packages < <(missing_packages)
    if ! "$root/tools/pg.sh" installed; then
        packages+=(postgresql)
    fi
    [ ${#packages[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "no apt-get here: install, with headers, ${packages[*]}, and run this again"
    say "reading the package lists, since ${packages[*]} lack"
    as_root apt-get update -qq
    if [ "${packages[-1]}" = postgresql ]; then
        major=$("$root/tools/pg.sh" major)
        unset 'packages[-1]'
        packages+=("postgresql-$major" "postgresql-server-dev-$major")
    fi
    say "installing ${packages[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}"
}

check_rust() {
    command -v cargo >/dev/null || fail "no Rust here: install it from https://rustup.rs, then run this again"
    cargo fmt --version >/dev/null 2>&1 || fail "no rustfmt here: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || fail "no clippy here: rustup component add clippy"
}

install_cargo_pgrx() {
    has_cargo_pgrx && return
    say "installing cargo-pgrx $pgrx_version, which takes some minutes"
    cargo install cargo-pgrx --version "$pgrx_version" --locked
}

# `cargo pgrx init` forgets the versions that it is not told of.
register_postgresql() {
    local major config file known others=()
    major=$("$root/tools/pg.sh" major)
    config=$("$root/tools/pg.sh" config)
    file=${PGRX_HOME:-$HOME/.pgrx}/config.toml
    if [ -e "$file" ]; then
        known=$(sed -n 's/^\(pg[0-9]*\) *= *"\(.*\)"$/--\1=\2/p' "$file")
        case $'\n'$known$'\n' in
        *$'\n'"--pg$major=$config"$'\n'*) return ;;
        esac
        mapfile -t others < <(grep -v -e "^--pg$major=" -e '^$' <<<"$known" || true)
    fi
    say "telling cargo-pgrx of $config"
    cargo pgrx init "--pg$major=$config" ${others[@]+"${others[@]}"}
}

check_rust
install_packages
install_node
install_cargo_pgrx
register_postgresql
