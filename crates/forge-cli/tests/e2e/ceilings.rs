//! What a command leaves in the workspace never holds a run, or the machine: a ceiling ends it by name, and whoever waits
//! can end what the host does.

use crate::harness::{World, until};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use rustix::process::Signal;
use serde_json::json;
use std::path::{Path, PathBuf};

/// A model that has a file written, then this command run.
fn world(command: &'static str) -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    world.file("a.txt", "one\n");
    let server = ModelServer::start(ReplyScript::always(move |call| match call.turn_index() {
        0 => MockReply::call("write_file", json!({ "path": "kept.txt", "content": "kept\n" })),
        1 => MockReply::call("run_shell", json!({ "command": command })),
        _ => MockReply::text("Done."),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    (world, server, flags)
}

/// Whether a file of a store below `data` is being written.
fn half_made(data: &Path) -> Option<()> {
    let mut waiting = vec![PathBuf::from(data)];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".new-") {
                return Some(());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
        }
    }
    None
}

#[test]
fn a_run_that_meets_a_ceiling_fails_by_its_name_and_keeps_its_work() {
    for (command, setting) in [
        ("truncate -s 8T x", "workspace.max_file_size"),
        ("i=0; while [ $i -lt 400 ]; do mkdir d; cd -P d; i=$((i+1)); done", "workspace.max_depth"),
        ("i=0; while [ $i -lt 200 ]; do : > f$i; i=$((i+1)); done", "workspace.max_changed_paths"),
    ] {
        let (mut world, _server, flags) = world(command);
        if setting.ends_with("changed_paths") {
            world.set("FORGE_WORKSPACE_MAX_CHANGED_PATHS", "100");
        }
        let done = world.run(&flags, "Work").exits(1);
        let told = format!("{}{}", done.out, done.err);
        assert!(told.contains(setting), "{setting}: {told}");
        let run = world.only_run();
        world.forge(&["diff", &run, "--stat"]).exits(0).shows(&["kept.txt"]);
        assert!(!world.repo().join("kept.txt").exists(), "a run that failed is not applied");
        world.forge(&["apply", &run]).exits(0);
        assert_eq!(world.read("kept.txt"), "kept\n");
    }
}

#[test]
fn a_repository_above_a_ceiling_is_refused_before_a_model_is_asked() {
    let (mut world, server, flags) = world("true");
    for n in 0..100 {
        world.file(&format!("file-{n}"), "");
    }
    world.set("FORGE_WORKSPACE_MAX_PATHS", "100");
    let done = world.run(&flags, "Work").exits(1);
    let told = format!("{}{}", done.out, done.err);
    assert!(told.contains("workspace.max_paths"), "{told}");
    assert!(server.recorded_requests().is_empty(), "nothing was spent");
}

/// How a run is told to end.
enum End {
    Signal,
    Cancel,
    Deadline,
}

/// Ends a run whose last step left something that is hashed for hours.
fn ends(end: &End, code: i32) {
    let (mut world, _server, flags) = world("truncate -s 8T x");
    world.set("FORGE_WORKSPACE_MAX_FILE_SIZE", "16t");
    if matches!(end, End::Deadline) {
        world.set("FORGE_RUNTIME_MAX_PIPELINE_DURATION_MS", "20000");
    }
    let running = world.start(&[&["run", "Work"][..], &flags].concat());
    let data = world.path("data");
    until("a long snapshot", || half_made(&data));
    match end {
        End::Signal => running.signal(Signal::INT),
        End::Cancel => drop(world.forge(&["cancel", &world.only_run()]).exits(0)),
        End::Deadline => {}
    }
    running.wait().exits(code);
    world.forge(&["diff", &world.only_run(), "--stat"]).exits(0).shows(&["kept.txt"]);
}

#[test]
fn ctrl_c_ends_a_long_snapshot() {
    ends(&End::Signal, 130);
}

#[test]
fn a_cancel_ends_a_long_snapshot() {
    ends(&End::Cancel, 4);
}

#[test]
fn the_time_of_the_run_ends_a_long_snapshot() {
    ends(&End::Deadline, 3);
}

/// The first look at a repository that is worked on directly keeps all of it.
#[test]
fn ctrl_c_ends_a_long_first_look() {
    let (mut world, _server, flags) = world("true");
    world.set("FORGE_WORKSPACE_MAX_FILE_SIZE", "16t");
    std::fs::File::create(world.repo().join("large")).unwrap().set_len(8 << 40).unwrap();
    let running = world.start(&[&["run", "Work", "--workspace", "inplace"][..], &flags].concat());
    let data = world.path("data");
    until("a long first look", || half_made(&data));
    running.signal(Signal::INT);
    running.wait().exits(130);
}
