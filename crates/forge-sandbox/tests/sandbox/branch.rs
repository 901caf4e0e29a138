//! Branch mode: the repository gains one ref and its objects, and nothing else.

use crate::as_both;
use crate::rig::folder;
use crate::run::{Run, repository, transaction};
use crate::tree::{self, Tree};
use forge_ports::WorkspaceStore as _;
use forge_ports::sandbox::Error;
use forge_ports::workspace_store::PublishedBranch;
use forge_types::{SandboxSpec, SnapshotId, WorkspaceMode};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn branch(repo: &Path) -> SandboxSpec {
    SandboxSpec { mode: WorkspaceMode::Branch, ..transaction(repo) }
}

async fn publish(run: &mut Run, at: SnapshotId) -> Result<Option<PublishedBranch>, Error> {
    run.close();
    run.backends.workspaces().publish(&run.spec, run.id, at, "What was done\n\nin words").await
}

/// Returns everything but objects and the directories with times that a new ref changes.
fn besides_objects(tree: &Tree, run: &Run) -> Tree {
    let own = format!(".git/refs/heads/forge/{}", run.id);
    let objects =
        |path: &str| path.starts_with(".git/objects") || path == own || path == ".git/refs/heads/forge";
    tree::contents(tree).into_iter().filter(|(path, _)| !objects(path)).collect()
}

/// Longest time from a stop to the end of the work.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// Longest time until work is under way.
const BEGINS_WITHIN: Duration = Duration::from_secs(120);

/// Returns whether a git of the host that was started by this process examines a result.
fn examines_result() -> bool {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.map(|process| process.path()).any(|process| {
        let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1).map(str::to_owned));
        parent.as_deref() == Some(own.as_str())
            && read("cmdline").windows(10).any(|word| word == b"index-pack")
    })
}

/// Waits on another thread until `ready`, then stops the run's work, again and again like the engine.
async fn stop_once(run: &Run, ready: impl Fn() -> bool + Send + 'static) -> Instant {
    let (views, id) = (run.backends.workspaces(), run.id);
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        while !ready() {
            assert!(begun.elapsed() < BEGINS_WITHIN, "the work is under way");
            std::thread::yield_now();
        }
        let stopped = Instant::now();
        while stopped.elapsed() < Duration::from_secs(1) {
            views.stop_run_work(id);
            std::thread::yield_now();
        }
        stopped
    })
    .await
    .unwrap()
}

as_both! {
    async fn a_stop_ends_the_import_of_a_result_and_no_branch_is_made() {
        let (repo, data) = (repository(), folder());
        let mut run = Run::new(data.path(), branch(repo.path())).await;
        run.sh("head -c 150000000 /dev/urandom > large").await;
        let state = run.snapshot().await;
        run.close();
        let views = run.backends.workspaces();
        let published = views.publish(&run.spec, run.id, state, "What was done");
        let (published, stopped) = tokio::join!(published, stop_once(&run, examines_result));
        assert!(matches!(published, Err(Error::Stopped)), "{published:?}");
        assert!(stopped.elapsed() < STOPS_WITHIN, "{:?}", stopped.elapsed());
        let refs = tree::git(repo.path(), &["for-each-ref", "--format=%(refname)"]);
        assert_eq!(refs, "refs/heads/main", "no branch after a stop");
        let packs = fs::read_dir(repo.path().join(".git/objects/pack")).into_iter().flatten().count();
        assert_eq!(packs, 0, "nothing of the result stays in the repository");
        assert!(!examines_result(), "no git outlives the work");
    }

    async fn a_repository_in_which_no_branch_can_be_made_is_refused_when_the_run_begins() {
        use forge_ports::Sandbox as _;
        let data = folder();
        let backends = crate::rig::backends(data.path());
        let open = async |repo: &Path| {
            let opened = backends.open(&branch(repo), forge_types::RunId::generate(), None).await;
            opened.map(drop)
        };
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 5] = [
            ("a branch", |repo| drop(tree::git(repo, &["branch", "forge"]))),
            ("a packed branch", |repo| {
                tree::git(repo, &["branch", "forge"]);
                tree::git(repo, &["pack-refs", "--all"]);
            }),
            ("a link", |repo| std::os::unix::fs::symlink("main", repo.join(".git/refs/heads/forge")).unwrap()),
            ("a pipe", |repo| {
                let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
                rustix::fs::mknodat(rustix::fs::CWD, repo.join(".git/refs/heads/forge"), kind, mode, 0).unwrap();
            }),
            ("objects that can't be written", |repo| {
                let packs = repo.join(".git/objects/pack");
                fs::create_dir_all(&packs).unwrap();
                fs::set_permissions(&packs, std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
            }),
        ];
        for (what, damage) in damages {
            let repo = repository();
            open(repo.path()).await.unwrap();
            damage(repo.path());
            if what.starts_with("objects") && rustix::process::geteuid().is_root() {
                continue;
            }
            let error = open(repo.path()).await.expect_err(what);
            assert!(matches!(error, Error::NoBranch { .. }), "{what}: {error}");
            assert!(error.to_string().contains(".git/"), "{what}: {error}");
        }
        // Temporary files are in the data directory, and nowhere else.
        let (repo, place) = (repository(), data.path().join("tmp"));
        let _ = fs::remove_dir_all(&place);
        fs::write(&place, "").unwrap();
        open(repo.path()).await.expect_err("no place for temporary files");
    }

    async fn a_stop_after_the_branch_was_made_does_not_hide_it() {
        let (repo, data) = (repository(), folder());
        let mut run = Run::new(data.path(), branch(repo.path())).await;
        run.sh("echo new > new.txt").await;
        let state = run.snapshot().await;
        run.close();
        let views = run.backends.workspaces();
        let made = repo.path().join(format!(".git/refs/heads/forge/{}", run.id));
        let published = views.publish(&run.spec, run.id, state, "What was done");
        let (published, _) = tokio::join!(published, stop_once(&run, move || made.exists()));
        let published = published.expect("the branch exists").expect("something to commit");
        assert_eq!(tree::git(repo.path(), &["rev-parse", &published.branch]), published.commit);
    }

    async fn a_branch_gains_one_ref_and_its_objects() {
        let (repo, data) = (repository(), folder());
        // Hooks and settings that would run a program on the host.
        let trap = repo.path().join(".git/hooks/reference-transaction");
        fs::write(&trap, format!("#!/bin/sh\necho ran >> {}/trap\n", data.path().display())).unwrap();
        std::os::unix::fs::chown(&trap, None, None).unwrap();
        fs::set_permissions(&trap, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let before = tree::of(repo.path());
        let mut run = Run::new(data.path(), branch(repo.path())).await;
        run.sh("echo new > new.txt; rm run.log target/out.o; echo x >> a.txt; mkdir -p target; echo y > target/y").await;
        let state = run.snapshot().await;
        let published = publish(&mut run, state).await.unwrap().expect("something to commit");
        assert_eq!(published.branch, format!("forge/{}", run.id));
        let git = |arguments: &[&str]| tree::git(repo.path(), arguments);
        assert_eq!(git(&["rev-parse", &published.branch]), published.commit);
        assert_eq!(git(&["log", "-1", "--format=%an <%ae>|%s|%P|%b", &published.branch]),
            format!("Forge <forge@localhost>|What was done|{}|in words", git(&["rev-parse", "HEAD"])));
        assert_eq!(git(&["diff", "--name-status", "HEAD", &published.branch]), "M\ta.txt\nA\tnew.txt");
        assert_eq!(git(&["for-each-ref", "--format=%(refname)"]), format!("refs/heads/forge/{}\nrefs/heads/main", run.id));
        git(&["fsck", "--strict"]);
        let after = tree::of(repo.path());
        assert_eq!(besides_objects(&after, &run), besides_objects(&before, &run));
        // Objects that existed before still exist.
        let objects = |tree: &Tree| tree.iter().filter(|(p, _)| p.starts_with(".git/objects/") && p.len() > 20).map(|(p, w)| (p.clone(), w.clone())).collect::<Tree>();
        let (old, new) = (tree::contents(&objects(&before)), tree::contents(&objects(&after)));
        assert!(old.iter().all(|(path, what)| new.get(path) == Some(what)));
        assert!(!data.path().join("trap").exists());
        // The workspace is unchanged, and the branch can be made again.
        run.reopen(None).await;
        assert_eq!(run.snapshot().await, state);
        run.sh("echo later > later.txt").await;
        let later = run.snapshot().await;
        let again = publish(&mut run, later).await.unwrap().unwrap();
        assert_ne!(again.commit, published.commit);
        assert_eq!(git(&["diff", "--name-only", &published.commit, &again.commit]), "later.txt");
        let left: Vec<_> = fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains(&format!("forge-bundle-{}", run.id))));
    }

    async fn more_masked_files_than_fit_on_a_command_line_stay_out_of_a_branch() {
        let (repo, data) = (repository(), folder());
        // The kernel takes two MiB of arguments.
        let keys = repo.path().join("keys");
        fs::create_dir(&keys).unwrap();
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nHUNTER2HUNTER2\n-----END OPENSSH PRIVATE KEY-----\n";
        for number in 0..9_000 {
            fs::write(keys.join(format!("{}-{number}", "k".repeat(230))), key).unwrap();
        }
        let mut run = Run::new(data.path(), branch(repo.path())).await;
        run.sh("echo new > new.txt").await;
        let state = run.snapshot().await;
        let published = publish(&mut run, state).await.unwrap().expect("something to commit");
        let git = |arguments: &[&str]| tree::git(repo.path(), arguments);
        assert_eq!(git(&["diff", "--name-status", "HEAD", &published.branch]), "A\tnew.txt");
    }

    async fn commits_of_the_run_and_its_own_identity_are_kept() {
        let (repo, data) = (repository(), folder());
        tree::git(repo.path(), &["config", "user.name", "Own Name"]);
        tree::git(repo.path(), &["config", "user.email", "own@example.com"]);
        let mut run = Run::new(data.path(), branch(repo.path())).await;
        let nothing = run.snapshot().await;
        assert_eq!(publish(&mut run, nothing).await.unwrap(), None);
        run.reopen(None).await;
        run.sh("echo 1 > one; git add one; git commit -qm 'by the run'").await;
        let committed = run.snapshot().await;
        let published = publish(&mut run, committed).await.unwrap().unwrap();
        assert_eq!(tree::git(repo.path(), &["log", "--format=%s", &published.branch]), "by the run\nfirst");
        run.reopen(None).await;
        run.sh("echo 2 > two").await;
        let state = run.snapshot().await;
        let published = publish(&mut run, state).await.unwrap().unwrap();
        assert_eq!(tree::git(repo.path(), &["log", "--format=%s|%an", &published.branch]),
            "What was done|Own Name\nby the run|Own Name\nfirst|Person");
    }

    async fn what_is_no_repository_is_refused_and_one_without_commits_works() {
        let (plain, data) = (folder(), folder());
        let mut run = Run::new(data.path(), branch(plain.path())).await;
        run.sh("echo x > x").await;
        let state = run.snapshot().await;
        let error = publish(&mut run, state).await.unwrap_err();
        assert!(error.to_string().contains("not a git repository"), "{error}");
        assert_eq!(error.next_steps(), [forge_types::NextStep::ChooseTransaction]);
        let unborn = folder();
        tree::git(unborn.path(), &["init", "-q"]);
        fs::write(unborn.path().join(".env"), "KEY=1").unwrap();
        let mut run = Run::new(data.path(), branch(unborn.path())).await;
        run.sh("echo x > x; git config core.fsmonitor 'touch /workspace/ran'; git config core.hooksPath /workspace").await;
        let state = run.snapshot().await;
        let published = publish(&mut run, state).await.unwrap().unwrap();
        assert_eq!(tree::git(unborn.path(), &["ls-tree", "-r", "--name-only", &published.commit]), "x");
        let beside = folder();
        let worktree = beside.path().join("w");
        let repo = repository();
        tree::git(repo.path(), &["worktree", "add", "-q", worktree.to_str().unwrap()]);
        let mut run = Run::new(data.path(), branch(&worktree)).await;
        run.sh("echo w > w").await;
        let state = run.snapshot().await;
        let published = publish(&mut run, state).await.unwrap().unwrap();
        assert_eq!(tree::git(repo.path(), &["diff", "--name-only", "HEAD", &published.branch]), "w");
    }
}
