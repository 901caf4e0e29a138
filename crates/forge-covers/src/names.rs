//! Recognition of credential files by their names.

use globset::{Glob, GlobSet, GlobSetBuilder};
use std::path::Path;

/// Directories with third-party files: dependencies and build output. Test keys with typical names are common there,
/// and a build fails if they are empty, so only environment files count by name.
const DEPENDENCY_DIRS: &[&[u8]] =
    &[b"node_modules", b"target", b".venv", b"venv", b"site-packages", b"__pycache__", b".tox"];

/// Endings of paths that hold credentials, in lower case.
const CREDENTIAL_PATHS: &[&str] = &[
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

/// Suffixes of example environment files, which are distributed with a project to be copied and filled in.
const EXAMPLE_SUFFIXES: &[&[u8]] = &[b".example", b".sample", b".template", b".dist", b".defaults"];

/// The verdict on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameVerdict {
    /// Not a credential.
    No,
    /// The file holds credentials.
    Always,
    /// The file holds credentials if it contains one of these words.
    IfInside(&'static [&'static str]),
    /// The file holds credentials in some directories.
    Below,
}

/// The origin of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileOrigin {
    /// The user's own files.
    Own,
    /// Files of dependencies.
    Dependencies,
}

impl FileOrigin {
    /// Returns the origin of a path in the repository.
    pub(crate) fn of_path(path: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        path.parent().map_or(Self::Own, |parent| {
            parent.iter().fold(Self::Own, |place, part| place.for_child(part.as_bytes()))
        })
    }

    /// Returns the origin of the entries of the subdirectory `name`.
    pub(crate) fn for_child(self, name: &[u8]) -> Self {
        if DEPENDENCY_DIRS.contains(&name) { Self::Dependencies } else { self }
    }
}

/// Classifies the name of a file with this origin.
pub(crate) fn classify_name(name: &[u8], place: FileOrigin) -> NameVerdict {
    let mut room = [0; 255];
    let Some(lower) = room.get_mut(..name.len()) else { return NameVerdict::No };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let lower = &*lower;
    match place {
        FileOrigin::Dependencies if is_environment(lower) => NameVerdict::Always,
        FileOrigin::Dependencies => NameVerdict::No,
        FileOrigin::Own => classify_own_name(lower),
    }
}

/// Returns whether the name is that of an environment file in use.
fn is_environment(name: &[u8]) -> bool {
    let example = || EXAMPLE_SUFFIXES.iter().any(|ending| name.ends_with(ending));
    name == b".env" || name == b".envrc" || (name.starts_with(b".env.") && !example())
}

fn classify_own_name(name: &[u8]) -> NameVerdict {
    const NPM_TOKEN_KEYS: &[&str] = &["_auth", "_password"];
    const YARN_TOKEN_KEYS: &[&str] = &["npmAuthToken", "npmAuthIdent"];
    const SERVICE_ACCOUNT_KEYS: &[&str] = &["private_key", "client_secret", "refresh_token"];
    if name.starts_with(b".env") {
        return NameVerdict::Always;
    }
    match name {
        b"id_rsa"
        | b"id_dsa"
        | b"id_ecdsa"
        | b"id_ed25519"
        | b"id_ecdsa_sk"
        | b"id_ed25519_sk"
        | b".netrc"
        | b"_netrc"
        | b".pypirc"
        | b".git-credentials"
        | b".dockercfg"
        | b".htpasswd"
        | b".pgpass"
        | b".my.cnf"
        | b".vault-token"
        | b".terraformrc"
        | b"credentials.tfrc.json"
        | b"application_default_credentials.json" => return NameVerdict::Always,
        b"credentials" | b"config.json" | b"config" | b"credentials.toml" | b"credentials.db"
        | b"hosts.yml" | b"accesstokens.json" | b"secrets.enc" => return NameVerdict::Below,
        _ => {}
    }
    match name.iter().rposition(|byte| *byte == b'.').map(|at| &name[at + 1..]) {
        Some(b"key" | b"p12" | b"pfx" | b"jks" | b"keystore" | b"ppk" | b"kdbx") => NameVerdict::Always,
        Some(b"pem") => NameVerdict::IfInside(&["PRIVATE KEY"]),
        Some(b"npmrc") => NameVerdict::IfInside(NPM_TOKEN_KEYS),
        Some(b"yml") if name.ends_with(b".yarnrc.yml") => NameVerdict::IfInside(YARN_TOKEN_KEYS),
        Some(b"json") if name.ends_with(b"credentials.json") => NameVerdict::IfInside(SERVICE_ACCOUNT_KEYS),
        Some(b"json")
            if name.ends_with(b"service-account.json") || name.ends_with(b"service_account.json") =>
        {
            NameVerdict::IfInside(&["private_key"])
        }
        _ => NameVerdict::No,
    }
}

/// Returns whether a path ends like one of those that hold credentials.
pub(crate) fn is_credential_path(path: &Path) -> bool {
    let lower = path.as_os_str().to_ascii_lowercase();
    CREDENTIAL_PATHS.iter().any(|tail| Path::new(&lower).ends_with(tail))
}

/// Returns whether a file with this name can hold credentials, regardless of its content.
#[must_use]
pub fn can_be_credential(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(name) = path.file_name() else { return false };
    match classify_own_name(&name.as_bytes().to_ascii_lowercase()) {
        NameVerdict::No => false,
        NameVerdict::Below => is_credential_path(path),
        NameVerdict::Always | NameVerdict::IfInside(_) => true,
    }
}

/// Returns whether a name has a suffix of source code, markup, images, audio, archives or compiled code. Files that
/// start like a key never have such names, so these are not read.
#[rustfmt::skip]
pub(crate) fn is_never_a_key(name: &[u8]) -> bool {
    let Some(dot) = name.iter().rposition(|byte| *byte == b'.') else { return false };
    matches!(
        &name[dot + 1..],
        b"rs" | b"c" | b"h" | b"cc" | b"cpp" | b"cxx" | b"hh" | b"hpp" | b"m" | b"mm" | b"go" | b"py" | b"pyi" | b"rb"
        | b"php" | b"java" | b"kt" | b"scala" | b"swift" | b"cs" | b"fs" | b"js" | b"jsx" | b"mjs" | b"cjs" | b"ts"
        | b"tsx" | b"mts" | b"cts" | b"vue" | b"svelte" | b"html" | b"htm" | b"css" | b"scss" | b"sass" | b"less"
        | b"map" | b"svg" | b"png" | b"jpg" | b"jpeg" | b"gif" | b"webp" | b"ico" | b"woff" | b"woff2" | b"ttf"
        | b"otf" | b"eot" | b"mp3" | b"mp4" | b"ogg" | b"wav" | b"webm" | b"pdf" | b"zip" | b"gz" | b"xz" | b"bz2"
        | b"zst" | b"tar" | b"jar" | b"whl" | b"o" | b"a" | b"so" | b"rlib" | b"rmeta" | b"d" | b"pyc" | b"class"
        | b"wasm"
    )
}

/// Paths that the user reveals although they look like credentials.
#[derive(Clone, Debug, Default)]
pub struct RevealedPaths(GlobSet);

impl RevealedPaths {
    /// Compiles paths or globs, relative to the repository or to `/workspace`.
    #[must_use]
    pub fn new(patterns: &[String]) -> Self {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.trim_start_matches("./").trim_start_matches("/workspace/");
            // A name that is not a valid glob is taken literally; one that cannot even be escaped reveals nothing.
            let glob = Glob::new(pattern).or_else(|_| Glob::new(&globset::escape(pattern)));
            if let Ok(glob) = glob {
                set.add(glob);
            }
        }
        Self(set.build().unwrap_or_else(|_| GlobSet::empty()))
    }

    /// Returns whether a path is revealed.
    #[must_use]
    pub fn contains(&self, path: &Path) -> bool {
        self.0.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_hide_only_environment_files_in_use_by_name() {
        let says = |path: &str| {
            let path = Path::new(path);
            classify_name(path.file_name().unwrap().as_encoded_bytes(), FileOrigin::of_path(path))
                != NameVerdict::No
        };
        for path in [
            ".env",
            "a/.env.example",
            "target/.env",
            "x/node_modules/y/.ENV.local",
            ".venv/.envrc",
            "a/x.key",
        ] {
            assert!(says(path), "{path}");
        }
        for path in [
            "target/x.key",
            "node_modules/y/.env.example",
            "venv/id_rsa",
            "keyboard.rs",
            "env.py",
            ".tox/.environ",
        ] {
            assert!(!says(path), "{path}");
        }
        assert!(says(&format!(".env.{}", "x".repeat(200))) && !says(&"x".repeat(400)));
    }
}
