//! Replies of the init.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::file::{FileFault, FileStat};
use crate::raw_bytes::RawBytes;

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
    /// The command was ended by [`JailRequest::Cancel`](crate::JailRequest::Cancel).
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
