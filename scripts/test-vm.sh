#!/usr/bin/env bash
# The sandbox on kernels and settings that this machine does not have, in virtual machines (make test-vm): control
# groups of version 2 only, user namespaces forbidden to ordinary users, an older Landlock and none, a newer kernel.
#
#   scripts/test-vm.sh            every machine
#   scripts/test-vm.sh SCENE...   some of them: old bare new
#
# Kernels are Debian's own packages, unpacked below target/vm and never installed. The machines see this one's /usr,
# read-only, and a disk that is made for each and removed again; they have no network. Where /dev/kvm is missing, or does
# not start such a kernel (as in some machines that are virtual themselves), the processor is emulated, which is slow.
set -euo pipefail
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-$PWD/target}"
place="$target/vm"
# How machines get a processor, and what one of them may take in all, in seconds.
processor=(-accel kvm -cpu "host,arch-capabilities=off")
patience=300
# The kernels by their packages' names without version; the second stands in the archive of Debian 12 as well.
old_kernel=linux-image-amd64
new_kernel=linux-image-6.12-amd64

plain=(-nodefaults -no-user-config -display none -no-reboot)
# The machine that runs now.
qemu=
cleanup() {
    [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
    rm -rf "$place/disk" "$place/disk.img"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

install_qemu() {
    command -v qemu-system-x86_64 >/dev/null && return
    local install="apt-get install -y --no-install-recommends qemu-system-x86"
    if [ "$(id -u)" != 0 ]; then
        echo "test-vm: qemu is missing and only root may install it: apt-get update && $install" >&2
        exit 1
    fi
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words on purpose
    DEBIAN_FRONTEND=noninteractive $install >/dev/null
    echo "test-vm: installed qemu-system-x86"
}

build() {
    scripts/setup.sh demo
    cargo build --locked --bin forge
    mkdir -p "$place"
    strip -o "$place/forge" "$target/debug/forge"
}

# Whether KVM starts a kernel here, else the processor is emulated.
choose_processor() { # choose_processor KERNEL-FOLDER
    local why="there is no /dev/kvm, or it is not this user's to use"
    if [ -w /dev/kvm ]; then
        timeout --kill-after=5 15 qemu-system-x86_64 "${processor[@]}" -m 512 "${plain[@]}" \
            -kernel "$1/vmlinuz" -initrd "$1/initramfs" -append "console=ttyS0 quiet panic=-1 scene=hello" \
            -serial "file:$place/hello" </dev/null >/dev/null 2>&1 || true
        ! grep -q "it starts" "$place/hello" || return 0
        why="/dev/kvm does not start Debian's kernel"
    fi
    echo "test-vm: $why: the processor is emulated"
    processor=(-accel "tcg,thread=multi" -cpu max)
    patience=1500
}

# The disk of one machine: its root folder, filled without mounting anything.
make_disk() { # make_disk KERNEL-FOLDER
    local disk="$place/disk"
    rm -rf "$disk" "$place/disk.img"
    mkdir -p "$disk"/{etc,proc,sys,dev,run,usr,opt/vm,root,home/user,out,srv}
    mkdir -m 1777 "$disk/tmp"
    local name
    for name in bin sbin lib lib64; do
        ln -s "usr/$name" "$disk/$name"
    done
    for name in alternatives ssl ld.so.cache ld.so.conf ld.so.conf.d os-release debian_version; do
        [ ! -e "/etc/$name" ] || cp -a "/etc/$name" "$disk/etc/" 2>/dev/null || true
    done
    printf 'root:x:0:0::/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n' >"$disk/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' >"$disk/etc/group"
    printf 'root:*:1:0:99999:7:::\n' >"$disk/etc/shadow"
    printf '127.0.0.1 localhost\n' >"$disk/etc/hosts"
    cp "$place/forge" "$1/apparmor_parser" scripts/vm/{guest,cases,ladder}.sh scripts/vm/judge.py "$disk/opt/vm/"
    truncate -s 6G "$place/disk.img"
    mke2fs -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1 -d "$disk" "$place/disk.img"
}

# Starts one machine and waits for its end; what it printed goes to the terminal and is counted.
boot() { # boot SCENE KERNEL-FOLDER KERNEL-ARGUMENTS...
    local scene="$1" kernel="$2" out="$place/out/$1" began=$SECONDS
    shift 2
    rm -rf "$out"
    mkdir -p "$out"
    : >"$out/results"
    make_disk "$kernel"
    echo "== $scene: $(cat "$kernel/version") $*"
    timeout --signal=KILL "$patience" qemu-system-x86_64 \
        "${processor[@]}" -smp 2 -m 3072 "${plain[@]}" \
        -kernel "$kernel/vmlinuz" -initrd "$kernel/initramfs" \
        -append "console=ttyS0 quiet panic=-1 scene=$scene $*" \
        -drive "file=$place/disk.img,format=raw,if=virtio,cache=unsafe" \
        -virtfs local,path=/usr,mount_tag=usr,security_model=none,readonly=on,multidevs=remap \
        -virtfs "local,path=$out,mount_tag=out,security_model=none" \
        -serial "file:$out/console" </dev/null &
    qemu=$!
    # The console belongs to the kernel; what counts stands in a file of its own.
    tail -n +1 -F --pid="$qemu" "$out/results" 2>/dev/null
    wait "$qemu" || echo "qemu ended with code $?" >>"$out/console"
    qemu=
    if ! grep -qx "done" "$out/state" 2>/dev/null; then
        echo "FAIL the machine did not come to its end (after $((SECONDS - began)) s); the end of its console:"
        tail -n 30 "$out/console" | sed 's/^/    /'
        echo "FAIL $scene" >>"$out/results"
    fi
    echo "   $((SECONDS - began)) s"
}

main() {
    local scenes=("$@") scene kernel got chosen=""
    [ "${#scenes[@]}" -gt 0 ] || scenes=(old bare new)
    possible
    install_qemu
    build
    rm -rf "$place/out"
    mkdir -p "$place/out"
    for scene in "${scenes[@]}"; do
        case "$scene" in
        old | bare) kernel="$old_kernel" ;;
        new) kernel="$new_kernel" ;;
        *)
            echo "test-vm: there is no scene '$scene'; old, bare and new are" >&2
            exit 2
            ;;
        esac
        got=0
        scripts/vm/kernel.sh "$kernel" "$place/$kernel" || got=$?
        if [ "$got" = 3 ]; then
            echo "N/A  $scene: this machine's archive has no package $kernel" | tee "$place/out/$scene.absent"
            continue
        fi
        [ "$got" = 0 ] || exit "$got"
        [ -n "$chosen" ] || choose_processor "$place/$kernel"
        chosen=yes
        case "$scene" in
        old | new) boot "$scene" "$place/$kernel" ;;
        bare) boot "$scene" "$place/$kernel" lsm=lockdown,yama,apparmor cgroup_disable=memory ;;
        esac
    done
    summary
}

# Kernels come from Debian's archive, and run on the processor they are for.
possible() {
    if [ "$(uname -m)" != x86_64 ] || ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo "SKIPPED: virtual machines are made of Debian's packages for x86_64, which this machine does not have"
        exit 0
    fi
}

summary() {
    local all passed failed absent
    all="$(cat "$place"/out/*/results "$place"/out/*.absent 2>/dev/null || true)"
    passed="$(grep -c '^PASS' <<<"$all" || true)"
    failed="$(grep -c '^FAIL' <<<"$all" || true)"
    absent="$(grep -c '^N/A' <<<"$all" || true)"
    echo "test-vm: $passed passed, $failed failed, $absent not applicable, $SECONDS s;" \
        "verdicts and consoles are in $place/out"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

main "$@"
