#!/bin/busybox sh
# shellcheck shell=dash
# The first program of a virtual machine: loads the modules, assembles the root folder from the disk and the host's
# /usr, and goes on with guest.sh there.
bb=/bin/busybox
stop() {
    echo "init: $1"
    $bb poweroff -f
}
$bb mount -t proc proc /proc
# Only whether this kernel starts was the question.
$bb grep -q scene=hello /proc/cmdline && stop "it starts"
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
while read -r module; do
    $bb insmod "/modules/$module" || echo "init: $module can't be loaded"
done </modules/order
$bb mount -t ext4 /dev/vda /disk || stop "the disk can't be mounted"
share="trans=virtio,version=9p2000.L,msize=262144"
# Nobody writes to it, so what was read once may be kept.
$bb mount -t 9p -o "ro,$share,cache=loose" usr /disk/usr || stop "/usr can't be mounted"
$bb mount -t 9p -o "$share" out /disk/out || stop "the folder for results can't be mounted"
$bb umount /sys
$bb umount /proc
$bb mount --move /dev /disk/dev || stop "/dev can't be moved"
exec $bb switch_root /disk /bin/bash /opt/vm/guest.sh
