//! What SQLite and the file system say, as errors of the port.

use forge_ports::journal::Error;
use rusqlite::ErrorCode;
use std::io;
use std::path::Path;

/// `SQLITE_IOERR_SHMSIZE`: the shared index of the write-ahead log can't grow, which means a full disk.
const IOERR_SHMSIZE: i32 = 4874;

/// The error of the port for an error of SQLite on the database at `path`.
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
            why: "another process keeps it locked. Find it with `fuser` on that file, end it, then try again"
                .to_owned(),
        },
        _ if fault.extended_code == IOERR_SHMSIZE => Error::DiskFull { path: path_text },
        _ => Error::Unavailable { path: path_text, why: error.to_string() },
    }
}

/// The error of the port for an error of the file system at `path`.
pub(crate) fn io_error(path: &Path, doing: &str, error: &io::Error) -> Error {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
        _ => Error::Unavailable { path, why: format!("{doing} failed: {error}") },
    }
}

/// Words for a database file whose inside can't be read.
pub(crate) fn corrupt_message(path: &Path, why: &impl std::fmt::Display) -> String {
    let runs = path.with_file_name("runs");
    let (path, runs) = (path.display(), runs.display());
    format!(
        "the database {path} ({why}). What can be read is still shown, and {runs} holds the files of runs that have \
         ended; `sqlite3 {path} .recover` saves more. To begin anew, move {path} and {path}-wal away"
    )
}

/// Whether the database file itself is broken, so that the rows after the fault can't be reached.
pub(crate) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether somebody else holds the lock that was wanted.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
