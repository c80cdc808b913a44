#!/bin/sh
# bench.sh: speed and memory of llmq against cp and cat, on models it makes itself; prints ratios of medians, pairs taken in turn.
#
#   scripts/bench.sh                 kernels; a 2 GB model: convert against cp and cat; threads; growth; start-up
#   scripts/bench.sh --memory        peak memory on a 16 GB sparse model and on a single tensor of 8 GB of random data
#   scripts/bench.sh --dir DIR       where the models go (default /dev/shm when it has room, else the current folder)
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh
# shellcheck disable=SC2086
install_packages $BUILD_PACKAGES python3 python3-numpy
cmake -S . -B build -DLLMQ_TESTS=OFF >/dev/null && cmake --build build -j "$(nproc)" --target llmq >/dev/null
exec /usr/bin/python3 scripts/bench.py --program build/llmq "$@"
