#!/bin/bash
# Process 1 of a virtual machine: makes a machine with control groups of version 2 only, laid out as systemd does,
# runs the cases of the scene that the kernel's command line names, and switches the machine off.
set -uo pipefail

export PATH=/usr/local/bin:/usr/bin:/usr/sbin HOME=/root LANG=C.UTF-8
groups=/sys/fs/cgroup
# Where cases write: the host's folder for this scene.
out=/out

prepare() {
    mount -t proc -o nosuid,nodev,noexec proc /proc
    mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
    mount -t securityfs securityfs /sys/kernel/security
    mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 "$groups"
    mkdir -p /dev/pts /dev/shm
    mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
    mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
    ln -s /proc/self/fd /dev/fd
    ln -s /proc/self/fd/0 /dev/stdin
    ln -s /proc/self/fd/1 /dev/stdout
    ln -s /proc/self/fd/2 /dev/stderr
    chown -R 0:0 /etc /opt /root /srv
    chmod 600 /etc/shadow
    chmod 700 /root
    chown -R 1000:1000 /home/user
    ip link set lo up
    echo vm >/proc/sys/kernel/hostname
}

# Groups as on a machine with systemd: a service, and a user's session with and without delegation.
lay_out_groups() {
    local control="+pids +cpu" user="$groups/user.slice/user-1000" folder
    ! grep -qw memory "$groups/cgroup.controllers" || control+=" +memory"
    for folder in "$groups" "$groups/system.slice" "$groups/user.slice" "$user" "$user/own"; do
        mkdir -p "$folder"
        echo "$control" >"$folder/cgroup.subtree_control"
    done
    mkdir "$groups/system.slice/ssh.service" "$user/session.scope" "$user/own/app.scope"
    # What `Delegate=yes` gives: this part of the tree is the user's.
    chown 1000:1000 "$user/own"{,/app.scope}{,/cgroup.procs,/cgroup.subtree_control}
}

prepare
lay_out_groups
: >"$out/results"
# shellcheck source=scripts/vm/cases.sh
. /opt/vm/cases.sh
# shellcheck source=scripts/vm/ladder.sh
. /opt/vm/ladder.sh
"scene_$(tr ' ' '\n' </proc/cmdline | sed -n 's/^scene=//p')"
echo "done" >"$out/state"
sync
echo o >/proc/sysrq-trigger
sleep 60
