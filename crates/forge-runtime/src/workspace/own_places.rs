//! The places with Forge's own files, which no repository of a run may contain: a run could change its own records, the
//! user's settings, and what the user trusts.

use crate::{Error, Project};
use forge_config::ResolvedConfig;
use forge_types::SandboxSpec;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Directory for sockets in a user's runtime directory.
const RUNTIME_SUBDIR: &str = "forge";

/// Returns the places with Forge's own files: the configured data directory with journals, trust records, stores of keys,
/// logins and caches; `data`, which is in use; the user's settings; and where links in these lead.
pub(crate) fn list_own_places(loaded: &ResolvedConfig, data: &Path) -> Vec<PathBuf> {
    let dirs = &loaded.dirs;
    let mut places = vec![dirs.data.clone(), dirs.config.clone()];
    if data != dirs.data {
        places.push(data.to_owned());
    }
    let links: Vec<PathBuf> = places.iter().flat_map(|place| forge_files::list_links(place)).collect();
    places.extend(dirs.runtime.iter().map(|runtime| runtime.join(RUNTIME_SUBDIR)));
    places.extend(links);
    places
}

impl Project {
    /// Refuses repositories, and other directories that a run may change, that contain Forge's own files.
    ///
    /// # Errors
    /// [`Error::Repository`] with both places.
    pub(crate) fn refuse_own_places<'a>(
        &self,
        directories: impl IntoIterator<Item = &'a Path>,
    ) -> Result<(), Error> {
        let refused = |what: String| Error::Repository { what };
        let (mut named, mut ids) = (Vec::new(), Vec::new());
        for directory in directories {
            match directory.metadata() {
                Ok(meta) => {
                    named.push(directory);
                    ids.push((meta.dev(), meta.ino()));
                }
                // What does not exist contains nothing, and is refused where it is used.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(refused(format!("{} can't be examined: {error}", directory.display())));
                }
            }
        }
        let places = list_own_places(self.config(), self.forge().data_dir());
        let found = forge_files::find_enclosed_place(&places, &ids)
            .map_err(|error| refused(format!("forge's own directories can't be examined: {error}")))?;
        match found {
            None => Ok(()),
            Some(found) => Err(refused(format!(
                "{} contains {}, which belongs to forge itself, so a run could change its own records or your \
                 settings. Choose a directory below it, or move forge's directories with XDG_DATA_HOME and \
                 XDG_CONFIG_HOME",
                named[found.directory].display(),
                found.place.display()
            ))),
        }
    }

    /// Refuses the directories of a specification as [`Project::refuse_own_places`] does.
    pub(crate) fn refuse_own_places_of(&self, spec: &SandboxSpec) -> Result<(), Error> {
        let repos = std::iter::once(&spec.repo).chain(&spec.more_repos);
        self.refuse_own_places(repos.chain(&spec.writable).map(PathBuf::as_path))
    }
}
