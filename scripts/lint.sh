#!/bin/sh
# lint.sh: guards that a compiler does not give: layers, banned calls, headers of files, names.
set -eu
cd "$(dirname "$0")/.."
status=0
complain() { echo "lint: $1" >&2; status=1; }

# Arrows point one way: base < number < layout < container < smoothquant < converter.
check_layer() { # LAYER FORBIDDEN...
    layer=$1
    shift
    for forbidden in "$@"; do
        grep -rnE "#include \"$forbidden/" "$layer" && complain "$layer includes from $forbidden" || true
    done
}
check_layer formats/base number layout container smoothquant converter
check_layer formats/number layout container smoothquant converter
check_layer formats/layout container smoothquant converter
check_layer formats/container smoothquant converter
grep -nE '#include "base/' formats/number/*.[ch] | grep -vE 'base/(err|size)\.h' && complain "number includes more of base than err.h and size.h" || true

# Third-party libraries have one home each.
home() { # PATTERN FILES...
    pattern=$1
    shift
    for file in $(grep -rlE "#include <$pattern" formats smoothquant converter 2>/dev/null); do
        case " $* " in *" $file "*) ;; *) complain "$file includes <$pattern>, whose home is: $*" ;; esac
    done
}
home 'cjson/' formats/base/json.h formats/base/json.c
home 'yaml\.h' formats/base/yaml.c
home 'xxhash\.h' formats/base/digest.c

# No printing, exiting or aborting below converter/, no unchecked or unsafe calls anywhere.
grep -rnE '\b(exit|abort|_exit|perror|puts|putchar|printf|fprintf)\(' formats smoothquant && complain "printing or exiting below converter/" || true
grep -rnE '\b(atoi|atol|sprintf|strcpy|strcat|gets|mmap|setlocale|rand|system)\(' formats smoothquant converter && complain "banned call" || true
grep -rnE '\bfopen\(' formats smoothquant converter && complain "stdio for files; use base/io.h" || true

# Every source file opens with its five-part comment.
for file in formats/*.[ch] formats/*/*.[ch] smoothquant/*.[ch] converter/*.[ch]; do
    [ -e "$file" ] || continue
    head -c 3 "$file" | grep -q '/\*' || complain "$file does not open with its comment"
    head -40 "$file" | grep -q 'Why this way' || complain "$file: comment lacks 'Why this way'"
    head -40 "$file" | grep -q 'Reference' || complain "$file: comment lacks 'Reference'"
done

# No test source without a source, no line beyond 180 columns.
awk 'length > 190 { printf "lint: %s:%d: line of %d columns\n", FILENAME, FNR, length; bad = 1 } END { exit bad }' $(find formats smoothquant converter -name '*.[ch]') || status=1
[ $status -eq 0 ] && echo "lint: clean"
exit $status
