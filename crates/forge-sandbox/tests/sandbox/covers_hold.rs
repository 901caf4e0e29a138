//! Masks of credentials hold whatever happens to the file's directory, the sandbox and the run.

use crate::rig::{Folder, folder};
use crate::run::{Run, repository, transaction};
use crate::{as_both, tree};
use forge_ports::WorkspaceStore as _;
use forge_types::{SandboxSpec, WorkspaceMode};
use std::fs;

const SECRET: &str = "hunter2-of-the-user";

/// Script that tries to read the secret wherever it may be by now.
const LOOK: &str = "cat .env conf/.env moved/.env later/*/.env 2>&1; grep -rs hunter2 . --exclude-dir=.git; \
     find . -name .env -exec cp {} /tmp/copy \\; -exec cat {} \\; 2>&1; cat /tmp/copy 2>&1; true";

/// Creates a repository with a credentials file at its root and one in a directory.
fn with_secrets() -> Folder {
    let repo = repository();
    fs::create_dir(repo.path().join("conf")).unwrap();
    for name in [".env", "conf/.env"] {
        fs::write(repo.path().join(name), format!("TOKEN={SECRET}\n")).unwrap();
    }
    fs::write(repo.path().join("conf/plain"), "plain\n").unwrap();
    repo
}

async fn unseen(run: &Run, when: &str) {
    let seen = run.sh(LOOK).await;
    assert!(!seen.contains(SECRET), "{when}: {seen}");
}

/// Ends the sandbox as a crash does.
async fn kill(run: &mut Run) {
    let id = run.room().report().id;
    let init = id.rsplit_once('/').unwrap().1.parse().unwrap();
    let init = rustix::process::Pid::from_raw(init).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    while run.room().read_file("a.txt", 0, 1).await.is_ok() {}
}

as_both! {
    async fn a_cover_outlasts_renames_lost_boxes_and_killed_runs() {
        let (repo, data) = (with_secrets(), folder());
        let spec = SandboxSpec { mode: WorkspaceMode::Branch, ..transaction(repo.path()) };
        let mut run = Run::new(data.path(), spec).await;
        unseen(&run, "at first").await;
        run.sh("mv conf moved || true; mv .env renamed || true; ln .env hard || true; ln -s .env soft || true").await;
        unseen(&run, "after renames").await;
        let first = run.snapshot().await;
        kill(&mut run).await;
        run.reopen(None).await;
        unseen(&run, "in the next box").await;
        run.reopen(Some(first)).await;
        unseen(&run, "in the box of a run that was resumed at its first step").await;
        run.sh("mkdir -p later; mv conf later/ || true; mv moved later/ || true; echo x > x").await;
        unseen(&run, "after another rename").await;
        let second = run.snapshot().await;
        run.sh("echo y > y; mv later gone || true").await;
        kill(&mut run).await;
        run.reopen(Some(second)).await;
        unseen(&run, "in the box of a run that was resumed at a later step").await;
        run.close();
        let published = run.backends.workspaces().publish(&run.spec, run.id, second, "done").await.unwrap().unwrap();
        let shown = tree::git(repo.path(), &["log", "-p", "--all", &published.branch]);
        assert!(!shown.contains(SECRET) && shown.contains("+x"), "{shown}");
        let diff = run.backends.workspaces().diff(&run.spec, run.id, None, Some(second)).await.unwrap();
        assert!(!diff.contains(SECRET), "{diff}");
        for name in [".env", "conf/.env"] {
            assert_eq!(fs::read_to_string(repo.path().join(name)).unwrap(), format!("TOKEN={SECRET}\n"));
        }
    }
}
