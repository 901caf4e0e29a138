//! Attempts on files.

use crate::attempts::{Attempt, Outcome, attempt};
use crate::scene::{Scene, absent, broke, held, untested};
use forge_jail::{HELPER, WORKSPACE};
use forge_types::Digest;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// None of these can be read; a file that is empty tells nothing.
fn unreadable<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Outcome {
    Outcome::worst(paths.into_iter().map(|path| {
        let path = path.as_ref();
        let mut bytes = [0u8; 64];
        match fs::File::open(path).and_then(|mut file| file.read(&mut bytes)) {
            Ok(0) => held(format!("{} is empty", path.display())),
            Ok(read) => broke(format!("{read} bytes of {} were read", path.display())),
            Err(error) => held(format!("{}: {error}", path.display())),
        }
    }))
}

/// None of these can be opened for writing.
fn unwritable<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Outcome {
    Outcome::worst(paths.into_iter().map(|path| {
        let path = path.as_ref();
        match fs::File::options().write(true).open(path) {
            Ok(_) => broke(format!("{} can be written", path.display())),
            Err(error) => held(format!("{}: {error}", path.display())),
        }
    }))
}

/// In none of these folders a file can be made.
fn uncreatable(scene: &Scene, folders: &[&str]) -> Outcome {
    Outcome::worst(folders.iter().map(|folder| {
        match fs::File::create_new(Path::new(folder).join(scene.name("made"))) {
            Ok(_) => broke(format!("a file was made in {folder}")),
            Err(error) => held(format!("{folder}: {error}")),
        }
    }))
}

pub(crate) fn outside(scene: &Scene) -> Outcome {
    let folder = scene.secret.parent().unwrap_or(Path::new("/"));
    if folder.exists() {
        return broke(format!("{} exists here", folder.display()));
    }
    unreadable([&scene.secret])
}

pub(crate) fn dot_dot_chain(scene: &Scene) -> Outcome {
    let below = scene.secret.strip_prefix("/").unwrap_or(&scene.secret);
    unreadable((1..12).flat_map(|n| {
        let up: PathBuf = std::iter::repeat_n("..", n).collect();
        [Path::new(WORKSPACE).join(&up).join(below), up.join(below)]
    }))
}

pub(crate) fn symlink_out(scene: &Scene) -> Outcome {
    let link = Path::new(WORKSPACE).join(scene.name("link"));
    if let Err(error) = symlink(&scene.secret, &link) {
        return untested(format!("no link could be made: {error}"));
    }
    unreadable([
        link,
        PathBuf::from("/proc/self/root").join(scene.secret.strip_prefix("/").unwrap_or(&scene.secret)),
    ])
}

pub(crate) fn hard_link_out(scene: &Scene) -> Outcome {
    let sources = ["/usr/bin/env", "/bin/sh", "/etc/hosts", HELPER, "/proc/self/exe"];
    Outcome::worst(sources.iter().flat_map(|source| {
        [WORKSPACE, "/tmp"].map(|folder| {
            match fs::hard_link(source, Path::new(folder).join(scene.name("hard"))) {
                Ok(()) => broke(format!("{source} was linked into {folder}")),
                Err(error) => held(format!("{source}: {error}")),
            }
        })
    }))
}

pub(crate) fn init_root(scene: &Scene) -> Outcome {
    let entered = |path: &str| match fs::read_dir(format!("{path}/")) {
        Ok(_) => broke(format!("{path} can be entered")),
        Err(error) => held(format!("{path}: {error}")),
    };
    let root = Path::new("/proc/1/root").join(scene.secret.strip_prefix("/").unwrap_or(&scene.secret));
    Outcome::worst([entered("/proc/1/root"), entered("/proc/1/cwd"), unreadable([root])])
}

pub(crate) fn process_root(scene: &Scene) -> Outcome {
    let below = scene.secret.strip_prefix("/").unwrap_or(&scene.secret);
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let folders = pids.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    unreadable(folders.flat_map(|e| {
        [e.path().join("root").join(below), e.path().join("cwd").join("../../../../..").join(below)]
    }))
}

pub(crate) fn init_environment(_: &Scene) -> Outcome {
    unreadable(["/proc/1/environ", "/proc/1/auxv"])
}

pub(crate) fn init_memory(_: &Scene) -> Outcome {
    let maps = unreadable(["/proc/1/maps", "/proc/1/smaps", "/proc/1/pagemap"]);
    let memory = match fs::File::open("/proc/1/mem") {
        Ok(_) => broke("the init's memory can be opened"),
        Err(error) => held(error),
    };
    Outcome::worst([maps, memory, unwritable(["/proc/1/mem", "/proc/1/clear_refs"])])
}

pub(crate) fn init_descriptors(_: &Scene) -> Outcome {
    let opened = ["/proc/1/fd", "/proc/1/fdinfo", "/proc/1/map_files", "/proc/1/task/1/fd"].map(|path| {
        match fs::read_dir(path).map(Iterator::count) {
            Ok(0) => held("it is empty"),
            Ok(found) => broke(format!("{path} shows {found} entries")),
            Err(error) => held(error),
        }
    });
    Outcome::worst(opened)
}

pub(crate) fn write_etc(scene: &Scene) -> Outcome {
    Outcome::worst([
        uncreatable(scene, &["/etc", "/etc/ssl"]),
        unwritable(["/etc/passwd", "/etc/hosts", "/etc/resolv.conf"]),
    ])
}

pub(crate) fn write_usr(scene: &Scene) -> Outcome {
    let folders = ["/usr", "/usr/bin", "/usr/lib", "/usr/local/bin", "/bin", "/lib", "/sbin"];
    Outcome::worst([uncreatable(scene, &folders), unwritable(["/usr/bin/env", "/bin/sh"])])
}

pub(crate) fn write_root(scene: &Scene) -> Outcome {
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
    uncreatable(scene, &folders)
}

pub(crate) fn replace_helper(_: &Scene) -> Outcome {
    let gone = match fs::rename(HELPER, "/tmp/forge-moved").or_else(|_| fs::remove_file(HELPER)) {
        Ok(()) => broke("the helper was taken away"),
        Err(error) => held(error),
    };
    Outcome::worst([unwritable([HELPER, "/proc/1/exe", "/proc/self/exe"]), gone])
}

pub(crate) fn host_etc(scene: &Scene) -> Outcome {
    if etc_digest() == scene.etc {
        return broke("the users and names of the host's /etc are seen");
    }
    unreadable([
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

/// What tells one machine's /etc from another's.
pub(crate) fn etc_digest() -> String {
    let text = |path: &str| fs::read(path).unwrap_or_default();
    Digest::of(&[text("/etc/passwd"), text("/etc/hosts"), text("/etc/group")].concat()).to_string()
}

pub(crate) fn homes(_: &Scene) -> Outcome {
    unreadable([
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

pub(crate) fn read_only_map(_: &Scene) -> Outcome {
    attempt(&Attempt::MemoryOverReadOnlyMap)
}

pub(crate) fn sysrq(_: &Scene) -> Outcome {
    unwritable(["/proc/sysrq-trigger", "/proc/sys/kernel/sysrq"])
}

pub(crate) fn core_pattern(_: &Scene) -> Outcome {
    unwritable([
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/core_pipe_limit",
        "/proc/sys/kernel/modprobe",
    ])
}

pub(crate) fn sysctls(_: &Scene) -> Outcome {
    unwritable([
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

/// As a whole: that covers what a list of its files would forget.
pub(crate) fn read_only_proc(scene: &Scene) -> Outcome {
    if scene.backend != "native" {
        return absent("engines mount /proc writable, its settings read-only and its telling files covered");
    }
    match rustix::fs::statvfs("/proc") {
        Ok(mount) if mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) => {
            unwritable(["/proc/self/oom_score_adj", "/proc/self/comm", "/proc/self/coredump_filter"])
        }
        Ok(_) => broke("/proc is mounted writable"),
        Err(errno) => untested(errno),
    }
}

pub(crate) fn uevent_helper(_: &Scene) -> Outcome {
    unwritable([
        "/sys/kernel/uevent_helper",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/power/state",
    ])
}

pub(crate) fn release_agent(_: &Scene) -> Outcome {
    let folders = ["", "memory/", "pids/", "cpu/", "devices/", "unified/", "systemd/"];
    let names = ["release_agent", "cgroup.procs", "cgroup.kill", "tasks", "notify_on_release"];
    unwritable(folders.iter().flat_map(|folder| names.map(|name| format!("/sys/fs/cgroup/{folder}{name}"))))
}

pub(crate) fn kcore(_: &Scene) -> Outcome {
    unreadable(["/proc/kcore", "/dev/core", "/proc/vmcore"])
}

pub(crate) fn kmsg(_: &Scene) -> Outcome {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Outcome::worst(["/proc/kmsg", "/dev/kmsg"].map(|path| {
        let opened = rustix::fs::open(path, flags, Mode::empty());
        // Something empty may stand in its place; that there is nothing new to read is not that.
        match opened.and_then(|file| rustix::io::read(file, &mut [0u8; 64])) {
            Ok(0) => held(format!("{path} is empty")),
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PIPE) => {
                broke(format!("{path} can be read"))
            }
            Err(errno) => held(format!("{path}: {errno}")),
        }
    }))
}

pub(crate) fn kallsyms(scene: &Scene) -> Outcome {
    if scene.backend != "native" {
        // Engines leave these files readable to everybody, as the kernel does, with its addresses as zeroes.
        let text = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let zeroes = text
            .lines()
            .take(100)
            .all(|line| line.split(' ').next().is_some_and(|a| a.bytes().all(|b| b == b'0')));
        return if zeroes {
            held("no addresses are shown")
        } else {
            broke("addresses of the kernel are shown")
        };
    }
    unreadable(["/proc/kallsyms", "/proc/modules", "/proc/slabinfo", "/proc/timer_list", "/proc/iomem"])
}

pub(crate) fn keys(scene: &Scene) -> Outcome {
    if scene.backend != "native" {
        return unreadable(["/proc/keys"]);
    }
    unreadable(["/proc/keys", "/proc/key-users"])
}

pub(crate) fn device(name: &str) -> Outcome {
    let path = Path::new("/dev").join(name);
    // Opening is the attempt: some of them have effects when they are read.
    match fs::File::open(&path) {
        Ok(_) => broke(format!("{} can be opened", path.display())),
        Err(error) => held(error),
    }
}

pub(crate) fn raw_disks(_: &Scene) -> Outcome {
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
    Outcome::worst(fixed.into_iter().chain(listed).map(device))
}

pub(crate) fn unexpected_devices(_: &Scene) -> Outcome {
    const KNOWN: &[&str] = &[
        "null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm",
        "tty", "core", "mqueue",
    ];
    match fs::read_dir("/dev") {
        Err(error) => untested(error),
        Ok(entries) => {
            let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            let extra: Vec<_> = names.filter(|name| !KNOWN.contains(&name.as_str())).collect();
            if extra.is_empty() {
                held("only harmless ones")
            } else {
                broke(format!("there are {}", extra.join(", ")))
            }
        }
    }
}

pub(crate) fn mountinfo(scene: &Scene) -> Outcome {
    let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else { return untested("no list of mounts") };
    let meant = [Path::new(WORKSPACE), Path::new("/run/forge")];
    let outside = scene.secret.parent().unwrap_or(Path::new("/")).display().to_string();
    for line in text.lines() {
        let mut fields = line.split(' ').skip(3);
        let (Some(root), Some(place)) = (fields.next(), fields.next()) else { continue };
        let place = Path::new(place);
        let known = meant.iter().any(|m| place.starts_with(m))
            || scene.binds.iter().any(|bind| place.starts_with(bind));
        let telling = root.starts_with("/root") || root.starts_with("/home") || root.contains(&outside);
        if telling && !known {
            return broke(format!("{} shows {root} of the host", place.display()));
        }
    }
    held("nothing of the host but what was asked for")
}

pub(crate) fn setuid_program(_: &Scene) -> Outcome {
    const SETUID: u32 = 0o6000;
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/usr/lib/openssh", "/usr/lib/dbus-1.0", "/usr/libexec"];
    let entries = folders.iter().flat_map(|f| fs::read_dir(f).into_iter().flatten().flatten());
    let found: Vec<PathBuf> = entries
        .filter(|e| e.metadata().is_ok_and(|m| m.is_file() && m.mode() & SETUID != 0))
        .map(|e| e.path())
        .collect();
    let guarded = super::processes::status_is("NoNewPrivs", "1");
    let idle = |path: &Path| {
        rustix::fs::statvfs(path).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID))
    };
    if let Some(path) = found.iter().find(|path| !guarded && !idle(path)) {
        return broke(format!("{} would run as another user", path.display()));
    }
    // One of our own: a bit on a file of ours gives nobody's rights but ours, and its owner cannot be changed.
    let own = "/tmp/forge-setuid";
    let made = fs::write(own, "#!/bin/sh\n")
        .and_then(|()| fs::set_permissions(own, fs::Permissions::from_mode(0o6755)));
    let changed = std::os::unix::fs::chown(own, Some(0), Some(0));
    let _ = fs::remove_file(own);
    match (made, changed) {
        (_, Ok(())) => broke("a file was given to root"),
        _ => held(format!("{} of them, none can act", found.len())),
    }
}

pub(crate) fn binfmt(_: &Scene) -> Outcome {
    unwritable(["/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/binfmt_misc/status"])
}

pub(crate) fn leave_by_folder(scene: &Scene) -> Outcome {
    let fds: Vec<_> = scene.inherited.iter().map(|(fd, _)| *fd).collect();
    attempt(&Attempt::LeaveByFolder(fds))
}

pub(crate) fn masked(scene: &Scene) -> Outcome {
    if scene.masked.is_empty() {
        return absent("no file of this workspace is masked");
    }
    Outcome::worst(scene.masked.iter().flat_map(|name| {
        let path = Path::new(WORKSPACE).join(name);
        let aside = Path::new(WORKSPACE).join(scene.name("aside"));
        let tricks = [
            ("renaming", fs::rename(&path, &aside)),
            ("linking", fs::hard_link(&path, &aside)),
            ("removing", fs::remove_file(&path)),
            ("changing the mode of", fs::set_permissions(&path, fs::Permissions::from_mode(0o644))),
        ];
        let mut outcomes = vec![unreadable([&path])];
        outcomes.extend(tricks.into_iter().map(|(how, result)| match result {
            Ok(()) => broke(format!("{how} {name} worked")),
            Err(error) => held(format!("{how} {name}: {error}")),
        }));
        outcomes
    }))
}

pub(crate) fn masked_by_its_folder(scene: &Scene) -> Outcome {
    let Some(path) = scene.masked.iter().find_map(|name| name.rsplit_once('/')) else {
        return absent("no masked file lies in a folder");
    };
    let (from, to) = (Path::new(WORKSPACE).join(path.0), Path::new(WORKSPACE).join(scene.name("folder")));
    if let Err(error) = fs::rename(&from, &to) {
        return held(error);
    }
    let seen = unreadable([to.join(path.1)]);
    match fs::rename(&to, &from) {
        Ok(()) => seen,
        Err(error) => untested(format!("the folder could not be moved back: {error}")),
    }
}

pub(crate) fn uncover(scene: &Scene) -> Outcome {
    let covers =
        scene.masked.iter().filter_map(|name| std::ffi::CString::new(format!("{WORKSPACE}/{name}")).ok());
    let mut covers = covers.map(|path| attempt(&Attempt::UmountCover(path))).peekable();
    if covers.peek().is_none() {
        absent("no file of this workspace is masked")
    } else {
        Outcome::worst(covers)
    }
}
