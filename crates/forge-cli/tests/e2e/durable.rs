//! Runs that are not kept.

use crate::harness::World;
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use serde_json::json;

#[test]
fn a_run_that_is_not_kept_works_and_leaves_no_trace() {
    let mut world = World::new();
    let write =
        MockReply::text("").and_call("c1", "write_file", json!({"path": "hello.txt", "content": "hello\n"}));
    let server = ModelServer::start(ReplyScript::from_replies([write, MockReply::text("Done.")]));
    let mut flags = world.uses(&server, VendorFormat::OpenAi);
    flags.push("--no-durable");
    world.run(&flags, "Write hello").exits(0).shows(&["not kept", "hello.txt"]);
    assert_eq!(world.read("hello.txt"), "hello\n");
    assert!(world.runs().is_empty(), "nothing is listed");
    let user = rustix::process::geteuid().as_raw();
    assert_eq!(scratch_of_the_dead(user), Vec::<std::path::PathBuf>::new(), "its folder in memory is gone");
}

#[test]
fn an_ordinary_users_run_that_is_not_kept_leaves_no_trace() {
    const USER: u32 = 4251;
    let Some(mut world) = World::of_user(USER, "a run of an ordinary user that is not kept") else { return };
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("Done.")]));
    let mut flags = world.uses(&server, VendorFormat::OpenAi);
    flags.push("--no-durable");
    world.run(&flags, "Say something").exits(0);
    assert_eq!(scratch_of_the_dead(USER), Vec::<std::path::PathBuf>::new(), "its folder in memory is gone");
}

/// What processes of a user that are gone keep in memory.
fn scratch_of_the_dead(user: u32) -> Vec<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let shared = std::path::Path::new("/dev/shm");
    let places = [shared.to_owned(), shared.join(format!("forge-{user}"))];
    let entries = places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
    let is_left = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix("forge-scratch-").and_then(|rest| rest.split('-').next().map(str::to_owned));
        let is_theirs = entry.metadata().is_ok_and(|meta| meta.uid() == user);
        is_theirs && pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists())
    };
    entries.filter(is_left).map(|entry| entry.path()).collect()
}
