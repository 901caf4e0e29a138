//! The workspace as a transaction, from outside: what a run does reaches the repository when it is applied, and every
//! step can be looked at, undone, brought back and applied by itself.

use crate::harness::{Done, World};
use forge_testkit::model_server::{Gate, MockReply, ModelServer, ReplyScript, VendorFormat};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A server that asks for these tool calls, one per turn, and then ends.
fn asking(calls: Vec<(&'static str, Value)>) -> ModelServer {
    ModelServer::start(ReplyScript::always(move |call| match calls.get(call.turn_index()) {
        Some((tool, arguments)) => {
            MockReply::text("Next. ").and_call(format!("c{}", call.turn_index()), *tool, arguments.clone())
        }
        None => MockReply::text("Done."),
    }))
}

fn shell(command: &str) -> (&'static str, Value) {
    ("run_shell", json!({ "command": command }))
}

fn write(path: &str, content: &str) -> (&'static str, Value) {
    ("write_file", json!({ "path": path, "content": content }))
}

/// A repository of git with two files, and a model that asks for `calls`.
fn world(calls: Vec<(&'static str, Value)>) -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    world.file("a.txt", "one\ntwo\nthree\n").file("dir/b.txt", "bee\n");
    world.git(&["init", "-q"]);
    world.git(&["add", "-A"]);
    world.git(&["commit", "-qm", "begin"]);
    let server = asking(calls);
    let flags = world.uses(&server, VendorFormat::OpenAi);
    (world, server, flags)
}

/// Everything below a folder: path, mode and content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().expect("it is there");
        let content = if meta.is_dir() {
            todo.extend(
                std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()),
            );
            Vec::new()
        } else if meta.is_symlink() {
            std::fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).expect("a file")
        };
        let short = path.strip_prefix(folder).expect("below").to_owned();
        found.insert(short, (meta.permissions().mode(), content));
    }
    found
}

#[test]
fn what_a_run_did_is_applied_when_it_completes_and_git_is_left_alone() {
    let (world, _server, flags) = world(vec![
        write("new.txt", "new\n"),
        shell(
            "rm dir/b.txt && chmod 755 a.txt && ln -s a.txt link && mkdir empty && git add -A && git commit -qm x",
        ),
    ]);
    let git = tree(&world.repo().join(".git"));
    world.run(&flags, "Work").exits(0).shows(&["applied to the repository", "5 files changed"]);
    assert_eq!(world.read("new.txt"), "new\n");
    assert!(!world.repo().join("dir/b.txt").exists());
    assert!(world.repo().join("empty").is_dir());
    assert_eq!(std::fs::read_link(world.repo().join("link")).unwrap(), Path::new("a.txt"));
    assert_eq!(tree(&world.repo().join(".git")), git, "the repository's own git data");
    let status = world.forge(&["status", "last", "--json"]).exits(0).json();
    assert_eq!(status["summary"]["workspace"]["steps"], 2);
    assert_eq!(status["summary"]["workspace"]["pending"], false);
}

#[test]
fn a_run_that_fails_or_is_cancelled_leaves_the_repository_byte_for_byte() {
    let (mut world, _server, flags) =
        world(vec![write("new.txt", "new\n"), shell("rm -rf dir; echo x >> a.txt")]);
    let before = tree(&world.repo());
    let limited = [&flags[..], &["--max-iterations", "2"]].concat();
    world.run(&limited, "Ends by a limit").exits(3).shows(&["not in the repository", "forge apply"]);
    assert_eq!(tree(&world.repo()), before);
    let gate = Gate::new();
    let held = gate.clone();
    let server = ModelServer::start(ReplyScript::always(move |call| match call.turn_index() {
        0 => MockReply::text("I write.").and_call("c", "write_file", json!({"path": "x", "content": "x"})),
        _ => MockReply::text("Never.").with_gate(&held),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let run = world.start(&[&["run", "Is cancelled"][..], &flags].concat());
    assert!(server.wait_for_requests(2, LONG));
    world.forge(&["undo", "last", "--to", "0"]).exits(2).says(&["it is active in", "forge cancel"]);
    world.forge(&["cancel", "last"]).exits(0);
    gate.open();
    run.wait().exits(4);
    assert_eq!(tree(&world.repo()), before);
    // Its work stays reachable.
    world.forge(&["diff", "last"]).exits(0).shows(&["+++ b/x", "+x"]);
    world.forge(&["apply", "last"]).exits(0);
    assert_eq!(world.read("x"), "x");
}

#[test]
fn each_step_can_be_looked_at_undone_brought_back_and_applied() {
    let (world, _server, flags) = world(vec![
        write("a.txt", "one\nTWO\nthree\n"),
        shell("echo bee2 >> dir/b.txt; mkdir -p deep/er; echo d > deep/er/d; chmod 700 deep"),
        shell("rm -r dir; printf '\\000\\001' > binary"),
    ]);
    let flags = [&flags[..], &["--apply", "never"]].concat();
    let before = tree(&world.repo());
    world.run(&flags, "Three steps").exits(0).shows(&["not in the repository"]);
    assert_eq!(tree(&world.repo()), before);
    let steps = world.forge(&["diff", "last", "--steps", "--json"]).exits(0).json();
    assert_eq!(steps["steps"].as_array().map(Vec::len), Some(3), "{steps}");
    world.forge(&["diff", "last", "--step", "1"]).exits(0).shows(&["-two", "+TWO"]);
    let second = world.forge(&["diff", "last", "--step", "2"]).exits(0).shows(&["+bee2", "deep/er/d"]);
    assert!(!second.out.contains("TWO"), "{}", second.out);
    let whole = world.forge(&["diff", "last"]).exits(0).shows(&["deleted file", "Binary files"]);
    world.forge(&["diff", "last", "--step", "4"]).exits(2).says(&["no step 4", "1 to 3"]);

    // What it shows is what git takes, but for what is binary.
    let text: String = whole.out.split_inclusive("diff --git ").filter(|p| !p.contains("Binary")).collect();
    assert!(text.contains("+TWO"));

    world.forge(&["apply", "last", "--step", "1"]).exits(0).shows(&["M a.txt  +1 -1"]);
    assert_eq!(world.read("a.txt"), "one\nTWO\nthree\n");
    assert!(world.repo().join("dir/b.txt").exists());
    world.forge(&["apply", "last"]).exits(0);
    let after = tree(&world.repo());
    assert!(!world.repo().join("dir").exists());

    // Undo takes the repository along now, and redo brings it back.
    world.forge(&["undo", "last", "--to", "2"]).exits(0).shows(&["to step 2", "Updated the repository"]);
    assert_eq!(world.read("dir/b.txt"), "bee\nbee2\n");
    world.forge(&["undo", "last", "--to", "0"]).exits(0).shows(&["its beginning"]);
    assert_eq!(tree(&world.repo()), before, "byte for byte as before the run");
    world.forge(&["redo", "last"]).exits(0).shows(&["step 2"]);
    world.forge(&["redo", "last"]).exits(0).shows(&["step 3"]);
    assert_eq!(tree(&world.repo()), after);
    world.forge(&["redo", "last"]).exits(2).says(&["nothing to redo"]);
}

#[test]
fn what_somebody_else_changed_is_a_conflict_that_is_named_and_can_be_merged() {
    let (world, _server, flags) = world(vec![write("a.txt", "one\ntwo\nTHREE\n"), write("c.txt", "c\n")]);
    let flags = [&flags[..], &["--apply", "never"]].concat();
    world.run(&flags, "Change the end").exits(0);
    world.file("a.txt", "ONE\ntwo\nthree\n").file("theirs.txt", "theirs\n");
    let before = tree(&world.repo());
    world.forge(&["apply", "last"]).exits(1).says(&[
        "nothing was applied",
        "a.txt",
        "changed in the repository",
        "merges",
        "--merge",
    ]);
    assert_eq!(tree(&world.repo()), before, "nothing of it was applied");
    world.forge(&["apply", "last", "--merge"]).exits(0).shows(&["merged a.txt"]);
    assert_eq!(world.read("a.txt"), "ONE\ntwo\nTHREE\n");
    assert_eq!((world.read("c.txt"), world.read("theirs.txt")), ("c\n".into(), "theirs\n".into()));
    // What the merge replaced is what an undo brings back.
    world.forge(&["undo", "last", "--to", "0"]).exits(0);
    assert_eq!(tree(&world.repo()), before);
    world.forge(&["apply", "last", "--step", "2", "--merge"]).exits(0).shows(&["merged a.txt"]);
    assert_eq!(world.read("a.txt"), "ONE\ntwo\nTHREE\n");
}

#[test]
fn what_somebody_changed_before_the_run_did_is_merged_from_what_git_knows() {
    let mut world = World::new();
    world.file("a.txt", "one\ntwo\nthree\n").file("b.txt", "one\ntwo\nthree\n");
    world.git(&["init", "-q"]);
    world.git(&["add", "a.txt"]);
    let gate = Gate::new();
    let held = gate.clone();
    let server = ModelServer::start(ReplyScript::always(move |call| match call.turn_index() {
        // The first of these files is written over, the other changed in a box that shows what a person did.
        0 => {
            let whole = json!({"path": "a.txt", "content": "one\ntwo\nTHREE\n"});
            MockReply::text("I write.").and_call("c", "write_file", whole).with_gate(&held)
        }
        1 => {
            MockReply::text("And more.").and_call("d", "run_shell", json!({"command": "echo four >> b.txt"}))
        }
        _ => MockReply::text("Done."),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let run = world.start(&[&["run", "Edit"][..], &flags].concat());
    assert!(server.wait_for_requests(1, LONG));
    world.file("a.txt", "ONE\ntwo\nthree\n").file("b.txt", "ONE\ntwo\nthree\n");
    gate.open();
    run.wait().exits(0).shows(&["NOT applied", "forge apply"]);
    world.forge(&["diff", "last"]).exits(0).shows(&["-three\n+THREE\n", "no longer available: b.txt"]);
    let refused = world.forge(&["apply", "last"]);
    refused.exits(1).says(&["a.txt", "(both changes can be merged)", "b.txt"]);
    // What git never saw can't be merged, and nothing of the rest is.
    world.forge(&["apply", "last", "--merge"]).exits(1);
    assert_eq!(world.read("a.txt"), "ONE\ntwo\nthree\n");
    world.file("b.txt", "ONE\ntwo\nthree\nfour\n");
    world.forge(&["apply", "last", "--merge"]).exits(0).shows(&["merged a.txt"]);
    assert_eq!(world.read("a.txt"), "ONE\ntwo\nTHREE\n");
    world.forge(&["undo", "last", "--to", "0"]).exits(0);
    assert_eq!(world.read("a.txt"), "ONE\ntwo\nthree\n", "what the person wrote");
}

#[test]
fn a_conflict_at_the_end_of_a_run_is_said_and_loses_nothing() {
    let mut world = World::new();
    world.file("a.txt", "one\n");
    let gate = Gate::new();
    let held = gate.clone();
    let server = ModelServer::start(ReplyScript::always(move |call| match call.turn_index() {
        0 => MockReply::text("I write.").and_call(
            "c",
            "write_file",
            json!({"path": "a.txt", "content": "mine\n"}),
        ),
        _ => MockReply::text("Done.").with_gate(&held),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let run = world.start(&[&["run", "Edit"][..], &flags].concat());
    assert!(server.wait_for_requests(2, LONG));
    world.file("a.txt", "theirs\n");
    gate.open();
    run.wait().exits(0).shows(&["NOT applied", "1 path changed", "forge apply"]);
    assert_eq!(world.read("a.txt"), "theirs\n");
    world.forge(&["diff", "last"]).exits(0).shows(&["+mine"]);
}

#[test]
fn what_an_apply_left_out_is_said() {
    let (world, _server, flags) =
        world(vec![shell("cp /bin/true tool; chmod 4755 tool; rm -r dir; mkdir other")]);
    world
        .run(&flags, "Make a tool")
        .exits(0)
        .shows(&["applied to the repository", "setuid and setgid were left out of tool"]);
    let mode = std::fs::metadata(world.repo().join("tool")).expect("it was applied").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    world.forge(&["status", "last"]).exits(0).shows(&["left out of tool"]);
}

#[test]
fn a_result_becomes_a_branch_and_nothing_else_of_the_repository_changes() {
    let (world, _server, flags) = world(vec![write("a.txt", "on a branch\n"), shell("echo x > ignored.log")]);
    world.file(".gitignore", "*.log\n");
    world.git(&["add", "-A"]);
    world.git(&["commit", "-qm", "ignore"]);
    let (before, refs) = (tree(&world.repo()), world.git(&["for-each-ref"]));
    let done = world.run(&[&flags[..], &["--workspace", "branch"]].concat(), "Branch it").exits(0);
    let run = world.only_run();
    let branch = format!("forge/{run}");
    done.shows(&["on branch"]);
    assert_eq!(world.git(&["show", &format!("{branch}:a.txt")]), "on a branch\n");
    assert_eq!(world.git(&["log", "-1", "--format=%s", &branch]), "Branch it\n");
    assert_eq!(world.git(&["rev-list", "--count", &format!("HEAD..{branch}")]), "1\n");
    let now = world.git(&["for-each-ref"]);
    assert_eq!(now.lines().count(), refs.lines().count() + 1, "{now}");
    let after = tree(&world.repo());
    let gained: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    let expected =
        |path: &Path| path.starts_with(".git/objects") || path.starts_with(".git/refs/heads/forge");
    assert!(gained.iter().all(|path| expected(path)), "{gained:?}");
    let same = |path: &PathBuf| after.get(path) == before.get(path);
    assert!(
        before.keys().all(|path| same(path) || path.starts_with(".git/objects")),
        "nothing that was there changed"
    );
}

#[test]
fn gits_configuration_runs_nothing_when_a_branch_is_made() {
    let (world, _server, flags) = world(vec![write("a.txt", "on a branch\n")]);
    let trace = world.path("trace");
    world.file("x.sh", &format!("#!/bin/sh\nid > '{}'\n", trace.display()));
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.repo().join("x.sh"), executable).expect("it is there");
    let config = world.read(".git/config");
    let rewritten = "[protocol \"ext\"]\n\tallow = always\n[url \"ext::./x.sh \"]\n\tinsteadOf = /\n";
    world.file(".git/config", &format!("{config}{rewritten}"));
    world.run(&[&flags[..], &["--workspace", "branch"]].concat(), "Branch it").exits(0).shows(&["on branch"]);
    assert!(!trace.exists(), "a program of the repository ran on the host");
    world.file(".git/config", &config);
    assert_eq!(world.git(&["show", &format!("forge/{}:a.txt", world.only_run())]), "on a branch\n");
}

#[test]
fn a_repository_that_can_take_no_branch_is_refused_before_a_model_is_asked() {
    let (world, server, flags) = world(vec![write("a.txt", "x\n")]);
    world.file(".git/objects/info/alternates", "/nowhere\n");
    let done = world.run(&[&flags[..], &["--workspace", "branch"]].concat(), "Branch it");
    assert_ne!(done.code, Some(0));
    let said = format!("{}{}", done.out, done.err);
    assert!(said.contains("alternates") && said.contains("--workspace transaction"), "{said}");
    assert_eq!(server.request_count(), 0);
}

#[test]
fn in_place_edits_are_seen_at_once_and_can_be_undone() {
    let (world, _server, flags) = world(vec![write("a.txt", "directly\n"), shell("rm -r dir; echo 1 > one")]);
    let before = tree(&world.repo());
    let flags = [&flags[..], &["--workspace", "inplace"]].concat();
    world.run(&flags, "Edit").exits(0).shows(&["edited directly"]);
    assert_eq!(world.read("a.txt"), "directly\n");
    world.forge(&["apply", "last"]).exits(2).says(&["nothing to apply"]);
    world.forge(&["undo", "last", "--to", "1"]).exits(0);
    assert_eq!((world.read("a.txt"), world.read("dir/b.txt")), ("directly\n".into(), "bee\n".into()));
    world.forge(&["undo", "last", "--to", "0"]).exits(0);
    assert_eq!(tree(&world.repo()), before);
    world.forge(&["redo", "last"]).exits(0);
    world.forge(&["redo", "last"]).exits(0);
    assert_eq!(world.read("one"), "1\n");
    // What a person did since is not undone with it.
    world.file("one", "by hand\n");
    world.forge(&["undo", "last", "--to", "0"]).exits(2).says(&["one", "nothing was applied"]);
    assert_eq!(world.read("one"), "by hand\n");
}

#[test]
fn several_repositories_in_one_run() {
    let (world, server, flags) =
        world(vec![shell("ls; cat repo/a.txt other/o.txt; echo new > other/n; echo > repo/r")]);
    let other = world.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("o.txt"), "other\n").unwrap();
    let repo = world.repo();
    let both = ["--repo", repo.to_str().unwrap(), "--repo", other.to_str().unwrap()];
    world.run(&[&flags[..], &both].concat(), "Both").exits(0);
    let seen = server.model_calls().last().unwrap().messages.last().unwrap().text.clone();
    assert!(seen.contains("one\ntwo\nthree\nother\n"), "{seen}");
    assert_eq!(std::fs::read_to_string(other.join("n")).unwrap(), "new\n");
    assert!(world.repo().join("r").exists());
    world.forge(&["diff", "last", "--stat"]).exits(0).shows(&["A other/n", "A repo/r"]);
    let nested = world.repo().join("dir");
    let both = ["--repo", repo.to_str().unwrap(), "--repo", nested.to_str().unwrap()];
    world.run(&[&flags[..], &both].concat(), "Nested").exits(2).says(&["are nested"]);
}

#[test]
fn many_runs_at_once_on_one_repository_do_not_see_each_other() {
    const RUNS: usize = 4;
    let mut world = World::new();
    world.file("a.txt", "one\n");
    let server = ModelServer::start(ReplyScript::always(|call| {
        let n = call.messages.iter().find_map(|m| m.text.strip_prefix("Run ")).unwrap_or("?").to_owned();
        match call.turn_index() {
            0 => {
                let command = format!("echo {n} > shared; echo {n} > own-{n}; ls");
                MockReply::text("I write.").and_call("c", "run_shell", json!({ "command": command }))
            }
            _ => MockReply::text("Done."),
        }
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let flags = [&flags[..], &["--apply", "never"]].concat();
    let tasks: Vec<String> = (0..RUNS).map(|n| format!("Run {n}")).collect();
    let running: Vec<_> =
        tasks.iter().map(|task| world.start(&[&["run", task][..], &flags].concat())).collect();
    for run in running {
        run.wait().exits(0);
    }
    for call in server.model_calls().iter().filter(|call| call.turn_index() == 1) {
        let listing = &call.messages.last().expect("a result").text;
        assert_eq!(listing.matches("own-").count(), 1, "{listing}");
    }
    assert_eq!(tree(&world.repo()).len(), 2, "nothing reached the repository");
    let ids: Vec<String> =
        world.runs().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect();
    // The first one applied wins what both wrote; the others are told.
    let applied: Vec<Done> = ids.iter().map(|id| world.forge(&["apply", id])).collect();
    assert_eq!(applied.iter().filter(|done| done.code == Some(0)).count(), 1);
    let refused = applied.iter().filter(|done| done.code == Some(1) && done.err.contains("shared"));
    assert_eq!(refused.count(), RUNS - 1);
}

#[test]
fn snapshots_are_removed_by_age_and_size_and_said_to_be_gone() {
    let (world, _server, flags) = world(vec![write("a.txt", "changed\n")]);
    let flags = [&flags[..], &["--apply", "never"]].concat();
    world.run(&flags, "One").exits(0);
    let run = world.oldest_run();
    let folder = world.path("data").join("forge/runs").join(&run).join("view");
    std::fs::write(folder.join("large"), vec![1_u8; 3 << 20]).unwrap();
    world.run(&flags, "Two").exits(0);
    let none = world.forge(&["gc", "--json"]).exits(0).json();
    assert_eq!(none["runs"], json!([]));
    let would = world.forge(&["gc", "--max-size", "10m", "--dry-run", "--json"]).exits(0).json();
    assert_eq!(would["runs"], json!([]), "both together are smaller");
    let would = world.forge(&["gc", "--max-size", "1m", "--dry-run", "--json"]).exits(0).json();
    assert_eq!(would["runs"].as_array().map(Vec::len), Some(1), "the newer one may stay");
    assert!(folder.exists(), "only said");
    let freed = world.forge(&["gc", "--max-size", "1m", "--json"]).exits(0).json();
    assert_eq!(freed["runs"][0]["run_id"], run.as_str(), "{freed}");
    assert!(!folder.exists());
    world.forge(&["diff", &run]).exits(1).says(&["removed"]);
    world.forge(&["undo", &run, "--to", "0"]).exits(1).says(&["removed"]);
    world.forge(&["status", &run]).exits(0).shows(&["completed"]);
}
