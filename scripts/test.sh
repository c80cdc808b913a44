#!/bin/sh
# test.sh: installs what is needed, builds llmq, runs the demo and all tests.
# Works in a clean clone with nothing prepared, as root or with sudo.
#
#   scripts/test.sh                          gcc, release build
#   scripts/test.sh --compiler clang         another compiler
#   scripts/test.sh --sanitize               address and undefined-behaviour sanitizers
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh

compiler=gcc
sanitize=OFF
while [ $# -gt 0 ]; do
    case "$1" in
        --compiler) compiler=$2; shift ;;
        --sanitize) sanitize=ON ;;
        *) echo "usage: scripts/test.sh [--compiler gcc|clang] [--sanitize]" >&2; exit 2 ;;
    esac
    shift
done

# shellcheck disable=SC2086
install_packages $BUILD_PACKAGES $TEST_PACKAGES
[ "$compiler" = clang ] && install_clang
/usr/bin/python3 -c 'import zstandard, xxhash, numpy' || { echo "python3-zstandard, python3-xxhash and python3-numpy are needed" >&2; exit 1; }

build=build-$compiler
[ "$sanitize" = ON ] && build=$build-sanitize
[ "$sanitize" = ON ] && export LLMQ_CLI_LIGHT=1 # no limits of memory and time under sanitizers
cmake -S . -B "$build" -DCMAKE_C_COMPILER="$compiler" -DLLMQ_WERROR=ON -DLLMQ_SANITIZE=$sanitize
cmake --build "$build" -j "$(nproc)"
[ "$sanitize" = ON ] || scripts/demo.sh
ctest --test-dir "$build" --output-on-failure -j 2
