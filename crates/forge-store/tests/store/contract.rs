//! The promises of the ports.

use forge_store::{Options, Store};
use tempfile::TempDir;

/// A store in a folder of its own.
pub(crate) fn make() -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Options { data_dir: dir.path().join("data") }).unwrap();
    (store, dir)
}

forge_testkit::journal_contract!(make);
