//! Search of a repository's manifest for credentials.

use crate::inspect::{self, open_root};
use crate::names::{FileOrigin, NameVerdict, RevealedPaths, classify_name};
use crate::scan_cache::{DirectoryFingerprint, ScanCache};
use forge_snapshot::{BaseItem, BaseManifest, NodeKind, RelPath};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Period before a scan within which a changed file may change again without a new modification time.
const RACY_NS: i64 = 2_000_000_000;
/// The repository's git configuration.
const GIT_CONFIG_PATH: &str = ".git/config";
/// Maximum size of the git configuration that is searched for passwords.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Result of the first scan, which reads hardly any files.
#[derive(Debug)]
pub struct CredentialScan {
    /// Paths relative to the repository.
    pub paths: BTreeSet<PathBuf>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Files that must be read to be classified.
    pub unread: UnreadFiles,
}

/// Files that must be read to detect private keys.
#[derive(Debug)]
pub struct UnreadFiles {
    root: PathBuf,
    base: Arc<BaseManifest>,
    revealed: RevealedPaths,
    directories: Vec<(RelPath, u64, DirectoryFingerprint)>,
    files: usize,
    known: ScanCache,
    cache_path: Option<PathBuf>,
    racy_ns: i64,
}

/// Scans the manifest `base` of the repository at `root`. `kept` is the file that caches results for the next scan, in
/// a directory that only this user can access.
#[must_use]
pub fn scan_manifest(
    root: &Path,
    base: &Arc<BaseManifest>,
    revealed: RevealedPaths,
    kept: Option<PathBuf>,
) -> CredentialScan {
    let known = kept.as_deref().map(ScanCache::load).unwrap_or_default();
    let unread = UnreadFiles {
        root: root.to_owned(),
        base: Arc::clone(base),
        revealed,
        directories: Vec::new(),
        files: 0,
        known,
        cache_path: kept,
        racy_ns: RACY_NS,
    };
    let mut found = CredentialScan { paths: BTreeSet::new(), warnings: Vec::new(), unread };
    if let Ok(open) = open_root(root) {
        found.scan_directory(&open, base, &RelPath::default(), FileOrigin::Own);
    }
    let linked = find_hard_links(base, &found.paths, &found.unread.revealed);
    found.paths.extend(linked);
    found.check_git_config(root);
    found
}

impl CredentialScan {
    fn scan_directory(&mut self, root: &OwnedFd, base: &BaseManifest, path: &RelPath, place: FileOrigin) {
        let number = base.get(path).map_or(0, |item| item.ino);
        let mut print = DirectoryFingerprint::new(number);
        let mut candidates = 0;
        for (name, item) in base.children(path) {
            match item.kind {
                // Packed history cannot be covered file by file; its configuration is checked separately.
                NodeKind::Dir if name != b".git" => {
                    self.scan_directory(root, base, &path.join(name), place.for_child(name));
                }
                NodeKind::File | NodeKind::Symlink => {
                    if classify_name(name, place) != NameVerdict::No {
                        self.scan_file(root, path.join(name).as_path(), place, item.kind);
                    }
                    if item.kind == NodeKind::File {
                        print.add_file(name, &item);
                        candidates += usize::from(inspect::may_be_key(name, item.size));
                    }
                }
                _ => {}
            }
        }
        if candidates == 0 {
            return;
        }
        match self.unread.known.get(number, &print) {
            Some(known) => {
                let keys = known.keys.iter().map(|name| path.join(name).as_path().to_owned());
                let shown = keys.filter(|key| !self.unread.revealed.contains(key));
                self.paths.extend(shown);
            }
            None => {
                self.unread.files += candidates;
                self.unread.directories.push((path.clone(), number, print));
            }
        }
    }

    fn scan_file(&mut self, root: &OwnedFd, path: &Path, place: FileOrigin, kind: NodeKind) {
        let revealed = &self.unread.revealed;
        if revealed.contains(path) {
            return;
        }
        if kind == NodeKind::File {
            if inspect::has_credential_name(root, path, place) {
                self.paths.insert(path.to_owned());
            }
        } else if let Some(below) = resolve_link_inside(&self.unread.root, path)
            && !revealed.contains(&below)
            // The link is kept; its target is covered, judged by the link's name.
            && inspect::has_credential_name_through_link(root, path, &below, place)
        {
            self.paths.insert(below);
        }
    }

    /// Warns of a password in git's configuration, which cannot be covered without breaking git.
    fn check_git_config(&mut self, root: &Path) {
        let text = match forge_files::read(&root.join(GIT_CONFIG_PATH), MAX_CONFIG_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.is_absent() => return,
            Err(error) => {
                let why = error.reason();
                self.warnings.push(format!("{GIT_CONFIG_PATH} was not checked for passwords: {why}"));
                return;
            }
        };
        let inline = text.lines().any(|line| {
            let line = line.trim().to_lowercase();
            let password = line.split_once("://").and_then(|(_, rest)| rest.split('/').next());
            password.is_some_and(|host| host.contains('@') && host.contains(':'))
                || line.starts_with("extraheader")
        });
        if inline {
            self.warnings.push(
                ".git/config contains a password or token that commands in the sandbox can read; use a credential \
                 helper instead"
                    .to_owned(),
            );
        }
    }
}

/// Returns the regular file in the repository to which a link points.
pub(crate) fn resolve_link_inside(root: &Path, link: &Path) -> Option<PathBuf> {
    let (target, root) = (fs::canonicalize(root.join(link)).ok()?, fs::canonicalize(root).ok()?);
    let below = target.strip_prefix(&root).ok()?.to_owned();
    fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_file()).then_some(below)
}

/// Finds all other names of the files at `paths`.
pub(crate) fn find_hard_links(
    base: &BaseManifest,
    paths: &BTreeSet<PathBuf>,
    revealed: &RevealedPaths,
) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let item = |path: &PathBuf| base.get(&RelPath::new(path.as_os_str().as_bytes())?);
    let numbers: HashSet<u64> =
        paths.iter().filter_map(item).filter(|item| item.linked).map(|item| item.ino).collect();
    if numbers.is_empty() {
        return Vec::new();
    }
    let is_one = |item: &BaseItem| item.kind == NodeKind::File && item.linked && numbers.contains(&item.ino);
    let all = base.entries_below(&RelPath::default()).filter(|(_, item)| is_one(item));
    let paths = all.map(|(path, _)| path.as_path().to_owned());
    paths.filter(|path| !revealed.contains(path)).collect()
}

impl UnreadFiles {
    /// Returns the number of files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files
    }

    /// Returns whether there are no files.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Reads the beginning of each file and caches the results. Returns the private keys with all their names, or only
    /// some of them if `stop` is set.
    #[must_use]
    pub fn find_private_keys(mut self, stop: &AtomicBool) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let Ok(root) = open_root(&self.root) else { return found };
        for (path, number, print) in std::mem::take(&mut self.directories) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let Some(directory) = inspect::open_directory(&root, path.as_path()) else { continue };
            let candidates = self
                .base
                .children(&path)
                .filter(|(name, item)| item.kind == NodeKind::File && inspect::may_be_key(name, item.size));
            let keys: Vec<Vec<u8>> = candidates
                .filter(|(name, _)| inspect::is_key(&directory, name))
                .map(|(name, _)| name.to_vec())
                .collect();
            found.extend(keys.iter().map(|name| path.join(name).as_path().to_owned()));
            if print.newest_ns < self.base.scanned_at_ns().saturating_sub(self.racy_ns) {
                self.known.insert(number, &print, keys);
            } else {
                self.known.remove(number);
            }
        }
        if let Some(kept) = &self.cache_path {
            // Without the cache, the next scan reads the files again.
            let _ = self.known.save(kept);
        }
        found.retain(|path| !self.revealed.contains(path));
        let linked = find_hard_links(&self.base, &found, &self.revealed);
        found.extend(linked);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all paths found, including those that had to be read.
    fn scan(root: &Path, reveal: &[String], kept: Option<PathBuf>) -> (Vec<PathBuf>, Vec<String>, usize) {
        let base = Arc::new(BaseManifest::scan_tree(root).unwrap());
        let CredentialScan { mut paths, warnings, unread } =
            scan_manifest(root, &base, RevealedPaths::new(reveal), kept);
        let read = unread.len();
        paths.extend(unread.find_private_keys(&AtomicBool::new(false)));
        (paths.into_iter().collect(), warnings, read)
    }

    fn found(files: &[(&str, &str)], reveal: &[&str]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let reveal: Vec<String> = reveal.iter().map(|r| (*r).to_owned()).collect();
        scan(root.path(), &reveal, None).0.iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn what_looks_like_a_credential_is_found() {
        let got = found(
            &[
                (".env", ""),
                (".env.local", ""),
                (".envrc", ""),
                ("env.py", ""),
                ("deploy/ID_RSA", ""),
                ("deploy/id_rsa.pub", ""),
                ("tls/server.key", ""),
                ("tls/cert.pem", "-----BEGIN CERTIFICATE-----"),
                ("tls/both.pem", "-----BEGIN EC PRIVATE KEY-----"),
                (".npmrc", "//registry/:_authToken=x"),
                ("sub/.npmrc", "save-exact=true"),
                ("home/.aws/credentials", ""),
                ("credentials", ""),
                ("node_modules/x/test.key", ""),
                (".git/id_rsa", ""),
                ("keyboard.rs", ""),
            ],
            &[],
        );
        let wanted = [
            ".env",
            ".env.local",
            ".envrc",
            ".npmrc",
            "deploy/ID_RSA",
            "home/.aws/credentials",
            "tls/both.pem",
            "tls/server.key",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn what_is_revealed_by_name_or_glob_is_left() {
        let files = [(".env", ""), (".env.example", ""), ("a/b.key", ""), ("a/c.key", "")];
        assert_eq!(found(&files, &[".env.example", "a/*.key"]), [".env"]);
        assert_eq!(found(&files, &["/workspace/.env", "./a/b.key"]), [".env.example", "a/c.key"]);
        assert_eq!(found(&files, &["["]).len(), 4);
    }

    #[test]
    fn a_link_with_such_a_name_masks_what_it_leads_to() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("plain.txt"), "SECRET").unwrap();
        std::os::unix::fs::symlink("plain.txt", root.path().join(".env")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join(".env.out")).unwrap();
        assert_eq!(scan(root.path(), &[], None).0, [PathBuf::from("plain.txt")]);
    }

    #[test]
    fn a_password_in_gits_configuration_is_reported() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".git")).unwrap();
        let config = root.path().join(".git/config");
        fs::write(&config, "[remote \"origin\"]\n url = https://me:token@host/x.git\n").unwrap();
        assert_eq!(scan(root.path(), &[], None).1.len(), 1);
        fs::write(&config, "[remote \"origin\"]\n url = https://host/x.git\n").unwrap();
        assert!(scan(root.path(), &[], None).1.is_empty());
    }

    const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAA\n";

    #[test]
    fn a_key_is_found_under_any_name_and_an_environment_file_among_dependencies() {
        let got = found(
            &[
                ("deploy_key", KEY),
                ("conf/server.crt", &format!("-----BEGIN CERTIFICATE-----\nAAAA\n{KEY}")),
                ("notes.txt", KEY),
                ("target/debug/notes", KEY),
                ("node_modules/x/.env", ""),
                ("node_modules/x/.env.example", ""),
                ("node_modules/x/test/id_rsa", ""),
                ("venv/lib/site-packages/x/key.pem", KEY),
                ("src/main.rs", KEY),
                ("README.md", "-----BEGIN CERTIFICATE-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
                (".git/deploy_key", KEY),
                ("shown", KEY),
                ("large.txt", &format!("{KEY}{}", "A".repeat(70_000))),
            ],
            &["shown"],
        );
        let wanted = [
            "conf/server.crt",
            "deploy_key",
            "node_modules/x/.env",
            "notes.txt",
            "target/debug/notes",
            "venv/lib/site-packages/x/key.pem",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn every_name_of_a_file_is_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        for (path, text) in [(".env", "A=1"), ("deploy", KEY)] {
            fs::write(root.path().join(path), text).unwrap();
            fs::hard_link(
                root.path().join(path),
                root.path().join(format!("sub/{}.rs", path.trim_matches('.'))),
            )
            .unwrap();
        }
        let wanted = [".env", "deploy", "sub/deploy.rs", "sub/env.rs"].map(PathBuf::from);
        assert_eq!(scan(root.path(), &[], None).0, wanted);
    }

    #[test]
    fn what_was_read_is_not_read_again_until_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let kept = Some(root.path().join(".git/kept"));
        for path in ["a/deploy", "a/other", "b/text"] {
            fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            fs::write(
                root.path().join(path),
                if path == "a/deploy" { KEY } else { "Text that is long enough for a key." },
            )
            .unwrap();
        }
        // Files that have just changed are read each time.
        assert_eq!(scan(root.path(), &[], kept.clone()).2, 3);
        assert_eq!(scan(root.path(), &[], kept.clone()).2, 3);
        let look = |wait_ns: i64| {
            let base = Arc::new(BaseManifest::scan_tree(root.path()).unwrap());
            let mut found = scan_manifest(root.path(), &base, RevealedPaths::default(), kept.clone());
            found.unread.racy_ns = wait_ns;
            let (read, known) = (found.unread.len(), found.paths);
            (read, known, found.unread.find_private_keys(&AtomicBool::new(false)))
        };
        let deploy = BTreeSet::from([PathBuf::from("a/deploy")]);
        assert_eq!(look(i64::MIN), (3, BTreeSet::new(), deploy.clone()));
        assert_eq!(look(i64::MIN), (0, deploy.clone(), BTreeSet::new()));
        // A different file with the same size and modification time.
        let text = root.path().join("b/text");
        let modified = fs::metadata(&text).unwrap().modified().unwrap();
        fs::write(&text, &KEY[..35]).unwrap();
        fs::File::open(&text).unwrap().set_modified(modified).unwrap();
        assert_eq!(look(i64::MIN), (1, deploy, BTreeSet::from([PathBuf::from("b/text")])));
    }
}
