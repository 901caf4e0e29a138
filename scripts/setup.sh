#!/usr/bin/env bash
# Makes a fresh Debian-like machine ready, and does nothing on one that is.
#
#   scripts/setup.sh build   what compiling needs
#   scripts/setup.sh demo    ... and what the demo's sample project needs (the default)
#   scripts/setup.sh test    ... and what the tests need; as root also the container engines, if they can be had
#
# Missing Debian packages are installed when that is possible without asking (root, or sudo without a password);
# otherwise the script says what is missing and how to get it, and fails.
set -euo pipefail

level="${1:-demo}"
case "$level" in
build | demo | test) ;;
*)
    echo "setup: unknown level '$level'; use build, demo or test" >&2
    exit 2
    ;;
esac

# What the sandbox shows of the host are the system's folders, so the sample projects need the system's python.
python=/usr/bin/python3
packages=()
missing=()
need() { # need NAME PACKAGE TEST...
    local name="$1" package="$2"
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        missing+=("$name")
        packages+=("$package")
    fi
}

need "make" make command -v make
need "a C compiler (cc)" gcc command -v cc
need "the C library's headers" libc6-dev test -e /usr/include/stdio.h
need "git" git command -v git
if [ "$level" != build ]; then
    need "$python" python3 test -x "$python"
fi
if [ "$level" = test ]; then
    need "pytest for $python" python3-pytest "$python" -c "import pytest"
fi

if [ "${#packages[@]}" -gt 0 ]; then
    echo "setup: missing: $(IFS=,; echo "${missing[*]}")"
    install="apt-get install -y --no-install-recommends ${packages[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "setup: this is no Debian-like system; install what is missing with its own package manager" >&2
        exit 1
    elif [ "$(id -u)" = 0 ]; then
        become=(env)
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        become=(sudo -n env)
    else
        echo "setup: not allowed to install packages as $(id -un); run this once as root:" >&2
        echo "    apt-get update && $install" >&2
        exit 1
    fi
    "${become[@]}" apt-get update -qq
    # shellcheck disable=SC2086  # a list of words on purpose
    "${become[@]}" DEBIAN_FRONTEND=noninteractive $install >/dev/null
    echo "setup: installed ${packages[*]}"
fi

# Without these the tests of the container backends are left out, which the tests' summary says; only root can start
# them.
if [ "$level" = test ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    packages=()
    missing=()
    need "dockerd" docker.io command -v dockerd
    need "debootstrap" debootstrap command -v debootstrap
    need "podman" podman command -v podman
    need "curl" curl command -v curl
    # A package of its own on newer systems.
    if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then
        need "docker" docker-cli command -v docker
    fi
    if [ "${#packages[@]}" -gt 0 ]; then
        echo "setup: container engines for the tests, missing: $(IFS=,; echo "${missing[*]}")"
        if { [ -n "${become:-}" ] || apt-get update -qq; } &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" >/dev/null; then
            echo "setup: installed ${packages[*]}"
        else
            echo "setup: they can't be installed here; their tests are left out"
        fi
    fi
fi

if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing; install Rust (the version stands in Cargo.toml as rust-version) with rustup" >&2
    exit 1
fi
root="$(cd "$(dirname "$0")/.." && pwd)"
wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")"
found="$(rustc --version | cut -d' ' -f2)"
if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n1)" != "$wanted" ]; then
    echo "setup: Rust $found is too old, $wanted or newer is needed: rustup update" >&2
    exit 1
fi
if [ "$level" = test ]; then
    for component in rustfmt clippy; do
        if ! cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
            if ! command -v rustup >/dev/null || ! rustup component add "$component"; then
                echo "setup: $component is missing: rustup component add $component" >&2
                exit 1
            fi
        fi
    done
fi
