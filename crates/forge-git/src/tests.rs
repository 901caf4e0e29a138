//! Tests that give a repository results as a hostile sandbox could make them.

#![allow(clippy::disallowed_methods, reason = "the tests make repositories and packs as users and runs do")]

use crate::directory::{RepoDirectory, WorkTree};
use crate::{Error, Repository, ScratchRepository};
use forge_tree::WorkBounds;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BRANCH: &str = "forge/00000000-0000-0000-0000-000000000000";

fn git(repo: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut git = Command::new("git");
    git.current_dir(repo)
        .args(["-c", "user.name=x", "-c", "user.email=x@x", "-c", "safe.directory=*"])
        .args(arguments);
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let mut child = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{arguments:?}");
    ended.stdout
}

fn line(repo: &Path, arguments: &[&str], input: &[u8]) -> String {
    String::from_utf8(git(repo, arguments, input)).unwrap().trim().to_owned()
}

/// Creates a repository with one commit, and another one in which results are made.
fn repositories() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (repo, run) = (dir.path().join("repo"), dir.path().join("run"));
    fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q", "-b", "main"], b"");
    fs::write(repo.join("a"), "a\n").unwrap();
    git(&repo, &["add", "-A"], b"");
    git(&repo, &["commit", "-qm", "first"], b"");
    git(dir.path(), &["clone", "-q", "repo", "run"], b"");
    (dir, repo, run)
}

fn pack(run: &Path, objects: &[&str]) -> Vec<u8> {
    git(run, &["pack-objects", "-q", "--stdout"], objects.join("\n").as_bytes())
}

/// Returns the private directory of the tests.
fn private() -> PathBuf {
    static PLACE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    PLACE.get_or_init(|| tempfile::tempdir().unwrap()).path().join("tmp")
}

fn find(repo: &Path) -> Result<Repository, Error> {
    let open = RepoDirectory::open(repo)?;
    Repository::find(WorkTree { path: repo, fd: open.as_fd() })
}

fn take_in(repo: &Path, pack: &[u8], commit: &str) -> Result<(), Error> {
    take_in_within(repo, pack, commit, WorkBounds::unbounded())
}

fn take_in_within(repo: &Path, pack: &[u8], commit: &str, bounds: &WorkBounds) -> Result<(), Error> {
    let repository = find(repo)?;
    let known = repository.read_heads(WorkBounds::unbounded())?.known;
    ScratchRepository::new(&repository, &private(), bounds)?.create_incoming()?.append(pack)?.import_into(
        &repository,
        BRANCH,
        commit,
        &known,
    )
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        }
        all.push(entry.path());
    }
    all.sort();
    all
}

#[test]
fn only_a_result_that_is_whole_and_sound_gets_in() {
    let (_dir, repo, run) = repositories();
    let blob = line(&run, &["hash-object", "-w", "--stdin"], b"new\n");
    let tree = line(&run, &["mktree"], format!("100644 blob {blob}\tnew\n").as_bytes());
    let parent = line(&run, &["rev-parse", "HEAD"], b"");
    let commit = line(&run, &["commit-tree", "-p", &parent, "-m", "x", &tree], b"");
    let orphan = line(&run, &["commit-tree", "-p", &commit, "-m", "y", &tree], b"");
    let git_tree = line(&run, &["hash-object", "-w", "-t", "tree", "--stdin", "--literally"], &{
        let mut entry = b"100644 .git\0".to_vec();
        entry.extend((0..20).map(|at| u8::from_str_radix(&blob[at * 2..at * 2 + 2], 16).unwrap()));
        entry
    });
    let git_commit = line(&run, &["commit-tree", "-m", "z", &git_tree], b"");
    let whole = pack(&run, &[&commit, &tree, &blob]);
    let before = files(&repo.join(".git"));
    let mut bent = whole.clone();
    bent[20] ^= 1;
    for (what, pack, commit) in [
        ("a blob is missing", pack(&run, &[&commit, &tree]), commit.as_str()),
        ("a tree is missing", pack(&run, &[&commit, &blob]), &commit),
        ("the parent is missing", pack(&run, &[&orphan, &tree, &blob]), &orphan),
        ("the commit is missing", pack(&run, &[&tree, &blob]), &commit),
        ("it names no commit", whole.clone(), &tree),
        ("it names nothing", whole.clone(), "--upload-pack=x"),
        ("a path that git itself would read", pack(&run, &[&git_commit, &git_tree, &blob]), &git_commit),
        ("its sum is wrong", bent, &commit),
        ("it is cut", whole[..whole.len() - 30].to_vec(), &commit),
        ("it is no pack", b"not a pack at all".to_vec(), &commit),
        ("there is nothing", Vec::new(), &commit),
    ] {
        let error = take_in(&repo, &pack, commit).expect_err(what);
        assert_eq!(files(&repo.join(".git")), before, "{what}: {error}");
    }
    take_in(&repo, &whole, &commit).unwrap();
    assert_eq!(line(&repo, &["rev-parse", BRANCH], b""), commit);
    // An existing commit needs no objects.
    take_in(&repo, &pack(&run, &[]), &parent).unwrap();
    assert_eq!(line(&repo, &["rev-parse", BRANCH], b""), parent);
    git(&repo, &["fsck", "--strict"], b"");
    find(&repo).unwrap().remove_branch(BRANCH).unwrap();
    assert_eq!(line(&repo, &["for-each-ref", "--format=%(refname)"], b""), "refs/heads/main");
}

#[test]
fn a_lock_of_another_git_is_respected_and_named() {
    let (_dir, repo, _) = repositories();
    let place = repo.join(".git/refs/heads/forge");
    fs::create_dir(&place).unwrap();
    let lock = repo.join(".git/refs/heads").join(format!("{BRANCH}.lock"));
    fs::write(&lock, "").unwrap();
    let found = find(&repo).unwrap();
    let head = found.read_heads(WorkBounds::unbounded()).unwrap().head.unwrap();
    let error = found.set_branch(BRANCH, &head).unwrap_err().to_string();
    assert!(error.contains(".lock") && error.contains("remove that file"), "{error}");
    assert!(lock.exists());
}

#[test]
fn the_lock_of_a_killed_process_goes_and_that_of_another_git_does_not() {
    let (_dir, repo, _) = repositories();
    let (packs, branches) = (repo.join(".git/objects/pack"), repo.join(".git/refs/heads/forge"));
    fs::create_dir(&branches).unwrap();
    let namespace = {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata("/proc/self/ns/pid").unwrap().ino()
    };
    let dead = packs.join(format!("tmp_forge-pack-4194301-12-{namespace}-0-abc"));
    let (own, others) = (branches.join("run.lock"), branches.join("other.lock"));
    fs::write(&dead, "").unwrap();
    fs::hard_link(&dead, &own).unwrap();
    fs::write(&others, "").unwrap();
    find(&repo).unwrap().remove_stale_packs();
    assert_eq!((files(&packs), files(&branches)), (vec![], vec![others]));
}

#[test]
fn what_is_made_has_the_permissions_of_what_is_around() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, repo, run) = repositories();
    let mode = |path: &str| fs::metadata(repo.join(".git").join(path)).unwrap().permissions().mode() & 0o7777;
    for path in ["refs/heads", "objects/pack"] {
        fs::set_permissions(repo.join(".git").join(path), fs::Permissions::from_mode(0o2770)).unwrap();
    }
    let commit = line(&run, &["commit-tree", "-m", "x", "HEAD^{tree}"], b"");
    take_in(&repo, &pack(&run, &[&commit]), &commit).unwrap();
    assert_eq!(mode("refs/heads/forge"), 0o2770);
    assert_eq!(mode(&format!("refs/heads/{BRANCH}")), 0o660);
    let packs: Vec<_> = files(&repo.join(".git/objects/pack"));
    assert!(packs.len() >= 2, "{packs:?}");
    for pack in packs {
        assert_eq!(fs::metadata(&pack).unwrap().permissions().mode() & 0o7777, 0o440, "{}", pack.display());
    }
}

#[test]
fn a_file_that_git_did_not_write_is_not_taken_from_its_directory() {
    let place = tempfile::tempdir().unwrap();
    let directory = RepoDirectory::open(place.path()).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    fs::write(place.path().join("pack-1.pack"), "x").unwrap();
    assert!(directory.open_file("pack-1.pack", Some(uid)).is_ok());
    // The file belongs to another user, although this process may read it.
    assert!(directory.open_file("pack-1.pack", Some(uid + 1)).is_err());
    fs::hard_link(place.path().join("pack-1.pack"), place.path().join("pack-2.pack")).unwrap();
    assert!(directory.open_file("pack-2.pack", Some(uid)).is_err());
    std::os::unix::fs::symlink("/etc/passwd", place.path().join("pack-3.pack")).unwrap();
    assert!(directory.open_file("pack-3.pack", None).is_err());
    fs::create_dir(place.path().join("pack-4.pack")).unwrap();
    assert!(directory.open_file("pack-4.pack", None).is_err());
}

#[test]
fn only_the_directory_for_packs_belongs_to_another_user() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        println!("NOT TESTED: only root works for another user");
        return;
    }
    let (_dir, repo, _) = repositories();
    for path in ["", ".git"] {
        std::os::unix::fs::chown(repo.join(path), Some(4301), Some(4301)).unwrap();
    }
    let private = ScratchRepository::new(&find(&repo).unwrap(), &private(), WorkBounds::unbounded()).unwrap();
    let owner = |path: &str| fs::metadata(private.path.join(path)).unwrap().uid();
    assert_eq!((owner(""), owner("objects"), owner("objects/pack"), owner("borrowed")), (0, 0, 4301, 0));
}

#[test]
fn a_pack_that_a_killed_process_was_adding_goes() {
    let (_dir, repo, _) = repositories();
    let packs = repo.join(".git/objects/pack");
    let namespace = {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata("/proc/self/ns/pid").unwrap().ino()
    };
    let dead = packs.join(format!("tmp_forge-pack-4194301-12-{namespace}-0-abc"));
    let alive = packs.join(format!("tmp_{}", forge_files::owned_temp_name("pack")));
    let others = packs.join("tmp_pack_Ab12cd");
    for path in [&dead, &alive, &others] {
        fs::write(path, "PACK").unwrap();
    }
    let repository = find(&repo).unwrap();
    repository.remove_stale_packs();
    assert_eq!(files(&packs), [alive.clone(), others.clone()]);
    fs::write(&dead, "PACK").unwrap();
    drop(ScratchRepository::new(&repository, &private(), WorkBounds::unbounded()).unwrap());
    assert_eq!(files(&packs), [alive, others], "each use does so");
}

#[test]
fn an_import_that_is_stopped_leaves_the_repository_as_it_was() {
    let (_dir, repo, run) = repositories();
    let commit = line(&run, &["commit-tree", "-m", "x", "HEAD^{tree}"], b"");
    let packed = pack(&run, &[&commit]);
    let before = files(&repo.join(".git"));
    let stop = forge_tree::StopFlag::default();
    let bounds = WorkBounds::unbounded().with_stop(stop.clone());
    let repository = find(&repo).unwrap();
    let incoming =
        ScratchRepository::new(&repository, &private(), &bounds).unwrap().create_incoming().unwrap();
    let incoming = incoming.append(&packed).unwrap();
    let other = ScratchRepository::new(&repository, &private(), &bounds).unwrap();
    stop.stop();
    // A pack that git has examined and that is being copied.
    fs::write(other.path.join("objects/pack/pack-1.pack"), &packed).unwrap();
    for ended in [
        incoming.import_into(&repository, BRANCH, &commit, &[]),
        other.install_packs(&repository),
        repository.read_heads(&bounds).map(drop),
        take_in_within(&repo, &packed, &commit, &bounds),
    ] {
        assert!(matches!(ended, Err(Error::Stopped)), "{ended:?}");
    }
    assert_eq!(files(&repo.join(".git")), before);
    take_in(&repo, &packed, &commit).unwrap();
}
