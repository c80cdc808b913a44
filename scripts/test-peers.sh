#!/bin/sh
# test-peers.sh: checks llmq against independent programs from PyPI: safetensors, transformers, ml_dtypes, PyTorch, torchao.
# Apart from scripts/test.sh because it downloads about 400 MB once; a second run starts at once.
#
#   scripts/test-peers.sh                    builds llmq in build-peers/llmq and tests it
#   scripts/test-peers.sh --program PATH     tests that program
#
# LLMQ_PEERS_VENV   the virtual environment (default build-peers/venv); made when it is missing or was made for another list of packages
# PYTHON            the Python it is made from (default python3)
# pip's own settings apply. Where its index serves torch with CUDA (gigabytes), point pip at one that has the CPU build.
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh

TORCH="torch==2.13.0"
PEERS="safetensors transformers tokenizers ml_dtypes numpy"
OPTIONAL_PEERS="torchao" # without their dependencies, so that torch stays what it is; tests that miss one are skipped

program=""
while [ $# -gt 0 ]; do
    case "$1" in
        --program)
            [ $# -ge 2 ] || { echo "test-peers.sh: --program needs a path" >&2; exit 2; }
            program=$2
            shift ;;
        *) echo "usage: scripts/test-peers.sh [--program PATH]" >&2; exit 2 ;;
    esac
    shift
done

venv=${LLMQ_PEERS_VENV:-build-peers/venv}
stamp=$venv/llmq-peers.txt
wanted="$TORCH $PEERS $OPTIONAL_PEERS"

# The stamp is written last: an interrupted installation is taken up again.
make_venv() {
    python=${PYTHON:-python3}
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
    echo "making $venv (once)"
    mkdir -p "$(dirname "$venv")"
    rm -f "$stamp"
    "$python" -m venv "$venv"
    pip="$venv/bin/python -m pip install --quiet --disable-pip-version-check"
    $pip "$TORCH" # alone and first: nothing may bring another one
    # shellcheck disable=SC2086
    $pip "$TORCH" $PEERS
    for peer in $OPTIONAL_PEERS; do
        $pip --no-deps "$peer" || echo "note: $peer cannot be installed; its tests will be skipped"
    done
    echo "$wanted" >"$stamp"
}
[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || make_venv

if [ -z "$program" ]; then
    # shellcheck disable=SC2086
    install_packages $BUILD_PACKAGES
    mkdir -p build-peers
    program=build-peers/llmq/llmq
    { cmake -S . -B build-peers/llmq -DLLMQ_TESTS=OFF && cmake --build build-peers/llmq -j "$(nproc)" --target llmq; } >build-peers/build.log 2>&1 ||
        { cat build-peers/build.log; exit 1; }
fi
[ -x "$program" ] || { echo "test-peers.sh: no program at $program" >&2; exit 1; }

LLMQ_PROGRAM=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")
export LLMQ_PROGRAM
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m unittest discover -s tests/peers -v
