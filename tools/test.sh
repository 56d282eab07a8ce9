#!/usr/bin/env bash
# usage: tools/test.sh sessions|clients|soak [FILTER ...]
#
# Everything that a change has to pass, in the order of what fails soonest; the last line is the count of
# tests, `N passed, N failed`, in which a stage that failed counts as one. FILTER goes to the test programs;
# sessions are followed by clients.
set -euo pipefail

suite=${1:?"usage: tools/test.sh sessions|clients|soak [FILTER ...]"}
shift
case $suite in
sessions) programs=(sessions clients) ;;
*) programs=("$suite") ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

output=$(mktemp)
# Kept after the run, for whoever looks into a failure.
export PG_TENANCY_LOGS=$root/target/$suite-logs
passed=0
failed=0
stage=

finish() {
    local status=$?
    rm -f "$output"
    if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1
    fi
    if [ "$failed" -gt 0 ]; then
        echo "failed: $stage"
        status=1
    fi
    echo "$passed passed, $failed failed"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

begin() {
    stage=$1
    echo "== $stage (after ${SECONDS} s)"
}

# Adds up the `test result:` lines.
total() {
    sed -n "s/^test result: .* \([0-9]*\) $1;.*/\1/p" "$output" | awk '{ sum += $1 } END { print sum + 0 }'
}

# Where the servers keep their data: in memory where there is plenty, since most of the time that it takes to make and
# to drop a database for each test is the file system's. A server that is killed finds again what it had written, there
# as on a disk.
data_directory() {
    local wanted=$((6 * 1024 * 1024)) free available
    free=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
    available=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
    if [ -w /dev/shm ] && [ "${free:-0}" -ge $wanted ] && [ "${available:-0}" -ge $wanted ]; then
        echo /dev/shm
    else
        echo /tmp
    fi
}

# What the test program is to have in its environment.
surroundings() {
    case $1 in
    # More at a time than there are processors: much of a test is waiting, for a lock, a worker, or a second that has to pass.
    sessions) printf '%s\n' "TMPDIR=${TMPDIR:-$(data_directory)}" "RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(threads)}" ;;
    clients) echo "TMPDIR=${TMPDIR:-$(data_directory)}" ;;
    # It measures, too: with a disk, and the processors for itself.
    soak) ;;
    esac
}

threads() {
    local threads=$(($(nproc) * 2))
    echo $((threads < 16 ? threads : 16))
}

run_tests() {
    local program variables status=0
    rm -rf "$PG_TENANCY_LOGS"
    mkdir -p "$PG_TENANCY_LOGS"
    for program in "${programs[@]}"; do
        mapfile -t variables < <(surroundings "$program")
        tools/with-stage.sh env "${variables[@]}" tools/cargo.sh test -p tenancy-tests --test "$program" -- "$@" 2>&1 |
            tee -a "$output" || status=$?
    done
    passed=$(total passed)
    failed=$(total failed)
    return "$status"
}

# A test may kill a server (signal 9); no server may die by itself.
crashes() {
    grep -E 'was terminated by signal (4|6|7|8|11)\b|PANIC:|TRAP:' "$PG_TENANCY_LOGS"/*.log
}

begin 'prerequisites'
if [ "$suite" = soak ]; then
    tools/prerequisites.sh
else
    tools/prerequisites.sh clients
fi
PG=$(tools/pg.sh major)
PG_CONFIG=$(tools/pg.sh config)
export PG PG_CONFIG

begin 'lints'
tools/lint.sh

begin "package for PostgreSQL $PG"
if [ "$suite" != soak ]; then
    tools/package.sh quick
    export PG_TENANCY_PACKAGE=$root/target/package/quick/pg$PG
else
    tools/package.sh
fi

begin "tests: $suite"
run_tests "$@"

begin 'servers that crashed'
if crashes; then
    exit 1
fi

begin 'count of tests'
[ "$passed" -gt 0 ]
echo "== done (after ${SECONDS} s)"
