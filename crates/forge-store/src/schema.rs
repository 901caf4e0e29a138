//! The database file: its tables, their versions, and opening it.
//!
//! `PRAGMA user_version` holds the version. Each migration leads from one version to the next, all within one
//! transaction; a file of the current version needs none. A file of a newer version is not changed.

use crate::fault;
use forge_ports::journal::Error;
use forge_types::CommandId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

/// The version that this code writes: the number of migrations.
pub(crate) const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// The time a connection waits for another process's lock before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// SQLite's name of the journal mode with a write-ahead log.
const WAL_MODE: &str = "wal";

/// The migrations from version n to version n + 1.
///
/// `events.id` holds the run's number and the event's position in one integer (`run << 32 | seq`), so that one
/// tree keeps the events in the order in which they are read and an event needs no second index entry. The view
/// `journal` shows them with the run's id for users of the `sqlite3` shell.
const MIGRATIONS: [&str; 4] = [
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
    crate::routing_tables::TABLES_SQL,
    crate::feed::TABLES_SQL,
    crate::queue::table::TREES_SQL,
];

/// The purpose of a connection, which determines how much memory it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionPurpose {
    /// The writer's connection.
    Write,
    /// A reader's connection.
    Read,
}

/// Creates the data directory, with access for its owner only.
pub(crate) fn create_data_dir(dir: &Path) -> Result<(), Error> {
    let fault = |error| fault::io_error(dir, "creating the data directory", &error);
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

/// Opens the database for writing; creates or migrates it if necessary.
pub(crate) fn open(dir: &Path, path: &Path) -> Result<Connection, Error> {
    let say = |error: rusqlite::Error| fault::sqlite_error(path, &error);
    if !path.exists() {
        let _alone = lock_migrations(dir)?;
        if !path.exists() {
            create_database(dir, path)?;
        }
    }
    // SQLite takes an empty file for a new database and deletes the log next to it, which may hold many events.
    if is_empty(path) == Some(true) && is_empty(&path.with_extension("db-wal")) == Some(false) {
        return Err(Error::Damaged {
            what: fault::corrupt_message(path, &"the file is empty and its log is not"),
        });
    }
    let mut connection = connect(path, ConnectionPurpose::Write)?;
    match schema_version(&connection).map_err(say)? {
        // A database restored from `.recover` or `.dump` has lost its journal mode.
        SCHEMA_VERSION if journal_mode(&connection, "PRAGMA journal_mode").map_err(say)? == WAL_MODE => {}
        found if found > SCHEMA_VERSION => return Err(too_new_error(path, found)),
        _ => {
            let _alone = lock_migrations(dir)?;
            migrate(&mut connection, path)?;
        }
    }
    Ok(connection)
}

/// Returns whether the file is empty; `None` if there is no file.
fn is_empty(path: &Path) -> Option<bool> {
    fs::metadata(path).ok().map(|file| file.len() == 0)
}

/// Creates an empty database under a draft name and renames it once it is complete and on disk, so that a power
/// cut leaves either none or a working one. This takes two syncs; SQLite's own way takes six.
fn create_database(dir: &Path, path: &Path) -> Result<(), Error> {
    let draft = dir.join(format!(".forge.db-{}", CommandId::generate()));
    let made = (|| {
        let mut connection = Connection::open(&draft).map_err(|error| fault::sqlite_error(path, &error))?;
        // Before anything is written: the log and its index later inherit the mode of the database.
        fs::set_permissions(&draft, Permissions::from_mode(0o600))
            .map_err(|error| fault::io_error(path, "restricting its permissions", &error))?;
        let setup = "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF";
        connection.execute_batch(setup).map_err(|error| fault::sqlite_error(path, &error))?;
        migrate(&mut connection, path)?;
        connection.close().map_err(|(_, error)| fault::sqlite_error(path, &error))?;
        // No other process knows the draft, so closing this descriptor frees no lock of a connection.
        let synced = forge_files::open(&draft)
            .map_err(forge_files::Error::into_io_error)
            .and_then(|file| file.sync_all());
        let moved = synced.and_then(|()| fs::rename(&draft, path));
        let known = moved.and_then(|()| forge_files::sync_directory(dir));
        known.map_err(|error| fault::io_error(path, "creating it", &error))
    })();
    if made.is_err() {
        let _ = fs::remove_file(&draft);
    }
    made
}

/// Opens another connection to a database that [`open`] has opened.
///
/// No code may open the database file by other means: closing any descriptor of it would release the POSIX
/// locks that all connections of this process rely on.
pub(crate) fn connect(path: &Path, purpose: ConnectionPurpose) -> Result<Connection, Error> {
    let say = |error: rusqlite::Error| fault::sqlite_error(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(say)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(say)?;
    // The log is kept when a process ends: copying it into the database then would cost several syncs at each
    // exit, and the next process would have to start a new one. The writer copies it once it has grown and the
    // writer is idle.
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

/// Waits until no other process creates or migrates this database. The lock is held until the file is closed.
fn lock_migrations(dir: &Path) -> Result<File, Error> {
    let path = dir.join("migrate.lock");
    let fault = |error| fault::io_error(&path, "locking it", &error);
    let file = forge_files::open_or_create(&path).map_err(|error| fault(error.into_io_error()))?;
    file.lock().map_err(fault)?;
    Ok(file)
}

/// Applies the missing migrations; requires the lock of [`lock_migrations`].
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
            "its file system does not support a write-ahead log (SQLite stays in mode `{mode}`). Set \
             XDG_DATA_HOME to a directory on a local disk"
        ),
    }
}
