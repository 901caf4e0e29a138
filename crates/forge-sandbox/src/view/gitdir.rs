//! Repositories whose git data lies elsewhere: a worktree, a submodule, a `.git` that is a link.
//!
//! A `.git` file can say anything, and a folder that was unpacked from an archive brings its own. So git data outside
//! of the workspace is shown only if it names this very folder itself: only who could write there could make it do so.

use forge_jail::{Bind, Missing, WORKSPACE};
use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// Longer files hold no path.
const LONGEST: u64 = 16 << 10;
/// Where nothing of the host is bound.
const KEPT: &[&str] = &[WORKSPACE, "/proc", "/dev", "/etc", "/sys", "/run"];

/// What a box needs so that git works in a folder whose git data lies elsewhere.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct GitDir {
    /// Git data, read-only, at the place where the folder looks for it.
    pub(crate) binds: Vec<Bind>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// Looks at the folder `repo` of the host that stands in the box at `inside`.
pub(crate) fn outside(repo: &Path, inside: &Path) -> GitDir {
    let dot = repo.join(".git");
    let Ok(meta) = fs::symlink_metadata(&dot) else { return GitDir::default() };
    let shown = dot.display();
    if meta.is_symlink() {
        let within = fs::canonicalize(&dot).is_ok_and(|real| real.starts_with(repo));
        let why = format!(
            "{shown} is a symbolic link that leads out of the workspace: git finds no repository there"
        );
        return if within { GitDir::default() } else { only(why) };
    }
    if !meta.is_file() {
        return GitDir::default();
    }
    let named = read(&dot).and_then(|text| Some(PathBuf::from(text.strip_prefix("gitdir:")?.trim())));
    let Some(named) = named else {
        return only(format!("{shown} is a file and names no git folder: git finds no repository there"));
    };
    let Ok(real) = fs::canonicalize(repo.join(&named)) else {
        return only(format!(
            "{shown} names {}, which is not there: git finds no repository",
            named.display()
        ));
    };
    if real.starts_with(repo) {
        return GitDir::default();
    }
    if !points_back(&real, repo) {
        let real = real.display();
        return only(format!(
            "{shown} names {real}, which does not name this folder: it is not shown to the box"
        ));
    }
    bound(&real, &normal(&inside.join(&named)))
}

fn only(warning: String) -> GitDir {
    GitDir { binds: Vec::new(), warnings: vec![warning] }
}

/// Binds a git folder, and the one it shares with other worktrees, where they are looked for.
fn bound(real: &Path, target: &Path) -> GitDir {
    let common = read(&real.join("commondir")).map(|text| PathBuf::from(text.trim()));
    let mut wanted = vec![(real.to_owned(), target.to_owned())];
    if let Some(common) = common
        && let Ok(shared) = fs::canonicalize(real.join(&common))
        && shared.join("objects").is_dir()
    {
        let place = normal(&target.join(&common));
        if target.starts_with(&place) && real.starts_with(&shared) {
            wanted.clear();
        }
        wanted.push((shared, place));
    }
    let mut found = GitDir::default();
    for (source, target) in wanted {
        let kept = KEPT.iter().any(|kept| target.starts_with(kept));
        if target.starts_with(WORKSPACE) {
            // Another repository of the run: it stands there by itself.
            continue;
        }
        if kept || target == Path::new("/") || target == Path::new("/tmp") {
            let target = target.display();
            found
                .warnings
                .push(format!("the git data at {target} can't be shown there: git finds no repository"));
            continue;
        }
        found.warnings.push(format!(
            "the git data at {} can only be read in the sandbox: committing and staging fail there",
            source.display()
        ));
        found.binds.push(Bind { source, target, missing: Missing::Skip });
    }
    found
}

/// Whether a git folder names `repo` as its working folder.
fn points_back(git: &Path, repo: &Path) -> bool {
    let is_repo = |path: &Path| fs::canonicalize(path).is_ok_and(|real| real == repo);
    if !git.join("HEAD").is_file() {
        return false;
    }
    // A worktree: the path of its `.git`.
    if let Some(text) = read(&git.join("gitdir")) {
        let dot = git.join(text.trim());
        return dot.file_name().is_some_and(|name| name == ".git") && dot.parent().is_some_and(is_repo);
    }
    // A submodule: its configuration.
    let config = read(&git.join("config")).unwrap_or_default();
    let worktree = config.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim().eq_ignore_ascii_case("worktree")).then(|| value.trim().trim_matches('"'))
    });
    worktree.is_some_and(|path| is_repo(&git.join(path)))
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    fs::File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The path without `.` and `..`, as it reads.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worktree() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let (main, tree) = (root.join("main/.git"), root.join("tree"));
        let git = main.join("worktrees/tree");
        for folder in [&main.join("objects"), &git, &tree] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(git.join("HEAD"), "ref: refs/heads/x\n").unwrap();
        fs::write(git.join("commondir"), "../..\n").unwrap();
        fs::write(git.join("gitdir"), format!("{}\n", tree.join(".git").display())).unwrap();
        fs::write(tree.join(".git"), format!("gitdir: {}\n", git.display())).unwrap();
        (dir, main, tree)
    }

    #[test]
    fn a_worktree_gets_the_git_folder_it_shares() {
        let (_dir, main, tree) = worktree();
        let found = outside(&tree, Path::new(WORKSPACE));
        assert_eq!(found.binds, [Bind { source: main.clone(), target: main, missing: Missing::Skip }]);
    }

    #[test]
    fn a_folder_that_does_not_name_this_one_is_not_shown() {
        let (_dir, main, tree) = worktree();
        fs::write(main.join("worktrees/tree/gitdir"), "/somewhere/else/.git\n").unwrap();
        let found = outside(&tree, Path::new(WORKSPACE));
        assert!(
            found.binds.is_empty() && found.warnings[0].contains("does not name this folder"),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_no_git_file_or_leads_out_is_only_told() {
        let (_dir, main, tree) = worktree();
        for text in ["", "gitdir:", "gitdir: /etc\n", "nonsense", "gitdir: /no/such/place"] {
            fs::write(tree.join(".git"), text).unwrap();
            let found = outside(&tree, Path::new(WORKSPACE));
            assert!(
                found.binds.is_empty() && (text == "gitdir:" || found.warnings.len() == 1),
                "{text}: {found:?}"
            );
        }
        fs::remove_file(tree.join(".git")).unwrap();
        std::os::unix::fs::symlink(&main, tree.join(".git")).unwrap();
        let found = outside(&tree, Path::new(WORKSPACE));
        assert!(found.binds.is_empty() && found.warnings.len() == 1, "{found:?}");
    }
}
