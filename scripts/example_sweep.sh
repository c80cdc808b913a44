#!/bin/sh
# example_sweep.sh: the worked example of README.md anew: tests/golden/sweep_example.csv and converter/sweep.svg.
#
#   scripts/example_sweep.sh [BUILD]       build folder, default build-example
#
# Uniform formats in one sweep of the bundled model, and files under a bit budget, all judged by perplexity on the bundled text. The last digits of
# perplexity depend on the processor, so tests compare the picture with the CSV, not the CSV with a run.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build-example}
cmake -S . -B "$build" >/dev/null
cmake --build "$build" -j "$(nproc)" --target llmq
llmq=$build/llmq
model=tests/data/tiny-llama
text=tests/data/tiny-text.txt
candidates=int2:group=32,int2:group=128,int3:group=32,int3:group=128,int4:group=32,int4:group=128,nvfp4:group=32,int5:group=32,int5:group=128,int6:group=32,int6:group=128,int8:group=128
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$llmq" sweep --in $model --formats int2,int3,int4,int5,int6,int8,mxfp4,nvfp4 --group-sizes 32,128 --eval-text $text --csv "$folder/sweep.csv" --quiet
for bits in 3.4 3.6 3.8 4.0 4.2 4.6 5.0 5.4 5.8 6.2 6.6 7.0 7.6; do
    "$llmq" convert --in $model --target-bpw $bits --candidates $candidates --compress none --out "$folder/$bits.llmq" --quiet
    "$llmq" eval --in "$folder/$bits.llmq" --against $model --text $text --json --quiet >"$folder/$bits.json"
done
python3 scripts/plot_sweep.py --collect "$folder"
python3 scripts/plot_sweep.py
git diff --stat -- tests/golden/sweep_example.csv converter/sweep.svg
