//! A store that is damaged, full, or gone: what can be read is shown, the rest is named.

use crate::harness::{World, skip};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use serde_json::json;

/// A run whose journal holds three turns.
fn finished() -> (World, String) {
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::from_replies([
        MockReply::text("The first words.").and_call(
            "c1",
            "write_file",
            json!({"path": "a.txt", "content": "one\n"}),
        ),
        MockReply::text("The second words.").and_call(
            "c2",
            "write_file",
            json!({"path": "b.txt", "content": "two\n"}),
        ),
        MockReply::text("The last words."),
    ]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    world.run(&flags, "Write two files").exits(0);
    let id = world.only_run();
    (world, id)
}

#[test]
fn of_a_damaged_journal_what_can_be_read_is_shown_and_the_rest_is_named() {
    let (world, id) = finished();
    sql(&world, "UPDATE events SET data = '{\"kind' WHERE data LIKE '%The second words.%'");
    world.forge(&["status", &id]).exits(0).says(&["damaged"]).shows(&[&id, "Write two files"]);
    let logs = world.forge(&["logs", &id]).exits(0).shows(&["The first words.", "write_file a.txt"]);
    assert!(logs.err.contains("cannot read the rest"), "{}", logs.err);
    let json = world.forge(&["status", &id, "--json"]).exits(0).json();
    assert!(json["damage"].is_string());
    world.forge(&["list"]).exits(0).shows(&["Write two files"]);
    // A damaged run does not spoil the others.
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("Fine.")]));
    let url = server.base_url(VendorFormat::OpenAi);
    let flags = ["--provider", "openai", "--model", "tiny", "--base-url", &url];
    world.run(&flags, "Another").exits(0).shows(&["Fine."]);
}

#[test]
fn a_store_that_is_no_store_is_named_with_a_way_out() {
    let (world, _id) = finished();
    let store = world.path("data").join("forge/forge.db");
    sql(&world, "PRAGMA wal_checkpoint(TRUNCATE)");
    std::fs::write(&store, "this is no database ".repeat(500)).expect("a writable store");
    world.forge(&["list"]).exits(1).says(&["forge.db"]);
    world.forge(&["doctor"]).exits(1).shows(&["FAIL", "forge.db"]);
}

#[test]
fn a_full_disk_ends_the_run_and_its_end_is_recorded() {
    let mut world = World::new();
    let Some(disk) = SmallDisk::at(&world.path("data")) else { return };
    // Fifty kilobytes of noise a turn, each time others, until nothing fits any more.
    let command = json!({"command": "head -c 36000 /dev/urandom | base64 -w 0"});
    let server =
        ModelServer::start(ReplyScript::always(move |_| MockReply::call("run_shell", command.clone())));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let all =
        [&flags[..], &["--max-iterations", "900", "--max-tokens", "900000000", "--max-cost", "900"]].concat();
    world.set("FORGE_RUNTIME_MAX_SHELL_COMMANDS", "900").set("FORGE_COST_ALLOW_UNKNOWN", "true");
    let done = world.run(&all, "Fill the disk").exits(1).says(&["no space"]);
    assert!(!done.err.contains("panicked"), "{}", done.err);
    let runs = world.runs();
    assert_eq!((runs.len(), &runs[0]["status"]), (1, &"failed".into()), "{runs:#?}");
    let id = world.only_run();
    assert!(world.tools(&id).len() > 3, "what was journalled stays readable");
    drop(disk);
}

/// Does to the store what no program of ours does.
#[allow(clippy::disallowed_methods, reason = "the test damages what the program wrote")]
pub(crate) fn sql(world: &World, statement: &str) {
    const PROGRAM: &str =
        "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit(); c.close()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", PROGRAM]).arg(world.path("data").join("forge/forge.db")).arg(statement);
    let done = python.output().expect("python3 starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A file system of a few megabytes, mounted over a folder.
pub(crate) struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    #[allow(clippy::disallowed_methods, reason = "the test prepares the machine")]
    pub(crate) fn at(folder: &std::path::Path) -> Option<Self> {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(folder)
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder.to_owned()));
        }
        assert!(
            std::env::var_os("CI").is_none(),
            "a small file system can't be mounted here, and CI skips nothing"
        );
        skip("a full disk", "a small file system can't be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    #[allow(clippy::disallowed_methods, reason = "the test cleans the machine up")]
    fn drop(&mut self) {
        // The folder goes away with the world; a mount that stays would keep it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
