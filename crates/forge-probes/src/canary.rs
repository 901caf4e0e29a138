//! Canaries: host objects that are created before the attempts and checked afterwards.

use super::host_facts::HostFacts;
use super::inside::files::etc_digest;
use crate::attempts::host::{MessageQueueCanary, PosixQueueCanary, SharedMemoryCanary};
use forge_types::{Digest, RunId, SandboxSpec};
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime};

/// Host files that no attempt may change.
const WATCHED_FILES: &[&str] = &[
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/self/oom_score_adj",
    "/sys/kernel/uevent_helper",
    "/proc/swaps",
];
/// Paths of the masked files.
pub(super) const MASKED_FILES: &[&str] = &[".env", "keys/id_rsa"];
/// Difference in seconds between system clock and elapsed time beyond which the clock must have been set.
const MAX_CLOCK_DRIFT_SECS: f64 = 5.0;
/// Name kind of the temporary directory.
const TEMP_DIR_KIND: &str = "verify";

/// The canaries of one verification, removed when dropped.
pub(super) struct CanaryHost {
    /// Directory that contains the directories below.
    root: PathBuf,
    pub(super) workspace: PathBuf,
    pub(super) outside: PathBuf,
    token: String,
    secret: String,
    tcp: TcpListener,
    udp: UdpSocket,
    socket: UnixListener,
    socket_name: String,
    memory: Option<(i32, SharedMemoryCanary)>,
    queue: Option<(i32, MessageQueueCanary)>,
    posix: Option<(String, PosixQueueCanary)>,
    process: Option<Child>,
    mark: String,
    shm: PathBuf,
    fixed: BTreeMap<&'static str, Vec<u8>>,
    clock: (SystemTime, Instant),
    mounts: BTreeSet<String>,
    /// A file and a directory that every started process would inherit.
    _leaks: Vec<OwnedFd>,
}

impl CanaryHost {
    pub(super) fn set_up() -> io::Result<Self> {
        let id = RunId::generate().to_string().replace('-', "");
        // The beginning is the time; the end distinguishes IDs of the same moment.
        let token = id[id.len().saturating_sub(12)..].to_owned();
        let name = format!("{}-{token}", forge_files::owned_temp_name(TEMP_DIR_KIND));
        // A workspace has a path without links.
        let root = fs::canonicalize(std::env::temp_dir())?.join(name);
        let (workspace, outside) = (root.join("workspace"), root.join("outside"));
        for folder in [&root, &workspace, &outside, &workspace.join("keys")] {
            fs::DirBuilder::new().mode(0o755).create(folder)?;
        }
        let secret = format!("secret-{}", RunId::generate());
        // Readable by every user, so that only the sandbox protects it.
        fs::write(outside.join("secret"), &secret)?;
        for name in MASKED_FILES {
            fs::write(workspace.join(name), &secret)?;
            fs::set_permissions(workspace.join(name), fs::Permissions::from_mode(0o644))?;
        }
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        let socket_name = format!("forge-verify-{token}");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&socket_name)?;
        let socket = UnixListener::bind_addr(&address)?;
        socket.set_nonblocking(true)?;
        let (key, posix) = (ipc_key(&token), posix_queue_name(&token));
        let mark = format!("forge-canary-{token}");
        let shm = shm_path(&token);
        // Only a new file is used; otherwise a user who guesses the name could choose the file that is written.
        let _ = fs::File::create_new(&shm).and_then(|mut file| file.write_all(secret.as_bytes()));
        // Close-on-exec is not set, on purpose.
        let leaks =
            [(outside.join("secret"), OFlags::RDONLY), (outside.clone(), OFlags::RDONLY | OFlags::DIRECTORY)];
        let leaks = leaks.map(|(path, flags)| rustix::fs::open(path, flags, Mode::empty()));
        Ok(Self {
            process: spawn_bystander(&mark),
            memory: SharedMemoryCanary::create(key).ok().map(|memory| (key, memory)),
            queue: MessageQueueCanary::create(key).ok().map(|queue| (key, queue)),
            posix: PosixQueueCanary::create(&posix).ok().map(|queue| (posix, queue)),
            fixed: WATCHED_FILES.iter().map(|path| (*path, fs::read(path).unwrap_or_default())).collect(),
            clock: read_clocks(),
            mounts: read_mounts(),
            _leaks: leaks.into_iter().collect::<Result<_, _>>()?,
            root,
            workspace,
            outside,
            token,
            secret,
            tcp,
            udp,
            socket,
            socket_name,
            mark,
            shm,
        })
    }

    /// Returns the facts that the attempts need.
    pub(super) fn host_facts(&self, spec: &SandboxSpec) -> io::Result<HostFacts> {
        let secret = self.outside.join("secret");
        let environ = fs::read("/proc/self/environ").unwrap_or_default();
        let pairs = environ.split(|b| *b == 0).filter_map(|pair| {
            let (name, value) = pair.split_at_checked(pair.iter().position(|b| *b == b'=')? + 1)?;
            let name = String::from_utf8_lossy(name.strip_suffix(b"=")?).into_owned();
            Some((name, Digest::of_bytes(value).to_string()))
        });
        let fixed = ["PATH", "HOME", "LANG", "TMPDIR", "USER", "LOGNAME", "SHELL", "PWD", "HOSTNAME", "TERM"];
        let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
        let link = |kind: &str| {
            Some((
                kind.to_owned(),
                fs::read_link(format!("/proc/self/ns/{kind}")).ok()?.display().to_string(),
            ))
        };
        Ok(HostFacts {
            token: self.token.clone(),
            inode: fs::metadata(&secret)?.ino(),
            secret,
            tcp: self.tcp.local_addr()?.port(),
            udp: self.udp.local_addr()?.port(),
            socket: self.socket_name.clone(),
            memory: self.memory.as_ref().map(|(key, _)| *key),
            queue: self.queue.as_ref().map(|(key, _)| *key),
            posix: self.posix.as_ref().map(|(name, _)| name.clone()),
            process: self.process.as_ref().map_or_else(std::process::id, Child::id).cast_signed(),
            mark: self.mark.clone(),
            namespaces: kinds.into_iter().filter_map(link).collect(),
            hostname: fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned(),
            etc: etc_digest(),
            variables: pairs.collect(),
            allowed: fixed
                .iter()
                .map(|name| (*name).to_owned())
                .chain(spec.env.iter().map(|(name, _)| name.clone()))
                .collect(),
            masked: MASKED_FILES
                .iter()
                .filter(|name| !spec.reveal.iter().any(|r| r == *name))
                .map(|name| (*name).to_owned())
                .collect(),
            binds: spec.read_only.iter().chain(&spec.writable).cloned().collect(),
            network: spec.network.clone(),
            backend: String::new(),
            lacking: Vec::new(),
            inherited: Vec::new(),
        })
    }

    /// Returns the probes that failed according to the canaries, regardless of their results inside the sandbox.
    pub(super) fn touched_canaries(&mut self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut see = |probe, seen: bool, what: &str| {
            if seen {
                found.push((probe, format!("seen from outside: {what}")));
            }
        };
        see("host-loopback", self.tcp.accept().is_ok(), "the host's listener got a connection");
        see("host-loopback-udp", self.udp.recv(&mut [0; 16]).is_ok(), "a datagram arrived at the host");
        see("abstract-socket", self.socket.accept().is_ok(), "the host's abstract socket got a connection");
        see(
            "host-shared-memory",
            self.memory.as_ref().is_some_and(|(_, m)| m.attach_count() > 0),
            "the segment was attached",
        );
        see(
            "host-message-queue",
            self.queue.as_ref().is_some_and(|(_, q)| q.message_count() != 1),
            "the queue was changed",
        );
        let gone = self.process.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        see("signal-host-process", gone, "a process of the host was ended");
        let same = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text == self.secret);
        see("host-files", !same(&self.outside.join("secret")), "the host's file was changed");
        see(
            "shared-folder",
            self.shm.exists() && !same(&self.shm),
            "a file in the host's /dev/shm was changed",
        );
        see(
            "masked-files",
            MASKED_FILES.iter().any(|m| !same(&self.workspace.join(m))),
            "a masked file was changed",
        );
        for (path, before) in &self.fixed {
            let probe = match *path {
                "/proc/sys/kernel/core_pattern" | "/proc/sys/kernel/modprobe" => "core-pattern",
                "/proc/sys/kernel/hostname" | "/proc/sys/kernel/domainname" => "set-host-name",
                "/proc/sys/kernel/sysrq" => "sysrq-trigger",
                "/proc/self/oom_score_adj" => "oom-score-of-parents",
                "/sys/kernel/uevent_helper" => "uevent-helper",
                "/proc/swaps" => "swap",
                _ => "sysctls",
            };
            see(probe, fs::read(path).unwrap_or_default() != *before, &format!("{path} changed"));
        }
        let (wall, steady) =
            (self.clock.0.elapsed().map_or(f64::MAX, |t| t.as_secs_f64()), self.clock.1.elapsed());
        see("set-clock", (wall - steady.as_secs_f64()).abs() > MAX_CLOCK_DRIFT_SECS, "the clock was set");
        let made = format!("forge-probe-{}-made", self.token);
        for (probe, folder) in [
            ("write-etc", "/etc"),
            ("write-usr", "/usr"),
            ("write-usr", "/usr/bin"),
            ("write-root", "/"),
            ("write-root", "/var"),
            ("write-root", "/run"),
        ] {
            see(probe, Path::new(folder).join(&made).exists(), "a file was created on the host");
        }
        found
    }

    /// Returns new mounts on the host that belong to a sandbox.
    pub(super) fn new_mounts(&self) -> Vec<String> {
        let place = self.root.display().to_string();
        read_mounts().difference(&self.mounts).filter(|line| line.contains(&place)).cloned().collect()
    }

    /// Returns host processes with the token in their command line, except the bystander.
    pub(super) fn token_processes(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(&self.token) && !line.contains(&self.mark)).collect()
    }

    /// Creates a directory for probes.
    pub(super) fn create_probe_dir(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.root.join(name);
        fs::DirBuilder::new().mode(0o755).create(&folder)?;
        Ok(folder)
    }

    pub(super) fn probe_token(&self) -> &str {
        &self.token
    }
}

impl Drop for CanaryHost {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
        forge_files::remove_own_tree(&self.shm);
        forge_files::remove_own_tree(&self.root);
    }
}

/// Removes the canaries of killed processes and returns their directories.
#[must_use]
pub fn prune_stale() -> Vec<PathBuf> {
    // Only names in directories of this user reveal which other objects are this user's.
    let mut removed = forge_files::find_stale(&std::env::temp_dir(), &[TEMP_DIR_KIND]);
    removed.retain(|root| {
        let token = root.to_str().and_then(|path| path.rsplit('-').next());
        let token = token.filter(|token| token.len() == 12 && token.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(token) = token else { return false };
        drop((
            SharedMemoryCanary::open_existing(ipc_key(token)),
            MessageQueueCanary::open_existing(ipc_key(token)),
        ));
        drop(PosixQueueCanary::open_existing(&posix_queue_name(token)));
        // In shared directories, only this user's entries are removed.
        forge_files::remove_own_tree(&shm_path(token));
        forge_files::remove_own_tree(root);
        fs::symlink_metadata(root).is_err()
    });
    removed
}

fn ipc_key(token: &str) -> i32 {
    i32::from_str_radix(&token[token.len() - 7..], 16).unwrap_or(1)
}

fn posix_queue_name(token: &str) -> String {
    format!("forge-verify-{token}")
}

fn shm_path(token: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("forge-probe-{token}-host"))
}

/// Starts a process that does nothing; `mark`, its first argument, identifies it. It ends when its input is closed.
#[allow(
    clippy::disallowed_methods,
    reason = "a bystander that sandboxes must not see, ended with the verification"
)]
fn spawn_bystander(mark: &str) -> Option<Child> {
    let mut command = Command::new("/bin/cat");
    command
        .arg0(mark)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/");
    command.spawn().ok()
}

#[allow(clippy::disallowed_methods, reason = "the check is whether the machine's clock was set")]
fn read_clocks() -> (SystemTime, Instant) {
    (SystemTime::now(), Instant::now())
}

fn read_mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().map(str::to_owned).collect()
}
