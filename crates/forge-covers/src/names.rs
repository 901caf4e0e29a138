//! Files that hold credentials by their names.

use globset::{Glob, GlobSet, GlobSetBuilder};
use std::path::Path;

/// Directories that hold other people's files: dependencies, and what builds made of them. Test keys with telling names
/// are common there, and a build that finds them empty fails: only environment files count by name.
const DEPENDENCIES: &[&[u8]] =
    &[b"node_modules", b"target", b".venv", b"venv", b"site-packages", b"__pycache__", b".tox"];

/// Paths, from any directory down, that hold credentials. In lower case.
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

/// Endings of environment files that are handed out with a project, to be copied and filled in.
const EXAMPLES: &[&[u8]] = &[b".example", b".sample", b".template", b".dist", b".defaults"];

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing.
    No,
    /// The file holds credentials.
    Always,
    /// It holds credentials if one of these words stands in it.
    IfInside(&'static [&'static str]),
    /// It does in some directories.
    Below,
}

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among the user's own files.
    Own,
    /// Among those of dependencies.
    Dependencies,
}

impl Place {
    /// The place of a path in the repository.
    pub(crate) fn of(path: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        path.parent().map_or(Self::Own, |parent| {
            parent.iter().fold(Self::Own, |place, part| place.below(part.as_bytes()))
        })
    }

    /// The place of what lies in the directory `name` of this one.
    pub(crate) fn below(self, name: &[u8]) -> Self {
        if DEPENDENCIES.contains(&name) { Self::Dependencies } else { self }
    }
}

/// What the name of a file says that lies at a place.
pub(crate) fn named(name: &[u8], place: Place) -> Named {
    let mut room = [0; 255];
    let Some(lower) = room.get_mut(..name.len()) else { return Named::No };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let lower = &*lower;
    match place {
        Place::Dependencies if is_environment(lower) => Named::Always,
        Place::Dependencies => Named::No,
        Place::Own => own(lower),
    }
}

/// Environment files in use.
fn is_environment(name: &[u8]) -> bool {
    let example = || EXAMPLES.iter().any(|ending| name.ends_with(ending));
    name == b".env" || name == b".envrc" || (name.starts_with(b".env.") && !example())
}

fn own(name: &[u8]) -> Named {
    const TOKENS: &[&str] = &["_auth", "_password"];
    const YARN: &[&str] = &["npmAuthToken", "npmAuthIdent"];
    const ACCOUNT: &[&str] = &["private_key", "client_secret", "refresh_token"];
    if name.starts_with(b".env") {
        return Named::Always;
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
        | b"application_default_credentials.json" => return Named::Always,
        b"credentials" | b"config.json" | b"config" | b"credentials.toml" | b"credentials.db"
        | b"hosts.yml" | b"accesstokens.json" | b"secrets.enc" => return Named::Below,
        _ => {}
    }
    match name.iter().rposition(|byte| *byte == b'.').map(|at| &name[at + 1..]) {
        Some(b"key" | b"p12" | b"pfx" | b"jks" | b"keystore" | b"ppk" | b"kdbx") => Named::Always,
        Some(b"pem") => Named::IfInside(&["PRIVATE KEY"]),
        Some(b"npmrc") => Named::IfInside(TOKENS),
        Some(b"yml") if name.ends_with(b".yarnrc.yml") => Named::IfInside(YARN),
        Some(b"json") if name.ends_with(b"credentials.json") => Named::IfInside(ACCOUNT),
        Some(b"json")
            if name.ends_with(b"service-account.json") || name.ends_with(b"service_account.json") =>
        {
            Named::IfInside(&["private_key"])
        }
        _ => Named::No,
    }
}

/// Whether a path ends as one of those that hold credentials.
pub(crate) fn is_below(path: &Path) -> bool {
    let lower = path.as_os_str().to_ascii_lowercase();
    BELOW.iter().any(|tail| Path::new(&lower).ends_with(tail))
}

/// Whether a file of this name can be one with credentials, whatever is in it.
#[must_use]
pub fn can_be_credential(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(name) = path.file_name() else { return false };
    match own(&name.as_bytes().to_ascii_lowercase()) {
        Named::No => false,
        Named::Below => is_below(path),
        Named::Always | Named::IfInside(_) => true,
    }
}

/// Endings of files that are source code, markup, images, sound, archives or compiled code. What begins as a key is none
/// of these, so they are not looked into.
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

/// Paths that the user wants to be seen although they look like credentials.
#[derive(Clone, Debug, Default)]
pub struct Revealed(GlobSet);

impl Revealed {
    /// Paths or globs, relative to the repository or to `/workspace`.
    #[must_use]
    pub fn new(patterns: &[String]) -> Self {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.trim_start_matches("./").trim_start_matches("/workspace/");
            // A name that is no valid glob is meant as it stands; one that cannot even be escaped reveals nothing.
            let glob = Glob::new(pattern).or_else(|_| Glob::new(&globset::escape(pattern)));
            if let Ok(glob) = glob {
                set.add(glob);
            }
        }
        Self(set.build().unwrap_or_else(|_| GlobSet::empty()))
    }

    /// Whether a path is among them.
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
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
            named(path.file_name().unwrap().as_encoded_bytes(), Place::of(path)) != Named::No
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
