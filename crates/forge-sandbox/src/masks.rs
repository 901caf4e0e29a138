//! Which files of a workspace look like credentials. Tools do not see them unless the user reveals them by name.

use forge_ports::sandbox::Error;
use forge_snapshot::{Base, Kind, RelPath};
use forge_types::Digest;
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// So much of a file is read to tell a key from a certificate.
const LOOKED_AT: u64 = 256 << 10;

/// Git's own configuration of a repository.
const GIT_CONFIG: &str = ".git/config";
/// So much of it is looked at for passwords.
const MAX_GIT_CONFIG_BYTES: u64 = 4 << 20;
/// A covered file of more bytes is not told again by its content when it was renamed.
const MAX_COVERED_BYTES: u64 = 16 << 20;

/// Folders that hold other people's files: test keys of dependencies, build results. Masking there breaks builds and
/// hides nothing that is the user's.
const SKIPPED: &[&str] = &["node_modules", "target", ".venv", "venv", "site-packages", "__pycache__", ".tox"];

/// Names of files that hold credentials whatever is in them. Compared in lower case.
const ALWAYS: &[&str] = &[
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_ecdsa_sk",
    "id_ed25519_sk",
    ".netrc",
    "_netrc",
    ".pypirc",
    ".git-credentials",
    ".dockercfg",
    ".htpasswd",
    ".pgpass",
    ".my.cnf",
    ".vault-token",
    ".terraformrc",
    "credentials.tfrc.json",
    "application_default_credentials.json",
];
/// Paths, from any folder down, that hold credentials.
const BELOW: &[&str] = &[
    ".aws/credentials",
    ".docker/config.json",
    ".kube/config",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gcloud/credentials.db",
    ".config/gh/hosts.yml",
    ".gem/credentials",
    ".azure/accesstokens.json",
    ".forge/secrets.enc",
];
/// Endings of key stores.
const ENDINGS: &[&str] = &[".key", ".p12", ".pfx", ".jks", ".keystore", ".ppk", ".kdbx"];
/// Files that hold credentials only if this stands in them: ending or name, and the words.
const IF_INSIDE: &[(&str, &[&str])] = &[
    (".pem", &["PRIVATE KEY"]),
    (".npmrc", &["_auth", "_password"]),
    (".yarnrc.yml", &["npmAuthToken", "npmAuthIdent"]),
    ("credentials.json", &["private_key", "client_secret", "refresh_token"]),
    ("service-account.json", &["private_key"]),
    ("service_account.json", &["private_key"]),
];

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    /// Paths relative to the workspace, sorted.
    pub(crate) paths: Vec<PathBuf>,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// Looks through the manifest of the workspace at `root`. `reveal` holds paths or globs that are not masked. Only
/// files whose name leaves it open are looked into.
pub(crate) fn among(root: &Path, base: &Base, reveal: &[String]) -> Masks {
    let mut scan =
        Scan { root, base, revealed: revealed(reveal), found: BTreeSet::new(), warnings: Vec::new() };
    scan.folder(&RelPath::default());
    scan.git_config();
    Masks { paths: scan.found.into_iter().collect(), warnings: scan.warnings }
}

/// Refuses a repository whose git configuration is no file: every git command in the sandbox would wait for a pipe or
/// read a device for ever.
pub(crate) fn refuse_special_git_config(root: &Path) -> Result<(), Error> {
    match forge_files::open(&root.join(GIT_CONFIG)) {
        Err(error @ forge_files::Error::NotRegular { .. }) => Err(Error::View {
            why: format!("{error}, so git can't work in this repository; remove it, or restore the file"),
        }),
        _ => Ok(()),
    }
}

/// The content of a file that is covered, by which it is told when it was renamed; `None` if it is no regular file, can't
/// be read or is large.
pub(crate) fn content(root: &Path, path: &Path) -> Option<Digest> {
    let bytes = forge_files::read_within(root, path, MAX_COVERED_BYTES).ok()?;
    Some(Digest::of(&bytes))
}

/// Whether a file of this name can be one with credentials, whatever is in it.
pub(crate) fn can_be_credential(path: &Path) -> bool {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().to_lowercase()) else { return false };
    named(path, &name) != Named::No
}

fn revealed(reveal: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for pattern in reveal {
        let pattern = pattern.trim_start_matches("./").trim_start_matches("/workspace/");
        // A name that is no valid glob is meant as it stands; one that cannot even be escaped reveals nothing.
        let glob = Glob::new(pattern).or_else(|_| Glob::new(&globset::escape(pattern)));
        if let Ok(glob) = glob {
            set.add(glob);
        }
    }
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

/// What a name says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// It holds no credentials.
    No,
    /// It holds credentials.
    Always,
    /// It holds credentials if one of these words stands in it.
    IfInside(&'static [&'static str]),
}

fn named(path: &Path, name: &str) -> Named {
    if name.starts_with(".env") || ALWAYS.contains(&name) || ENDINGS.iter().any(|e| name.ends_with(e)) {
        return Named::Always;
    }
    if BELOW.iter().any(|tail| path.ends_with(tail)) {
        return Named::Always;
    }
    let words = IF_INSIDE.iter().find(|(ending, _)| name.ends_with(ending));
    words.map_or(Named::No, |(_, words)| Named::IfInside(words))
}

struct Scan<'a> {
    root: &'a Path,
    base: &'a Base,
    revealed: GlobSet,
    found: BTreeSet<PathBuf>,
    warnings: Vec<String>,
}

impl Scan<'_> {
    fn folder(&mut self, below: &RelPath) {
        let base = self.base;
        for (name, item) in base.children(below) {
            match item.kind {
                // Packed history cannot be masked file by file; its configuration is looked at apart.
                Kind::Dir if name != b".git" && !SKIPPED.iter().any(|s| s.as_bytes() == name) => {
                    self.folder(&below.join(name));
                }
                Kind::File | Kind::Symlink => {
                    let text = String::from_utf8_lossy(name).to_lowercase();
                    // Most names are told apart without making a path.
                    if named(Path::new(OsStr::from_bytes(name)), &text) != Named::No || may_be_below(&text) {
                        self.file(below.join(name).as_path(), &text, item.kind);
                    }
                }
                _ => {}
            }
        }
    }

    fn file(&mut self, path: &Path, name: &str, kind: Kind) {
        if !self.is_credential(path, name) || self.revealed.is_match(path) {
            return;
        }
        if kind == Kind::Symlink {
            // The link stays; what it leads to is masked, if that is in the workspace.
            let real = (fs::canonicalize(self.root.join(path)), fs::canonicalize(self.root));
            if let (Ok(target), Ok(root)) = real
                && let Ok(below) = target.strip_prefix(&root)
                && target.is_file()
                && !self.revealed.is_match(below)
            {
                self.found.insert(below.to_owned());
            }
        } else if kind == Kind::File {
            self.found.insert(path.to_owned());
        }
    }

    fn is_credential(&self, path: &Path, name: &str) -> bool {
        match named(path, name) {
            Named::No => false,
            Named::Always => true,
            Named::IfInside(words) => holds(&self.root.join(path), words),
        }
    }

    /// Git's own configuration cannot be masked without breaking git: a password in it is the user's to move.
    fn git_config(&mut self) {
        let text = match forge_files::read(&self.root.join(GIT_CONFIG), MAX_GIT_CONFIG_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.is_absent() => return,
            Err(error) => {
                let why = error.reason();
                self.warnings.push(format!("{GIT_CONFIG} was not looked at for passwords: {why}"));
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
                ".git/config holds a password or token that commands in the sandbox can read; \
                 use a credential helper instead"
                    .to_owned(),
            );
        }
    }
}

/// Whether a file of this name, in lower case, holds credentials in some folders.
fn may_be_below(name: &str) -> bool {
    BELOW.iter().any(|tail| tail.ends_with(name))
}

/// Whether one of `words` stands in the beginning of a file. One that cannot be read is taken to hold them.
fn holds(path: &Path, words: &[&str]) -> bool {
    if !fs::symlink_metadata(path).is_ok_and(|m| m.is_file() || m.is_symlink()) {
        return false;
    }
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return false;
    }
    match forge_files::read_start(path, LOOKED_AT) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            words.iter().any(|word| text.contains(word))
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(root: &Path, reveal: &[String]) -> Masks {
        among(root, &Base::take(root).unwrap(), reveal)
    }

    fn found(files: &[(&str, &str)], reveal: &[&str]) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let reveal: Vec<String> = reveal.iter().map(|r| (*r).to_owned()).collect();
        scan(root.path(), &reveal).paths.iter().map(|p| p.display().to_string()).collect()
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
        assert_eq!(scan(root.path(), &[]).paths, [PathBuf::from("plain.txt")]);
    }

    #[test]
    fn a_password_in_gits_configuration_is_reported() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".git")).unwrap();
        let config = root.path().join(".git/config");
        fs::write(&config, "[remote \"origin\"]\n url = https://me:token@host/x.git\n").unwrap();
        assert_eq!(scan(root.path(), &[]).warnings.len(), 1);
        fs::write(&config, "[remote \"origin\"]\n url = https://host/x.git\n").unwrap();
        assert!(scan(root.path(), &[]).warnings.is_empty());
    }
}
