//! The object format of a repository, the only thing read from its configuration except `core.worktree`.

use crate::Error;
use crate::directory::RepoDirectory;

/// Maximum size of a configuration file.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Extensions that do not affect anything read or written here.
const HARMLESS_EXTENSIONS: &[&str] = &[
    "noop",
    "noop-v1",
    "preciousobjects",
    "partialclone",
    "worktreeconfig",
    "relativeworktrees",
    "submodulepathconfig",
];

/// The digest that names objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObjectFormat {
    Sha1,
    Sha256,
}

impl ObjectFormat {
    pub(super) const fn config_value(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// Returns the length of an object name in hexadecimal digits.
    pub(super) const fn hex_len(self) -> usize {
        match self {
            Self::Sha1 => 40,
            Self::Sha256 => 64,
        }
    }

    /// Returns whether a text is an object name.
    pub(super) fn is_object_id(self, text: &str) -> bool {
        text.len() == self.hex_len() && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }
}

/// Reads the object format of the repository with the common git directory `common`.
pub(super) fn read_object_format(common: &RepoDirectory) -> Result<ObjectFormat, Error> {
    let text = match common.read_text("config", MAX_CONFIG_BYTES) {
        Err(error) if error.is_absent() => return Ok(ObjectFormat::Sha1),
        text => text?,
    };
    let path = common.path().join("config");
    let mut format = ObjectFormat::Sha1;
    for (section, key, value) in parse_settings(&text) {
        let value = value.to_ascii_lowercase();
        match (section.as_str(), key.as_str(), value.as_str()) {
            ("core", "repositoryformatversion", "0" | "1") => {}
            ("core", "repositoryformatversion", _) => {
                return Err(Error::refused(&path, format!("declares the unknown repository format {value}")));
            }
            ("extensions", "objectformat", "sha1") => format = ObjectFormat::Sha1,
            ("extensions", "objectformat", "sha256") => format = ObjectFormat::Sha256,
            ("extensions", "refstorage", "files") => {}
            ("extensions", key, _) if HARMLESS_EXTENSIONS.contains(&key) => {}
            ("extensions", _, _) => {
                let why = format!("requires the extension {key} = {value}, which branches do not support");
                return Err(Error::refused(&path, why));
            }
            _ => {}
        }
    }
    Ok(format)
}

/// Reads the working directory that the configuration of a git directory names.
pub(super) fn read_work_tree(git_dir: &RepoDirectory) -> Option<String> {
    ["config.worktree", "config"].iter().find_map(|name| {
        let text = git_dir.read_text(name, MAX_CONFIG_BYTES).ok()?;
        let named = parse_settings(&text)
            .into_iter()
            .rfind(|(section, key, _)| section == "core" && key == "worktree");
        named.map(|(_, _, value)| value)
    })
}

/// Parses the settings of sections without a subsection into section, key (both in lower case) and value. Included
/// files are not read.
fn parse_settings(text: &str) -> Vec<(String, String, String)> {
    let text = text.trim_start_matches('\u{feff}').replace("\\\r\n", "").replace("\\\n", "");
    let mut found = Vec::new();
    let mut section: Option<String> = None;
    for line in text.lines() {
        let mut line = line.trim();
        if let Some(rest) = line.strip_prefix('[') {
            // A quoted name may contain brackets; such sections are skipped.
            let named = rest.split(']').next().is_some_and(|head| head.contains('"') || head.contains('.'));
            let Some((head, after)) = (if named { rest.rsplit_once(']') } else { rest.split_once(']') })
            else {
                section = None;
                continue;
            };
            section = (!named).then(|| head.trim().to_ascii_lowercase());
            line = after.trim();
        }
        let Some(section) = &section else { continue };
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, "true"));
        found.push((section.clone(), key.trim().to_ascii_lowercase(), unquote_value(value)));
    }
    found
}

/// Returns a value without quotes, escapes and comments.
fn unquote_value(value: &str) -> String {
    let (mut plain, mut quoted, mut characters) = (String::new(), false, value.trim().chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' => plain.extend(characters.next()),
            '#' | ';' if !quoted => break,
            other => plain.push(other),
        }
    }
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(config: &str) -> Result<ObjectFormat, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config"), config).unwrap();
        read_object_format(&RepoDirectory::open(dir.path()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_form_is_read_and_what_is_not_known_is_refused() {
        assert_eq!(format(""), Ok(ObjectFormat::Sha1));
        let plain = "[core]\n\trepositoryformatversion = 1\n[extensions] objectFormat = \"sha256\" ; so\n\tpartialClone = x\n";
        assert_eq!(format(plain), Ok(ObjectFormat::Sha256));
        assert_eq!(format("[EXTENSIONS]\n ObjectFormat = SHA256\n"), Ok(ObjectFormat::Sha256));
        assert_eq!(format("[extensions \"x\"]\n objectformat = sha256\n"), Ok(ObjectFormat::Sha1));
        for unknown in [
            "[core]\nrepositoryformatversion = 2",
            "[extensions]\nrefStorage = reftable",
            "[extensions]\nnew",
            "[extensions]\nobjectformat = md5",
        ] {
            assert!(format(unknown).unwrap_err().contains("config"), "{unknown}");
        }
    }

    #[test]
    fn the_working_directory_is_that_of_the_section_core() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("config"),
            "[x]\nworktree = no\n[core]\n worktree = \"../a b\" # so\n",
        )
        .unwrap();
        let git_dir = RepoDirectory::open(dir.path()).unwrap();
        assert_eq!(read_work_tree(&git_dir).as_deref(), Some("../a b"));
        std::fs::write(dir.path().join("config"), "[x \"core]\"]\nworktree = no\n").unwrap();
        assert_eq!(read_work_tree(&git_dir), None);
    }
}
