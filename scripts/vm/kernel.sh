#!/usr/bin/env bash
# Gets one of Debian's kernel packages and makes of it what a virtual machine boots: a kernel and an initramfs.
#
#   scripts/vm/kernel.sh PACKAGE FOLDER    PACKAGE is the name without version, such as linux-image-amd64
#
# Nothing is installed: the packages are unpacked in FOLDER, which then holds `vmlinuz`, `initramfs`, AppArmor's
# `apparmor_parser` and `version`. Done once. Ends with code 3 if the archive has no such package.
set -euo pipefail

package="$1"
folder="$2"
here="$(cd "$(dirname "$0")" && pwd)"
# What the machine's devices, its root folder and the boxes need; modules that these need come by themselves.
modules="virtio_pci virtio_blk crc32c_generic ext4 9pnet_virtio 9p overlay fuse tun vsock"

# The package that the name without version stands for today.
newest() {
    apt-cache depends "$package" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

download() { # download PACKAGE...: into the current folder
    # The user that apt downloads as may not write here.
    apt-get -o APT::Sandbox::User="$(id -un)" download "$@" >/dev/null
}

# Unpacks a module and, before it, those it needs; their order is appended to the file `order`.
unpack() { # unpack NAME
    local name="$1" file plain need
    file="$(find modules -name "${name//_/[-_]}.ko*" -print -quit)"
    # Built into this kernel.
    [ -n "$file" ] || return 0
    plain="tree/modules/$(basename "${file%.xz}")"
    [ ! -e "$plain" ] || return 0
    case "$file" in
    *.xz) xz -dc "$file" >"$plain" ;;
    *) cp "$file" "$plain" ;;
    esac
    for need in $(grep -aoz 'depends=[^[:cntrl:]]*' "$plain" | tr -d '\0' | sed 's/^depends=//' | tr ',' ' '); do
        unpack "$need"
    done
    basename "$plain" >>tree/modules/order
}

if [ -e "$folder/version" ]; then
    exit 0
fi
image="$(newest)"
if [ -z "$image" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    image="$(newest)"
fi
[ -n "$image" ] || exit 3

rm -rf "$folder"
mkdir -p "$folder/work"
cd "$folder/work"
echo "test-vm: fetching $image"
download "$image" busybox-static apparmor
mkdir -p modules tree/{bin,modules,proc,sys,dev,disk}
wanted=(--wildcards './boot/vmlinuz-*' './lib/modules/*/kernel/fs/*' './lib/modules/*/kernel/net/*')
wanted+=('./lib/modules/*/kernel/lib/*' './lib/modules/*/kernel/crypto/*' './lib/modules/*/kernel/arch/*')
wanted+=('./lib/modules/*/kernel/drivers/virtio/*' './lib/modules/*/kernel/drivers/block/*')
wanted+=('./lib/modules/*/kernel/drivers/net/*')
dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x -C modules "${wanted[@]}"
dpkg-deb --fsys-tarfile busybox-static_*.deb | tar -x -C tree --transform 's,.*/,bin/,' --wildcards '*/bin/busybox'
dpkg-deb --fsys-tarfile apparmor_*.deb | tar -x -C .. --transform 's,.*/,,' --wildcards '*/sbin/apparmor_parser'
for module in $modules; do
    unpack "$module"
done
cp "$here/init.sh" tree/init
chmod 755 tree/init
mv modules/boot/vmlinuz-* ../vmlinuz
(cd tree && find . | ./bin/busybox cpio -o -H newc -R 0:0 2>/dev/null) >../initramfs
cd ..
rm -rf work
echo "$image" >version
