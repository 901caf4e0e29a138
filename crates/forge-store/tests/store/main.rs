//! The store on SQLite: the contract, several processes, and what goes wrong.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod advice;
mod contract;
mod damage;
mod disk;
mod feed;
mod lifecycle;
mod processes;
mod property;
mod queue;

use forge_ports::Journal;
use forge_store::{Options, SqliteStore};
use forge_types::{Event, RunId, Seq};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What tells a copy of this test program, started by a test, what it is to do.
const ROLE: &str = "FORGE_STORE_TEST_ROLE";
/// And where.
const DIR: &str = "FORGE_STORE_TEST_DIR";

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(&Options { data_dir: dir.to_owned() }).unwrap()
}

/// The database as any program sees it.
fn database(dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("forge.db")).unwrap()
}

async fn events(store: &SqliteStore, run: RunId) -> Vec<Event> {
    let pages = store.read_events(run, Seq(0), 0).await.unwrap();
    assert_eq!(pages.damage, None);
    pages.events
}

/// This program once more, running only the test `test` in the role `role`; `before` is put before its own
/// command line.
#[allow(clippy::disallowed_methods, reason = "a second process is what these tests are about")]
fn again(before: &[&str], test: &str, role: &str, dir: &Path) -> std::io::Result<Child> {
    let own = std::env::current_exe()?.into_os_string().into_string().expect("a path in UTF-8");
    let line = [before, &[own.as_str(), "--exact", test, "--nocapture"]].concat();
    Command::new(line[0])
        .args(&line[1..])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

/// The role and the folder of this process, if it was started by [`again`].
#[allow(clippy::disallowed_methods, reason = "the way in which a test tells its own copy what to do")]
fn role() -> Option<(String, std::path::PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(DIR)?.into()))
}
