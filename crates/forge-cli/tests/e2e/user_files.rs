//! Files that the user names on the command line or in the environment, in a clone that made links and pipes of them.

use crate::harness::{World, until};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::Stdio;

fn world() -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::from_replies(std::array::from_fn::<_, 8, _>(|_| {
        MockReply::text("Done.")
    })));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    world.git(&["init", "-q"]);
    world.make_folder("elsewhere");
    (world, server, flags)
}

#[test]
fn a_report_is_not_written_through_a_link_of_the_repository() {
    let (world, server, flags) = world();
    let (repo, outside) = (world.repo(), world.path("elsewhere"));
    std::fs::write(outside.join("theirs.json"), "theirs").unwrap();
    std::fs::create_dir(repo.join("x")).unwrap();
    symlink(&outside, repo.join("out")).unwrap();
    symlink("../elsewhere/theirs.json", repo.join("report.json")).unwrap();
    symlink(&repo, world.path("alias")).unwrap();
    let absolute = repo.join("out/r.json").display().to_string();
    let alias = world.path("alias/out/r.json").display().to_string();
    let paths = ["out/r.json", "./x/../out/r.json", "report.json", &absolute, &alias];
    for path in paths {
        let words = [&flags[..], &["--report-file", path]].concat();
        world.run(&words, "Say it").exits(2).says(&["--report-file", "symbolic link"]);
    }
    // From elsewhere, and when a run is resumed.
    let words = ["run", "Say it", "--repo", repo.to_str().unwrap(), "--report-file", &absolute];
    let mut command = world.command(&[&words[..], &flags].concat());
    let ran = command.current_dir(&outside).stdin(Stdio::null()).output().unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!((server.request_count(), world.runs().len()), (0, 0));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(outside.join("theirs.json")).unwrap(), "theirs");
    // What the user's own links and the repository's own directories lead to is written.
    std::fs::create_dir(repo.join("reports")).unwrap();
    world.run(&[&flags[..], &["--report-file", "reports/r.json"]].concat(), "Say it").exits(0);
    assert!(std::fs::read_to_string(repo.join("reports/r.json")).unwrap().contains("completed"));
    symlink(&outside, world.path("mine")).unwrap();
    let mine = world.path("mine/r.json").display().to_string();
    world.run(&[&flags[..], &["--report-file", &mine]].concat(), "Say it").exits(0);
    assert!(outside.join("r.json").exists());
}

#[test]
fn a_log_is_not_written_through_a_link_of_the_repository() {
    let (world, _server, flags) = world();
    let (repo, outside) = (world.repo(), world.path("elsewhere"));
    symlink("../elsewhere/log.txt", repo.join("log.txt")).unwrap();
    symlink(&outside, repo.join("logs")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, repo.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let words = [&["run", "Say it"][..], &flags].concat();
    for (path, why) in [("log.txt", "link"), ("logs/log.txt", "link"), ("pipe", "pipe")] {
        let variables = [("FORGE_LOGGING_FILE", path), ("FORGE_LOGGING_LEVEL", "debug")];
        world.start_with(&words, &variables).wait().exits(0).says(&["cannot open the log file", why]);
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    let own = outside.join("own.txt").display().to_string();
    for path in ["plain.txt", &own] {
        let variables = [("FORGE_LOGGING_FILE", path), ("FORGE_LOGGING_LEVEL", "debug")];
        world.start_with(&words, &variables).wait().exits(0);
        assert!(repo.join(path).metadata().unwrap().len() > 0, "{path}");
    }
}

#[test]
fn a_task_file_of_a_clone_is_a_regular_file_of_the_clone() {
    let (world, server, flags) = world();
    let (repo, outside) = (world.repo(), world.path("elsewhere"));
    std::fs::write(outside.join("key"), "HUNTER2").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, repo.join("pipe.md"), rustix::fs::Mode::RWXU).unwrap();
    symlink("../elsewhere/key", repo.join("task.md")).unwrap();
    symlink(&outside, repo.join("dir")).unwrap();
    symlink("/dev/zero", repo.join("zero.md")).unwrap();
    for (path, why) in [
        ("pipe.md", "a named pipe"),
        ("task.md", "symbolic link"),
        ("dir/key", "symbolic link"),
        ("zero.md", "link"),
    ] {
        let words = [&["run", "--task-file", path][..], &flags].concat();
        world.forge(&words).exits(2).says(&[path, why, "--task-file -"]);
    }
    let own = outside.join("pipe").display().to_string();
    rustix::fs::mkfifoat(rustix::fs::CWD, &own, rustix::fs::Mode::RWXU).unwrap();
    world.forge(&[&["run", "--task-file", &own][..], &flags].concat()).exits(2).says(&["a named pipe"]);
    assert_eq!((server.request_count(), world.runs().len()), (0, 0));
    std::fs::write(repo.join("real.md"), "Say it").unwrap();
    symlink("real.md", repo.join("inner.md")).unwrap();
    world.forge(&[&["run", "--task-file", "inner.md"][..], &flags].concat()).exits(0);
}

#[test]
fn a_task_is_read_from_a_pipe_that_the_user_opened() {
    let (world, server, flags) = world();
    let mut asked = 0;
    for path in ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let mut command = world.command(&[&["run", "--task-file", path][..], &flags].concat());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"Say what the pipe says").unwrap();
        let status = until("the run ends", || child.try_wait().unwrap());
        assert!(status.success(), "{path}");
        assert!(server.request_count() > asked, "{path}");
        asked = server.request_count();
    }
}
