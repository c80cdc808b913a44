#!/bin/sh
# fuzz.sh: builds the libFuzzer targets with clang and runs each for some seconds on its seeds in tests/fuzz/corpus; any finding fails.
#
#   scripts/fuzz.sh [--seconds N] [TARGET...]
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh
seconds=60
[ "${1:-}" = --seconds ] && { seconds=$2; shift 2; }

# shellcheck disable=SC2086
install_packages $BUILD_PACKAGES
install_clang
cmake -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DLLMQ_FUZZ=ON -DLLMQ_SANITIZE=ON -DLLMQ_TESTS=OFF >/dev/null
cmake --build build-fuzz -j "$(nproc)" >/dev/null
[ $# -gt 0 ] || set -- $(ls tests/fuzz/fuzz_*.c | sed 's|.*/fuzz_||; s|\.c$||')
for target in "$@"; do
    work=$(mktemp -d)
    mkdir -p "tests/fuzz/corpus/$target"
    echo "fuzz $target, $seconds s"
    build-fuzz/tests/fuzz/fuzz_"$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -verbosity=0 -print_final_stats=1 "$work" "tests/fuzz/corpus/$target" 2>"$work.log" ||
        { cat "$work.log"; exit 1; }
    grep -E 'number_of_executed_units|new_units_added' "$work.log" || true
    rm -rf "$work" "$work.log"
done
