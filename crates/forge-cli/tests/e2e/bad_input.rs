//! Bad input: a cause, a way out, the right exit code, and nothing lost.

use crate::harness::World;
use forge_testkit::model_server::{MockReply, ModelServer, ModelServerSettings, ReplyScript, VendorFormat};
use std::os::unix::fs::PermissionsExt as _;

fn openai() -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::from_replies([MockReply::text("Done.")]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    (world, server, flags)
}

#[test]
fn a_repository_that_is_not_there() {
    let (world, server, flags) = openai();
    let done = world.run(&[&flags[..], &["--repo", "/no/such/place"]].concat(), "x").exits(2);
    done.says(&["/no/such/place", "--repo"]);
    assert_eq!((server.request_count(), world.runs().len()), (0, 0));
}

#[test]
fn a_repository_that_is_a_file() {
    let (world, _server, flags) = openai();
    world.file("a.txt", "");
    world.run(&[&flags[..], &["--repo", "a.txt"]].concat(), "x").exits(2).says(&["not a directory"]);
}

#[test]
fn a_repository_that_can_not_be_read() {
    let Some(world) = World::of_an_ordinary_user("a repository that can't be read") else { return };
    let locked = world.path("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
    let path = locked.display().to_string();
    world.run(&["--provider", "ollama", "--repo", &path], "x").exits(2).says(&["permission"]);
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_data_folder_that_can_not_be_written() {
    let Some(world) = World::of_an_ordinary_user("a data folder that can't be written") else { return };
    // Verdicts of earlier tests may be in it.
    let _ = std::fs::remove_dir_all(world.path("data/forge"));
    std::fs::set_permissions(world.path("data"), std::fs::Permissions::from_mode(0o555)).unwrap();
    world.forge(&["list"]).exits(1).says(&["data/forge"]);
    world.forge(&["doctor"]).exits(1).shows(&["FAIL", "XDG_DATA_HOME"]);
    std::fs::set_permissions(world.path("data"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_empty_task() {
    let (world, server, flags) = openai();
    world.run(&flags, "").exits(2).says(&["the task is empty", "forge run \""]);
    world.run(&flags, " \n\t ").exits(2).says(&["the task is empty"]);
    assert_eq!((server.request_count(), world.runs().len()), (0, 0));
}

#[test]
fn a_task_of_a_megabyte() {
    let (world, server, flags) = openai();
    std::fs::write(world.path("task.md"), "word ".repeat(200_000)).unwrap();
    let path = world.path("task.md").display().to_string();
    let words = [&["run", "--task-file", &path][..], &flags].concat();
    world.forge(&words).exits(2).says(&["1000000 characters", "file in the repository"]);
    assert_eq!((server.request_count(), world.runs().len()), (0, 0));
}

#[test]
fn a_task_file_that_is_no_text_or_not_there() {
    let (world, _server, flags) = openai();
    world.forge(&[&["run", "--task-file", "/no/task"][..], &flags].concat()).exits(2).says(&["/no/task"]);
    std::fs::write(world.path("task.bin"), [0xff, 0xfe, 0x00]).unwrap();
    let path = world.path("task.bin").display().to_string();
    world.forge(&[&["run", "--task-file", &path][..], &flags].concat()).exits(2).says(&["UTF-8"]);
}

#[test]
fn no_provider_at_all() {
    let mut world = World::new();
    // Nobody listens there, whatever runs on this machine.
    world.set("OLLAMA_BASE_URL", "http://127.0.0.1:1").set("LLAMA_CPP_URL", "http://127.0.0.1:1");
    world.run(&[], "x").exits(2).says(&["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "--provider"]);
}

#[test]
fn a_provider_without_its_key() {
    let world = World::new();
    let done = world.run(&["--provider", "anthropic"], "x");
    assert!(matches!(done.code, Some(1 | 2)), "{done:?}");
    done.says(&["ANTHROPIC_API_KEY"]);
}

#[test]
fn an_unknown_provider() {
    World::new().run(&["--provider", "opnai"], "x").exits(2).says(&["opnai", "openai"]);
}

#[test]
fn a_wrong_key() {
    for shape in [VendorFormat::OpenAi, VendorFormat::Anthropic, VendorFormat::Gemini] {
        let mut world = World::new();
        let settings = ModelServerSettings { key: Some("another".into()), ..ModelServerSettings::default() };
        let server =
            ModelServer::start_with(ReplyScript::from_replies([MockReply::text("Done.")]), settings).unwrap();
        let flags = world.uses(&server, shape);
        let done = world.run(&flags, "x").exits(1);
        assert!(done.err.contains("_API_KEY"), "{shape:?}: {}", done.err);
        assert_eq!(server.request_count(), 1, "a wrong key is not tried again");
        assert_eq!(world.runs()[0]["error_kind"], "auth");
    }
}

#[test]
fn an_unknown_model() {
    for shape in VendorFormat::ALL {
        let mut world = World::new();
        let settings =
            ModelServerSettings { models: Some(vec!["other".into()]), ..ModelServerSettings::default() };
        let server =
            ModelServer::start_with(ReplyScript::from_replies([MockReply::text("Done.")]), settings).unwrap();
        let flags = world.uses(&server, shape);
        world.run(&flags, "x").exits(1).says(&["`tiny`", "model's name"]);
        assert_eq!(server.model_calls().len(), 1, "{shape:?}");
    }
}

#[test]
fn no_route_to_the_server() {
    let mut world = World::new();
    world.set("OPENAI_API_KEY", crate::harness::KEY);
    let flags = ["--provider", "openai", "--base-url", "http://127.0.0.1:1/v1", "--model", "m"];
    world.run(&flags, "x").exits(1).says(&["127.0.0.1:1"]);
    assert_eq!(world.runs()[0]["status"], "failed");
}

#[test]
fn bad_values_of_flags_are_named_by_their_flag() {
    let (world, _server, flags) = openai();
    for (flag, value) in [
        ("--sandbox-backend", "chroot"),
        ("--max-cost", "-1"),
        ("--max-iterations", "0"),
        ("--base-url", "ftp://x"),
        ("--command-timeout", "0"),
    ] {
        let value = format!("{flag}={value}");
        world.run(&[&flags[..], &[value.as_str()]].concat(), "x").exits(2).says(&[flag]);
    }
}

#[test]
fn no_isolation_is_never_had_by_a_flag_alone() {
    let (world, server, flags) = openai();
    let words = [&flags[..], &["--sandbox-backend", "process"]].concat();
    world.run(&words, "x").exits(2).says(&["allow_unisolated"]);
    assert_eq!(server.request_count(), 0);
}

#[test]
fn a_data_folder_of_a_newer_version() {
    let world = World::new();
    world.forge(&["list"]).exits(0);
    let store = world.path("data").join("forge/forge.db");
    assert!(store.is_file(), "{}", store.display());
    // The version of the format is SQLite's own `user_version`, four bytes at offset 60 of the file's header.
    let journal = world.path("data").join("forge");
    for entry in std::fs::read_dir(&journal).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            !name.ends_with("-wal") || std::fs::metadata(&path).unwrap().len() == 0,
            "{name} holds changes"
        );
    }
    let mut bytes = std::fs::read(&store).unwrap();
    bytes[60..64].copy_from_slice(&9_999_u32.to_be_bytes());
    std::fs::write(&store, bytes).unwrap();
    world.forge(&["list"]).exits(1).says(&["newer version", "XDG_DATA_HOME"]);
}
