//! The promises of the ports.

use forge_store::{Options, SqliteStore};
use tempfile::TempDir;

/// A store in a folder of its own.
pub(crate) fn make() -> (SqliteStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&Options { data_dir: dir.path().join("data") }).unwrap();
    (store, dir)
}

forge_testkit::journal_contract!(make);
