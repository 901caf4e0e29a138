//! The database file: its tables, their versions, and how it is opened.
//!
//! `PRAGMA user_version` names the version. Each migration leads from one version to the next, in one
//! transaction; a file of this version is opened without any of that. A file of a newer version is left alone.

use crate::fault;
use forge_ports::journal::Error;
use forge_types::CommandId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

/// The version that this code writes: one more than the index of its last migration.
pub(crate) const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// How long a connection waits for the lock of another process before it says so.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The mode with a write-ahead log, as SQLite names it.
const WAL_MODE: &str = "wal";

/// What leads from version n to version n + 1.
///
/// `events.id` is the run's number and the event's position in one integer (`run << 32 | seq`), so that one
/// tree holds them in the order in which they are read and an event costs no second index entry. The view
/// `journal` shows them with the run's name for whoever looks with the `sqlite3` shell.
const MIGRATIONS: [&str; 2] = [
    r"
CREATE TABLE runs (
  no INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  last_seq INTEGER NOT NULL,
  task TEXT NOT NULL,
  repo TEXT NOT NULL,
  pipeline TEXT NOT NULL,
  status TEXT NOT NULL,
  waiting_for TEXT,
  phase TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  iterations INTEGER NOT NULL,
  tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL,
  cost_pico_usd INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL,
  limit_kind TEXT,
  error_kind TEXT,
  error_message TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  completed_at INTEGER
);
CREATE INDEX runs_by_time ON runs (created_at);
CREATE INDEX runs_by_status ON runs (status, created_at);
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  data TEXT NOT NULL
);
CREATE VIEW journal AS
  SELECT runs.id AS run, events.id & 4294967295 AS seq, events.at, events.kind, events.data
  FROM runs JOIN events ON events.id >> 32 = runs.no;
CREATE TABLE blobs (
  no INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  bytes BLOB NOT NULL
);
CREATE TABLE inbox (
  no INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL,
  command TEXT,
  taken INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX inbox_waiting ON inbox (run, no) WHERE taken = 0;
CREATE TABLE accounts (
  name TEXT PRIMARY KEY,
  spent INTEGER NOT NULL,
  reserved INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE reservations (
  run INTEGER NOT NULL,
  effect INTEGER NOT NULL,
  account TEXT NOT NULL,
  amount INTEGER NOT NULL,
  PRIMARY KEY (run, effect, account)
) WITHOUT ROWID;
CREATE TABLE checkpoints (
  run INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  version INTEGER NOT NULL,
  state BLOB NOT NULL
);
CREATE TABLE queue_items (
  run TEXT PRIMARY KEY,
  priority INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  status TEXT NOT NULL,
  attempts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX queue_open ON queue_items (priority DESC, created_at) WHERE status IN ('queued', 'processing');
",
    crate::routing_state::TABLES_SQL,
];

/// What a connection is for: it decides how much memory it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionPurpose {
    /// The one that writes.
    Write,
    /// One of those that read.
    Read,
}

/// Makes the data folder, for its owner only.
pub(crate) fn create_data_dir(dir: &Path) -> Result<(), Error> {
    let fault = |error| fault::io_error(dir, "making the data folder", &error);
    forge_files::check_data_directory(dir).map_err(|error| fault(std::io::Error::other(error)))?;
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(fault)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(fault(error)),
        _ => Ok(()),
    }
}

/// Opens the database for writing; makes it or brings it to this version if need be.
pub(crate) fn open(dir: &Path, path: &Path) -> Result<Connection, Error> {
    let say = |error: rusqlite::Error| fault::sqlite_error(path, &error);
    if !path.exists() {
        let _alone = lock_migrations(dir)?;
        if !path.exists() {
            create_database(dir, path)?;
        }
    }
    // SQLite takes an empty file for a new database and throws the log beside it away, which may hold a lot.
    if is_empty(path) == Some(true) && is_empty(&path.with_extension("db-wal")) == Some(false) {
        return Err(Error::Damaged {
            what: fault::corrupt_message(path, &"the file is empty and its log is not"),
        });
    }
    let mut connection = connect(path, ConnectionPurpose::Write)?;
    match schema_version(&connection).map_err(say)? {
        // A database that was saved with `.recover` or `.dump` and read in again has lost its mode.
        SCHEMA_VERSION if journal_mode(&connection, "PRAGMA journal_mode").map_err(say)? == WAL_MODE => {}
        found if found > SCHEMA_VERSION => return Err(too_new_error(path, found)),
        _ => {
            let _alone = lock_migrations(dir)?;
            migrate(&mut connection, path)?;
        }
    }
    Ok(connection)
}

/// Whether there is nothing in the file; `None` if there is no file.
fn is_empty(path: &Path) -> Option<bool> {
    fs::metadata(path).ok().map(|file| file.len() == 0)
}

/// Makes an empty database beside its place and moves it there when it is whole and on disk, so that a power cut
/// leaves either none or one that works. Two syncs do, where SQLite's own way of making one takes six.
fn create_database(dir: &Path, path: &Path) -> Result<(), Error> {
    let draft = dir.join(format!(".forge.db-{}", CommandId::generate()));
    let made = (|| {
        let mut connection = Connection::open(&draft).map_err(|error| fault::sqlite_error(path, &error))?;
        // Before anything is written: the log and its index take over the mode of the database later.
        fs::set_permissions(&draft, Permissions::from_mode(0o600))
            .map_err(|error| fault::io_error(path, "making it private", &error))?;
        let setup = "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF";
        connection.execute_batch(setup).map_err(|error| fault::sqlite_error(path, &error))?;
        migrate(&mut connection, path)?;
        connection.close().map_err(|(_, error)| fault::sqlite_error(path, &error))?;
        // Nobody else knows the draft: closing this descriptor frees no lock of a connection.
        let synced = forge_files::open(&draft)
            .map_err(forge_files::Error::into_io_error)
            .and_then(|file| file.sync_all());
        let moved = synced.and_then(|()| fs::rename(&draft, path));
        let known = moved.and_then(|()| forge_files::sync_directory(dir));
        known.map_err(|error| fault::io_error(path, "making it", &error))
    })();
    if made.is_err() {
        let _ = fs::remove_file(&draft);
    }
    made
}

/// One more connection to a database that [`open`] has opened.
///
/// Nothing here may open the database file by other means: closing any descriptor of it would drop the POSIX
/// locks that all connections of this process rely on.
pub(crate) fn connect(path: &Path, purpose: ConnectionPurpose) -> Result<Connection, Error> {
    let say = |error: rusqlite::Error| fault::sqlite_error(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(say)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(say)?;
    // The log stays where it is at the end of a process: copying it into the database then would cost several
    // syncs at each exit, and the next process would have to begin a new one. The writer copies it when it has
    // grown and nothing else is to be done.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(say)?;
    let setup = match purpose {
        ConnectionPurpose::Write => {
            "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=8388608; \
             PRAGMA cache_size=-2048; PRAGMA temp_store=MEMORY"
        }
        ConnectionPurpose::Read => "PRAGMA query_only=ON; PRAGMA cache_size=-1024; PRAGMA temp_store=MEMORY",
    };
    connection.execute_batch(setup).map_err(say)?;
    connection.set_prepared_statement_cache_capacity(48);
    Ok(connection)
}

fn schema_version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn journal_mode(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    connection.query_row(sql, [], |row| row.get(0))
}

fn too_new_error(path: &Path, found: u32) -> Error {
    Error::TooNew { path: path.display().to_string(), found, known: SCHEMA_VERSION }
}

/// Waits until no other process makes or migrates this database. The lock ends with the file.
fn lock_migrations(dir: &Path) -> Result<File, Error> {
    let path = dir.join("migrate.lock");
    let fault = |error| fault::io_error(&path, "locking it", &error);
    let file = forge_files::open_or_create(&path).map_err(|error| fault(error.into_io_error()))?;
    file.lock().map_err(fault)?;
    Ok(file)
}

/// Applies the migrations that are missing; under the lock of [`alone`].
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let say = |error: rusqlite::Error| fault::sqlite_error(path, &error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(say)?;
    let found = schema_version(&transaction).map_err(say)?;
    if found > SCHEMA_VERSION {
        return Err(too_new_error(path, found));
    }
    if found < SCHEMA_VERSION {
        run_migrations(&transaction, found).map_err(say)?;
    }
    transaction.commit().map_err(say)?;
    let mode = journal_mode(connection, "PRAGMA journal_mode=WAL").map_err(say)?;
    if mode == WAL_MODE { Ok(()) } else { Err(wal_unsupported_error(path, &mode)) }
}

fn run_migrations(transaction: &Transaction<'_>, found: u32) -> rusqlite::Result<()> {
    for sql in MIGRATIONS.iter().skip(found as usize) {
        transaction.execute_batch(sql)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
}

fn wal_unsupported_error(path: &Path, mode: &str) -> Error {
    Error::Unavailable {
        path: path.display().to_string(),
        why: format!(
            "its file system does not support a write-ahead log (SQLite stays in mode `{mode}`). Use a data \
             folder on a local disk with XDG_DATA_HOME"
        ),
    }
}
