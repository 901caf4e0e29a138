//! The files that came with a clone: everything in the git repository around a directory, however its path is written.
//!
//! A clone is more than the directory that a command works on: `--repo sub --config ../forge.toml` names a file of the
//! same clone. A path therefore belongs to the clone if it lies in any git repository that encloses the directory, in
//! the main repository of a linked working tree, or if a link on the way to it does. In cases of doubt, the path
//! belongs to the clone.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Largest number of links followed for one path, the same as the kernel's limit.
const MAX_LINKS: usize = 40;
/// Largest number of bytes read from a `.git` file, which holds one path.
const MAX_POINTER_BYTES: u64 = 8 << 10;

/// The directories with content that came with clones.
#[derive(Clone, Debug)]
pub(crate) struct Checkouts {
    roots: BTreeSet<PathBuf>,
    home: Option<PathBuf>,
}

impl Checkouts {
    /// Finds the clones around `cwd` and around `repo`, which is included even if it is not a git repository.
    ///
    /// A git repository that holds the user's home directory is the user's own: a home directory is not a clone.
    pub(crate) fn discover(repo: &Path, cwd: Option<&Path>, home: Option<&Path>) -> Self {
        let home = home.and_then(|home| home.canonicalize().ok());
        let mut roots: BTreeSet<PathBuf> = repo.canonicalize().into_iter().collect();
        for place in [Some(repo), cwd].into_iter().flatten() {
            for step in resolution_steps(place) {
                roots.extend(enclosing_repositories(&step, home.as_deref()));
            }
        }
        Self { roots, home }
    }

    /// Returns whether a path belongs to a clone: the file itself, its directory, or a link that leads there.
    pub(crate) fn contains(&self, path: &Path) -> bool {
        let mut places = resolution_steps(path);
        places.extend(path.parent().and_then(|directory| directory.canonicalize().ok()));
        places.iter().any(|place| {
            self.roots.iter().any(|root| place.starts_with(root))
                || enclosing_repositories(place, self.home.as_deref())
                    .iter()
                    .any(|root| self.roots.contains(root))
        })
    }

    /// Returns the root directories of the clones.
    pub(crate) fn root_dirs(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(PathBuf::as_path)
    }

    /// Returns where a path lies in a clone: the outermost directory that came with the clone, and the path as written
    /// below it, so that links on the way can be detected. `None` if the path doesn't belong to a clone.
    pub(crate) fn locate(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        if !self.contains(path) {
            return None;
        }
        let path: PathBuf = path.components().collect();
        let is_root =
            |directory: &&Path| directory.canonicalize().is_ok_and(|real| self.roots.contains(&real));
        let below = |root: &Path| Some((root.to_owned(), path.strip_prefix(root).ok()?.to_owned()));
        let outermost = path.ancestors().skip(1).filter(is_root).last();
        outermost.and_then(below).or_else(|| {
            // The path leads into the clone from elsewhere, so its directory takes the place of the repository.
            let root = path.parent().unwrap_or(&path).to_owned();
            Some((root, PathBuf::from(path.file_name().unwrap_or_default())))
        })
    }
}

/// Returns whether a path lies in a git repository other than the user's home directory.
pub(crate) fn is_in_repository(path: &Path, home: Option<&Path>) -> bool {
    let home = home.and_then(|home| home.canonicalize().ok());
    resolution_steps(path).iter().any(|step| !enclosing_repositories(step, home.as_deref()).is_empty())
}

/// Returns the git repositories that enclose a real path, with the main ones of linked working trees.
fn enclosing_repositories(place: &Path, home: Option<&Path>) -> BTreeSet<PathBuf> {
    let holds_home = |root: &Path| home.is_some_and(|home| home.starts_with(root));
    let mut found = BTreeSet::new();
    for directory in place.ancestors().filter(|directory| !holds_home(directory)) {
        let git = directory.join(".git");
        match git.symlink_metadata() {
            Ok(meta) if meta.is_file() => {
                found.insert(directory.to_owned());
                found.extend(main_repository_dirs(&git));
            }
            Ok(_) => {
                found.insert(directory.to_owned());
            }
            Err(_) if !forge_files::may_be_present(&git) => {}
            // It is not known whether this is a clone.
            Err(_) => {
                found.insert(directory.to_owned());
            }
        }
    }
    found.retain(|root| !holds_home(root));
    found
}

/// Returns the directories that a `.git` file points to: the common directory and the working tree around it.
fn main_repository_dirs(pointer: &Path) -> Vec<PathBuf> {
    let Some(text) = read_git_pointer(pointer) else { return Vec::new() };
    let Some(target) = text.trim_end().strip_prefix("gitdir:").map(str::trim) else { return Vec::new() };
    let base = pointer.parent().unwrap_or(pointer);
    let Ok(target) = base.join(target).canonicalize() else { return Vec::new() };
    let mut found = Vec::new();
    for directory in target.ancestors().skip(1) {
        if directory.file_name().is_some_and(|name| name == ".git" || name == "worktrees") {
            found.extend(directory.parent().map(Path::to_owned));
        }
    }
    found
}

fn read_git_pointer(pointer: &Path) -> Option<String> {
    String::from_utf8(forge_files::read_prefix(pointer, MAX_POINTER_BYTES).ok()?).ok()
}

/// Returns every real path passed while a path is resolved: each link on the way, and the final target.
fn resolution_steps(path: &Path) -> Vec<PathBuf> {
    let mut left: VecDeque<OsString> = path.components().map(component_name).collect();
    let (mut here, mut passed) = (PathBuf::from("/"), Vec::new());
    while let Some(name) = left.pop_front() {
        match name.to_str() {
            Some("/") => here = PathBuf::from("/"),
            Some(".") => {}
            Some("..") => {
                here.pop();
            }
            _ => {
                let next = here.join(&name);
                match next.read_link() {
                    Ok(target) if passed.len() < MAX_LINKS => {
                        passed.push(next);
                        for part in target.components().rev().map(component_name) {
                            left.push_front(part);
                        }
                    }
                    _ => here = next,
                }
            }
        }
    }
    passed.push(here);
    passed
}

fn component_name(component: Component<'_>) -> OsString {
    component.as_os_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        for directory in ["clone/.git", "clone/sub/deep", "other", "home"] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        for file in ["clone/forge.toml", "clone/sub/deep/x", "other/forge.toml", "home/forge.toml"] {
            fs::write(path.join(file), "").unwrap();
        }
        (root, path)
    }

    #[test]
    fn what_lies_anywhere_in_the_enclosing_repository_is_the_clones() {
        let (_root, at) = place();
        let clone = Checkouts::discover(&at.join("clone/sub/deep"), None, None);
        for inside in [
            "clone/forge.toml",
            "clone/sub/../forge.toml",
            "clone/sub/deep/x",
            "other/../clone/forge.toml",
            "clone/not/there",
        ] {
            assert!(clone.contains(&at.join(inside)), "{inside}");
        }
        for outside in ["other/forge.toml", "clone/sub/../../other/forge.toml", "home/forge.toml"] {
            assert!(!clone.contains(&at.join(outside)), "{outside}");
        }
    }

    #[test]
    fn links_count_in_both_directions() {
        let (_root, at) = place();
        symlink(at.join("other"), at.join("clone/out")).unwrap();
        symlink(at.join("clone"), at.join("other/in")).unwrap();
        symlink(at.join("clone/out/forge.toml"), at.join("home/twice")).unwrap();
        let clone = Checkouts::discover(&at.join("clone/sub"), None, None);
        for inside in ["clone/out/forge.toml", "other/in/forge.toml", "home/twice"] {
            assert!(clone.contains(&at.join(inside)), "{inside}");
        }
        // The user's repository is reached through the clone's link.
        let through = Checkouts::discover(&at.join("clone/out"), None, None);
        assert!(
            through.contains(&at.join("clone/forge.toml")) && through.contains(&at.join("other/forge.toml"))
        );
    }

    #[test]
    fn the_outermost_repository_counts_and_a_home_is_nobodys_clone() {
        let (_root, at) = place();
        fs::create_dir_all(at.join("clone/vendor/lib")).unwrap();
        fs::write(at.join("clone/vendor/lib/.git"), "gitdir: ../../.git/modules/lib\n").unwrap();
        let module = at.join("clone/vendor/lib");
        assert!(Checkouts::discover(&module, None, None).contains(&at.join("clone/forge.toml")));
        fs::create_dir(at.join("home/.git")).unwrap();
        fs::create_dir_all(at.join("home/work")).unwrap();
        let (home, work) = (at.join("home"), at.join("home/work"));
        assert!(Checkouts::discover(&work, None, None).contains(&home.join("forge.toml")));
        assert!(!Checkouts::discover(&work, None, Some(&home)).contains(&home.join("forge.toml")));
        assert!(Checkouts::discover(&home, None, Some(&home)).contains(&home.join("forge.toml")));
    }

    #[test]
    fn a_linked_working_tree_belongs_to_its_repository() {
        let (_root, at) = place();
        fs::create_dir_all(at.join("clone/.git/worktrees/tree")).unwrap();
        for tree in ["other", "home"] {
            fs::write(at.join(tree).join(".git"), "gitdir: ../clone/.git/worktrees/tree\n").unwrap();
        }
        let tree = Checkouts::discover(&at.join("other"), None, None);
        assert!(tree.contains(&at.join("clone/forge.toml")), "the main working tree");
        assert!(tree.contains(&at.join("home/forge.toml")), "another one of the same repository");
        assert!(Checkouts::discover(&at.join("clone"), None, None).contains(&at.join("other/forge.toml")));
    }

    #[test]
    fn the_current_directory_is_in_a_clone_too_and_nothing_strange_hangs() {
        let (_root, at) = place();
        let from = Checkouts::discover(&at.join("other"), Some(&at.join("clone/sub")), None);
        assert!(from.contains(&at.join("clone/forge.toml")));
        symlink("loop", at.join("clone/loop")).unwrap();
        assert!(Checkouts::discover(&at.join("clone/loop"), None, None).contains(&at.join("clone/loop")));
        assert!(
            is_in_repository(&at.join("clone/sub/deep"), None) && !is_in_repository(&at.join("other"), None)
        );
    }
}
