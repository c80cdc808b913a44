# packages.sh: sourced by the other scripts: installs missing Debian packages, as root or with sudo, quickly when all are there.

# install_packages NAME...: installs those that are missing.
install_packages() {
    missing=""
    for name in "$@"; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q "install ok installed" || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || { echo "these packages are missing and need root or sudo:$missing" >&2; return 1; }
        as_root="sudo"
    fi
    echo "installing:$missing"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

BUILD_PACKAGES="gcc libc6-dev cmake make pkg-config libcjson-dev libzstd-dev libyaml-dev libxxhash-dev"
TEST_PACKAGES="libcmocka-dev python3 python3-numpy python3-zstandard python3-xxhash util-linux"

# install_clang: clang with its sanitizer and fuzzer runtime, whose package carries the version in its name.
install_clang() {
    install_packages clang
    version=$(clang -dumpversion | cut -d. -f1)
    install_packages "libclang-rt-$version-dev"
}

# install_browser: what the test of the report needs; a system without these packages goes without that test.
install_browser() {
    if install_packages chromium chromium-driver python3-selenium; then
        LLMQ_BROWSER=required
        export LLMQ_BROWSER
    else
        echo "the report is not tested in a browser: no chromium, chromium-driver and python3-selenium"
    fi
}
