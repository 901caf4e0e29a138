//! Attempts on files.

use crate::attempts::{AttemptOutcome, EscapeAttempt, make_attempt};
use crate::host_facts::{HostFacts, probe_failed, probe_not_applicable, probe_passed, probe_untested};
use forge_jail_protocol::{HELPER_PATH, WORKSPACE_PATH};
use forge_types::Digest;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Expects that none of these can be read; an empty file reveals nothing.
fn expect_unreadable<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> AttemptOutcome {
    AttemptOutcome::worst(paths.into_iter().map(|path| {
        let path = path.as_ref();
        let mut bytes = [0u8; 64];
        match fs::File::open(path).and_then(|mut file| file.read(&mut bytes)) {
            Ok(0) => probe_passed(format!("{} is empty", path.display())),
            Ok(read) => probe_failed(format!("{read} bytes of {} were read", path.display())),
            Err(error) => probe_passed(format!("{}: {error}", path.display())),
        }
    }))
}

/// Expects that none of these can be opened for writing.
fn expect_unwritable<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> AttemptOutcome {
    AttemptOutcome::worst(paths.into_iter().map(|path| {
        let path = path.as_ref();
        match fs::File::options().write(true).open(path) {
            Ok(_) => probe_failed(format!("{} can be written", path.display())),
            Err(error) => probe_passed(format!("{}: {error}", path.display())),
        }
    }))
}

/// Expects that no file can be created in any of these directories.
fn expect_uncreatable(scene: &HostFacts, folders: &[&str]) -> AttemptOutcome {
    AttemptOutcome::worst(folders.iter().map(|folder| {
        match fs::File::create_new(Path::new(folder).join(scene.attempt_name("made"))) {
            Ok(_) => probe_failed(format!("a file was created in {folder}")),
            Err(error) => probe_passed(format!("{folder}: {error}")),
        }
    }))
}

pub(crate) fn host_files(scene: &HostFacts) -> AttemptOutcome {
    let folder = scene.secret.parent().unwrap_or(Path::new("/"));
    if folder.exists() {
        return probe_failed(format!("{} exists here", folder.display()));
    }
    expect_unreadable([&scene.secret])
}

pub(crate) fn dot_dot_chain(scene: &HostFacts) -> AttemptOutcome {
    let below = scene.secret.strip_prefix("/").unwrap_or(&scene.secret);
    expect_unreadable((1..12).flat_map(|n| {
        let up: PathBuf = std::iter::repeat_n("..", n).collect();
        [Path::new(WORKSPACE_PATH).join(&up).join(below), up.join(below)]
    }))
}

pub(crate) fn symlink_out(scene: &HostFacts) -> AttemptOutcome {
    let link = Path::new(WORKSPACE_PATH).join(scene.attempt_name("link"));
    if let Err(error) = symlink(&scene.secret, &link) {
        return probe_untested(format!("no link could be created: {error}"));
    }
    expect_unreadable([
        link,
        PathBuf::from("/proc/self/root").join(scene.secret.strip_prefix("/").unwrap_or(&scene.secret)),
    ])
}

pub(crate) fn hard_link_out(scene: &HostFacts) -> AttemptOutcome {
    let sources = ["/usr/bin/env", "/bin/sh", "/etc/hosts", HELPER_PATH, "/proc/self/exe"];
    AttemptOutcome::worst(sources.iter().flat_map(|source| {
        [WORKSPACE_PATH, "/tmp"].map(|folder| {
            match fs::hard_link(source, Path::new(folder).join(scene.attempt_name("hard"))) {
                Ok(()) => probe_failed(format!("{source} was linked into {folder}")),
                Err(error) => probe_passed(format!("{source}: {error}")),
            }
        })
    }))
}

pub(crate) fn init_root(scene: &HostFacts) -> AttemptOutcome {
    let entered = |path: &str| match fs::read_dir(format!("{path}/")) {
        Ok(_) => probe_failed(format!("{path} can be entered")),
        Err(error) => probe_passed(format!("{path}: {error}")),
    };
    let root = Path::new("/proc/1/root").join(scene.secret.strip_prefix("/").unwrap_or(&scene.secret));
    AttemptOutcome::worst([entered("/proc/1/root"), entered("/proc/1/cwd"), expect_unreadable([root])])
}

pub(crate) fn process_root(scene: &HostFacts) -> AttemptOutcome {
    let below = scene.secret.strip_prefix("/").unwrap_or(&scene.secret);
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = pids.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    expect_unreadable(folders.flat_map(|e| {
        [e.path().join("root").join(below), e.path().join("cwd").join("../../../../..").join(below)]
    }))
}

pub(crate) fn init_environment(_: &HostFacts) -> AttemptOutcome {
    expect_unreadable(["/proc/1/environ", "/proc/1/auxv"])
}

pub(crate) fn init_memory(_: &HostFacts) -> AttemptOutcome {
    let maps = expect_unreadable(["/proc/1/maps", "/proc/1/smaps", "/proc/1/pagemap"]);
    let memory = match fs::File::open("/proc/1/mem") {
        Ok(_) => probe_failed("the init's memory can be opened"),
        Err(error) => probe_passed(error),
    };
    AttemptOutcome::worst([maps, memory, expect_unwritable(["/proc/1/mem", "/proc/1/clear_refs"])])
}

pub(crate) fn init_descriptors(_: &HostFacts) -> AttemptOutcome {
    let opened = ["/proc/1/fd", "/proc/1/fdinfo", "/proc/1/map_files", "/proc/1/task/1/fd"].map(|path| {
        match fs::read_dir(path).map(Iterator::count) {
            Ok(0) => probe_passed("it is empty"),
            Ok(found) => probe_failed(format!("{path} shows {found} entries")),
            Err(error) => probe_passed(error),
        }
    });
    AttemptOutcome::worst(opened)
}

pub(crate) fn write_etc(scene: &HostFacts) -> AttemptOutcome {
    AttemptOutcome::worst([
        expect_uncreatable(scene, &["/etc", "/etc/ssl"]),
        expect_unwritable(["/etc/passwd", "/etc/hosts", "/etc/resolv.conf"]),
    ])
}

pub(crate) fn write_usr(scene: &HostFacts) -> AttemptOutcome {
    let folders = ["/usr", "/usr/bin", "/usr/lib", "/usr/local/bin", "/bin", "/lib", "/sbin"];
    AttemptOutcome::worst([
        expect_uncreatable(scene, &folders),
        expect_unwritable(["/usr/bin/env", "/bin/sh"]),
    ])
}

pub(crate) fn write_root(scene: &HostFacts) -> AttemptOutcome {
    let folders = [
        "/",
        "/run",
        "/run/forge",
        "/proc",
        "/sys",
        "/sys/devices/system/cpu",
        "/var",
        "/dev",
        "/dev/pts",
        "/boot",
        "/root",
    ];
    expect_uncreatable(scene, &folders)
}

pub(crate) fn replace_helper(_: &HostFacts) -> AttemptOutcome {
    let gone = match fs::rename(HELPER_PATH, "/tmp/forge-moved").or_else(|_| fs::remove_file(HELPER_PATH)) {
        Ok(()) => probe_failed("the helper was removed"),
        Err(error) => probe_passed(error),
    };
    AttemptOutcome::worst([expect_unwritable([HELPER_PATH, "/proc/1/exe", "/proc/self/exe"]), gone])
}

pub(crate) fn host_etc(scene: &HostFacts) -> AttemptOutcome {
    if etc_digest() == scene.etc {
        return probe_failed("the users and names of the host's /etc are visible");
    }
    expect_unreadable([
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/shadow-",
        "/etc/sudoers",
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssl/private/ssl-cert-snakeoil.key",
        "/etc/krb5.keytab",
    ])
}

/// Returns a digest that distinguishes one machine's /etc from another's.
pub(crate) fn etc_digest() -> String {
    let text = |path: &str| fs::read(path).unwrap_or_default();
    Digest::of_bytes(&[text("/etc/passwd"), text("/etc/hosts"), text("/etc/group")].concat()).to_string()
}

pub(crate) fn host_homes(_: &HostFacts) -> AttemptOutcome {
    expect_unreadable([
        "/root/.ssh/id_rsa",
        "/root/.ssh/id_ed25519",
        "/root/.bash_history",
        "/root/.bashrc",
        "/root/.gitconfig",
        "/root/.aws/credentials",
        "/root/.netrc",
        "/root/.docker/config.json",
    ])
}

pub(crate) fn read_only_map(_: &HostFacts) -> AttemptOutcome {
    make_attempt(&EscapeAttempt::MemoryOverReadOnlyMap)
}

pub(crate) fn sysrq_trigger(_: &HostFacts) -> AttemptOutcome {
    expect_unwritable(["/proc/sysrq-trigger", "/proc/sys/kernel/sysrq"])
}

pub(crate) fn core_pattern(_: &HostFacts) -> AttemptOutcome {
    expect_unwritable([
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/core_pipe_limit",
        "/proc/sys/kernel/modprobe",
    ])
}

pub(crate) fn kernel_sysctls(_: &HostFacts) -> AttemptOutcome {
    expect_unwritable([
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/domainname",
        "/proc/sys/kernel/shmmax",
        "/proc/sys/kernel/msgmax",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/fs/protected_symlinks",
        "/proc/sys/user/max_user_namespaces",
    ])
}

/// Checks the whole mount, which covers files that a list would forget.
pub(crate) fn read_only_proc(scene: &HostFacts) -> AttemptOutcome {
    if scene.backend != "native" {
        return probe_not_applicable(
            "engines mount /proc writable, but its settings read-only and its revealing files masked",
        );
    }
    match rustix::fs::statvfs("/proc") {
        Ok(mount) if mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) => {
            expect_unwritable(["/proc/self/oom_score_adj", "/proc/self/comm", "/proc/self/coredump_filter"])
        }
        Ok(_) => probe_failed("/proc is mounted writable"),
        Err(errno) => probe_untested(errno),
    }
}

pub(crate) fn uevent_helper(_: &HostFacts) -> AttemptOutcome {
    expect_unwritable([
        "/sys/kernel/uevent_helper",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/power/state",
    ])
}

pub(crate) fn release_agent(_: &HostFacts) -> AttemptOutcome {
    let folders = ["", "memory/", "pids/", "cpu/", "devices/", "unified/", "systemd/"];
    let names = ["release_agent", "cgroup.procs", "cgroup.kill", "tasks", "notify_on_release"];
    expect_unwritable(
        folders.iter().flat_map(|folder| names.map(|name| format!("/sys/fs/cgroup/{folder}{name}"))),
    )
}

pub(crate) fn read_kcore(_: &HostFacts) -> AttemptOutcome {
    expect_unreadable(["/proc/kcore", "/dev/core", "/proc/vmcore"])
}

pub(crate) fn read_kmsg(_: &HostFacts) -> AttemptOutcome {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    AttemptOutcome::worst(["/proc/kmsg", "/dev/kmsg"].map(|path| {
        let opened = rustix::fs::open(path, flags, Mode::empty());
        // An empty replacement counts as passed; having no new messages to read does not.
        match opened.and_then(|file| rustix::io::read(file, &mut [0u8; 64])) {
            Ok(0) => probe_passed(format!("{path} is empty")),
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PIPE) => {
                probe_failed(format!("{path} can be read"))
            }
            Err(errno) => probe_passed(format!("{path}: {errno}")),
        }
    }))
}

pub(crate) fn kernel_symbols(scene: &HostFacts) -> AttemptOutcome {
    if scene.backend != "native" {
        // Engines leave these files readable to every user, as the kernel does, with zeroes as addresses.
        let text = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let zeroes = text
            .lines()
            .take(100)
            .all(|line| line.split(' ').next().is_some_and(|a| a.bytes().all(|b| b == b'0')));
        return if zeroes {
            probe_passed("no addresses are visible")
        } else {
            probe_failed("kernel addresses are visible")
        };
    }
    expect_unreadable([
        "/proc/kallsyms",
        "/proc/modules",
        "/proc/slabinfo",
        "/proc/timer_list",
        "/proc/iomem",
    ])
}

pub(crate) fn kernel_keys(scene: &HostFacts) -> AttemptOutcome {
    if scene.backend != "native" {
        return expect_unreadable(["/proc/keys"]);
    }
    expect_unreadable(["/proc/keys", "/proc/key-users"])
}

pub(crate) fn open_device(name: &str) -> AttemptOutcome {
    let path = Path::new("/dev").join(name);
    // Opening is the attempt: reading some of them has effects.
    match fs::File::open(&path) {
        Ok(_) => probe_failed(format!("{} can be opened", path.display())),
        Err(error) => probe_passed(error),
    }
}

pub(crate) fn raw_disks(_: &HostFacts) -> AttemptOutcome {
    let fixed = [
        "sda",
        "sda1",
        "vda",
        "vda1",
        "xvda",
        "nvme0n1",
        "dm-0",
        "loop0",
        "mapper/control",
        "sg0",
        "btrfs-control",
    ];
    let listed = fs::read_to_string("/proc/partitions").unwrap_or_default();
    let listed =
        listed.lines().filter_map(|line| line.split_whitespace().nth(3)).filter(|name| *name != "name");
    AttemptOutcome::worst(fixed.into_iter().chain(listed).map(open_device))
}

pub(crate) fn unexpected_devices(_: &HostFacts) -> AttemptOutcome {
    const KNOWN_DEVICES: &[&str] = &[
        "null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm",
        "tty", "core", "mqueue",
    ];
    match fs::read_dir("/dev") {
        Err(error) => probe_untested(error),
        Ok(entries) => {
            let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            let extra: Vec<_> = names.filter(|name| !KNOWN_DEVICES.contains(&name.as_str())).collect();
            if extra.is_empty() {
                probe_passed("only harmless ones")
            } else {
                probe_failed(format!("there are {}", extra.join(", ")))
            }
        }
    }
}

pub(crate) fn host_mountinfo(scene: &HostFacts) -> AttemptOutcome {
    let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else {
        return probe_untested("no list of mounts");
    };
    let meant = [Path::new(WORKSPACE_PATH), Path::new("/run/forge")];
    let outside = scene.secret.parent().unwrap_or(Path::new("/")).display().to_string();
    for line in text.lines() {
        let mut fields = line.split(' ').skip(3);
        let (Some(root), Some(place)) = (fields.next(), fields.next()) else { continue };
        let place = Path::new(place);
        let known = meant.iter().any(|m| place.starts_with(m))
            || scene.binds.iter().any(|bind| place.starts_with(bind));
        let telling = root.starts_with("/root") || root.starts_with("/home") || root.contains(&outside);
        if telling && !known {
            return probe_failed(format!("{} shows {root} of the host", place.display()));
        }
    }
    probe_passed("nothing of the host except what was requested")
}

pub(crate) fn setuid_program(_: &HostFacts) -> AttemptOutcome {
    const SETID_BITS: u32 = 0o6000;
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/usr/lib/openssh", "/usr/lib/dbus-1.0", "/usr/libexec"];
    let entries = folders.iter().flat_map(|f| fs::read_dir(f).into_iter().flatten().flatten());
    let found: Vec<PathBuf> = entries
        .filter(|e| e.metadata().is_ok_and(|m| m.is_file() && m.mode() & SETID_BITS != 0))
        .map(|e| e.path())
        .collect();
    let guarded = super::processes::status_is("NoNewPrivs", "1");
    let idle = |path: &Path| {
        rustix::fs::statvfs(path).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID))
    };
    if let Some(path) = found.iter().find(|path| !guarded && !idle(path)) {
        return probe_failed(format!("{} would run as another user", path.display()));
    }
    // A file of our own: its setuid bit grants only our rights, and its owner cannot be changed.
    let own = "/tmp/forge-setuid";
    let made = fs::write(own, "#!/bin/sh\n")
        .and_then(|()| fs::set_permissions(own, fs::Permissions::from_mode(0o6755)));
    let changed = std::os::unix::fs::chown(own, Some(0), Some(0));
    let _ = fs::remove_file(own);
    match (made, changed) {
        (_, Ok(())) => probe_failed("a file was given to root"),
        _ => probe_passed(format!("{} of them, none takes effect", found.len())),
    }
}

pub(crate) fn register_binfmt(_: &HostFacts) -> AttemptOutcome {
    expect_unwritable(["/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/binfmt_misc/status"])
}

pub(crate) fn inherited_directory(scene: &HostFacts) -> AttemptOutcome {
    let fds: Vec<_> = scene.inherited.iter().map(|(fd, _)| *fd).collect();
    make_attempt(&EscapeAttempt::LeaveByFolder(fds))
}

pub(crate) fn masked_files(scene: &HostFacts) -> AttemptOutcome {
    if scene.masked.is_empty() {
        return probe_not_applicable("no file of this workspace is masked");
    }
    AttemptOutcome::worst(scene.masked.iter().flat_map(|name| {
        let path = Path::new(WORKSPACE_PATH).join(name);
        let aside = Path::new(WORKSPACE_PATH).join(scene.attempt_name("aside"));
        let tricks = [
            ("renaming", fs::rename(&path, &aside)),
            ("linking", fs::hard_link(&path, &aside)),
            ("removing", fs::remove_file(&path)),
            ("changing the mode of", fs::set_permissions(&path, fs::Permissions::from_mode(0o644))),
        ];
        let mut outcomes = vec![expect_unreadable([&path])];
        outcomes.extend(tricks.into_iter().map(|(how, result)| match result {
            Ok(()) => probe_failed(format!("{how} {name} worked")),
            Err(error) => probe_passed(format!("{how} {name}: {error}")),
        }));
        outcomes
    }))
}

pub(crate) fn masked_by_renamed_dir(scene: &HostFacts) -> AttemptOutcome {
    let Some(path) = scene.masked.iter().find_map(|name| name.rsplit_once('/')) else {
        return probe_not_applicable("no masked file is in a directory");
    };
    let (from, to) = (
        Path::new(WORKSPACE_PATH).join(path.0),
        Path::new(WORKSPACE_PATH).join(scene.attempt_name("folder")),
    );
    if let Err(error) = fs::rename(&from, &to) {
        return probe_passed(error);
    }
    let seen = expect_unreadable([to.join(path.1)]);
    match fs::rename(&to, &from) {
        Ok(()) => seen,
        Err(error) => probe_untested(format!("the directory could not be moved back: {error}")),
    }
}

pub(crate) fn unmount_cover(scene: &HostFacts) -> AttemptOutcome {
    let covers = scene
        .masked
        .iter()
        .filter_map(|name| std::ffi::CString::new(format!("{WORKSPACE_PATH}/{name}")).ok());
    let mut covers = covers.map(|path| make_attempt(&EscapeAttempt::UmountCover(path))).peekable();
    if covers.peek().is_none() {
        probe_not_applicable("no file of this workspace is masked")
    } else {
        AttemptOutcome::worst(covers)
    }
}
