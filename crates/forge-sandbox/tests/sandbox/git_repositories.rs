//! Repositories for the tests of the host's git: ordinary ones, and malicious ones.

use crate::tree;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub(crate) type Damage = fn(&Path, &Path);

/// Returns replacements for git data, each with a word of the refusal; `None` if there need not be one.
pub(crate) fn damages() -> Vec<(&'static str, Damage, Option<&'static str>)> {
    [not_files(), elsewhere()].concat()
}

fn clear(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path).unwrap();
    } else if path.symlink_metadata().is_ok() {
        fs::remove_file(path).unwrap();
    }
}
fn pipe(path: &Path) {
    clear(path);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}
fn sparse(path: &Path) {
    clear(path);
    fs::File::create(path).unwrap().set_len(20 << 30).unwrap();
}
fn link(to: &Path, path: &Path) {
    clear(path);
    symlink(to, path).unwrap();
}

/// Files of other kinds, or too large.
fn not_files() -> Vec<(&'static str, Damage, Option<&'static str>)> {
    vec![
        ("HEAD a pipe", |git, _| pipe(&git.join("HEAD")), Some("HEAD")),
        ("HEAD endless", |git, _| link(Path::new("/dev/zero"), &git.join("HEAD")), Some("HEAD")),
        ("HEAD sparse", |git, _| sparse(&git.join("HEAD")), Some("HEAD")),
        (
            "HEAD a directory",
            |git, _| {
                clear(&git.join("HEAD"));
                fs::create_dir(git.join("HEAD")).unwrap();
            },
            Some("HEAD"),
        ),
        (
            "HEAD climbs",
            |git, _| fs::write(git.join("HEAD"), "ref: refs/../../../x\n").unwrap(),
            Some("HEAD"),
        ),
        ("config a pipe", |git, _| pipe(&git.join("config")), Some("config")),
        ("config endless", |git, _| link(Path::new("/dev/zero"), &git.join("config")), Some("config")),
        ("config sparse", |git, _| sparse(&git.join("config")), Some("config")),
        ("packed-refs a pipe", |git, _| pipe(&git.join("packed-refs")), Some("packed-refs")),
        ("packed-refs sparse", |git, _| sparse(&git.join("packed-refs")), Some("packed-refs")),
        ("index a pipe", |git, _| pipe(&git.join("index")), Some("index")),
        ("exclude a pipe", |git, _| pipe(&git.join("info/exclude")), Some("exclude")),
        ("shallow a pipe", |git, _| pipe(&git.join("shallow")), Some("shallow")),
        ("the branch a pipe", |git, _| pipe(&git.join("refs/heads/main")), Some("refs/heads/main")),
        ("the branch sparse", |git, _| sparse(&git.join("refs/heads/main")), Some("refs/heads/main")),
        ("another branch a pipe", |git, _| pipe(&git.join("refs/heads/other")), None),
    ]
}

/// Git data of another repository, and unknown forms.
fn elsewhere() -> Vec<(&'static str, Damage, Option<&'static str>)> {
    vec![
        ("refs elsewhere", |git, other| link(&other.join(".git/refs"), &git.join("refs")), Some("refs")),
        (
            "heads elsewhere",
            |git, other| link(&other.join(".git/refs/heads"), &git.join("refs/heads")),
            Some("refs/heads"),
        ),
        (
            "forge elsewhere",
            |git, other| link(&other.join(".git/refs/heads"), &git.join("refs/heads/forge")),
            Some("refs/heads/forge"),
        ),
        (
            "objects elsewhere",
            |git, other| link(&other.join(".git/objects"), &git.join("objects")),
            Some("objects"),
        ),
        (
            "packs elsewhere",
            |git, other| link(&other.join(".git/objects/pack"), &git.join("objects/pack")),
            Some("pack"),
        ),
        (
            "borrowed objects",
            |git, other| {
                fs::write(git.join("objects/info/alternates"), other.join(".git/objects").to_str().unwrap())
                    .unwrap();
            },
            Some("alternates"),
        ),
        (
            "commondir",
            |git, other| fs::write(git.join("commondir"), other.join(".git").to_str().unwrap()).unwrap(),
            Some("commondir"),
        ),
        ("a reftable", |git, _| fs::create_dir(git.join("reftable")).unwrap(), Some("reftable")),
        (
            "an unknown extension",
            |git, _| {
                fs::write(git.join("config"), "[core]\nrepositoryformatversion = 1\n[extensions]\nnew = 1\n")
                    .unwrap();
            },
            Some("new"),
        ),
        (
            "an object a pipe",
            |git, _| {
                fs::create_dir_all(git.join("objects/00")).unwrap();
                pipe(&git.join("objects/00/11111111111111111111111111111111111111"));
            },
            None,
        ),
        (
            "a graph of commits that lies",
            |git, _| {
                fs::create_dir_all(git.join("objects/info")).unwrap();
                fs::write(git.join("objects/info/commit-graph"), b"CGPHnonsense").unwrap();
            },
            None,
        ),
    ]
}

pub(crate) type Form = fn(&Path) -> PathBuf;

/// Returns ordinary kinds of repositories.
pub(crate) fn forms() -> Vec<(&'static str, Form)> {
    fn filled(repo: &Path, init: &[&str]) -> PathBuf {
        fs::create_dir_all(repo).unwrap();
        tree::git(repo, init);
        for number in 0..3 {
            fs::write(repo.join(format!("file{number}")), format!("{number}\n")).unwrap();
            tree::git(repo, &["add", "-A"]);
            tree::git(repo, &["commit", "-q", "-m", &format!("commit {number}")]);
        }
        repo.to_owned()
    }
    const INIT: &[&str] = &["init", "-q", "-b", "main"];
    vec![
        ("sha256", |place| filled(&place.join("r"), &["init", "-q", "-b", "main", "--object-format=sha256"])),
        ("packed", |place| {
            let repo = filled(&place.join("r"), INIT);
            tree::git(&repo, &["gc", "-q"]);
            repo
        }),
        ("detached", |place| {
            let repo = filled(&place.join("r"), INIT);
            tree::git(&repo, &["checkout", "-q", "--detach"]);
            repo
        }),
        ("shallow", |place| {
            let source = filled(&place.join("source"), INIT);
            let address = format!("file://{}", source.display());
            tree::git(place, &["clone", "-q", "--depth=1", &address, "r"]);
            place.join("r")
        }),
        ("partial", |place| {
            let source = filled(&place.join("source"), INIT);
            tree::git(&source, &["config", "uploadpack.allowFilter", "true"]);
            fs::write(source.join("file0"), "changed\n").unwrap();
            tree::git(&source, &["commit", "-qam", "changed"]);
            let address = format!("file://{}", source.display());
            tree::git(place, &["clone", "-q", "--filter=blob:none", &address, "r"]);
            place.join("r")
        }),
        ("worktree", |place| {
            let source = filled(&place.join("source"), INIT);
            tree::git(&source, &["worktree", "add", "-q", place.join("r").to_str().unwrap()]);
            place.join("r")
        }),
        ("submodule", |place| {
            let (source, top) = (filled(&place.join("source"), INIT), filled(&place.join("top"), INIT));
            let add = [
                "-c",
                "protocol.file.allow=always",
                "submodule",
                "--quiet",
                "add",
                source.to_str().unwrap(),
                "sub",
            ];
            tree::git(&top, &add);
            top.join("sub")
        }),
        ("split index", |place| {
            let repo = filled(&place.join("r"), INIT);
            tree::git(&repo, &["update-index", "--split-index"]);
            repo
        }),
        ("git data beside, by a file", |place| {
            let repo = filled(&place.join("r"), INIT);
            fs::rename(repo.join(".git"), repo.join(".bare")).unwrap();
            fs::write(repo.join(".git"), "gitdir: ./.bare\n").unwrap();
            fs::write(repo.join(".bare/info/exclude"), "/.bare\n").unwrap();
            repo
        }),
    ]
}

type Archive = fn(&Path, &Path);

/// Returns unpacked archives that point at git data outside of them.
pub(crate) fn archives() -> Vec<(&'static str, Archive)> {
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
            fs::write(git.join("objects/info/alternates"), format!("{}\n", theirs.join("objects").display()))
                .unwrap();
            fs::write(git.join("HEAD"), tree::git(theirs.parent().unwrap(), &["rev-parse", "HEAD"])).unwrap();
        }),
        ("names-it", |root, theirs| {
            fs::write(root.join("tree/.git"), format!("gitdir: {}\n", theirs.display())).unwrap();
        }),
        ("is-a-link-to-it", |root, theirs| symlink(theirs, root.join("tree/.git")).unwrap()),
    ]
}
