#!/usr/bin/env bash
# Container engines for the tests of the docker and podman backends.
#
#   scripts/docker.sh up      start what does not run yet, make the test image; say where the engines are
#   scripts/docker.sh down    stop what `up` started, and nothing else; where FORGE_TEST_ENGINES_STARTED is set, as the
#                             lines of `up` do, what that one call started
#
# Needs root, docker (20.10 or newer) and debootstrap; podman is optional. What is missing is said, and is a failure
# only with FORGE_DOCKER=1. Lines `export NAME=value` on standard output are for `eval`; everything else goes to
# standard error.
set -euo pipefail
cd "$(dirname "$0")/.."

image=forge-test:latest
started=""
root=""
state="${FORGE_ENGINES:-/tmp/forge-engines-$(id -u)}"
docker_socket=/var/run/docker.sock
podman_socket="$state/podman.sock"
# Podman mounts this onto itself and leaves it.
podman_storage=/var/lib/containers/storage/overlay

say() { echo "docker: $*" >&2; }

# However `up` ends: what it started has to be stopped.
finish_up() {
    [ -z "$root" ] || rm -rf --one-file-system "$root"
    echo "export FORGE_TEST_ENGINES_STARTED='$started'"
}

lacking() { # lacking WHY
    say "NOT TESTED: $*"
    [ -z "${TEST_SKIP_LOG:-}" ] || echo "container backends: $*" >>"$TEST_SKIP_LOG"
    [ "${FORGE_DOCKER:-}" != 1 ] || exit 1
    exit 0
}

without() { # without WHY: podman is not needed for the rest
    say "NOT TESTED: podman: $*"
    [ -z "${TEST_SKIP_LOG:-}" ] || echo "podman backend: $*" >>"$TEST_SKIP_LOG"
}

answers() { # answers SOCKET
    [ -S "$1" ] && curl --silent --fail --max-time 5 --unix-socket "$1" http://engine/_ping >/dev/null 2>&1
}

wait_for() { # wait_for NAME SOCKET LOG PID
    for _ in $(seq 150); do
        ! answers "$2" || return 0
        kill -0 "$4" 2>/dev/null || break
        sleep 0.2
    done
    say "$1 did not start:"
    tail -n 5 "$3" >&2
    return 1
}

start_docker() {
    ! answers "$docker_socket" || return 0
    command -v dockerd >/dev/null || lacking "dockerd is not installed (apt-get install docker.io)"
    # Without bridges and packet filters: boxes have no network, and the machine's stays as it is.
    setsid dockerd --host "unix://$docker_socket" --pidfile "$state/dockerd.pid" --exec-root "$state/docker" \
        --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
        >"$state/dockerd.log" 2>&1 </dev/null &
    local pid=$!
    wait_for dockerd "$docker_socket" "$state/dockerd.log" "$pid" || lacking "dockerd does not start here"
    echo "$pid" >"$state/dockerd.started"
    started="dockerd"
    say "started dockerd"
}

start_podman() {
    command -v podman >/dev/null || { without "podman is not installed (apt-get install podman)"; return 0; }
    ! answers "$podman_socket" || return 0
    # crun refuses machines with both versions of control groups; runc takes them.
    local options=(--cgroup-manager cgroupfs)
    [ ! -x "$(command -v runc)" ] || options+=(--runtime "$(command -v runc)")
    rm -f "$state/podman.mounted"
    ! mountpoint -q "$podman_storage" || : >"$state/podman.mounted"
    # Not from the sources: what watches its containers writes into the folder that it was started in.
    (cd "$state" && exec setsid podman "${options[@]}" system service --time 0 "unix://$podman_socket") \
        >"$state/podman.log" 2>&1 </dev/null &
    local pid=$!
    if wait_for podman "$podman_socket" "$state/podman.log" "$pid"; then
        echo "$pid" >"$state/podman.started"
        started="podman $started"
        say "started podman's service"
    else
        without "its service does not start here"
    fi
}

# A small Debian with python and git, the same for both engines.
make_image() {
    docker image inspect "$image" >/dev/null 2>&1 && return 0
    command -v debootstrap >/dev/null || lacking "debootstrap is not installed, and there is no image $image"
    local suite mirror
    root="$(mktemp -d /var/tmp/forge-test-image.XXXXXX)"
    # shellcheck disable=SC1091  # the system's own file
    suite="$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")"
    # shellcheck disable=SC2016  # apt fills the word in
    mirror="$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -n 1)"
    say "making $image (about a minute)"
    # shellcheck disable=SC2086  # no mirror found means debootstrap's own
    if ! debootstrap --variant=minbase --include=python3,git,ca-certificates "$suite" "$root" $mirror \
        >"$state/debootstrap.log" 2>&1; then
        tail -n 5 "$state/debootstrap.log" >&2
        lacking "debootstrap failed"
    fi
    tar -C "$root" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' -c . | docker import - "$image" >&2
    rm -rf --one-file-system "$root"
    root=""
}

share_image() {
    answers "$podman_socket" || return 0
    podman image exists "localhost/$image" || docker save "$image" | podman load >/dev/null 2>&1 ||
        without "podman did not take the image $image"
}

stop() { # stop NAME
    [ -f "$state/$1.started" ] || return 0
    local pid
    pid="$(cat "$state/$1.started")"
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    rm -f "$state/$1.started"
    if [ "$1" = podman ] && [ ! -f "$state/podman.mounted" ] && mountpoint -q "$podman_storage"; then
        umount "$podman_storage" 2>/dev/null || true
    fi
    say "stopped $1"
}

case "${1:-up}" in
up)
    trap finish_up EXIT
    [ "$(id -u)" = 0 ] || answers "$docker_socket" || lacking "no engine runs and only root can start one"
    command -v docker >/dev/null || lacking "docker is not installed (apt-get install docker.io)"
    command -v curl >/dev/null || lacking "curl is not installed"
    mkdir -p "$state"
    [ "$(id -u)" != 0 ] || { start_docker; start_podman; }
    make_image
    share_image
    echo "export FORGE_TEST_DOCKER=unix://$docker_socket"
    ! answers "$podman_socket" || echo "export FORGE_TEST_PODMAN=unix://$podman_socket"
    ;;
down)
    for engine in ${FORGE_TEST_ENGINES_STARTED-podman dockerd}; do
        stop "$engine"
    done
    # Logs and process ids, of no use without an engine.
    if [ ! -f "$state/podman.started" ] && [ ! -f "$state/dockerd.started" ]; then
        # What dockerd keeps of its own network namespace.
        awk -v below="$state/" 'index($2, below) == 1 { print $2 }' /proc/mounts | xargs -r -n 1 umount 2>/dev/null || true
        rm -rf --one-file-system "$state"
    fi
    ;;
*)
    say "unknown part '$1'; use up or down"
    exit 2
    ;;
esac
