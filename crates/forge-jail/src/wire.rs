//! The protocol between a [`crate::Jail`] and its init: JSON messages over a `SOCK_SEQPACKET` socket pair, one message
//! per packet, with descriptors passed alongside. A message that does not fit a packet travels in a memory file.
//! Command output never uses this socket, so it cannot pose as a reply.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::init::FailureCause;
use crate::isolation_layer::LayerReport;

/// Largest message sent inside a packet; larger ones go through a memory file.
const MAX_INLINE_BYTES: usize = 60 * 1024;
/// Largest message accepted at all: a command line has at most 2 MiB or so, masked paths a little more.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// Most descriptors passed with one message.
const MAX_FDS: usize = 4;

/// Bytes that are usually text but need not be: paths, arguments, environment.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RawBytes(pub Vec<u8>);

impl RawBytes {
    /// Returns the bytes as a path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl fmt::Debug for RawBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for RawBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl From<&str> for RawBytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for RawBytes {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&Path> for RawBytes {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<PathBuf> for RawBytes {
    fn from(path: PathBuf) -> Self {
        Self(path.into_os_string().into_vec())
    }
}

impl From<OsString> for RawBytes {
    fn from(text: OsString) -> Self {
        Self(text.into_vec())
    }
}

impl Serialize for RawBytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => to.serialize_str(text),
            Err(_) => to.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for RawBytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(match Either::deserialize(from)? {
            Either::Text(text) => Self(text.into_bytes()),
            Either::Bytes(bytes) => Self(bytes),
        })
    }
}

/// A request to the init. Paths are relative to the workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum JailRequest {
    /// Start a command; the write ends for stdout and stderr are passed with the message.
    Exec(JailCommand),
    /// Kill the command started by an earlier request.
    Cancel {
        /// The id that [`crate::Jail::submit`] returned for it.
        target: u64,
    },
    /// Open a regular file for reading; the descriptor is passed with [`JailReply::Opened`].
    OpenRead {
        /// The file.
        path: RawBytes,
    },
    /// Describe a path.
    Stat {
        /// The path.
        path: RawBytes,
        /// The treatment of a symbolic link as the last part.
        links: FinalSymlink,
    },
    /// Create a temporary file next to `path`; a descriptor for writing is returned.
    CreateTemp {
        /// The file that it will replace. Links are followed; the target must be inside the workspace.
        path: RawBytes,
        /// Permission bits for a new file; an existing file keeps its own.
        mode: u32,
    },
    /// Move a temporary file to its destination.
    CommitTemp {
        /// The token from [`JailReply::Temp`].
        token: u64,
        /// Whether an existing file may be replaced.
        replace: ReplaceExisting,
        /// Whether the file and its directory are synced first.
        sync: SyncToDisk,
    },
    /// Discard a temporary file.
    AbortTemp {
        /// The token from [`JailReply::Temp`].
        token: u64,
    },
    /// Create a directory and its parents.
    MakeDirs {
        /// The directory.
        path: RawBytes,
    },
    /// Remove a path; a symbolic link itself, never its target.
    Remove {
        /// The path.
        path: RawBytes,
        /// The extent of the removal.
        what: RemovalScope,
    },
    /// Rename a path within the workspace.
    Rename {
        /// The current path.
        from: RawBytes,
        /// The new path.
        to: RawBytes,
        /// Whether an existing file may be replaced.
        replace: ReplaceExisting,
    },
    /// Stop every process of the sandbox. The reply is [`JailReply::Done`] once all are stopped, or [`FaultKind::Os`]
    /// (`EBUSY`) if one cannot be stopped, in which case all continue. Time limits of commands keep running.
    Freeze,
    /// Resume the processes that [`JailRequest::Freeze`] stopped.
    Thaw,
    /// Reply with [`JailReply::Done`].
    Ping,
    /// Kill everything and exit.
    Shutdown,
}

/// A command to run in the sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailCommand {
    /// The program to execute, if not the first element of `argv`.
    pub program: Option<RawBytes>,
    /// Name and arguments. A program without a slash is looked up in the command's own `PATH`.
    pub argv: Vec<RawBytes>,
    /// Working directory, relative to the workspace; empty means the workspace itself.
    pub cwd: RawBytes,
    /// Variables set on top of the sandbox's environment.
    pub env: Vec<(RawBytes, RawBytes)>,
    /// Time limit in milliseconds, after which the command is ended (TERM, a short grace period, KILL).
    pub timeout_ms: Option<u64>,
    /// The fate of processes that outlive the command.
    pub background: BackgroundProcesses,
    /// Programs that it may execute in addition to [`crate::JailSpec::programs`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<RawBytes>,
}

/// The fate of processes that outlive their command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackgroundProcesses {
    /// The processes are killed when the command ends.
    #[default]
    Kill,
    /// The processes live until the sandbox closes (development servers).
    LeaveRunning,
}

/// Whether the last part of a path may be a symbolic link that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSymlink {
    /// Describe the link's target.
    Follow,
    /// Describe the link.
    NoFollow,
}

/// Whether an existing file may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceExisting {
    /// The file is replaced atomically.
    Yes,
    /// The request fails with [`FaultKind::Exists`].
    No,
}

/// Whether a change is on disk before the reply is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncToDisk {
    /// Synced.
    Yes,
    /// Left to the kernel.
    No,
}

/// The extent of a [`JailRequest::Remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalScope {
    /// One file or link.
    File,
    /// One empty directory.
    EmptyDir,
    /// A directory with everything below it.
    Tree,
}

/// A reply of the init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum JailReply {
    /// A command ended.
    Ended(ExecOutcome),
    /// A command could not be started.
    NotStarted(StartFault),
    /// A file was opened; its descriptor is passed with the message.
    Opened {
        /// The description of the file.
        stat: FileStat,
    },
    /// A description of a path.
    Stat {
        /// The description.
        stat: FileStat,
    },
    /// A temporary file was created; its descriptor is passed with the message.
    Temp {
        /// The token that identifies it in later requests.
        token: u64,
        /// The file that now exists at the destination.
        before: Option<FileStat>,
    },
    /// The request succeeded.
    Done,
    /// The request was refused or failed.
    Failed(FileFault),
}

/// The end of a command and the resources it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutcome {
    /// The reason for the end.
    pub end: ExecEnd,
    /// Whether the memory limit killed the command or one of its processes.
    pub oom: bool,
    /// CPU time in user mode, of the command and the children it waited for, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Largest resident size of one of its processes, in KiB.
    pub max_rss_kib: u64,
    /// Peak memory of the command, in bytes: the sandbox's peak during the command minus its usage at the start where
    /// control groups count it, else the largest resident size. Commands that run concurrently count each other's
    /// memory too.
    #[serde(default)]
    pub peak_memory_bytes: u64,
}

/// The reason why a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecEnd {
    /// The command exited with this code.
    Exited(i32),
    /// The command was killed by this signal.
    Signaled(i32),
    /// The command exceeded its time limit.
    TimedOut,
    /// The command was ended by [`JailRequest::Cancel`].
    Cancelled,
}

/// The reason why a command could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFault {
    /// The program or directory concerned.
    pub what: RawBytes,
    /// The kernel's error number.
    pub errno: i32,
}

impl fmt::Display for StartFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start {}: {}", self.what, io::Error::from_raw_os_error(self.errno))
    }
}

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailFileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

impl fmt::Display for JailFileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "regular file",
            Self::Dir => "folder",
            Self::Symlink => "symbolic link",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
            Self::Device => "device",
        })
    }
}

/// The description of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// The kind of the file.
    pub kind: JailFileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Number of hard links.
    pub links: u64,
}

/// A file operation that was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFault {
    /// The path as requested.
    pub path: RawBytes,
    /// The kind of fault.
    pub kind: FaultKind,
}

/// The kind of a fault in a file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The path was not found.
    NotFound,
    /// Not allowed: permissions or a masked file.
    Denied,
    /// The path leaves the workspace.
    Outside,
    /// A write to the path would change git's own data.
    GitData,
    /// A symbolic link that points to nothing.
    Dangling,
    /// Too many symbolic links.
    Loop,
    /// A part of the path is not a directory.
    NotDir,
    /// The path already exists.
    Exists,
    /// The directory is not empty.
    NotEmpty,
    /// Not a regular file.
    NotRegular(JailFileKind),
    /// No temporary file has this token.
    NoSuchTemp,
    /// The path is empty, contains a NUL, or is too long.
    BadPath,
    /// The disk or quota is full.
    Full,
    /// Another error number of the kernel.
    Os(i32),
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.kind {
            FaultKind::NotFound => write!(f, "{path}: no such file or folder"),
            FaultKind::Denied => write!(f, "{path}: permission denied"),
            FaultKind::Outside => write!(f, "{path}: leaves the workspace"),
            FaultKind::GitData => write!(f, "{path}: belongs to git's own data"),
            FaultKind::Dangling => write!(f, "{path}: is a symbolic link that points to nothing"),
            FaultKind::Loop => write!(f, "{path}: too many symbolic links"),
            FaultKind::NotDir => write!(f, "{path}: a part of the path is not a folder"),
            FaultKind::Exists => write!(f, "{path}: exists already"),
            FaultKind::NotEmpty => write!(f, "{path}: the folder is not empty"),
            FaultKind::NotRegular(kind) => write!(f, "{path}: is a {kind}, not a regular file"),
            FaultKind::NoSuchTemp => write!(f, "{path}: the write was already finished or given up"),
            FaultKind::BadPath => write!(f, "{path:?}: not a usable path"),
            FaultKind::Full => write!(f, "{path}: no space left"),
            FaultKind::Os(errno) => write!(f, "{path}: {}", io::Error::from_raw_os_error(errno)),
        }
    }
}

/// The extended attributes of the upper layer in which the kernel keeps an overlay's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlayAttributes {
    /// `trusted.overlay.*`: mounted by root; renamed directories carry a redirect.
    Trusted,
    /// `user.overlay.*`: mounted in a user namespace; directories of the source are copied instead of renamed.
    User,
}

impl OverlayAttributes {
    /// Returns the prefix of the attributes' names.
    #[must_use]
    pub const fn xattr_prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }
}

/// A message of the init while the sandbox is being built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "start")]
pub(crate) enum StartupMessage {
    /// The init exists; `pid` is its process id as the caller sees it.
    Pid {
        /// The process id.
        pid: i32,
    },
    /// The sandbox is ready; the listener is passed with the message if one was requested.
    Ready {
        /// The layers in force.
        layers: Vec<LayerReport>,
        /// The attributes that the overlays use, if there are any.
        overlay: Option<OverlayAttributes>,
        /// Warnings about the sandbox, as text for the user.
        warnings: Vec<String>,
    },
    /// The parts common to all sandboxes are ready; the init waits for the specification.
    BaseReady,
    /// The init was told to join its control groups.
    Joined {
        /// Whether it has joined all of them.
        joined: bool,
    },
    /// A step failed.
    Failed {
        /// The meaning of the failure.
        about: FailureCause,
        /// The step that failed.
        step: String,
        /// The kernel's error number.
        errno: i32,
    },
}

/// A message with its number; a reply carries the number of its request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireFrame<T> {
    /// The request's number.
    pub(crate) id: u64,
    /// The message.
    pub(crate) body: T,
}

/// Sends one message with its descriptors.
pub(crate) fn send_message<T: Serialize>(
    to: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut bytes = vec![b'I'];
    serde_json::to_writer(&mut bytes, message).map_err(io::Error::other)?;
    if bytes.len() <= MAX_INLINE_BYTES {
        return send_packet(to, &bytes, fds);
    }
    let memory = create_memory_file(&bytes[1..])?;
    let mut all = vec![memory.as_fd()];
    all.extend_from_slice(fds);
    send_packet(to, b"M", &all)
}

fn send_packet(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message with its descriptors; `None` when the other side is gone.
pub(crate) fn receive_message<T: for<'de> Deserialize<'de>>(
    from: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    buffer.resize(MAX_INLINE_BYTES + 1, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut receive = || {
        rustix::io::retry_on_intr(|| {
            let pieces = &mut [IoSliceMut::new(buffer)];
            rustix::net::recvmsg(from, pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
    };
    // A peer that closes with unread messages causes one ECONNRESET before the messages it sent can be read.
    let got = match receive() {
        Err(rustix::io::Errno::CONNRESET) => receive(),
        other => other,
    };
    let got = match got {
        Ok(got) => got,
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    match buffer.get(..got.bytes).and_then(|b| b.split_first()) {
        None => Ok(None),
        Some((b'I', json)) => Ok(Some((serde_json::from_slice(json).map_err(io::Error::other)?, fds))),
        Some((b'M', _)) if !fds.is_empty() => {
            let json = read_memory_file(File::from(fds.remove(0)))?;
            Ok(Some((serde_json::from_slice(&json).map_err(io::Error::other)?, fds)))
        }
        Some(_) => Err(io::Error::other("unknown kind of message")),
    }
}

/// Creates a memory file that contains `bytes`, positioned at its start.
pub(crate) fn create_memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("forge-message", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}

/// Reads the contents of a memory file, up to the largest message.
pub(crate) fn read_memory_file(file: File) -> io::Result<Vec<u8>> {
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
