//! Attempts of a repository's git data to harm the host: configuration that names programs and addresses, git data of
//! other repositories, special files.

use crate::as_both;
use crate::git_repositories::{archives, damages, forms};
use crate::rig::{Folder, backends, command, folder, out, spec};
use crate::run::{Run, repository, transaction};
use crate::tree;
use forge_ports::sandbox::Error;
use forge_ports::workspace_store::{MergePolicy, PublishedBranch};
use forge_ports::{Sandbox as _, WorkspaceStore as _};
use forge_types::{RunId, SandboxSpec, SnapshotId, WorkspaceMode};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than any command may take; a hang takes even longer.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

fn branch(repo: &Path) -> SandboxSpec {
    SandboxSpec { mode: WorkspaceMode::Branch, ..transaction(repo) }
}

async fn publish(run: &mut Run, at: SnapshotId) -> Result<Option<PublishedBranch>, Error> {
    run.close();
    run.backends.workspaces().publish(&run.spec, run.id, at, "What was done").await
}

/// Makes a branch with one new file, beginning with a new sandbox. Returns the whole text of an error.
async fn branch_run(repo: &Path, data: &Path) -> Result<PublishedBranch, String> {
    let whole = async {
        let (backends, spec, run) = (backends(data), branch(repo), RunId::generate());
        let room = backends.open(&spec, run, None).await.map_err(|error| error.to_string())?;
        let made = room.exec(command(&["sh", "-c", "echo new > new.txt"]), &()).await;
        assert_eq!(made.expect("the command runs").exit_code, 0);
        let state = room.snapshot().await.map_err(|error| error.to_string())?;
        drop(room);
        let published = backends.workspaces().publish(&spec, run, state, "What was done").await;
        Ok(published.map_err(|error| error.to_string())?.expect("something to commit"))
    };
    tokio::time::timeout(ENDS_WITHIN, whole).await.expect("it ends within its limit")
}

/// Asserts that the branch has the new file and nothing else, and that git finds no fault.
fn assert_good(repo: &Path, published: &PublishedBranch) {
    assert_eq!(tree::git(repo, &["rev-parse", &published.branch]), published.commit);
    let parent = tree::git(repo, &["rev-parse", "HEAD"]);
    assert_eq!(tree::git(repo, &["diff", "--name-status", &parent, &published.commit]), "A\tnew.txt");
    tree::git(repo, &["fsck", "--strict"]);
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

    /// Returns a path that only a program which was told of it would create.
    fn written(&self) -> PathBuf {
        self.dir.path().join("written")
    }

    /// Asserts that nothing ran and nothing was written.
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

/// Returns configurations that turn the path of any file into an address that runs a program.
fn rewrites(canary: &Canary) -> Vec<String> {
    let program = canary.program().display().to_string();
    let ext = format!("[url \"ext::{program} \"]\n\tinsteadOf = /\n");
    let ssh = "[url \"ssh://nowhere.invalid/\"]\n\tinsteadOf = /\n";
    vec![
        format!("[protocol \"ext\"]\n\tallow = always\n{ext}"),
        format!("[protocol \"ssh\"]\n\tallow = always\n[core]\n\tsshCommand = {program}\n{ssh}"),
        format!(
            "[protocol \"ssh\"]\n\tallow = always\n[core]\n\tgitProxy = {program}\n[ssh]\n\tvariant = simple\n[core]\n\tsshCommand = \"{program} x\"\n{ssh}"
        ),
        format!(
            "[protocol]\n\tallow = always\n[protocol \"git\"]\n\tallow = always\n[core]\n\tgitProxy = {program}\n[url \"git://nowhere.invalid/\"]\n\tinsteadOf = /\n"
        ),
        format!(
            "[protocol \"ext\"]\n\tallow = always\n[protocol \"file\"]\n\tallow = never\n[fetch]\n\tbundleURI = \"ext::{program}\"\n{ext}"
        ),
    ]
}

as_both! {
    async fn no_address_of_a_configuration_is_used_for_a_branch() {
        let canary = Canary::new();
        for config in rewrites(&canary) {
            let (repo, data) = (repository(), folder());
            add_config(repo.path(), &config);
            let published = branch_run(repo.path(), data.path()).await;
            canary.assert_silent(&config);
            assert_good(repo.path(), &published.unwrap());
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
            let published = branch_run(&tree, data.path()).await;
            assert!(published.is_err(), "{what}: {published:?}");
            let refs = tree::git(private.path(), &["for-each-ref", "--format=%(refname)"]);
            assert_eq!(refs, "refs/heads/main", "{what}");
        }
    }

    async fn no_setting_of_git_runs_or_writes_anything_on_the_host() {
        let canary = Canary::new();
        let settings = settings(&canary);
        assert!(settings.len() > 100, "git lists its settings: {}", settings.len());
        let mut done = 0;
        for config in configurations(&settings, &canary) {
            let (repo, data) = (repository(), folder());
            add_config(repo.path(), &config);
            let published = branch_run(repo.path(), data.path()).await;
            canary.assert_silent(&config);
            if let Ok(published) = &published {
                // The host's git is not run on this configuration, because it would obey it.
                fs::write(repo.path().join(".git/config"), "[core]\n\trepositoryformatversion = 0\n").unwrap();
                assert_good(repo.path(), published);
                fs::write(repo.path().join(".git/config"), &config).unwrap();
                done += 1;
            }
            merge_run(repo.path(), data.path()).await;
            canary.assert_silent(&config);
        }
        assert!(done >= 3, "{done} branches were made");
    }

    async fn files_that_are_none_are_refused_and_waited_for_by_nobody() {
        let other = repository();
        for (what, change, refused) in damages() {
            let (repo, data) = (repository(), folder());
            let before = tree::of(other.path());
            change(&repo.path().join(".git"), other.path());
            let published = branch_run(repo.path(), data.path()).await;
            match (refused, &published) {
                (None, Ok(_)) => {}
                (Some(words), Err(error)) if error.contains(words) => {}
                (wanted, got) => panic!("{what}: {got:?}, not {wanted:?}"),
            }
            assert_eq!(tree::of(other.path()), before, "{what}: another repository was changed");
            if what.contains("pipe") || what.contains("object") {
                merge_run(repo.path(), data.path()).await;
                assert_eq!(tree::of(other.path()), before, "{what}: another repository was changed");
            }
        }
    }

    async fn repositories_of_every_form_get_their_branch() {
        for (what, made) in forms() {
            let (place, data) = (folder(), folder());
            let repo = made(place.path());
            let published = branch_run(&repo, data.path()).await;
            assert_eq!(published.as_ref().err(), None, "{what}");
            let published = published.unwrap();
            assert_eq!(tree::git(&repo, &["rev-parse", &published.branch]), published.commit, "{what}");
            assert_eq!(tree::git(&repo, &["diff", "--name-status", "HEAD", &published.commit]), "A\tnew.txt", "{what}");
        }
    }

    async fn the_repository_of_another_user_stays_that_users() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (repo, data) = (repository(), folder());
        let owned = std::process::Command::new("chown").args(["-R", "4243:4243"]).arg(repo.path()).status();
        assert!(owned.unwrap().success());
        let published = branch_run(repo.path(), data.path()).await.unwrap();
        assert_good(repo.path(), &published);
        let tree = tree::of(&repo.path().join(".git"));
        let strange: Vec<_> = tree.iter().filter(|(_, what)| !what.ends_with(" 4243:4243")).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }

    async fn what_a_branch_would_overwrite_is_left_alone() {
        let (repo, data) = (repository(), folder());
        tree::git(repo.path(), &["branch", "forge"]);
        for packed in [false, true] {
            if packed {
                tree::git(repo.path(), &["pack-refs", "--all"]);
            }
            let error = branch_run(repo.path(), data.path()).await.unwrap_err();
            assert!(error.contains("forge"), "{error}");
            assert_eq!(tree::git(repo.path(), &["for-each-ref", "--format=%(refname)"]), "refs/heads/forge\nrefs/heads/main");
        }
        tree::git(repo.path(), &["branch", "-D", "forge"]);
        let mut run = Run::new(data.path(), branch(repo.path())).await;
        run.sh("echo 1 > one").await;
        let state = run.snapshot().await;
        let first = publish(&mut run, state).await.unwrap().unwrap();
        tree::git(repo.path(), &["checkout", "-q", &first.branch]);
        run.reopen(None).await;
        run.sh("echo 2 > two").await;
        let state = run.snapshot().await;
        let error = publish(&mut run, state).await.unwrap_err().to_string();
        assert!(error.contains("is checked out"), "{error}");
        assert_eq!(tree::git(repo.path(), &["rev-parse", &first.branch]), first.commit);
    }

    async fn a_result_that_is_not_whole_is_not_taken() {
        let (repo, data) = (repository(), folder());
        let mut run = Run::new(data.path(), branch(repo.path())).await;
        // A commit of the run's own, with a tree that names a missing object.
        run.sh("t=$(printf '100644 blob 1234567890123456789012345678901234567890\tx\n' | git mktree --missing); \
                c=$(git commit-tree -p HEAD -m broken $t); git update-ref HEAD $c; git read-tree $t; git update-index --skip-worktree x").await;
        let state = run.snapshot().await;
        publish(&mut run, state).await.unwrap_err();
        assert_eq!(tree::git(repo.path(), &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
        tree::git(repo.path(), &["fsck", "--strict"]);
    }
}

/// Lets a run and a user change the same file, so that git's index is consulted about it.
async fn merge_run(repo: &Path, data: &Path) {
    let whole = async {
        let (backends, spec, id) = (backends(data), transaction(repo), RunId::generate());
        // A repository that is entirely unusable is refused here.
        let Ok(room) = backends.open(&spec, id, None).await else { return };
        let mut run = Run { backends, spec, id, room: Some(room) };
        run.sh("printf 'one\\ntwo\\nthree\\nfour\\n' > src/lib.rs; echo end >> a.txt").await;
        let state = run.snapshot().await;
        fs::write(repo.join("a.txt"), "zero\none\ntwo\nthree\n").unwrap();
        run.close();
        let diff = run.backends.workspaces().diff(&run.spec, run.id, None, Some(state)).await;
        assert!(diff.unwrap().contains("+end"));
        // The index determines whether it merges; it must end in either case.
        let merged = run.merge(None, Some(state), MergePolicy::Clean).await;
        if merged.is_ok() {
            assert_eq!(fs::read_to_string(repo.join("a.txt")).unwrap(), "zero\none\ntwo\nthree\nend\n");
            run.apply(Some(state), None).await.unwrap();
        }
    };
    tokio::time::timeout(ENDS_WITHIN, whole).await.expect("it ends within its limit");
}

/// Returns settings of this machine's git that can name a program, a file or an address, with such values.
fn settings(canary: &Canary) -> Vec<(String, String)> {
    const PROGRAMS: &[&str] = &[
        "command",
        "cmd",
        "program",
        "helper",
        "editor",
        "pager",
        "driver",
        "textconv",
        "clean",
        "smudge",
        "process",
        "external",
        "askpass",
        "gitproxy",
        "fsmonitor",
        "uploadpack",
        "receivepack",
        "packobjectshook",
        "vcs",
        "difffilter",
        "tocmd",
        "cccmd",
        "headercmd",
        "sendmailcmd",
        "mailer",
        "update",
        "variant",
        "alias.*",
    ];
    const ADDRESSES: &[&str] = &[
        "url",
        "pushurl",
        "insteadof",
        "pushinsteadof",
        "proxy",
        "bundleuri",
        "uri",
        "remote",
        "partialclonefilter",
        "promisor",
        "allow",
    ];
    let listed = tree::git(Path::new("/"), &["help", "--config"]);
    let mut settings = Vec::new();
    for key in listed.lines().map(str::trim).filter(|key| key.contains('.') && !key.contains(' ')) {
        let lower = key.to_ascii_lowercase();
        let ends = |words: &[&str]| words.iter().any(|word| lower.ends_with(word));
        let program = canary.program().display().to_string();
        let value = if ends(PROGRAMS) {
            program
        } else if ends(&["allow", "promisor"]) {
            if lower.ends_with("allow") { "always".to_owned() } else { "true".to_owned() }
        } else if ends(ADDRESSES) {
            format!("ext::{program}")
        } else if ["file", "path", "dir", "directory", "template", "target", "worktree"]
            .iter()
            .any(|word| lower.contains(word))
        {
            canary.written().display().to_string()
        } else {
            continue;
        };
        settings.push((key.to_owned(), value));
    }
    // `git help` does not list these, but git obeys them.
    for key in ["trace2.normalTarget", "trace2.eventTarget", "trace2.perfTarget", "core.alternateRefsCommand"]
    {
        settings.push((key.to_owned(), canary.written().display().to_string()));
    }
    settings
}

/// Returns the settings in portions, each with the rule that turns every file's path into an address that runs a
/// program. The last but one contains those that depend on each other.
fn configurations(settings: &[(String, String)], canary: &Canary) -> Vec<String> {
    let always = rewrites(canary).swap_remove(0);
    let program = canary.program().display().to_string();
    let written = |chunk: &[(String, String)]| {
        let mut text = String::new();
        for (key, value) in chunk {
            let (section, name) = key.split_once('.').unwrap();
            let (middle, name) = name.rsplit_once('.').unwrap_or(("", name));
            let middle = middle.replace(['<', '>'], "").replace('*', "x");
            let head =
                if middle.is_empty() { format!("[{section}]") } else { format!("[{section} \"{middle}\"]") };
            let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "");
            if !name.is_empty() && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                text.push_str(&format!("{head}\n\t{name} = \"{value}\"\n"));
            }
        }
        text
    };
    // Settings with which git itself would find another repository or none come separately, at the end.
    let (odd, plain): (Vec<_>, Vec<_>) = settings.iter().cloned().partition(|(key, _)| {
        key.starts_with("extensions.")
            || key.eq_ignore_ascii_case("core.worktree")
            || key.starts_with("safe.")
    });
    let mut all: Vec<String> =
        plain.chunks(plain.len().div_ceil(4)).map(|chunk| format!("{}{always}", written(chunk))).collect();
    all.push(format!("[include]\n\tpath = {}\n{always}", canary.written().display()));
    all.push(format!(
        "[remote \"origin\"]\n\turl = ext::{program}\n\tpromisor = true\n\tpartialclonefilter = blob:none\n{always}"
    ));
    all.push(format!("[core]\n\trepositoryformatversion = 1\n{}{always}", written(&odd)));
    all
}
