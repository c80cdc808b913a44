#!/bin/sh
# sweep.sh: the pattern for a sweep in a job: measure many formats in one read, take the best under a size, convert, check, and spend a bit budget.
#
#   scripts/sweep.sh MODEL [OUT_DIR] [BITS_PER_WEIGHT]
#
# MODEL            what llmq reads: a model folder, .safetensors, .gguf or .llmq
# OUT_DIR          where everything goes (sweep-out); run again, an interrupted sweep goes on where it was
# BITS_PER_WEIGHT  of the whole file, the most that is wanted (5.5)
#
# Environment: LLMQ (the program; build/llmq), FORMATS, GROUP_SIZES, SCALE_RULES, IMATRIX (a statistics file), EVAL (a text), THREADS, MAX_RAM.
# Exit codes are those of llmq: 0 ok, 1 failed, 2 usage, 3 a check did not hold, 128 + signal.
set -eu

model=${1:?usage: scripts/sweep.sh MODEL [OUT_DIR] [BITS_PER_WEIGHT]}
out=${2:-sweep-out}
bpw=${3:-5.5}
llmq=${LLMQ:-$(dirname "$0")/../build/llmq}
mkdir -p "$out"

# Options that sweep and convert take alike.
set -- --threads "${THREADS:-0}" --max-ram "${MAX_RAM:-64M}"
[ -z "${IMATRIX:-}" ] || set -- "$@" --imatrix "$IMATRIX"

# 1. One read, every combination. --force replaces the results of an earlier run; what makes no sense for a format is a row with a reason.
"$llmq" sweep --in "$model" --formats "${FORMATS:-int4,int3,mxfp4,bfp12,nvfp4}" --group-sizes "${GROUP_SIZES:-16,32,64,128}" \
    ${SCALE_RULES:+--scale-rules "$SCALE_RULES"} ${EVAL:+--eval-text "$EVAL"} \
    --csv "$out/sweep.csv" --json "$out/sweep.json" --report "$out/sweep.html" --force "$@"

# 2. The total with the least error among those under the size. Columns by name, from the header; fields that hold commas are quoted, which this
#    little parser minds.
best=$(awk -v most="$bpw" '
    function split_csv(line,   n, at, c, quoted) {
        n = 1; field[1] = ""; quoted = 0
        sub(/\r$/, "", line)
        for (at = 1; at <= length(line); at++) {
            c = substr(line, at, 1)
            if (c == "\"") { if (quoted && substr(line, at + 1, 1) == "\"") { field[n] = field[n] c; at++ } else quoted = !quoted }
            else if (c == "," && !quoted) field[++n] = ""
            else field[n] = field[n] c
        }
        return n
    }
    NR == 1 { n = split_csv($0); for (i = 1; i <= n; i++) column[field[i]] = i; next }
    { split_csv($0) }
    field[column["scope"]] != "total" || field[column["skipped"]] != "" || field[column["bpw"]] + 0 > most + 0 { next }
    best == "" || field[column["mse"]] + 0 < mse { mse = field[column["mse"]] + 0; best = field[column["settings"]]; hash = field[column["hash"]] }
    END { if (best != "") print hash " " best }' "$out/sweep.csv")
[ -n "$best" ] || { echo "sweep.sh: nothing is under $bpw bits per weight; see $out/sweep.csv" >&2; exit 1; }
hash=${best%% *}
settings=${best#* }
echo "best under $bpw bits per weight: $settings"

# 3. That conversion: byte for byte what was measured, which the hash over all codes and scales proves.
#    shellcheck disable=SC2086
"$llmq" convert --in "$model" $settings --compress none --out "$out/best.llmq" --force --quiet "$@"
"$llmq" verify --quiet "$out/best.llmq"
"$llmq" inspect "$out/best.llmq" --hashes --json >"$out/best.json"
grep -q "\"hash\":\"$hash\",\"n_tensors\"" "$out/best.json" ||
    { echo "sweep.sh: $out/best.llmq is not what the sweep measured (hash $hash)" >&2; exit 3; }
echo "hash $hash: $out/best.llmq, $(wc -c <"$out/best.llmq") bytes"

# 4. The same size spent where it helps most: a format for each layer. budget.yaml replays it: llmq convert --recipe budget.yaml.
"$llmq" convert --in "$model" --target-bpw "$bpw" --candidates int3,int4,mxfp4,int8 --recipe-out "$out/budget.yaml" --compress none \
    --out "$out/budget.llmq" --force "$@" | grep -E '^(target|choice|error) ' || exit 1

# 5. With a text: what the two are worth.
[ -z "${EVAL:-}" ] || for file in best budget; do
    echo "$file: $("$llmq" eval --in "$out/$file.llmq" --against "$model" --text "$EVAL" --quiet | tr '\n' ' ')"
done
