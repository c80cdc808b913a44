#!/bin/sh
# test-peers.sh: checks llmq against independent programs from PyPI: safetensors, transformers, ml_dtypes, PyTorch, torchao, gguf, llama.cpp.
# Apart from scripts/test.sh because it downloads about 500 MB and builds llama.cpp (about 4 minutes on 2 cores) once; a second run starts at once.
#
#   scripts/test-peers.sh                    builds llmq in build-peers/llmq and tests it
#   scripts/test-peers.sh --program PATH     tests that program
#   scripts/test-peers.sh --no-llama         does not build llama.cpp; its tests are skipped
#
# LLMQ_PEERS_VENV   the virtual environment (default build-peers/venv); made when it is missing or was made for another list of packages
# PYTHON            the Python it is made from (default python3)
# pip's own settings apply. Where its index serves torch with CUDA (gigabytes), point pip at one that has the CPU build.
set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh

TORCH="torch==2.13.0"
PEERS="safetensors transformers tokenizers ml_dtypes numpy gguf"
OPTIONAL_PEERS="torchao" # without their dependencies, so that torch stays what it is; tests that miss one are skipped

# llama.cpp as the Python package holds it: its libraries alone, for any x86-64 with AVX2 (or without, where this one is) or any other processor.
# Its quantisers must round as C says, hence no contraction to FMA. -O1, as the build takes longer than all its runs.
LLAMA="llama-cpp-python==0.3.36"
LLAMA_PACKAGES="g++ cmake ninja-build"
LLAMA_CMAKE="-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DGGML_CPU_REPACK=OFF -DGGML_CCACHE=OFF -DLLAMA_OPENSSL=OFF"
LLAMA_CMAKE="$LLAMA_CMAKE -DCMAKE_C_FLAGS=-ffp-contract=off -DCMAKE_CXX_FLAGS=-ffp-contract=off -DCMAKE_C_FLAGS_RELEASE=-O2 -DCMAKE_CXX_FLAGS_RELEASE=-O1"
grep -qw avx2 /proc/cpuinfo 2>/dev/null ||
    LLAMA_CMAKE="$LLAMA_CMAKE -DGGML_SSE42=OFF -DGGML_AVX=OFF -DGGML_AVX2=OFF -DGGML_BMI2=OFF -DGGML_FMA=OFF -DGGML_F16C=OFF"

program=""
llama=yes
while [ $# -gt 0 ]; do
    case "$1" in
        --program)
            [ $# -ge 2 ] || { echo "test-peers.sh: --program needs a path" >&2; exit 2; }
            program=$2
            shift ;;
        --no-llama) llama=no ;;
        *) echo "usage: scripts/test-peers.sh [--program PATH] [--no-llama]" >&2; exit 2 ;;
    esac
    shift
done

venv=${LLMQ_PEERS_VENV:-build-peers/venv}
stamp=$venv/llmq-peers.txt
wanted="$TORCH $PEERS $OPTIONAL_PEERS"
llama_stamp=$venv/llmq-llama.txt
llama_wanted="$LLAMA $LLAMA_CMAKE"
pip="$venv/bin/python -m pip install --quiet --disable-pip-version-check"

# The stamp is written last: an interrupted installation is taken up again.
make_venv() {
    python=${PYTHON:-python3}
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
    echo "making $venv (once)"
    mkdir -p "$(dirname "$venv")"
    rm -f "$stamp"
    "$python" -m venv "$venv"
    $pip "$TORCH" # alone and first: nothing may bring another one
    # shellcheck disable=SC2086
    $pip "$TORCH" $PEERS
    for peer in $OPTIONAL_PEERS; do
        $pip --no-deps "$peer" || echo "note: $peer cannot be installed; its tests will be skipped"
    done
    echo "$wanted" >"$stamp"
}
[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || make_venv

# Has a stamp of its own, so that another list of packages does not build it again. The cmake file overrules an option that the package
# forces on: the common library, which takes long to compile and serves llama.cpp's own programs alone.
make_llama() {
    # shellcheck disable=SC2086
    install_packages $LLAMA_PACKAGES
    echo "building $LLAMA (once, some minutes; --no-llama goes on without it)"
    rm -f "$llama_stamp"
    echo 'set(LLAMA_BUILD_COMMON OFF)' >"$venv/llama.cmake"
    # shellcheck disable=SC2086
    args=$(echo $LLAMA_CMAKE "-DCMAKE_PROJECT_llama.cpp_INCLUDE=$(cd "$venv" && pwd)/llama.cmake")
    CMAKE_ARGS=$args SKBUILD_BUILD_TARGETS=llama $pip --no-cache-dir --force-reinstall --no-deps --no-binary llama-cpp-python "$LLAMA"
    $pip "$TORCH" "$LLAMA" # what it needs besides
    echo "$llama_wanted" >"$llama_stamp"
}
[ $llama = no ] || [ "$(cat "$llama_stamp" 2>/dev/null)" = "$llama_wanted" ] || make_llama

if [ -z "$program" ]; then
    # shellcheck disable=SC2086
    install_packages $BUILD_PACKAGES
    mkdir -p build-peers
    program=build-peers/llmq/llmq
    { cmake -S . -B build-peers/llmq -DLLMQ_TESTS=OFF && cmake --build build-peers/llmq -j "$(nproc)" --target llmq llmq_tokenize; } >build-peers/build.log 2>&1 ||
        { cat build-peers/build.log; exit 1; }
fi
[ -x "$program" ] || { echo "test-peers.sh: no program at $program" >&2; exit 1; }

LLMQ_PROGRAM=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")
export LLMQ_PROGRAM
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -m unittest discover -s tests/peers -v
