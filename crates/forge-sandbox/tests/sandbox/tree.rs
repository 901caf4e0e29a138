//! Trees of files as values, taken outside and inside sandboxes, and git on the host.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

/// Everything below a directory: path and description.
pub(crate) type Tree = BTreeMap<String, String>;

/// Script that prints everything below the current directory: kind, mode, target, content; whatever a user could
/// distinguish.
pub(crate) const SCRIPT: &str = r#"python3 - <<'END'
import os, stat, hashlib
for folder, folders, files in sorted(os.walk('.')):
    folders.sort()
    for name in sorted(folders + files):
        path = os.path.join(folder, name)
        s = os.lstat(path)
        what = ''
        if stat.S_ISLNK(s.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(s.st_mode):
            try:
                what = hashlib.sha256(open(path, 'rb').read()).hexdigest() + ' %d' % s.st_mtime_ns
            except PermissionError:
                what = 'closed'
        mode = '' if stat.S_ISLNK(s.st_mode) else oct(s.st_mode)
        print(path, mode, what)
END"#;

/// Returns everything below `root`, with times, numbers and content.
pub(crate) fn of(root: &Path) -> Tree {
    let mut tree = Tree::new();
    add(root, root, &mut tree);
    tree
}

fn add(root: &Path, path: &Path, tree: &mut Tree) {
    let meta = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().display().to_string();
    let content = if meta.is_file() {
        let bytes = fs::read(path).unwrap();
        format!("{} {:?}", bytes.len(), forge_types::Digest::of_bytes(&bytes))
    } else if meta.is_symlink() {
        fs::read_link(path).unwrap().display().to_string()
    } else {
        String::new()
    };
    let times =
        format!("{}.{} {} {}:{}", meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.uid(), meta.gid());
    tree.insert(name, format!("{:o} {content} | {times}", meta.mode()));
    if meta.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| add(root, entry, tree));
    }
}

/// Returns the tree without times and numbers.
pub(crate) fn contents(tree: &Tree) -> Tree {
    let content = |what: &String| what.split(" | ").next().unwrap().to_owned();
    tree.iter().map(|(path, what)| (path.clone(), content(what))).collect()
}

/// Runs git on the host and returns its output.
pub(crate) fn git(repo: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(repo)
        .args([
            "-c",
            "user.name=Person",
            "-c",
            "user.email=person@localhost",
            "-c",
            "safe.directory=*",
            "-c",
            "gc.auto=0",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
