# Cases that expect the box to hold: the probes and the ceilings, as each kind of user. Sourced by guest.sh.
# shellcheck shell=bash disable=SC2154,SC2053,SC2016  # variables of guest.sh; patterns and scripts as arguments

say() { # say PASS|FAIL|N/A TEXT...
    printf '%-4s %s\n' "$1" "${*:2}" >>"$out/results"
}

# Whether what a command says holds, in one line (more, if it does not).
check() { # check NAME COMMAND...
    local name="$1" began="$SECONDS" text verdict=PASS
    shift
    text="$("$@" 2>&1)" || verdict=FAIL
    say "$verdict" "$name: $text$( [ $((SECONDS - began)) -lt 5 ] || echo " ($((SECONDS - began)) s)")"
}

# Where processes of each kind of user live, and their user id.
place_of() { # place_of WHO
    case "$1" in
    root) echo ". 0" ;;
    service) echo "system.slice/ssh.service 0" ;;
    delegated) echo "user.slice/user-1000/own/app.scope 1000" ;;
    plain) echo "user.slice/user-1000/session.scope 1000" ;;
    esac
}

repo_of() { # repo_of WHO
    case "$1" in
    root | service) echo /srv/repo ;;
    *) echo /home/user/repo ;;
    esac
}

# Runs a command as somebody, in that one's group and repository. Settings are given as NAME=VALUE before it.
as() { # as WHO [NAME=VALUE...] COMMAND...
    local group uid home=/root
    read -r group uid <<<"$(place_of "$1")"
    [ "$uid" = 0 ] || home=/home/user
    (
        echo "$BASHPID" >"$groups/$group/cgroup.procs"
        # The command keeps this process id.
        echo "$BASHPID" >/run/newest
        cd "$(repo_of "$1")" || exit 1
        shift
        exec setpriv --reuid "$uid" --regid "$uid" --clear-groups \
            env -i "PATH=$PATH" "HOME=$home" "LANG=$LANG" "$@"
    )
}

forge=/opt/vm/forge
exec_box=("$forge" sandbox exec --backend native)

make_repos() {
    local who repo
    for who in root plain; do
        repo="$(repo_of "$who")"
        rm -rf "$repo"
        mkdir "$repo"
        echo text >"$repo/file"
        mkfifo "$repo/gate"
        chown -R "$(place_of "$who" | cut -d' ' -f2)" "$repo"
    done
}

# All probes; those that could not be made here are named, each in a line of its own.
verify() { # verify WHO
    local file="$out/verify-$1.json" name
    as "$1" "$forge" sandbox verify --backend native --json >"$file" 2>"$out/verify-$1.log"
    check "probes as $1" python3 /opt/vm/judge.py verdict "$file"
    while read -r name; do
        say N/A "    as $1: $name"
    done < <(python3 /opt/vm/judge.py absent "$file")
}

# What the box's report says of a layer.
layer() { # layer WHO NAME PATTERN
    local file said
    file="$(mktemp)"
    as "$1" "${exec_box[@]}" --json -- true >"$file" || { cat "$file"; return 1; }
    said="$(python3 /opt/vm/judge.py layer "$file" "$2")"
    rm "$file"
    echo "$said"
    [[ "$said" == $3 ]]
}

# The groups of boxes that exist now.
box_groups() {
    find "$groups" -mindepth 1 -type d -name 'forge-*'
}

wait_for() { # wait_for COMMAND...: until it succeeds, half a minute at most
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "waited in vain for: $*"
    return 1
}

has_groups() { [ -n "$(box_groups)" ]; }
no_groups() { [ -z "$(box_groups)" ]; }

# The group of a box that runs, with the limits that were asked for, below the user's own part of the tree.
group_of_a_box() { # group_of_a_box WHO PATTERN
    local found box name said="" repo
    repo="$(repo_of "$1")"
    as "$1" FORGE_SANDBOX_MEMORY_LIMIT=300m FORGE_SANDBOX_PIDS=77 FORGE_SANDBOX_CPU_LIMIT=0.5 \
        "${exec_box[@]}" --workspace inplace -- sh -c 'echo >ready; cat gate' >/dev/null 2>"$out/group.log" &
    box=$!
    wait_for test -e "$repo/ready" || return 1
    found="$(box_groups)"
    for name in memory.max memory.swap.max pids.max cpu.max; do
        [ ! -e "$found/$name" ] || said+=" $name=$(tr ' ' / <"$found/$name")"
    done
    said+=" processes=$(wc -l <"$found/cgroup.procs")"
    echo go >"$repo/gate"
    wait "$box" || { cat "$out/group.log"; return 1; }
    rm "$repo/ready"
    echo "${found#"$groups"}:$said"
    [[ "${found#"$groups"}" == $2 && "$said" == *"memory.max=314572800"*"pids.max=77 cpu.max=50000/100000"* ]] &&
        [[ "$said" != *"processes=0" ]]
}

# A command that takes too much memory is ended, and forge says why.
memory_hog() { # memory_hog WHO
    local said code=0
    said="$(as "$1" FORGE_SANDBOX_MEMORY_LIMIT=200m "${exec_box[@]}" \
        -- python3 -c 'b = bytearray(600 << 20); print("ALL OF IT")' 2>&1)" || code=$?
    echo "code $code, \"$(grep -v "is not enforced" <<<"$said" | tail -n 1)\""
    [ "$code" != 0 ] && [[ "$said" == *"memory limit"* || "$said" == *MemoryError* ]] && [[ "$said" != *"ALL OF"* ]]
}

# Several processes that take too much only together.
memory_of_many() { # memory_of_many WHO
    local said code=0
    said="$(as "$1" FORGE_SANDBOX_MEMORY_LIMIT=300m "${exec_box[@]}" --timeout 60 -- sh -c '
        for i in 1 2 3 4; do python3 -c "b = bytearray(b\"x\") * (120 << 20); import time; time.sleep(15)" & done
        wait; echo ALL OF THEM' 2>&1)" || code=$?
    echo "code $code, \"$(grep -v "is not enforced" <<<"$said" | tail -n 1)\""
    [[ "$said" == *"memory limit exceeded"* ]]
}

process_flood() { # process_flood WHO
    local said code=0
    said="$(as "$1" FORGE_SANDBOX_PIDS=20 "${exec_box[@]}" \
        -- sh -c 'for i in $(seq 60); do sleep 9 & done; echo ALL OF THEM' 2>&1)" || code=$?
    echo "code $code, \"$(grep -v "is not enforced" <<<"$said" | head -n 1)\""
    [ "$code" != 0 ] && [[ "$said" == *ork* && "$said" != *"ALL OF"* ]]
}

# A forge that is killed takes its box along; its group is removed by the next box, or by `forge sandbox prune`.
killed() { # killed WHO
    local box repo
    repo="$(repo_of "$1")"
    as "$1" "${exec_box[@]}" --workspace inplace -- sh -c 'echo >ready; setsid sleep 1000 & cat gate' 2>/dev/null &
    box=$!
    wait_for test -e "$repo/ready" || return 1
    kill -KILL "$(cat /run/newest)"
    wait "$box" 2>/dev/null
    rm "$repo/ready"
    wait_for nothing_runs || return 1
    echo "groups after the kill: $(box_groups | wc -l)"
    as "$1" "$forge" sandbox prune
    no_groups
}

nothing_runs() {
    ! pgrep -f 'sleep 1000|forge-jail-init'
}

nothing_left() {
    local left
    left="$(box_groups; pgrep -a 'forge|sleep'; grep forge /proc/self/mountinfo; find /tmp -mindepth 1 -name 'forge*')"
    echo "groups, processes, mounts, folders: ${left:-none}"
    [ -z "$left" ]
}

# A file system whose files cannot be shown under another owner by older kernels.
repository_on_tmpfs() { # repository_on_tmpfs WHO VIEW
    local repo file said
    repo="$(repo_of "$1")"
    file="$(mktemp)"
    mount -t tmpfs -o mode=755 tmpfs "$repo"
    echo text >"$repo/file"
    as "$1" "${exec_box[@]}" --json -- sh -c 'cat file && echo more >>file' >"$file" 2>&1
    said="$(python3 /opt/vm/judge.py view "$file" 2>&1)"
    echo "$said; the file on disk: $(cat "$repo/file")"
    umount "$repo"
    rm "$file"
    [[ "$said" == "view $2"*", code 0, changed: file" ]]
}

machine() {
    local kinds
    kinds="$(grep -oE -- '- cgroup2? ' /proc/self/mountinfo | sort -u | tr -d ' -' | tr '\n' ' ')"
    echo "Linux $(uname -r), $kinds($(cat "$groups/cgroup.controllers")), $(cat /sys/kernel/security/lsm)"
    [ "$kinds" = "cgroup2 " ]
}

# Everything about ceilings for somebody whose boxes have a group, which stands where PATTERN says.
ceilings_by_group() { # ceilings_by_group WHO PATTERN
    check "memory limit as $1" layer "$1" "memory limit" enforced
    check "process limit as $1" layer "$1" "process limit" enforced
    check "group of a box as $1" group_of_a_box "$1" "$2"
    check "too much memory as $1" memory_hog "$1"
    check "too much memory together as $1" memory_of_many "$1"
    check "too many processes as $1" process_flood "$1"
    check "forge is killed as $1" killed "$1"
}

scene_old() {
    make_repos
    check "machine" machine
    check "Landlock as root" layer root landlock "degraded (version 2 *"
    ceilings_by_group root "/forge-*"
    check "group of a box as service" group_of_a_box service "/system.slice/forge-*"
    ceilings_by_group delegated "/user.slice/user-1000/own/forge-*"
    ceilings_without_group plain
    check "repository on tmpfs as root" repository_on_tmpfs root copy
    without_user_namespaces
    check "nothing is left" nothing_left
    verify service
    verify delegated
    verify plain
    check "nothing is left after the probes" nothing_left
}

scene_new() {
    make_repos
    check "machine" machine
    check "Landlock as root" layer root landlock enforced
    check "group of a box as root" group_of_a_box root "/forge-*"
    check "group of a box as delegated" group_of_a_box delegated "/user.slice/user-1000/own/forge-*"
    check "repository on tmpfs as root" repository_on_tmpfs root overlay
    with_apparmor_rule
    check "nothing is left" nothing_left
    verify service
    verify plain
    check "nothing is left after the probes" nothing_left
}

scene_bare() {
    local who
    make_repos
    check "machine" machine
    for who in root delegated; do
        check "Landlock as $who" layer "$who" landlock "absent (the kernel has none or does not enable it); start *"
        ceilings_without_group "$who"
    done
    check "nothing is left" nothing_left
    verify service
    verify plain
    check "nothing is left after the probes" nothing_left
}
