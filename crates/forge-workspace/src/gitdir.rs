//! Git data outside the repository that a sandbox needs: of a worktree, a submodule, or a `.git` that is a link.

use forge_git::{Error, FileId, GitData, RepoDirectory, WorkTree, normalize_path};
use forge_jail_protocol::{ExaminedSource, FileIdentity, HostBind, MissingSource, WORKSPACE_PATH};
use std::path::Path;

/// Directories below which nothing of the host is bound.
const UNBOUND_DIRS: &[&str] = &[WORKSPACE_PATH, "/proc", "/dev", "/etc", "/sys", "/run"];
/// Directories of the sandbox itself, to which a relative name must not lead: it resolves differently from the
/// workspace than from the directory on the host.
const SANDBOX_DIRS: &[&str] = &[
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/var", "/root", "/boot", "/nix",
    "/tmp", "/cache", "/code",
];

/// Binds that a sandbox needs so that git works in a directory with its git data elsewhere.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct GitDir {
    /// Git data, read-only, at the paths where the directory expects it.
    pub binds: Vec<HostBind>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Finds the git data of the host directory `repo`, which the sandbox mounts at `inside`.
pub(crate) fn find_external_git(repo: WorkTree<'_>, inside: &Path) -> GitDir {
    let data = match GitData::find(repo) {
        Err(Error::NoRepository { .. }) => return GitDir::default(),
        Err(error) => return GitDir { binds: Vec::new(), warnings: vec![describe_error(&error)] },
        Ok(data) => data,
    };
    match &data.git_file_target {
        // Git data inside the directory is already there.
        Some(named) if !data.git_dir.path().starts_with(repo.path) => bind_git_data(&data, named, inside),
        _ => GitDir::default(),
    }
}

fn describe_error(error: &Error) -> String {
    match error {
        Error::Refused { path, why } => format!("{} {why}", path.display()),
        error => error.to_string(),
    }
}

/// Entries of a git directory that git reads. Nothing else is shown: an archive unpacked over a directory could make it
/// look like a git directory.
const GIT_DIR_ENTRIES: &[&str] = &[
    "HEAD",
    "ORIG_HEAD",
    "MERGE_HEAD",
    "MERGE_MSG",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "commondir",
    "gitdir",
    "index",
    "objects",
    "packed-refs",
    "refs",
    "shallow",
];
/// Settings of a git directory, shown only if they are git's.
const GIT_SETTINGS_FILES: &[&str] = &["config", "config.worktree"];
/// Maximum bytes read of a settings file.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// Binds a git directory, and the one it shares with other worktrees, where git looks for them.
fn bind_git_data(data: &GitData, named: &Path, inside: &Path) -> GitDir {
    let target = normalize_path(&inside.join(named));
    let mut wanted = vec![(&data.git_dir, target.clone())];
    if let Some(common_named) = &data.commondir_target {
        wanted.push((&data.common, normalize_path(&target.join(common_named))));
    }
    let mut found = GitDir::default();
    for (source, target) in wanted {
        let kept = UNBOUND_DIRS.iter().any(|kept| target.starts_with(kept))
            || (named.is_relative() && SANDBOX_DIRS.iter().any(|own| target.starts_with(own)));
        if target.starts_with(WORKSPACE_PATH) {
            // Another repository of the run, which is mounted there anyway.
            continue;
        }
        if kept || target == Path::new("/") || target == Path::new("/tmp") {
            let target = target.display();
            found.warnings.push(format!(
                "cannot mount the git data at {target}: git finds no repository in the sandbox"
            ));
            continue;
        }
        found.warnings.push(format!(
            "the git data at {} is read-only in the sandbox: committing and staging fail there",
            source.path().display()
        ));
        let directory = source.identity();
        found.binds.extend(visible_entries(source).map(|(name, entry)| HostBind {
            examined: directory.map(|directory| examined_source(directory, entry)),
            source: source.path().join(name),
            target: target.join(name),
            missing: MissingSource::Skip,
        }));
    }
    found
}

fn examined_source(directory: FileId, entry: FileId) -> ExaminedSource {
    let identity = |(dev, ino)| FileIdentity { dev, ino };
    ExaminedSource { directory: identity(directory), entry: identity(entry) }
}

/// Returns the entries of a git directory to show, none of them a link, with the device and inode number of each: the
/// directory's owner may put another file or a link there before the sandbox opens.
fn visible_entries(directory: &RepoDirectory) -> impl Iterator<Item = (&'static str, FileId)> {
    let is_there = |name: &&'static str| Some((*name, directory.file_or_directory(name)?));
    let is_gits = |name: &&'static str| {
        let (text, identity) = directory.read_identified(name, MAX_SETTINGS_BYTES)?;
        let own = text.contains("repositoryformatversion") || text.contains("[core]");
        own.then_some((*name, identity))
    };
    let settings = GIT_SETTINGS_FILES.iter().filter_map(is_gits);
    GIT_DIR_ENTRIES.iter().filter_map(is_there).chain(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::PathBuf;

    fn find(tree: &Path) -> GitDir {
        let open = fs::File::open(tree).unwrap();
        find_external_git(WorkTree { path: tree, fd: open.as_fd() }, Path::new(WORKSPACE_PATH))
    }

    fn examined(path: &Path) -> Option<ExaminedSource> {
        let id = |path: &Path| fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino())).unwrap();
        Some(examined_source(id(path.parent().unwrap()), id(path)))
    }

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
        fs::write(main.join("config"), "[core]\n\trepositoryformatversion = 0\n").unwrap();
        fs::write(main.join("id_ed25519"), "private").unwrap();
        fs::create_dir(main.join("hooks")).unwrap();
        let found = find(&tree);
        let shown: Vec<_> = found.binds.iter().map(|bind| bind.source.strip_prefix(&main).unwrap()).collect();
        let own = ["HEAD", "commondir", "gitdir"].map(|name| Path::new("worktrees/tree").join(name));
        let shared = ["objects", "config"].map(PathBuf::from);
        assert_eq!(shown, own.iter().chain(&shared).collect::<Vec<_>>());
        assert!(
            found.binds.iter().all(|bind| bind.source == bind.target && bind.missing == MissingSource::Skip)
        );
        // Settings of another program are not shown.
        fs::write(main.join("config"), "Host example\n").unwrap();
        let found = find(&tree);
        assert!(!found.binds.iter().any(|bind| bind.source.ends_with("config")));
    }

    #[test]
    fn a_folder_that_does_not_name_this_one_is_not_shown() {
        let (_dir, main, tree) = worktree();
        fs::write(main.join("worktrees/tree/gitdir"), "/somewhere/else/.git\n").unwrap();
        let found = find(&tree);
        assert!(
            found.binds.is_empty() && found.warnings[0].contains("does not name this directory"),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_no_git_file_or_leads_out_is_only_told() {
        let (_dir, main, tree) = worktree();
        for text in ["", "gitdir:", "gitdir: /etc\n", "nonsense", "gitdir: /no/such/place"] {
            fs::write(tree.join(".git"), text).unwrap();
            let found = find(&tree);
            assert!(found.binds.is_empty() && found.warnings.len() == 1, "{text}: {found:?}");
        }
        fs::remove_file(tree.join(".git")).unwrap();
        std::os::unix::fs::symlink(&main, tree.join(".git")).unwrap();
        let found = find(&tree);
        assert!(found.binds.is_empty() && found.warnings.len() == 1, "{found:?}");
    }

    #[test]
    fn what_is_shared_is_shown_only_with_a_worktree_of_it() {
        let (dir, main, tree) = worktree();
        let root = fs::canonicalize(dir.path()).unwrap();
        let private = root.join("private/.git");
        fs::create_dir_all(private.join("objects")).unwrap();
        symlink(&private, root.join("way")).unwrap();
        for common in
            [private.to_str().unwrap(), "../../../../private/.git", "../../../../way", "..", "../../..", ""]
        {
            fs::write(main.join("worktrees/tree/commondir"), format!("{common}\n")).unwrap();
            let found = find(&tree);
            assert!(
                found.binds.is_empty() && found.warnings[0].contains("not one of its worktrees"),
                "{common}: {found:?}"
            );
        }
        fs::write(main.join("worktrees/tree/commondir"), main.to_str().unwrap()).unwrap();
        let found = find(&tree);
        assert!(found.binds.iter().any(|bind| bind.source == main.join("objects")), "{found:?}");
    }

    #[test]
    fn a_submodule_shares_nothing() {
        let (dir, main, tree) = worktree();
        let root = fs::canonicalize(dir.path()).unwrap();
        let module = root.join("super/.git/modules/tree");
        fs::create_dir_all(&module).unwrap();
        fs::write(module.join("HEAD"), "ref: refs/heads/x\n").unwrap();
        fs::write(module.join("config"), format!("[core]\n\tworktree = {}\n", tree.display())).unwrap();
        fs::write(tree.join(".git"), "gitdir: ../super/.git/modules/tree\n").unwrap();
        let found = find(&tree);
        let target = PathBuf::from("/super/.git/modules/tree");
        let shown = ["HEAD", "config"].map(|name| HostBind {
            examined: examined(&module.join(name)),
            source: module.join(name),
            target: target.join(name),
            missing: MissingSource::Skip,
        });
        assert_eq!(found.binds, shown);
        fs::write(module.join("commondir"), format!("{}\n", main.display())).unwrap();
        let found = find(&tree);
        assert!(found.binds.is_empty() && found.warnings.len() == 1, "{found:?}");
    }

    #[test]
    fn a_relative_name_covers_nothing_of_the_sandbox() {
        let (dir, ..) = worktree();
        let root = fs::canonicalize(dir.path()).unwrap();
        let (tree, module) = (root.join("deep/er/tree"), root.join("usr"));
        fs::create_dir_all(&tree).unwrap();
        fs::create_dir_all(&module).unwrap();
        fs::write(module.join("HEAD"), "ref: refs/heads/x\n").unwrap();
        fs::write(module.join("config"), format!("[core]\n\tworktree = {}\n", tree.display())).unwrap();
        fs::write(tree.join(".git"), "gitdir: ../../../usr\n").unwrap();
        let found = find(&tree);
        assert!(found.binds.is_empty() && found.warnings[0].contains("/usr"), "{found:?}");
        // Through a link and back up: the name resolves to another place than it reads.
        symlink(root.join("deep/er"), tree.join("way")).unwrap();
        fs::write(tree.join(".git"), "gitdir: way/../../usr\n").unwrap();
        let found = find(&tree);
        assert!(found.binds.is_empty() && found.warnings.len() == 1, "{found:?}");
    }

    #[test]
    fn files_that_are_none_are_not_waited_for() {
        let (_dir, main, tree) = worktree();
        let pipe = |path: &Path| {
            fs::remove_file(path).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        };
        for name in ["commondir", "gitdir", "HEAD"] {
            pipe(&main.join("worktrees/tree").join(name));
            let found = find(&tree);
            assert!(found.binds.is_empty() && found.warnings.len() == 1, "{name}: {found:?}");
        }
        pipe(&tree.join(".git"));
        let found = find(&tree);
        assert!(found.binds.is_empty() && found.warnings.len() == 1, "{found:?}");
    }
}
