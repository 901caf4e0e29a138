//! The list of probes, as data.

use super::host_facts::HostFacts;
use super::inside::{
    controls as control, files as file, network as net, processes as process, programs as program,
};
use crate::attempts::{AttemptOutcome, EscapeAttempt, make_attempt};
use serde::{Deserialize, Serialize};

/// The subject of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeGroup {
    /// Files and devices.
    Files,
    /// Namespaces and mounts.
    Namespaces,
    /// Other interfaces of the kernel.
    Kernel,
    /// The network, and sockets and objects shared with other processes.
    Network,
    /// Processes, and the prober's own rights.
    Processes,
    /// Operations that must work: a sandbox in which nothing works would refuse everything.
    Controls,
    /// Limits, and the treatment of commands that do not end.
    Resources,
    /// Files and objects that a sandbox leaves behind, and how the host handles them.
    AfterRun,
    /// Unlisted programs, in a sandbox with a program list.
    Programs,
}

/// The method of a probe.
#[derive(Clone, Copy, Debug)]
pub(super) enum ProbeMethod {
    /// An attempt in the sandbox.
    Inside(fn(&HostFacts) -> AttemptOutcome),
    /// An attempt in a sandbox with a program list.
    Listed(fn(&HostFacts) -> AttemptOutcome),
    /// From outside, through the workspace's own operations.
    Outside,
}

/// A probe.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Name of the probe.
    pub name: &'static str,
    /// Subject of the probe.
    pub group: ProbeGroup,
    /// Whether an unattended run requires the probe to pass.
    pub required: bool,
    /// Layers that prevent the escape.
    pub layers: &'static str,
    /// Description of the attempt, or of the operation that must work.
    pub what: &'static str,
    pub(super) tried: ProbeMethod,
}

macro_rules! probes {
    ($($group:ident $required:literal { $($name:literal => $tried:expr, $layers:literal, $what:literal;)* })*) => {
        /// All probes, in the order in which they are made.
        pub static PROBES: &[Probe] = &[$($(Probe {
            name: $name,
            group: ProbeGroup::$group,
            required: $required,
            layers: $layers,
            what: $what,
            tried: $tried,
        },)*)*];
    };
}

/// A system call of the closed list.
macro_rules! raw {
    ($attempt:ident) => {
        ProbeMethod::Inside(|_| make_attempt(&EscapeAttempt::$attempt))
    };
}

/// A device by its name.
macro_rules! device {
    ($name:literal) => {
        ProbeMethod::Inside(|_| file::open_device($name))
    };
}

/// A kind of namespace.
macro_rules! namespace {
    ($kind:literal) => {
        ProbeMethod::Inside(|scene| process::separate_namespace(scene, $kind))
    };
}

use ProbeMethod::{Inside, Listed, Outside};

probes! {
    Files true {
        "host-files" => Inside(file::host_files), "mount namespace", "a file of the host is read by its path";
        "dot-dot-chain" => Inside(file::dot_dot_chain), "mount namespace", "a path with many `..` leaves the workspace and the root";
        "symlink-out" => Inside(file::symlink_out), "mount namespace", "a symlink in the workspace reaches a file of the host";
        "hard-link-out" => Inside(file::hard_link_out), "mounts, Landlock", "a system file is linked into the workspace";
        "init-root" => Inside(file::init_root), "pid namespace, undumpable init", "/proc/1/root and cwd lead to the host's files";
        "process-root-and-cwd" => Inside(file::process_root), "pid and mount namespace", "root and cwd of any process lead to the host's files";
        "init-environment" => Inside(file::init_environment), "undumpable init", "the init's environment is read";
        "init-memory" => Inside(file::init_memory), "undumpable init, read-only /proc", "the init's memory is read or written";
        "init-descriptors" => Inside(file::init_descriptors), "undumpable init", "the init's open files are listed";
        "write-etc" => Inside(file::write_etc), "read-only mounts, Landlock", "a file is written in /etc";
        "write-usr" => Inside(file::write_usr), "read-only mounts, Landlock", "a file is written in the system directories";
        "write-root" => Inside(file::write_root), "read-only mounts, Landlock", "a file is written in the root directory or next to it";
        "replace-the-helper" => Inside(file::replace_helper), "read-only mounts, Landlock", "the init's program is replaced";
        "host-etc" => Inside(file::host_etc), "own /etc", "users, passwords and keys of the host are read";
        "host-homes" => Inside(file::host_homes), "mount namespace", "keys and histories in home directories are read";
        "masked-files" => Inside(file::masked_files), "masks", "a file that looks like a credential is read, moved, linked or removed";
        "masked-files-by-their-folder" => Inside(file::masked_by_renamed_dir), "masks", "a masked file is read after its directory was renamed";
        "uncover-masked-files" => Inside(file::unmount_cover), "seccomp, user namespace", "the mask of a masked file is unmounted";
        "self-mem-over-read-only-map" => Inside(file::read_only_map), "mounts", "a system file is changed through /proc/self/mem";
        "sysrq-trigger" => Inside(file::sysrq_trigger), "read-only /proc, Landlock", "the machine's emergency keys (SysRq) are triggered";
        "core-pattern" => Inside(file::core_pattern), "read-only /proc, Landlock", "a program is set for the host's kernel to start";
        "sysctls" => Inside(file::kernel_sysctls), "read-only /proc, Landlock", "the kernel's settings are changed";
        "read-only-proc" => Inside(file::read_only_proc), "read-only /proc", "/proc can be written";
        "uevent-helper" => Inside(file::uevent_helper), "no /sys", "a program is set for the host's kernel to start for devices";
        "release-agent" => Inside(file::release_agent), "no control groups in the sandbox", "a control group's release agent, or another group, is written";
        "kcore" => Inside(file::read_kcore), "masked /proc", "the kernel's memory is read";
        "kernel-messages" => Inside(file::read_kmsg), "masked /proc, own /dev", "the kernel's messages are read";
        "kernel-symbols" => Inside(file::kernel_symbols), "masked /proc", "addresses of the kernel are read";
        "kernel-keys" => Inside(file::kernel_keys), "masked /proc", "the list of keys is read";
        "open-by-handle" => raw!(OpenByHandle), "seccomp, capabilities", "a file is opened by its handle, bypassing all paths";
        "make-devices" => raw!(MakeDevice), "seccomp, capabilities, mounts", "a device node is created";
        "make-whiteout" => raw!(MakeWhiteout), "seccomp", "a rename creates a device node";
        "raw-disks" => Inside(file::raw_disks), "own /dev", "a disk is read";
        "device-kvm" => device!("kvm"), "own /dev", "virtual machines are created";
        "device-fuse" => device!("fuse"), "own /dev", "a file system is served";
        "device-tun" => device!("net/tun"), "own /dev", "a network interface is created";
        "device-mem" => device!("mem"), "own /dev", "the machine's memory is read";
        "device-loop-control" => device!("loop-control"), "own /dev", "a loop device is created";
        "unexpected-devices" => Inside(file::unexpected_devices), "own /dev", "devices exist that no build needs";
        "host-paths-in-mountinfo" => Inside(file::host_mountinfo), "mount namespace", "the list of mounts reveals the host's directories";
        "setuid-programs" => Inside(file::setuid_program), "nosuid mounts, no new privileges", "a program runs with its owner's privileges";
        "binfmt-misc" => Inside(file::register_binfmt), "read-only /proc, Landlock", "an interpreter is registered with the host's kernel";
        "inherited-folder" => Inside(file::inherited_directory), "closed descriptors", "an inherited directory descriptor leads out";
    }
    Namespaces true {
        "user-namespace" => namespace!("user"), "user namespace", "the sandbox shares the host's users";
        "mount-namespace" => namespace!("mnt"), "mount namespace", "the sandbox shares the host's mounts";
        "pid-namespace" => namespace!("pid"), "pid namespace", "the sandbox shares the host's processes";
        "network-namespace" => Inside(|s| s.unless_host_network(|| process::separate_namespace(s, "net"))), "network namespace", "the sandbox shares the host's network";
        "ipc-namespace" => namespace!("ipc"), "ipc namespace", "the sandbox shares the host's IPC objects";
        "host-name-namespace" => namespace!("uts"), "uts namespace", "the sandbox shares the host's name";
        "control-group-namespace" => Inside(|s| s.missing_layer("cgroup namespace").unwrap_or_else(|| process::separate_namespace(s, "cgroup"))), "cgroup namespace", "the sandbox sees the host's control groups";
        "unshare-user" => raw!(UnshareUser), "seccomp", "a new user namespace, with all capabilities in it";
        "unshare-mount" => raw!(UnshareMount), "seccomp, capabilities", "a new mount namespace";
        "unshare-others" => raw!(UnshareOthers), "seccomp, capabilities", "new namespaces of the other kinds";
        "clone-new-user" => raw!(CloneNewUser), "seccomp", "a process in a new user namespace, by clone";
        "clone3-new-user" => raw!(Clone3NewUser), "seccomp", "a process in a new user namespace, by clone3";
        "setns" => raw!(Setns), "seccomp, capabilities", "another namespace is entered";
        "mount" => raw!(Mount), "seccomp, user namespace", "a file system is mounted";
        "umount-proc" => raw!(UmountProc), "seccomp, user namespace", "/proc is unmounted";
        "fsopen" => raw!(Fsopen), "seccomp", "the newer mount interface is used";
        "open-tree" => raw!(OpenTree), "seccomp", "a mount is copied";
        "move-mount" => raw!(MoveMount), "seccomp", "a mount is moved";
        "mount-setattr" => raw!(MountSetattr), "seccomp", "a mount is made writable";
        "chroot" => raw!(Chroot), "seccomp, capabilities", "the root directory is changed";
        "pivot-root" => raw!(PivotRoot), "seccomp, capabilities", "the root mount is changed";
    }
    Kernel true {
        "ptrace" => raw!(Ptrace), "seccomp", "a process is traced";
        "read-memory-of-processes" => raw!(ProcessVmRead), "seccomp", "memory of another process is read";
        "write-memory-of-processes" => raw!(ProcessVmWrite), "seccomp", "memory of another process is written";
        "pidfd-getfd" => raw!(PidfdGetfd), "seccomp", "a descriptor of another process is taken";
        "kcmp" => raw!(Kcmp), "seccomp", "processes are compared";
        "bpf" => raw!(Bpf), "seccomp", "a program is loaded into the kernel";
        "perf" => raw!(Perf), "seccomp", "the processor is observed";
        "userfaultfd" => raw!(Userfaultfd), "seccomp", "page faults are handled, which widens races in the kernel";
        "io-uring" => raw!(IoUring), "seccomp", "input and output bypass the call filter";
        "add-key" => raw!(AddKey), "seccomp", "a key is added to a keyring";
        "request-key" => raw!(RequestKey), "seccomp", "a key is requested, which may start a program on the host";
        "keyctl" => raw!(Keyctl), "seccomp", "keyrings are used";
        "kernel-modules" => raw!(LoadModule), "seccomp, capabilities", "a module is loaded";
        "kexec" => raw!(Kexec), "seccomp, capabilities", "another kernel is loaded";
        "reboot" => raw!(Reboot), "seccomp, capabilities", "the machine is restarted";
        "syslog" => raw!(Syslog), "seccomp", "the kernel's messages are read";
        "set-clock" => raw!(SetClock), "seccomp, capabilities", "the machine's clock is set";
        "personality" => raw!(Personality), "seccomp", "address randomisation is switched off";
        "swap" => raw!(Swap), "seccomp, capabilities", "the machine's swap is changed";
        "set-host-name" => raw!(SetHostname), "seccomp, capabilities, uts namespace", "the host name is changed";
        "fanotify" => raw!(Fanotify), "seccomp", "file accesses of other processes are watched";
        "secret-memory" => raw!(SecretMemory), "seccomp", "memory is hidden from the kernel";
        "accounting-and-quotas" => raw!(Accounting), "seccomp, capabilities", "the machine's accounting is changed";
        "io-ports" => raw!(IoPorts), "seccomp, capabilities", "the processor's I/O ports are opened";
        "limits-of-the-init" => raw!(LimitsOfInit), "seccomp", "the init's limits and priority are changed";
        "mark-of-commands" => raw!(SetMark), "seccomp", "a process takes the mark by which the init distinguishes commands";
        "32-bit-calls" => raw!(ThirtyTwoBitCalls), "seccomp", "a call of the 32-bit table, in which numbers mean other calls";
        "x32-calls" => raw!(X32Calls), "seccomp", "a call of the x32 table";
        "type-into-terminal" => raw!(TypeIntoTerminal), "seccomp", "input is typed into another process's terminal (TIOCSTI, TIOCLINUX)";
        "controlling-terminal" => raw!(ControllingTerminal), "own session", "the user's terminal is opened";
        "gain-capability" => raw!(GainCapability), "capabilities", "dropped capabilities are regained";
        "become-root" => raw!(BecomeRoot), "user namespace, capabilities", "the user ID is changed, or a file is given away";
    }
    Network true {
        "raw-sockets" => raw!(RawSocket), "seccomp, capabilities", "hand-made packets are sent";
        "packet-sockets" => raw!(PacketSocket), "seccomp, capabilities", "packets of other processes are read";
        "netlink-sockets" => raw!(NetlinkSocket), "seccomp", "the kernel's network is configured";
        "vsock-sockets" => raw!(VsockSocket), "seccomp", "the hypervisor is reached";
        "other-sockets" => raw!(OtherSockets), "seccomp", "sockets of rarely used families";
        "other-protocols" => raw!(OtherProtocols), "seccomp", "internet sockets of rarely used protocols";
        "interfaces" => Inside(net::network_interfaces), "network namespace", "an interface other than loopback exists";
        "outside-tcp" => Inside(net::outside_tcp), "network namespace", "an outside address is reached";
        "metadata-address" => Inside(net::metadata_service), "network namespace", "a cloud's metadata service is reached";
        "gateways" => Inside(net::container_gateways), "network namespace", "gateways of containers and home networks are reached";
        "ipv6" => Inside(net::outside_ipv6), "network namespace", "an outside address is reached by IPv6";
        "host-loopback" => Inside(net::host_loopback), "network namespace", "a service on the host's loopback is reached";
        "host-loopback-udp" => Inside(net::host_loopback_udp), "network namespace", "a datagram reaches the host's loopback";
        "name-resolution" => Inside(net::resolve_names), "network namespace", "a name is resolved, which could carry data out";
        "udp" => Inside(net::outside_udp), "network namespace", "a datagram leaves the sandbox";
        "abstract-socket" => Inside(net::abstract_socket), "network namespace, Landlock", "an abstract socket of the host is reached";
        "docker-socket" => Inside(net::docker_socket), "mount namespace", "the socket of a container engine is reached";
        "containerd-socket" => Inside(net::containerd_socket), "mount namespace", "the socket of a container runtime is reached";
        "system-sockets" => Inside(net::system_buses), "mount namespace", "the system's buses and displays are reached";
        "host-shared-memory" => Inside(net::shared_memory), "ipc namespace", "shared memory of the host is attached";
        "host-message-queue" => Inside(net::message_queue), "ipc namespace", "a message queue of the host is found";
        "host-posix-queue" => Inside(net::posix_queue), "ipc namespace", "a POSIX message queue of the host is opened";
        "shared-folder" => Inside(net::shared_shm_file), "mount namespace", "the host's /dev/shm is visible";
    }
    Processes true {
        "host-environment" => Inside(process::host_environment), "empty environment", "variables of the host are visible";
        "inherited-descriptors" => Inside(process::inherited_descriptors), "closed descriptors", "an open file of the host is inherited";
        "streams" => Inside(process::standard_streams), "own streams", "the user's terminal is among the streams";
        "capabilities" => Inside(process::capability_sets), "capabilities", "the process has capabilities";
        "bounding-set" => Inside(process::bounding_set), "capabilities", "capabilities could be gained by starting a program";
        "no-new-privileges" => Inside(process::no_new_privs), "no new privileges", "a program can bring its own privileges";
        "call-filter" => Inside(process::seccomp_filter), "seccomp", "no system call filter is in force";
        "landlock-in-force" => Inside(process::landlock_layers), "Landlock", "no rules protect files beyond the mounts";
        "ordinary-user" => Inside(process::unprivileged_user), "user IDs", "commands run as root";
        "id-maps" => Inside(process::id_maps), "user namespace", "user 0 of the host is mapped, or a map can be written";
        "host-processes" => Inside(process::host_processes), "pid namespace", "processes of the host are visible";
        "signal-host-process" => Inside(process::signal_host), "pid namespace, user IDs, Landlock", "a process of the host is killed";
        "signal-init" => Inside(process::signal_init), "pid namespace", "the sandbox's init is killed";
        "host-name" => Inside(process::host_name), "uts namespace", "the host's name is visible";
        "oom-score-of-parents" => Inside(process::oom_score), "read-only /proc, Landlock", "the kernel's choice of processes to kill is changed";
    }
    Controls true {
        "write-in-workspace" => Inside(control::write_workspace), "", "the workspace can be written";
        "write-in-tmp" => Inside(control::write_temp_dirs), "", "/tmp and /dev/shm can be written";
        "write-in-home" => Inside(control::write_home), "", "the home directory can be written";
        "run-in-tmp" => Inside(control::run_in_tmp), "", "a program in /tmp can be run";
        "symlink-inside" => Inside(control::symlink_inside), "", "a symlink inside the workspace works";
        "fork" => Inside(control::fork_child), "", "processes can be started";
        "threads" => Inside(control::start_threads), "", "threads can be started";
        "loopback" => Inside(control::loopback_connection), "", "the sandbox's own loopback works, IPv4 and IPv6";
        "socket-pair" => Inside(control::socket_pair), "", "unix sockets work";
        "signal-own" => Inside(control::signal_own), "", "own processes can be killed";
        "pseudo-terminals" => Inside(control::pseudo_terminal), "", "pseudo-terminals can be created";
        "watch-files" => Inside(control::watch_files), "", "changes of files can be watched";
        "memory-file" => Inside(control::memory_file), "", "a memory file can be written and mapped";
        "shared-objects" => Inside(control::shared_memory), "", "memory can be shared between processes";
        "harmless-devices" => Inside(control::read_devices), "", "null, zero, urandom and FIFOs work";
        "shell" => Inside(control::run_shell), "", "the shell works";
        "git" => Inside(control::run_git), "", "git creates a repository and a commit";
        "python" => Inside(control::run_python), "", "python runs";
    }
    Controls false {
        "cargo" => Inside(control::run_cargo), "", "cargo runs";
        "node" => Inside(control::run_node), "", "node runs";
    }
    Resources false {
        "process-ceiling" => Outside, "control groups, limits", "more processes than allowed";
        "fork-bomb" => Outside, "control groups, limits, remaining processes are killed", "processes that start processes endlessly";
        "open-files" => Outside, "limits", "files are opened endlessly";
        "memory-ceiling" => Outside, "control groups, supervisor", "more memory than allowed";
        "memory-files" => Outside, "control groups, supervisor", "unmapped memory files take more than allowed";
        "socket-buffers" => Outside, "control groups, supervisor", "data queued in sockets takes more than allowed";
        "hidden-processes" => Outside, "control groups, supervisor", "hidden processes take more than allowed";
        "sibling-commands" => Outside, "Landlock, domains of commands", "a process that was left running reaches into a later command";
        "inotify-of-user" => Inside(process::inotify_share), "share of the user's counts", "all inotify instances of the user are taken";
        "tmp-ceiling" => Outside, "size of /tmp", "/tmp is filled";
        "tmp-files" => Outside, "inodes of /tmp", "/tmp is filled with empty files";
        "workspace-ceiling" => Outside, "quotas", "the workspace's disk is filled";
        "output-flood" => Outside, "bounded capture", "endless output without a newline, of NULs and terminal escapes";
        "cpu-spin" => Outside, "time limit", "a command spins beyond its time limit";
        "ignored-term" => Outside, "time limit, pid namespace", "a command ignores TERM";
        "daemons" => Outside, "remaining processes are killed, pid namespace", "a daemon outlives its command";
        "held-output" => Outside, "remaining processes are killed", "a background process holds the output";
        "waiting-for-input" => Outside, "own streams", "a command waits for input";
    }
    AfterRun false {
        "git-hooks" => Outside, "no git on the host", "hooks of the repository run on the host";
        "git-nested-hooks" => Outside, "no git on the host", "hooks and fsmonitor of a nested repository";
        "git-submodule-hooks" => Outside, "no git on the host", "hooks and update commands of submodules";
        "git-fsmonitor" => Outside, "no git on the host", "core.fsmonitor";
        "git-hooks-path" => Outside, "no git on the host", "core.hooksPath";
        "git-ssh-command" => Outside, "no git on the host", "core.sshCommand";
        "git-pager" => Outside, "no git on the host", "core.pager and editor";
        "git-filters" => Outside, "no git on the host", "clean, smudge and process filters";
        "git-textconv" => Outside, "no git on the host", "textconv of diffs";
        "git-diff-external" => Outside, "no git on the host", "diff.external, aliases, credential helpers, gpg.program";
        "git-dir-file" => Outside, "no git on the host", ".git as a file that points elsewhere";
        "direnv-file" => Outside, "nothing is executed on the host", ".envrc";
        "editor-tasks" => Outside, "nothing is executed on the host", "tasks of editors";
        "makefile" => Outside, "nothing is executed on the host", "a Makefile that runs when it is read";
        "conftest" => Outside, "nothing is executed on the host", "conftest.py, sitecustomize.py and setup.py";
        "build-script" => Outside, "nothing is executed on the host", "build.rs";
        "virtual-environment" => Outside, "nothing is executed on the host", "pyvenv.cfg, and programs in the workspace's bin directories";
        "cargo-config" => Outside, "nothing is executed on the host", ".cargo/config.toml with a wrapper";
        "npm-scripts" => Outside, "nothing is executed on the host", ".npmrc and scripts of package.json";
        "swapped-folder" => Outside, "openat2 beneath", "a directory and a link are swapped during writes";
        "read-fifo" => Outside, "non-blocking opens", "a FIFO is read";
        "read-endless-device" => Outside, "openat2 beneath", "a link to /dev/zero is read";
        "read-socket" => Outside, "non-blocking opens", "a socket is read";
        "sparse-file" => Outside, "bounded reads", "a file of 100 GB is read";
        "odd-names" => Outside, "names are bytes", "names that are not UTF-8, contain line breaks, or change the text direction";
        "deep-folders" => Outside, "bounded walks", "4,096 nested directories";
        "symlink-loops" => Outside, "openat2 beneath", "symlinks that form cycles";
        "closed-folders" => Outside, "removal by descriptors", "an inaccessible tree is removed";
        "dangling-symlink" => Outside, "openat2 beneath", "a write through a dangling symlink";
        "absolute-and-nul-paths" => Outside, "openat2 beneath", "paths of edits that are absolute, contain `..`, or contain NUL";
        "output-as-protocol" => Outside, "separate sockets", "output that imitates the sandbox's control protocol";
        "processes-left" => Outside, "pid namespace", "a process of a closed sandbox is left on the host";
        "mounts-left" => Outside, "mount namespace", "a mount of a closed sandbox is left on the host";
        "control-groups-left" => Outside, "cleanup", "a control group of a closed sandbox is left on the host";
    }
    Programs false {
        "listed-programs-work" => Outside, "program list", "programs of the list, pipes between them, and git work";
        "unlisted-programs" => Outside, "program list", "a program that is not listed is executed";
        "functions-named-like-programs" => Outside, "program list", "a function of the line hides a program of that name";
        "wrappers-of-programs" => Outside, "program list", "a listed program starts one that is not";
        "variables-that-start-programs" => Outside, "program list", "a variable makes a shell execute a file";
        "texts-that-shells-evaluate" => Outside, "program list", "a shell evaluates a text that is composed at run time";
        "start-files" => Outside, "program list", "a shell executes start files that a command wrote";
        "local-files-named-like-programs" => Outside, "program list", "a file in the workspace has the name of a listed program";
        "copies-and-links-of-programs" => Outside, "program list", "a program is executed under the name of another one";
        "interpreters-of-scripts" => Outside, "program list", "a script names a program as its interpreter";
        "loaders" => Outside, "program list", "the dynamic loader is executed with a program as its argument";
        "programs-by-descriptor" => Outside, "program list", "a program is executed through /proc";
        "written-libraries" => Outside, "program list", "a listed program loads a library that a command wrote";
        "programs-of-git" => Outside, "program list", "configuration, hooks or filters of a repository start a program";
        "programs-in-memory-files" => Listed(program::memory_file), "program list", "a program is executed from a memory file";
        "executed-by-descriptor" => Listed(program::by_descriptor), "program list", "a program is executed through a descriptor";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_probe_is_described() {
        let names: BTreeSet<_> = PROBES.iter().map(|p| p.name).collect();
        assert_eq!(names.len(), PROBES.len());
        for probe in PROBES {
            assert!(probe.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert!(
                probe.what.len() > 5 && (probe.group == ProbeGroup::Controls) == probe.layers.is_empty(),
                "{}",
                probe.name
            );
            // Required probes must be fast, so one program makes them inside the sandbox.
            assert!(!probe.required || matches!(probe.tried, ProbeMethod::Inside(_)), "{}", probe.name);
        }
        assert!(PROBES.len() > 100);
    }

    #[test]
    fn every_trap_is_a_probe() {
        for trap in crate::traps::TRAPS {
            assert!(
                PROBES.iter().any(|p| p.name == trap.name && p.group == ProbeGroup::AfterRun),
                "{}",
                trap.name
            );
        }
    }
}
