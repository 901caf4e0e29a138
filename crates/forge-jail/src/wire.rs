//! The protocol between a [`crate::Jail`] and its init: JSON messages over a `SOCK_SEQPACKET` socket pair, one
//! message per packet, descriptors passed beside them. A message that does not fit a packet travels in a memory
//! file. Output of commands never goes over this socket, so it can never pose as an answer.

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
/// Largest message accepted at all: a command line has at most 2 MiB or so, masks a little more.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// Most descriptors passed with one message.
const MAX_FDS: usize = 4;

/// Bytes that are usually text but need not be: paths, arguments, environment.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RawBytes(pub Vec<u8>);

impl RawBytes {
    /// The bytes as a path.
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

/// What is asked of the init. Paths are relative to the workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum JailRequest {
    /// Start a command; the write ends for stdout and stderr are passed beside the message.
    Exec(JailCommand),
    /// Kill the command started by an earlier request.
    Cancel {
        /// The id that [`crate::Jail::submit`] returned for it.
        target: u64,
    },
    /// Open a regular file for reading; the descriptor comes back beside [`Reply::Opened`].
    OpenRead {
        /// Which file.
        path: RawBytes,
    },
    /// Look at a path.
    Stat {
        /// Which path.
        path: RawBytes,
        /// What to do when the last part is a symbolic link.
        links: FinalSymlink,
    },
    /// Make a temporary file beside `path`; a descriptor for writing comes back.
    CreateTemp {
        /// The file it is going to become. Links are followed; the target must be inside.
        path: RawBytes,
        /// Permission bits for a new file; a file that exists keeps its own.
        mode: u32,
    },
    /// Move a temporary file to its place.
    CommitTemp {
        /// From [`Reply::Temp`].
        token: u64,
        /// Whether an existing file may be replaced.
        replace: ReplaceExisting,
        /// Whether the file and its folder are synced first.
        sync: SyncToDisk,
    },
    /// Throw a temporary file away.
    AbortTemp {
        /// From [`Reply::Temp`].
        token: u64,
    },
    /// Make a folder and those above it.
    MakeDirs {
        /// Which folder.
        path: RawBytes,
    },
    /// Remove a path; a symbolic link itself, never its target.
    Remove {
        /// Which path.
        path: RawBytes,
        /// How much.
        what: RemovalScope,
    },
    /// Move a path to another name inside the workspace.
    Rename {
        /// From where.
        from: RawBytes,
        /// To where.
        to: RawBytes,
        /// Whether an existing file may be replaced.
        replace: ReplaceExisting,
    },
    /// Stop every process of the box. Answered with [`Reply::Done`] when all stand still; with
    /// [`FaultKind::Os`] (`EBUSY`) when one cannot be stopped, all go on then. Time limits of commands run on.
    Freeze,
    /// Let the processes go on that [`Request::Freeze`] stopped.
    Thaw,
    /// Answered with [`Reply::Done`].
    Ping,
    /// Kill everything and end.
    Shutdown,
}

/// A command to run in the box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailCommand {
    /// What is executed, if not the first of `argv`.
    pub program: Option<RawBytes>,
    /// Name and arguments. A program without a slash is looked up in the command's own `PATH`.
    pub argv: Vec<RawBytes>,
    /// Working folder, relative to the workspace; empty is the workspace itself.
    pub cwd: RawBytes,
    /// Variables set on top of the box's environment.
    pub env: Vec<(RawBytes, RawBytes)>,
    /// After this many milliseconds the command is ended (TERM, a short grace, KILL).
    pub timeout_ms: Option<u64>,
    /// What happens to processes the command leaves behind.
    pub background: BackgroundProcesses,
    /// Programs that it may execute beside those of [`crate::JailSpec::programs`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<RawBytes>,
}

/// What happens to processes a command leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackgroundProcesses {
    /// They are killed when the command ends.
    #[default]
    Kill,
    /// They live until the box closes (development servers).
    LeaveRunning,
}

/// Whether the last part of a path may be a symbolic link that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSymlink {
    /// Describe what the link points to.
    Follow,
    /// Describe the link.
    NoFollow,
}

/// Whether something that exists may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceExisting {
    /// It is replaced in one step.
    Yes,
    /// The request fails with [`FaultKind::Exists`].
    No,
}

/// Whether a change is on disk before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncToDisk {
    /// Synced.
    Yes,
    /// Left to the kernel.
    No,
}

/// How much [`Request::Remove`] takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalScope {
    /// One file or link.
    File,
    /// One empty folder.
    EmptyDir,
    /// A folder with everything below it.
    Tree,
}

/// What the init answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum JailReply {
    /// A command ended.
    Ended(ExecOutcome),
    /// A command could not be started.
    NotStarted(StartFault),
    /// A file was opened; its descriptor is beside the message.
    Opened {
        /// What was opened.
        stat: FileStat,
    },
    /// What a path is.
    Stat {
        /// Its description.
        stat: FileStat,
    },
    /// A temporary file was made; its descriptor is beside the message.
    Temp {
        /// Names it in the requests that follow.
        token: u64,
        /// What stands at the destination now.
        before: Option<FileStat>,
    },
    /// Done.
    Done,
    /// Refused or failed.
    Failed(FileFault),
}

/// How a command ended and what it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutcome {
    /// Why it ended.
    pub end: ExecEnd,
    /// Whether the memory limit killed it or one of its processes.
    pub oom: bool,
    /// CPU time in user mode, of the command and the children it waited for, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// Largest resident size of one of its processes, in KiB.
    pub max_rss_kib: u64,
    /// The most memory it took at once, in bytes: what the box used at most while it ran above what the box used
    /// before, where control groups count it, else the largest resident size. Of commands side by side each counts
    /// the others too.
    #[serde(default)]
    pub peak_memory_bytes: u64,
}

/// Why a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecEnd {
    /// It returned this code.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
    /// Its time was up.
    TimedOut,
    /// [`Request::Cancel`] ended it.
    Cancelled,
}

/// Why a command could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFault {
    /// The program or folder it was about.
    pub what: RawBytes,
    /// The error number of the kernel.
    pub errno: i32,
}

impl fmt::Display for StartFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start {}: {}", self.what, io::Error::from_raw_os_error(self.errno))
    }
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailFileKind {
    /// A regular file.
    File,
    /// A folder.
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
    /// What it is.
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
    /// The path as it was asked for.
    pub path: RawBytes,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What is wrong with a file operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing there.
    NotFound,
    /// Not allowed: permissions or a mask.
    Denied,
    /// The path leaves the workspace.
    Outside,
    /// Written to, it would change git's own data.
    GitData,
    /// A symbolic link that points to nothing.
    Dangling,
    /// Too many symbolic links.
    Loop,
    /// A part of the path is no folder.
    NotDir,
    /// Something exists there.
    Exists,
    /// The folder is not empty.
    NotEmpty,
    /// Not a regular file.
    NotRegular(JailFileKind),
    /// No token of this number.
    NoSuchTemp,
    /// Empty, holds a NUL, or is too long.
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

/// Where the kernel keeps its notes about an overlay: in which attributes of the files in the upper layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlayAttributes {
    /// `trusted.overlay.*`: mounted by root, renamed folders carry a redirect.
    Trusted,
    /// `user.overlay.*`: mounted in a user namespace, folders of the source are not renamed but copied.
    User,
}

impl OverlayAttributes {
    /// How the attributes' names begin.
    #[must_use]
    pub const fn xattr_prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }
}

/// What the init says while the box is being built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "start")]
pub(crate) enum StartupMessage {
    /// The init exists; its process id as the caller sees it.
    Pid {
        /// The process id.
        pid: i32,
    },
    /// The box stands; the listener is beside the message if one was asked for.
    Ready {
        /// What is in force.
        layers: Vec<LayerReport>,
        /// Which attributes the overlays have, if there are any.
        overlay: Option<OverlayAttributes>,
        /// What a person should know about the box, in words.
        warnings: Vec<String>,
    },
    /// What all boxes have in common stands; the rest waits to be told.
    BaseReady,
    /// The init was told to go into control groups.
    Joined {
        /// Whether it is in all of them.
        joined: bool,
    },
    /// A step failed.
    Failed {
        /// What the failure means.
        about: FailureCause,
        /// What was being done.
        step: String,
        /// The error number of the kernel.
        errno: i32,
    },
}

/// A message with its number; replies carry the number of their request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireFrame<T> {
    /// The request's number.
    pub(crate) id: u64,
    /// What is said.
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
    // An end that closes with messages unread shows as a reset, once, before what it had sent itself can be read.
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

/// A memory file with `bytes` in it, positioned at its start.
pub(crate) fn create_memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("forge-message", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}

/// All that stands in a memory file, up to the largest message.
pub(crate) fn read_memory_file(file: File) -> io::Result<Vec<u8>> {
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
