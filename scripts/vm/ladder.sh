# Cases in which something is missing: what is weaker is said, and without user namespaces nothing runs at all.
# Sourced by guest.sh after cases.sh.
# shellcheck shell=bash disable=SC2154,SC2016  # variables of guest.sh; scripts as arguments

# A limit that holds per process and by a supervisor only; the report says so and what to do.
ceilings_without_group() { # ceilings_without_group WHO
    check "memory limit as $1" layer "$1" "memory limit" "degraded (no control group*"
    check "process limit as $1" layer "$1" "process limit" "enforced*"
    check "too much memory as $1" memory_hog "$1"
    check "too much memory together as $1" memory_of_many "$1"
    check "too many processes as $1" process_flood "$1"
    check "no group as $1" no_groups
}

# The beginning of a message, in one line.
shorten() {
    tr -s '\n ' ' ' | cut -c 1-250 | sed 's/ *$//'
}

# Nothing runs, and the message names what to change.
refused() { # refused WHO WORDS...
    local who="$1" said repo code=0 word
    shift
    repo="$(repo_of "$who")"
    said="$(as "$who" "${exec_box[@]}" --workspace inplace -- touch ran 2>&1)" || code=$?
    echo "code $code, \"$(shorten <<<"$said")\""
    [ ! -e "$repo/ran" ] || { rm -f "$repo/ran"; echo "IT RAN"; return 1; }
    for word in "$@"; do
        [[ "$said" == *"$word"* ]] || { echo "    it does not say: $word"; return 1; }
    done
    [ "$code" != 0 ]
}

# The same by the backend `auto` and by `verify`: neither goes on without a box.
refused_everywhere() { # refused_everywhere NAME WHO WORDS...
    local name="$1" who="$2"
    shift 2
    check "$name: exec is refused as $who" refused "$who" "$@"
    exec_box=("$forge" sandbox exec --backend auto)
    check "$name: exec with any backend is refused as $who" refused "$who"
    exec_box=("$forge" sandbox exec --backend native)
    check "$name: verify is refused as $who" verify_refused "$who" "$@"
    check "$name: doctor says it as $who" doctor_says "$who" "$@"
}

verify_refused() { # verify_refused WHO WORDS...
    local said code=0 word
    said="$(as "$1" "$forge" sandbox verify --backend native 2>&1)" || code=$?
    echo "code $code, \"$(shorten <<<"$said")\""
    for word in "${@:2}"; do
        [[ "$said" == *"$word"* ]] || { echo "    it does not say: $word"; return 1; }
    done
    [ "$code" != 0 ]
}

doctor_says() { # doctor_says WHO WORDS...
    local said word
    # Long lines are wrapped.
    said="$(as "$1" "$forge" doctor 2>&1 | awk '/^[^ ]/ { on = /^FAIL  sandbox:/ } on' | sed 's,^ *-> ,,' | tr -s '\n ' ' ')"
    shorten <<<"$said"
    for word in "FAIL sandbox:" "${@:2}"; do
        [[ "$said" == *"$word"* ]] || { echo "    it does not say: $word"; return 1; }
    done
}

runs() { # runs WHO
    as "$1" "${exec_box[@]}" -- sh -c 'echo "it runs, as user $(id -u)"'
}

setting() { # setting NAME VALUE
    echo "$2" >"/proc/sys/${1//.//}"
}

# Debian's own switch, the kernel's limit, and both back again.
without_user_namespaces() {
    local knob=kernel.unprivileged_userns_clone limit
    if [ -e "/proc/sys/${knob//.//}" ]; then
        setting "$knob" 0
        refused_everywhere "$knob=0" plain "sysctl -w $knob=1"
        check "$knob=0: root is not meant" runs root
        setting "$knob" 1
    else
        say N/A "$knob: this kernel has no such setting"
    fi
    limit="$(cat /proc/sys/user/max_user_namespaces)"
    setting user.max_user_namespaces 0
    refused_everywhere user.max_user_namespaces=0 plain "sysctl -w user.max_user_namespaces"
    check "user.max_user_namespaces=0: exec is refused as root" refused root "sysctl -w user.max_user_namespaces"
    setting user.max_user_namespaces "$limit"
    check "allowed again" runs plain
}

# Ubuntu's rule puts programs that make a user namespace under a profile that denies them every capability in it. Where
# the kernel does not have the rule, a profile of that effect on forge itself takes its place, and a file the knob's.
with_apparmor_rule() {
    local knob=kernel.apparmor_restrict_unprivileged_userns
    if [ -e "/proc/sys/${knob//.//}" ]; then
        setting "$knob" 1
        refused_everywhere "$knob=1" plain "sysctl -w $knob=0"
        setting "$knob" 0
        return
    fi
    say N/A "$knob: only Ubuntu's kernels have it; an AppArmor profile of the same effect stands for it here"
    if ! confine_forge; then
        say N/A "AppArmor: no profile can be loaded here"
        return
    fi
    refused_everywhere "AppArmor's profile" plain AppArmor
    pretend_knob
    refused_everywhere "AppArmor's profile and the knob" plain "sysctl -w $knob=0" "userns,"
    umount /proc/sys/kernel
    /opt/vm/apparmor_parser -R <<<"$profile"
    check "AppArmor's profile is gone" runs plain
}

profile='profile forge-in-vm /opt/vm/forge {
    file,
    /** rwlkmix,
    network,
    unix,
    signal,
    ptrace,
    mount,
    remount,
    umount,
    pivot_root,
}'

confine_forge() {
    /opt/vm/apparmor_parser --skip-cache -r <<<"$profile" 2>"$out/apparmor.log"
}

# The settings of the kernel as they are, and the knob beside them.
pretend_knob() {
    local copy=/run/knobs file
    mkdir -p "$copy"
    for file in /proc/sys/kernel/*; do
        [ ! -f "$file" ] || cat "$file" >"$copy/${file##*/}" 2>/dev/null
    done
    echo 1 >"$copy/apparmor_restrict_unprivileged_userns"
    mount --bind "$copy" /proc/sys/kernel
}
