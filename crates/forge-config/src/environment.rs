//! The process environment, read once, and the directories derived from it.

use crate::error::{ConfigError, ConfigErrors, ValueOrigin};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variables of the process at its start. No other code in Forge reads the environment.
///
/// Variables that are not UTF-8 are omitted: no key of Forge can hold them.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Captures the environment of this process.
    pub fn capture() -> Self {
        #[allow(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
        let all = std::env::vars_os();
        all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }

    /// Returns the value of a variable. An empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the names of all variables.
    pub fn variable_names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self { variables: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only names are shown, because values may be keys.
        f.debug_set().entries(self.variable_names()).finish()
    }
}

/// The directories of a user (XDG base directories).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDirs {
    /// State, such as journals, trust records and credentials: `$XDG_DATA_HOME/forge`, else `~/.local/share/forge`.
    pub data: PathBuf,
    /// The user's own configuration: `$XDG_CONFIG_HOME/forge`, else `~/.config/forge`.
    pub config: PathBuf,
    /// The home directory, if there is one.
    pub home: Option<PathBuf>,
    /// The directory for sockets of this user's session, `$XDG_RUNTIME_DIR`, if set. Callers must check its owner.
    pub runtime: Option<PathBuf>,
}

impl UserDirs {
    /// Returns the directories that the environment names. Relative paths are ignored, as the XDG specification
    /// requires.
    ///
    /// # Errors
    /// If neither `HOME` nor the XDG variable is an absolute path.
    pub fn from_environment(environment: &Environment) -> Result<Self, ConfigErrors> {
        let absolute =
            |name: &str| environment.get(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let home = absolute("HOME");
        let folder = |variable: &str, below: &str| {
            absolute(variable)
                .or_else(|| home.as_ref().map(|home| home.join(below)))
                .map(|base| base.join("forge"))
                .ok_or_else(|| {
                    ConfigError::new(
                        ValueOrigin::Env { variable: "HOME".to_owned() },
                        "an absolute path to your home directory",
                        "nothing",
                    )
                    .with_hint(format!("set HOME, or set {variable} to a directory"))
                    .into_errors()
                })
        };
        Ok(Self {
            data: folder("XDG_DATA_HOME", ".local/share")?,
            config: folder("XDG_CONFIG_HOME", ".config")?,
            home: home.clone(),
            runtime: absolute("XDG_RUNTIME_DIR"),
        })
    }

    pub(crate) fn home_dir(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}
