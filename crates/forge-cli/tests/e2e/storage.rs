//! A data folder that is damaged, cut short, read-only or full, looked at with every command: what can be read is
//! shown, the rest is named, and nothing gets worse.

use crate::damage::{SmallDisk, sql};
use crate::harness::{Done, World};
use forge_testkit::model_server::{Gate, MockReply, ModelServer, ReplyScript, VendorFormat};
use rustix::process::Signal;
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn write() -> MockReply {
    MockReply::text("I write.").and_call("c1", "write_file", json!({"path": "a.txt", "content": "one\n"}))
}

/// A world whose server writes a file and ends, for every run anew.
fn world() -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    let (server, flags) = served(&mut world);
    (world, server, flags)
}

fn served(world: &mut World) -> (ModelServer, Vec<&'static str>) {
    let server = ModelServer::start(ReplyScript::always(|call| match call.turn_index() {
        0 => write(),
        _ => MockReply::text("Fine."),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    (server, flags)
}

fn store(world: &World) -> PathBuf {
    world.path("data").join("forge/forge.db")
}

/// A command that must not panic, whatever it finds.
fn look(world: &World, words: &[&str], code: i32) -> Done {
    let done = world.forge(words).exits(code);
    assert!(!done.err.contains("panicked"), "{words:?}: {}", done.err);
    done
}

#[test]
fn a_damaged_payload_is_named_and_the_next_run_is_none_the_worse() {
    let (world, _server, flags) = world();
    world.run(&flags, "Write a file").exits(0);
    let id = world.only_run();
    // The plan of the run is such a payload, and the next run has the same.
    sql(&world, "UPDATE blobs SET bytes = x'00'");
    look(&world, &["status", &id], 0).shows(&[&id, "Fine."]).says(&["damaged", "payload", "forge.db"]);
    look(&world, &["logs", &id], 0).shows(&["write_file a.txt", "completed"]);
    look(&world, &["list"], 0).shows(&["Write a file"]);
    look(&world, &["resume", &id], 1).says(&["has changed", "forge status"]);
    world.run(&flags, "Once more").exits(0).shows(&["Fine."]);
    let whole = look(&world, &["status", &id], 0);
    assert!(!whole.err.contains("damaged"), "the next run stored the plan anew: {}", whole.err);
}

#[test]
fn a_large_payload_whose_file_has_changed_or_is_gone_is_named() {
    let (world, server, flags) = world();
    // More than the journal keeps in its rows.
    let answer = "All is well. ".repeat(22_000);
    server.set_script(ReplyScript::always(move |call| match call.turn_index() {
        0 => write(),
        _ => MockReply::text(answer.clone()),
    }));
    world.run(&flags, "Write a file").exits(0);
    let id = world.only_run();
    let file = only_file_below(&world.path("data").join("forge/blobs"));
    let name = file.file_name().and_then(|name| name.to_str()).expect("a digest").to_owned();
    std::fs::write(&file, "something else").expect("a writable file");
    look(&world, &["status", &id], 0).shows(&["completed"]).says(&["damaged", &name]);
    std::fs::remove_file(&file).expect("a file");
    look(&world, &["status", &id], 0).shows(&["completed"]).says(&["damaged", &name]);
    look(&world, &["logs", &id], 0).shows(&["write_file a.txt", "completed"]);
    look(&world, &["list"], 0).shows(&["completed"]);
}

fn only_file_below(folder: &Path) -> PathBuf {
    let folders = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut files: Vec<_> = folders
        .flat_map(|folder| std::fs::read_dir(folder.path()).expect("a folder").flatten())
        .map(|entry| entry.path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn a_database_that_is_cut_short_is_named_by_every_command_and_left_alone() {
    let (world, server, flags) = world();
    world.run(&flags, "Write a file").exits(0);
    let id = world.only_run();
    sql(&world, "PRAGMA wal_checkpoint(TRUNCATE)");
    let (file, asked) = (store(&world), server.request_count());
    let whole = std::fs::read(&file).expect("a database");
    for length in [whole.len() / 2, 4_096, 100] {
        std::fs::write(&file, &whole[..length]).expect("a writable file");
        let ways_out = ["damaged", "forge.db", "data/forge/runs", ".recover", "move"];
        for words in
            [&["status", &id][..], &["logs", &id], &["list"], &["resume", &id], &["cancel", &id], &["status"]]
        {
            look(&world, words, 1).says(&ways_out);
        }
        world.run(&flags, "Another").exits(1).says(&ways_out);
        look(&world, &["doctor"], 1).shows(&["FAIL", "forge.db"]);
        let now = std::fs::read(&file).expect("a database");
        assert!(now == whole[..length], "{length} bytes are no longer what they were");
    }
    assert_eq!(server.request_count(), asked, "no model is asked for a run that can't be kept");
    std::fs::write(&file, &whole).expect("a writable file");
    look(&world, &["status", &id], 0).shows(&["Fine."]);
    // The way out that the message names.
    std::fs::write(&file, &whole[..100]).expect("a writable file");
    for name in ["forge.db", "forge.db-wal"] {
        let from = file.with_file_name(name);
        std::fs::rename(&from, from.with_extension("old")).expect("it is there");
    }
    world.run(&flags, "Another").exits(0).shows(&["Fine."]);
}

#[test]
fn an_emptied_database_does_not_take_its_log_along() {
    let (world, _server, flags) = world();
    world.run(&flags, "Write a file").exits(0);
    let (file, log) = (store(&world), store(&world).with_extension("db-wal"));
    let (whole, before) = (std::fs::read(&file).expect("a file"), std::fs::read(&log).expect("a log"));
    assert!(!before.is_empty());
    std::fs::write(&file, "").expect("a writable file");
    look(&world, &["list"], 1).says(&["the file is empty", "forge.db"]);
    assert!(std::fs::read(&log).expect("a log") == before);
    std::fs::write(&file, whole).expect("a writable file");
    look(&world, &["list"], 0).shows(&["Write a file"]);
}

/// A run whose second request is held, then its process is killed.
fn killed(world: &World, server: &ModelServer, flags: &[&str]) -> (String, Gate) {
    let (gate, mut asked) = (Gate::new(), 0);
    let held = gate.clone();
    server.set_script(ReplyScript::always(move |call| match call.turn_index() {
        0 => write(),
        _ => {
            asked += 1;
            if asked == 1 { MockReply::text("Fine.").with_gate(&held) } else { MockReply::text("Fine.") }
        }
    }));
    let running = world.start(&[&["run", "Write a file"][..], flags].concat());
    assert!(server.wait_for_requests(2, LONG), "the second request did not come");
    let id = world.only_run();
    running.signal(Signal::KILL);
    running.wait();
    (id, gate)
}

#[test]
fn a_run_with_a_damaged_journal_is_never_driven_on() {
    let (world, server, flags) = world();
    let (id, _gate) = killed(&world, &server, &flags);
    sql(&world, "UPDATE events SET data = '{' WHERE (id & 255) = 4");
    let asked = server.request_count();
    look(&world, &["resume", &id], 1).says(&["damaged", "event 4", "forge status"]);
    look(&world, &["cancel", &id], 1).says(&["damaged", "event 4"]);
    assert_eq!(server.request_count(), asked);
    look(&world, &["status", &id], 0).says(&["event 4"]).shows(&["Write a file"]);
    look(&world, &["logs", &id, "-f"], 0).says(&["event 4"]).shows(&["Write a file"]);
    let lines = look(&world, &["logs", &id, "--json"], 0).says(&["event 4"]).out;
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn a_data_folder_that_became_read_only_is_named_and_works_again_later() {
    let Some(mut world) = World::of_an_ordinary_user("a data folder that became read-only") else { return };
    let (_server, flags) = served(&mut world);
    world.run(&flags, "Write a file").exits(0);
    let id = world.only_run();
    let folder = world.path("data").join("forge");
    let open_to = |mode: u32| {
        let folders = ["locks", "runs", "wake", ""].map(|name| folder.join(name));
        let files = ["forge.db", "forge.db-wal", "forge.db-shm"].map(|name| folder.join(name));
        for (path, mode) in
            folders.iter().map(|path| (path, mode | 0o111)).chain(files.iter().map(|path| (path, mode)))
        {
            if path.exists() {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its owner may");
            }
        }
    };
    open_to(0o444);
    for words in [&["list"][..], &["status", &id], &["logs", &id]] {
        let done = world.forge(words);
        assert!(matches!(done.code, Some(0 | 1)) && !done.err.contains("panicked"), "{words:?}: {done:?}");
        if done.code == Some(1) {
            done.says(&["data/forge"]);
        }
    }
    world.run(&flags, "Another").exits(1).says(&["data/forge"]);
    open_to(0o644);
    world.run(&flags, "Another").exits(0).shows(&["Fine."]);
    look(&world, &["status", &id], 0).shows(&["Fine."]);
}

#[test]
fn on_a_full_disk_a_run_ends_and_all_stays_readable_until_there_is_space_again() {
    let (world, server, flags) = world();
    let Some(disk) = SmallDisk::at(&world.path("data")) else { return };
    let gate = Gate::new();
    let held = gate.clone();
    // More than the room that the log has taken already.
    let big = json!({"command": "head -c 54000 /dev/urandom | base64 -w 0"});
    server.set_script(ReplyScript::always(move |call| match call.turn_index() {
        0 => write().with_gate(&held),
        n @ 1..=22 => MockReply::default().and_call(format!("c{n}"), "run_shell", big.clone()),
        _ => MockReply::text("Fine."),
    }));
    let running = world.start(&[&["run", "Write a file"][..], &flags].concat());
    assert!(server.wait_for_requests(1, LONG), "the request did not come");
    let filler = world.path("data").join("filler");
    fill(&filler);
    gate.open();
    let done = running.wait().exits(1).says(&["no space", "forge gc"]);
    assert!(!done.err.contains("panicked"), "{}", done.err);
    let id = world.only_run();
    look(&world, &["list"], 0).shows(&["failed", "Write a file"]);
    look(&world, &["status", &id], 0).shows(&["failed", "Write a file"]);
    look(&world, &["logs", &id], 0).shows(&["Write a file"]);
    assert_eq!(world.events(&id).last().expect("events")["kind"], "run.finished", "its end is recorded");
    // The end of the first run took what was kept back for it; that is used up as well.
    let asked = server.request_count();
    fill(&world.path("data").join("filler-2"));
    world.run(&flags, "Another").exits(1).says(&["no space", "data/forge"]);
    assert_eq!(server.request_count(), asked, "nothing is begun that can't be kept");
    std::fs::remove_file(filler).expect("it is there");
    std::fs::remove_file(world.path("data").join("filler-2")).expect("it is there");
    world.run(&flags, "Another").exits(0).shows(&["Fine."]);
    look(&world, &["status", &id], 0).shows(&["failed"]);
    drop(disk);
}

/// Uses up all that is left of a disk.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("a writable folder");
    for size in [64 * 1024, 4_096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}
