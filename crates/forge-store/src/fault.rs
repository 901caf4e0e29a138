//! Errors of SQLite and of the file system, mapped to errors of the port.

use forge_ports::journal::Error;
use rusqlite::ErrorCode;
use std::io;
use std::path::Path;

/// `SQLITE_IOERR_SHMSIZE`: the shared index of the write-ahead log can't grow, which means a full disk.
const IOERR_SHMSIZE: i32 = 4874;

/// Maps an error of SQLite on the database at `path` to one of the port.
pub(crate) fn sqlite_error(path: &Path, error: &rusqlite::Error) -> Error {
    let path_text = path.display().to_string();
    let Some(fault) = error.sqlite_error() else {
        return Error::Unavailable { path: path_text, why: error.to_string() };
    };
    match fault.code {
        ErrorCode::DiskFull => Error::DiskFull { path: path_text },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            Error::Damaged { what: corrupt_message(path, error) }
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Error::Unavailable {
            path: path_text,
            why: "another process keeps it locked. Find it with `fuser` on that file, stop it, and try again"
                .to_owned(),
        },
        _ if fault.extended_code == IOERR_SHMSIZE => Error::DiskFull { path: path_text },
        _ => Error::Unavailable { path: path_text, why: error.to_string() },
    }
}

/// Maps an error of the file system at `path` to one of the port.
pub(crate) fn io_error(path: &Path, doing: &str, error: &io::Error) -> Error {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
        _ => Error::Unavailable { path, why: format!("{doing} failed: {error}") },
    }
}

/// Describes a database file that can't be read, and how to recover from it.
pub(crate) fn corrupt_message(path: &Path, why: &impl std::fmt::Display) -> String {
    let runs = path.with_file_name("runs");
    let (path, runs) = (path.display(), runs.display());
    format!(
        "the database {path} ({why}). What is still readable is shown, and {runs} holds the files of runs that have \
         ended; `sqlite3 {path} .recover` recovers more. To start over, move {path} and {path}-wal away"
    )
}

/// Returns whether the database file itself is corrupt, so that the rows after the fault can't be reached.
pub(crate) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Returns whether another connection holds the requested lock.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
