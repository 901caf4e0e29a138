#!/usr/bin/env bash
# Builds the image `forge-core` (see Containerfile) with podman or docker, without a registry: the base is made by
# debootstrap out of the packages of this machine's own Debian.
#
#   FORGE_BINARY=target/debug/forge   this program instead of a release build
#   FORGE_BASE=debian:bookworm-slim   this base instead of one made here
#   FORGE_ENGINE=docker               this engine instead of podman
#   FORGE_IMAGE=name                  another name than forge-core
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    echo "build-core-image: $*" >&2
    exit 1
}

engine="${FORGE_ENGINE:-}"
if [ -z "$engine" ]; then
    for name in podman docker; do
        command -v "$name" >/dev/null && engine="$name" && break
    done
fi
[ -n "$engine" ] || die "neither podman nor docker is here: apt-get install podman"
image="${FORGE_IMAGE:-forge-core}"
base="${FORGE_BASE:-localhost/forge-core-base:latest}"

work="$(mktemp -d /var/tmp/forge-core.XXXXXX)"
trap 'rm -rf --one-file-system "$work"' EXIT

make_base() {
    "$engine" image inspect "$base" >/dev/null 2>&1 && return 0
    command -v debootstrap >/dev/null || die "debootstrap is not here: apt-get install debootstrap, or name a base with FORGE_BASE"
    [ "$(id -u)" = 0 ] || die "debootstrap needs root; run this as root, or name a base with FORGE_BASE"
    local suite mirror
    # shellcheck disable=SC1091  # the system's own file
    suite="$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")"
    # shellcheck disable=SC2016  # apt fills the word in
    mirror="$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -n 1)"
    echo "build-core-image: making the base (about a minute)" >&2
    # shellcheck disable=SC2086  # no mirror found means debootstrap's own
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$work/root" $mirror >"$work/debootstrap.log" 2>&1 || {
        tail -n 5 "$work/debootstrap.log" >&2
        die "debootstrap failed"
    }
    tar -C "$work/root" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' \
        --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' -c . | "$engine" import - "$base" >&2
}

binary="${FORGE_BINARY:-}"
if [ -z "$binary" ]; then
    cargo build --locked --release --bin forge
    binary="${CARGO_TARGET_DIR:-target}/release/forge"
fi
[ -x "$binary" ] || die "there is no program $binary"

make_base
mkdir "$work/context"
cp Containerfile "$work/context/"
cp "$binary" "$work/context/forge"
# Symbols for debuggers are of no use there.
strip "$work/context/forge" 2>/dev/null || true
"$engine" build --quiet --build-arg "BASE=$base" --file "$work/context/Containerfile" --tag "$image" "$work/context" >/dev/null
"$engine" image inspect --format '{{.Size}}' "$image" | awk -v name="$image" '{ printf "%s: %d MB\n", name, $1 / 1000000 }'
