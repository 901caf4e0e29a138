//! What a repository's own git data can do to the host: configuration that names programs and addresses, git data of
//! other repositories, files that are none.

use crate::as_both;
use crate::rig::{Folder, command, folder, out, spec};
use crate::run::{Run, repository, transaction};
use crate::tree;
use forge_ports::Views as _;
use forge_ports::sandbox::Error;
use forge_ports::views::{Merge, Published};
use forge_types::{SandboxSpec, SnapshotId, WorkspaceMode};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

fn branch(repo: &Path) -> SandboxSpec {
    SandboxSpec { mode: WorkspaceMode::Branch, ..transaction(repo) }
}

async fn publish(run: &mut Run, at: SnapshotId) -> Result<Option<Published>, Error> {
    run.close();
    run.backends.publish(&run.spec, run.id, at, "What was done").await
}

/// A program that leaves a trace when it runs.
struct Canary {
    dir: Folder,
}

impl Canary {
    fn new() -> Self {
        let canary = Self { dir: folder() };
        let text = format!("#!/bin/sh\necho \"$0 $*\" >> '{}'\nexit 1\n", canary.trace().display());
        fs::write(canary.program(), text).unwrap();
        fs::set_permissions(canary.program(), fs::Permissions::from_mode(0o755)).unwrap();
        canary
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("canary.sh")
    }

    fn trace(&self) -> PathBuf {
        self.dir.path().join("trace")
    }

    /// A file that only a program which was told of it would make.
    fn written(&self) -> PathBuf {
        self.dir.path().join("written")
    }

    /// Nothing ran, and nothing was written.
    fn assert_silent(&self, what: &str) {
        let ran = fs::read_to_string(self.trace()).unwrap_or_default();
        assert!(ran.is_empty(), "{what}: a program of the repository ran on the host: {ran}");
        assert!(!self.written().exists(), "{what}: a file outside of the repository was written");
    }
}

fn add_config(repo: &Path, text: &str) {
    let path = repo.join(".git/config");
    let was = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{was}{text}")).unwrap();
}

/// Configurations that turn the path of any file into an address which runs a program.
fn rewrites(canary: &Canary) -> Vec<String> {
    let program = canary.program().display().to_string();
    let ext = format!("[url \"ext::{program} \"]\n\tinsteadOf = /\n");
    let ssh = "[url \"ssh://nowhere.invalid/\"]\n\tinsteadOf = /\n";
    vec![
        format!("[protocol \"ext\"]\n\tallow = always\n{ext}"),
        format!("[protocol \"ssh\"]\n\tallow = always\n[core]\n\tsshCommand = {program}\n{ssh}"),
        format!("[protocol \"ssh\"]\n\tallow = always\n[core]\n\tgitProxy = {program}\n[ssh]\n\tvariant = simple\n[core]\n\tsshCommand = \"{program} x\"\n{ssh}"),
        format!("[protocol]\n\tallow = always\n[protocol \"git\"]\n\tallow = always\n[core]\n\tgitProxy = {program}\n[url \"git://nowhere.invalid/\"]\n\tinsteadOf = /\n"),
        format!("[protocol \"ext\"]\n\tallow = always\n[protocol \"file\"]\n\tallow = never\n[fetch]\n\tbundleURI = \"ext::{program}\"\n{ext}"),
    ]
}

as_both! {
    async fn no_address_of_a_configuration_is_used_for_a_branch() {
        for (number, config) in rewrites(&Canary::new()).into_iter().enumerate() {
            let (repo, data, canary) = (repository(), folder(), Canary::new());
            // With this canary's own path.
            let config = rewrites(&canary).swap_remove(number).replace("\r", "");
            add_config(repo.path(), &config);
            let mut run = Run::new(data.path(), branch(repo.path())).await;
            run.sh("echo new > new.txt").await;
            let state = run.snapshot().await;
            let published = publish(&mut run, state).await;
            canary.assert_silent(&config);
            let published = published.unwrap().expect("something to commit");
            assert_eq!(tree::git(repo.path(), &["rev-parse", &published.branch]), published.commit);
            assert_eq!(tree::git(repo.path(), &["diff", "--name-only", "HEAD", &published.branch]), "new.txt");
        }
    }

    async fn what_a_direct_run_writes_into_the_configuration_runs_nothing_later() {
        let (repo, data, canary) = (repository(), folder(), Canary::new());
        let mut run = Run::new(data.path(), spec(repo.path(), "native")).await;
        let config = rewrites(&canary).swap_remove(0);
        run.sh(&format!("cat >> .git/config <<'END'\n{config}END\n")).await;
        run.close();
        assert!(fs::read_to_string(repo.path().join(".git/config")).unwrap().contains("insteadOf"));
        let mut run = Run::new(data.path(), branch(repo.path())).await;
        run.sh("echo new > new.txt").await;
        let state = run.snapshot().await;
        let published = publish(&mut run, state).await;
        canary.assert_silent("a run in place, then a branch");
        let published = published.unwrap().unwrap();
        assert_eq!(tree::git(repo.path(), &["rev-parse", &published.branch]), published.commit);
    }

    async fn git_data_of_another_repository_is_not_shown() {
        let (private, place, data) = (repository(), folder(), folder());
        fs::write(private.path().join("secret.txt"), "the private text").unwrap();
        tree::git(private.path(), &["add", "-A"]);
        tree::git(private.path(), &["commit", "-q", "-m", "the private message"]);
        let theirs = private.path().join(".git");
        for (what, archive) in archives() {
            let root = place.path().join(what);
            let tree = root.join("tree");
            fs::create_dir_all(&tree).unwrap();
            archive(&root, &theirs);
            let run = Run::new(data.path(), transaction(&tree)).await;
            let log = run.room().exec(command(&["git", "log", "-p", "--all"]), &()).await.unwrap();
            let said = format!("{}{}", out(&log), String::from_utf8_lossy(&log.stderr.bytes));
            assert!(!said.contains("private message"), "{what}: {said}");
            let seen = run.sh("grep -rl 'private' / --include=config --include=COMMIT_EDITMSG -s 2>/dev/null || true").await;
            assert_eq!(seen, "", "{what}");
            assert!(run.room().exec(command(&["ls", theirs.to_str().unwrap()]), &()).await.unwrap().exit_code != 0, "{what}");
            drop(run);
            let mut run = Run::new(data.path(), branch(&tree)).await;
            run.sh("echo x > x").await;
            let state = run.snapshot().await;
            let published = publish(&mut run, state).await;
            assert!(published.is_err(), "{what}: {published:?}");
            let refs = tree::git(private.path(), &["for-each-ref", "--format=%(refname)"]);
            assert_eq!(refs, "refs/heads/main", "{what}");
        }
    }
}

type Archive = fn(&Path, &Path);

/// Unpacked archives that point at git data which they did not bring.
fn archives() -> Vec<(&'static str, Archive)> {
    fn worktree(root: &Path, common: &str) -> PathBuf {
        let git = root.join("main/.git/worktrees/tree");
        fs::create_dir_all(&git).unwrap();
        fs::write(root.join("tree/.git"), "gitdir: ../main/.git/worktrees/tree\n").unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(git.join("gitdir"), "../../../../tree/.git\n").unwrap();
        fs::write(git.join("commondir"), format!("{common}\n")).unwrap();
        git
    }
    fn submodule(root: &Path) -> PathBuf {
        let git = root.join(".git/modules/tree");
        fs::create_dir_all(git.join("refs")).unwrap();
        fs::create_dir_all(git.join("objects")).unwrap();
        fs::write(root.join("tree/.git"), "gitdir: ../.git/modules/tree\n").unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(git.join("config"), "[core]\n\tworktree = ../../../tree\n").unwrap();
        git
    }
    vec![
        ("commondir", |root, theirs| drop(worktree(root, theirs.to_str().unwrap()))),
        ("commondir-by-a-link", |root, theirs| {
            symlink(theirs, root.join("way")).unwrap();
            worktree(root, "../../../../way");
        }),
        ("common-objects-by-a-link", |root, theirs| {
            worktree(root, "../..");
            let main = root.join("main/.git");
            fs::write(main.join("HEAD"), "ref: refs/heads/main\n").unwrap();
            symlink(theirs.join("objects"), main.join("objects")).unwrap();
            symlink(theirs.join("refs"), main.join("refs")).unwrap();
        }),
        ("submodule-commondir", |root, theirs| {
            fs::write(submodule(root).join("commondir"), format!("{}\n", theirs.display())).unwrap();
        }),
        ("submodule-objects-by-a-link", |root, theirs| {
            let git = submodule(root);
            fs::remove_dir(git.join("objects")).unwrap();
            symlink(theirs.join("objects"), git.join("objects")).unwrap();
            fs::write(git.join("HEAD"), tree::git(theirs.parent().unwrap(), &["rev-parse", "HEAD"])).unwrap();
        }),
        ("submodule-alternates", |root, theirs| {
            let git = submodule(root);
            fs::create_dir_all(git.join("objects/info")).unwrap();
            fs::write(git.join("objects/info/alternates"), format!("{}\n", theirs.join("objects").display())).unwrap();
            fs::write(git.join("HEAD"), tree::git(theirs.parent().unwrap(), &["rev-parse", "HEAD"])).unwrap();
        }),
        ("names-it", |root, theirs| {
            fs::write(root.join("tree/.git"), format!("gitdir: {}\n", theirs.display())).unwrap();
        }),
        ("is-a-link-to-it", |root, theirs| symlink(theirs, root.join("tree/.git")).unwrap()),
    ]
}
