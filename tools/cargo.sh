#!/usr/bin/env bash
# usage: tools/cargo.sh COMMAND [ARGUMENT ...]
#
# cargo with the profile `quick` and the linker flag that cargo-pgrx gives to everything: what lints, package and tests
# share is compiled once. With another flag cargo would compile it again.
set -euo pipefail

readonly linker_flag='target."cfg(all(target_family = \"unix\", not(target_os = \"macos\")))".rustflags = ["-C", "link-arg=-Wl,--no-gc-sections"]'

command=${1:?"usage: tools/cargo.sh COMMAND [ARGUMENT ...]"}
shift
exec cargo "$command" --profile quick --config "$linker_flag" "$@"
