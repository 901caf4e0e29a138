//! The three jobs on a sample web project, through each vendor's wire format: twelve runs.

use crate::harness::{World, fixture};
use forge_testkit::model_server::{
    Chunker, ModelServer, ModelServerSettings, ReplyFraming, ReplyScript, VendorFormat,
};
use serde::Deserialize;

/// What a job is, as its file says.
#[derive(Deserialize)]
struct Job {
    task: String,
    check: Vec<String>,
    changed: Vec<String>,
}

/// Does a job through every wire format, with the network pieces cut where it hurts.
fn everywhere(name: &str) {
    let read =
        |file: &str| std::fs::read_to_string(fixture("jobs").join(name).join(file)).expect("a fixture");
    let job: Job = serde_json::from_str(&read("job.json")).expect("a job");
    let chunkers = [Chunker::Hostile, Chunker::prime_sizes(), Chunker::Bytes(1), Chunker::Whole];
    for (shape, chunker) in VendorFormat::ALL.into_iter().zip(chunkers) {
        let mut world = World::new();
        world.copy_fixture("webapp");
        world.copy_fixture(&format!("jobs/{name}/overlay"));
        world.file(".gitignore", "__pycache__/\n");
        let framing = ReplyFraming::with_chunker(chunker);
        let settings = ModelServerSettings { framing, key: key(shape), ..ModelServerSettings::default() };
        let server = ModelServer::start_with(
            ReplyScript::from_json(&read("script.json")).expect("a script"),
            settings,
        )
        .expect("a free port");
        let flags = world.uses(&server, shape);
        let report = world.run(&[&flags[..], &["--json"]].concat(), &job.task).exits(0).json();
        assert_eq!(report["files_modified"], serde_json::json!(job.changed), "{name} {shape:?}");
        assert_eq!(report["sandbox"]["backend"], "native");
        last_test_run_passed(&world, name, shape);
        assert_eq!(check(&world, &job.check), Some(0), "{name} {shape:?}");
        prefixes_never_change(&server, name, shape);
    }
}

fn key(shape: VendorFormat) -> Option<String> {
    (shape != VendorFormat::Ollama).then(|| crate::harness::KEY.to_owned())
}

/// The project's tests ran in the sandbox and pass after the change; where they ran before it too, they failed.
fn last_test_run_passed(world: &World, name: &str, shape: VendorFormat) {
    let events = world.events(&world.only_run());
    let codes: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "exec.completed")
        .filter_map(|event| event["data"]["exit_code"].as_i64())
        .collect();
    assert_eq!(codes.last(), Some(&0), "{name} {shape:?}: {codes:?}");
    assert!(codes.len() == 1 || codes[0] != 0, "{name} {shape:?}: nothing was broken: {codes:?}");
}

#[allow(clippy::disallowed_methods, reason = "the test looks at the result from outside")]
fn check(world: &World, words: &[String]) -> Option<i32> {
    let mut command = std::process::Command::new(&words[0]);
    command.args(&words[1..]).current_dir(world.repo()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.output().expect("the check starts").status.code()
}

/// Each request extends the one before: what a provider has cached stays valid.
fn prefixes_never_change(server: &ModelServer, name: &str, shape: VendorFormat) {
    let calls = server.model_calls();
    for pair in calls.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        assert_eq!(before.system, after.system, "{name} {shape:?}");
        let shown = |call: &forge_testkit::model_server::SeenModelCall, n: usize| {
            format!("{:?}", &call.messages[..n])
        };
        let n = before.messages.len();
        assert_eq!(shown(before, n), shown(after, n), "{name} {shape:?}");
    }
}

#[test]
fn adds_input_validation() {
    everywhere("add-validation");
}

#[test]
fn fixes_a_planted_bug() {
    everywhere("fix-bug");
}

#[test]
fn adds_type_hints() {
    everywhere("type-hints");
}
