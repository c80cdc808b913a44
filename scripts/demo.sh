#!/bin/sh
# demo.sh: installs what is needed, builds llmq, converts the bundled model and shows the result.
# Works in a clean clone with nothing prepared, as root or with sudo; a second run takes seconds.
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh

# shellcheck disable=SC2086
install_packages $BUILD_PACKAGES
cmake -S . -B build -DLLMQ_TESTS=OFF >build.log 2>&1 && cmake --build build -j "$(nproc)" --target llmq >>build.log 2>&1 ||
    { cat build.log; exit 1; }
rm -f build.log

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
run() { echo; echo "\$ llmq $*"; build/llmq "$@"; }

run --version
run convert --in tests/data/tiny-llama --format mxfp4 --out "$out/tiny.mxfp4.llmq"
run verify "$out/tiny.mxfp4.llmq"
run inspect "$out/tiny.mxfp4.llmq"
run compare --in tests/data/tiny-llama --against "$out/tiny.mxfp4.llmq"
run convert --quiet --in tests/data/tiny-llama --format int4 --group-size 64 --rule 'role:down=int8' --out "$out/tiny.int4.llmq"
run dequantize --in "$out/tiny.int4.llmq" --out "$out/tiny-bf16/" --dtype bf16
echo
ls -l "$out" "$out/tiny-bf16"
echo
echo "The program is build/llmq. Next: build/llmq convert --in YOUR_MODEL --format mxfp4"
