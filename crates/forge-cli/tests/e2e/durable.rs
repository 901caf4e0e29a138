//! Runs that are not kept.

use crate::harness::World;
use forge_testkit::model_server::{ModelServer, Reply, Script, Shape};
use serde_json::json;

#[test]
fn a_run_that_is_not_kept_works_and_leaves_no_trace() {
    let mut world = World::new();
    let write =
        Reply::text("").and_call("c1", "write_file", json!({"path": "hello.txt", "content": "hello\n"}));
    let server = ModelServer::start(Script::of([write, Reply::text("Done.")]));
    let mut flags = world.uses(&server, Shape::OpenAi);
    flags.push("--no-durable");
    world.run(&flags, "Write hello").exits(0).shows(&["not kept", "hello.txt"]);
    assert_eq!(world.read("hello.txt"), "hello\n");
    assert!(world.runs().is_empty(), "nothing is listed");
    let left = std::fs::read_dir("/dev/shm").unwrap().flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix("forge-scratch-").and_then(|rest| rest.split('-').next().map(str::to_owned));
        pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists())
    });
    assert_eq!(left.count(), 0, "its folder in memory is gone");
}
