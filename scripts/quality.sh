#!/bin/sh
# quality.sh: writes tests/golden/quality.csv, formats/quality.svg and README's table anew, for a change of bytes that is meant.
#
#   scripts/quality.sh [BUILD]       build folder, default build-quality
set -eu
cd "$(dirname "$0")/.."
build=${1:-build-quality}
cmake -S . -B "$build" >/dev/null
cmake --build "$build" -j "$(nproc)" --target test_quality
LLMQ_WRITE_QUALITY=1 "$build/tests/test_quality"
python3 scripts/plot_quality.py
git diff --stat -- tests/golden/quality.csv formats/quality.svg README.md
