# shellcheck shell=bash
# What script/test, script/demo and .ci/run share: the Debian packages, the virtual environment and the words on the way.
#
#   prepare "purpose" (or prepare_tests)  ->  need_root  ->  install_packages  ->  make_environment
#
# Both preparations do nothing when nothing is missing, and hold a lock, so that several runs may start at once.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# What the gateway, its tests and the demo use from Debian; docs/dependencies.md has a line for each.
packages=(
    gcc
    iperf3
    iproute2
    iputils-ping
    libc6-dev
    libssl-dev
    netcat-openbsd
    python3
    python3-dev
    python3-venv
    softhsm2
    util-linux
    wireguard-go
    wireguard-tools
)

# What only the tests use: other PKCS#11 modules than SoftHSM, and a smart card reader without hardware.
test_packages=(
    groff-base
    libnss3
    libnss3-tools
    libp11-kit-dev
    nftables
    opensc
    opensc-pkcs11
    pcscd
    procps
    systemd
    tshark
    vsmartcard-vpcd
)

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# at_end FUNCTION: calls it once with the exit code, however the script ends. A trap that said no more than "exit" would
# not do: bash runs it inside the trap of EXIT, too, which then never comes to its first command.
at_end() {
    at_end_call=$1
    trap 'end_with $?' EXIT
    trap 'end_with 129' HUP
    trap 'end_with 130' INT
    trap 'end_with 143' TERM
}

end_with() {
    trap '' HUP INT TERM
    trap - EXIT
    "$at_end_call" "$1"
    exit "$1"
}

need_root() {
    [[ $(id -u) -eq 0 ]] || die "$1 needs root (it makes network namespaces and TUN interfaces); run it as root"
}

# install_packages NAME...: those of the Debian packages that are not installed yet
install_packages() (
    exec 9>/run/lock/wghsm-packages.lock
    flock 9
    missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || exit 0
    command -v apt-get >/dev/null || die "missing Debian packages, and no apt-get to install them: ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q -o Acquire::Retries=3 </dev/null 9>&-
    apt-get install -q -y --no-install-recommends -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 "${missing[@]}" </dev/null 9>&-
)

# find_python: the first Python that is new enough; Debian's own first, since every user may read it
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# make_environment: .venv with the locked dependencies and the package itself, editable
make_environment() (
    umask 022
    stamp=$venv/.wghsm-stamp
    exec 9<"$root/script/lib.sh"
    flock 9
    # With the sources of what is compiled, so that a change of one builds it anew.
    wanted=$(cd "$root" && printf '%s\n' "$root" && sha256sum requirements.txt pyproject.toml setup.py &&
        find wghsm -name '*.[ch]' -o -name '_*_build.py' | LC_ALL=C sort | xargs sha256sum)
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && "$venv/bin/python" -c 'import wghsm' 2>/dev/null 9<&-; then
        exit 0
    fi
    if ! "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$(find_python) || die "no Python 3.11 or newer with venv found"
        say "making .venv with $python"
        "$python" -m venv --clear "$venv"
    fi
    rm -f "$stamp"
    say "installing the locked dependencies into .venv"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input install -qq)
    "${pip[@]}" --require-hashes -r "$root/requirements.txt" 9<&-
    "${pip[@]}" --no-deps --no-build-isolation -e "$root" 9<&-
    printf '%s\n' "$wanted" >"$stamp"
)

# prepare WHAT [PACKAGE...]: everything that WHAT needs on a fresh Debian 12
prepare() {
    need_root "$1"
    say "checking the Debian packages"
    install_packages "${packages[@]}" "${@:2}"
    say "checking the virtual environment"
    make_environment
}

# prepare_tests WHAT: as prepare, with what only the tests use
prepare_tests() {
    prepare "$1" "${test_packages[@]}"
}

# build_apart FOLDER FLAG...: a copy of the package and its tests, with the compiled parts built with gcc's FLAGs
build_apart() (
    cp -r "$root"/{README.md,pyproject.toml,setup.py,tests,wghsm} "$1"
    cd "$1"
    find wghsm -name '*.so' -delete
    export CC=gcc CFLAGS="${*:2}" LDFLAGS="${*:2}"
    "$venv/bin/python" setup.py -q build_ext --inplace </dev/null >build.log 2>&1 || { cat build.log >&2; exit 1; }
    [[ $(find wghsm -name '*.so' | wc -l) -eq $(find wghsm -name '_*_build.py' | wc -l) ]] ||
        { cat build.log >&2; die "not all parts could be compiled"; }
)

build_sanitized() {
    build_apart "$1" -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
}

# sanitized COMMAND...: with what build_sanitized has built, and memory that the sanitizer sees
sanitized() {
    PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 \
        ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 \
        LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" "$@"
}

# check_lock FILE...: lock files name neither an index nor an address, and pin every line with a hash
check_lock() {
    local file bad=0
    for file in "$@"; do
        if grep -nE '://|@ |^[[:space:]]*-(i|f|e)|--(extra-)?index|--find-links|--trusted-host|[a-z0-9-]+\.(org|com|net|io)\b' "$file"; then
            printf 'error: %s names an index, a host or an address\n' "$file" >&2
            bad=1
        fi
        if grep -nE '^[A-Za-z0-9]' "$file" | grep -vE '^[0-9]+:[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+ .*\\$'; then
            printf 'error: %s has a line without version and hash\n' "$file" >&2
            bad=1
        fi
    done
    return "$bad"
}
