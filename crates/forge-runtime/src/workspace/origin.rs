//! The repository for the pull requests of a run: that of the remote `origin` when the run starts.
//!
//! Git is not called, since its configuration can name programs. No symbolic link below the repository is
//! followed, and the git data of a linked working tree or submodule counts only if it names this working tree
//! itself: a `.git` file can name any directory.

use forge_config::ResolvedConfig;
use forge_tools::{origin_repository, work_tree};
use forge_types::{PullRequestRules, RemoteRepository};
use std::path::{Path, PathBuf};

/// The most bytes of a git configuration that are read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The most bytes of a file that holds one path.
const MAX_POINTER_BYTES: u64 = 8 << 10;
/// The name of the configuration file in git data.
const CONFIG_FILE: &str = "config";

/// Returns the repositories where a run on `repo` may open pull requests.
pub(crate) fn pull_request_rules(loaded: &ResolvedConfig, repo: &Path) -> PullRequestRules {
    let repositories = loaded.settings.tools.create_pr.repositories.clone();
    PullRequestRules { origin: remote_repository(repo), repositories }
}

fn remote_repository(repo: &Path) -> Option<RemoteRepository> {
    let git = repo.join(".git");
    let config = if git.symlink_metadata().ok()?.is_dir() {
        forge_files::read_text_within(&git, Path::new(CONFIG_FILE), MAX_CONFIG_BYTES).ok()?
    } else {
        linked_config(repo)?
    };
    origin_repository(&config)
}

/// Reads the configuration of a working tree with git data in another directory.
fn linked_config(repo: &Path) -> Option<String> {
    let target = read_pointer(repo, ".git")?;
    let target = repo.join(target.strip_prefix("gitdir:")?.trim()).canonicalize().ok()?;
    let repo = repo.canonicalize().ok()?;
    let names_repo = |path: PathBuf| path.canonicalize().is_ok_and(|path| path == repo);
    let worktrees = target.parent().filter(|directory| directory.ends_with("worktrees"));
    if let Some(common) = worktrees.and_then(Path::parent) {
        // A linked working tree: its git data names its `.git` file.
        let back = target.join(read_pointer(&target, "gitdir")?.trim());
        let config = forge_files::read_text_within(common, Path::new(CONFIG_FILE), MAX_CONFIG_BYTES).ok()?;
        return names_repo(back.parent()?.to_owned()).then_some(config);
    }
    let config = forge_files::read_text_within(&target, Path::new(CONFIG_FILE), MAX_CONFIG_BYTES).ok()?;
    names_repo(target.join(work_tree(&config)?)).then_some(config)
}

fn read_pointer(directory: &Path, name: &str) -> Option<String> {
    forge_files::read_text_within(directory, Path::new(name), MAX_POINTER_BYTES).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn named(root: &Path, repo: &str) -> Option<String> {
        remote_repository(&root.join(repo)).map(|origin| origin.repository)
    }

    #[test]
    fn the_origin_of_every_kind_of_working_tree_is_found() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        let config = |name: &str| format!("[remote \"origin\"]\nurl = git@github.com:o/{name}\n");
        write(at, "main/.git/config", &config("main"));
        write(at, "tree/.git", "gitdir: ../main/.git/worktrees/tree\n");
        write(at, "main/.git/worktrees/tree/gitdir", &format!("{}\n", at.join("tree/.git").display()));
        write(at, "main/sub/.git", "gitdir: ../.git/modules/sub\n");
        write(
            at,
            "main/.git/modules/sub/config",
            &format!("[core]\nworktree = ../../../sub\n{}", config("sub")),
        );
        for (repo, wanted) in [("main", "o/main"), ("tree", "o/main"), ("main/sub", "o/sub")] {
            assert_eq!(named(at, repo).as_deref(), Some(wanted), "{repo}");
        }
        // Git data that does not name the tree belongs to another one.
        write(at, "evil/.git", "gitdir: ../main/.git\n");
        write(at, "evil2/.git", "gitdir: ../main/.git/modules/sub\n");
        write(at, "evil3/.git", "gitdir: ../main/.git/worktrees/tree\n");
        fs::create_dir_all(at.join("evil4/.git")).unwrap();
        std::os::unix::fs::symlink(at.join("main/.git/config"), at.join("evil4/.git/config")).unwrap();
        fs::create_dir(at.join("evil5")).unwrap();
        std::os::unix::fs::symlink(at.join("main/.git"), at.join("evil5/.git")).unwrap();
        for repo in ["evil", "evil2", "evil3", "evil4", "evil5", "none"] {
            assert_eq!(named(at, repo), None, "{repo}");
        }
    }
}
