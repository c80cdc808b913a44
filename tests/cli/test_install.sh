#!/bin/sh
# test_install.sh: installs a build, moves it, and uses it as others would: with pkg-config, with find_package, and the program from elsewhere.
#
#   tests/cli/test_install.sh BUILD          CMAKE=... another cmake than the one on PATH
#
# The installed program must find its own share/llmq: it is run with the paths that the build left in it (source tree, planned prefix) made useless.
set -eu
export LC_ALL=C
build=$(cd "$1" && pwd)
cmake=${CMAKE:-cmake}
cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
source=$(cached CMAKE_HOME_DIRECTORY)
cc=$(cached CMAKE_C_COMPILER)
planned=$(cached CMAKE_INSTALL_PREFIX)
flags="-std=c11 -Wall -Wextra -Werror"
[ "$(cached LLMQ_SANITIZE)" = ON ] && flags="$flags -fsanitize=address,undefined"
unset LLMQ_CONFIG || true

work=$(mktemp -d "${TMPDIR:-/tmp}/llmq-install-XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() { echo "test_install: $1" >&2; exit 1; }
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "failed: $*"; }; }

# Install, then move everything.
quietly "$cmake" --install "$build" --prefix "$work/first"
mv "$work/first" "$work/moved"
prefix=$work/moved
pc=$(find "$prefix" -name llmq.pc)
config=$(find "$prefix" -name llmqConfig.cmake)
[ -n "$pc" ] && [ -n "$config" ] || fail "llmq.pc or llmqConfig.cmake is missing"
[ "$(find "$prefix/include" -type f)" = "$prefix/include/llmq.h" ] || fail "headers besides llmq.h are installed"
[ -f "$prefix/share/llmq/roles.yaml" ] || fail "share/llmq/roles.yaml is missing"
names=$(nm -g --defined-only "$prefix"/lib*/libllmq.a "$prefix"/lib*/*/libllmq.a 2>/dev/null | awk 'NF == 3 && $3 !~ /^llmq_/ { print $3 }' | head -3)
[ -z "$names" ] || [ -z "$(cached CMAKE_OBJCOPY)" ] || fail "the library has global names without llmq_: $names"
if grep -rIl -e "$source" -e "$build" -e "$work/first" "$prefix"; then fail "these installed files name the build's own folders"; fi

# The program, with no way back to the source tree or the planned prefix.
mkdir "$work/elsewhere"
sed -e "s|$source/configs|$source/c0nfigs|g" -e "s|$planned/share/llmq|$planned/sh4re/llmq|g" "$prefix/bin/llmq" >"$work/patched"
cmp -s "$work/patched" "$prefix/bin/llmq" && fail "the paths of the build are not in the program as this test thinks"
cat "$work/patched" >"$prefix/bin/llmq"
tiny=$source/tests/data/tiny-llama
cd "$work/elsewhere"
quietly "$prefix/bin/llmq" --version
for recipe in "$prefix"/share/llmq/recipes/*.yaml; do
    [ -e "$recipe" ] || continue
    quietly "$prefix/bin/llmq" convert --in "$tiny" --recipe "$(basename "$recipe" .yaml)" --out r.llmq --force
done
quietly "$prefix/bin/llmq" convert --in "$tiny" --format int4 --group-size 32 --out m.llmq
quietly "$prefix/bin/llmq" verify m.llmq
mv "$prefix/share" "$prefix/hidden"
if "$prefix/bin/llmq" plan --in "$tiny" --format int4 >"$work/log" 2>&1; then fail "the program runs without its share folder: it reads somewhere else"; fi
grep -q roles.yaml "$work/log" || fail "without share the program says: $(cat "$work/log")"
mv "$prefix/hidden" "$prefix/share"

# A program of someone else's, twice.
tensor=model.layers.0.self_attn.q_proj.weight
PKG_CONFIG_PATH=$(dirname "$pc")${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
export PKG_CONFIG_PATH
[ "$(pkg-config --modversion llmq)" = "$(cached CMAKE_PROJECT_VERSION)" ] || fail "pkg-config tells another version"
# shellcheck disable=SC2046,SC2086
quietly "$cc" $flags -o by_pkg_config "$source/tests/example_read.c" $(pkg-config --cflags --libs llmq)
./by_pkg_config m.llmq $tensor >by_pkg_config.txt || fail "the program built with pkg-config fails"
grep -q "^$tensor: [A-Z0-9]* \[.*\], int4: " by_pkg_config.txt || fail "unexpected: $(cat by_pkg_config.txt)"

cat >CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.18)
project(consumer LANGUAGES C)
find_package(llmq 99 QUIET)
if(llmq_FOUND)
    message(FATAL_ERROR "version 99 was found")
endif()
find_package(llmq $(cached CMAKE_PROJECT_VERSION) REQUIRED)
add_executable(by_cmake $source/tests/example_read.c)
target_link_libraries(by_cmake PRIVATE llmq::llmq)
END
unset PKG_CONFIG_PATH
quietly "$cmake" -S . -B made -DCMAKE_C_COMPILER="$cc" -DCMAKE_C_FLAGS="$flags" -DCMAKE_PREFIX_PATH="$prefix"
quietly "$cmake" --build made
./made/by_cmake m.llmq $tensor >by_cmake.txt || fail "the program built with find_package fails"
cmp by_cmake.txt by_pkg_config.txt
echo "test_install: program, pkg-config and find_package work from a moved prefix"
