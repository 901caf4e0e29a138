//! The sources of settings, as the caller names them.

use crate::environment::Environment;
use std::path::PathBuf;

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagSetting {
    /// Path of the key.
    pub key: String,
    /// Value as typed.
    pub value: String,
    /// Flag as typed, such as `--model`.
    pub name: String,
}

/// All sources of settings.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// Environment of the process.
    pub env: Environment,
    /// Directory in which the command was started; relative paths of flags and variables start here.
    pub cwd: PathBuf,
    /// Repository that the command works on.
    pub repo: PathBuf,
    /// File given with `--config`, read in place of the project file.
    pub config_path: Option<PathBuf>,
    /// File given with `--env`, which provides variables that are not set.
    pub env_file: Option<PathBuf>,
    /// Flags of the command line.
    pub flags: Vec<FlagSetting>,
}
