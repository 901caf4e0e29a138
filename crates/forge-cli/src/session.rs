//! State shared by all commands: current directory, environment, global flags, and the configuration they load.

use crate::args::GlobalFlags;
use crate::error::CliError;
use crate::hints::{hint_text, message_with_command};
use forge_config::{
    ConfigErrors, ConfigSources, Environment, FlagSetting, ResolvedConfig, SecretValue, UserDirs, UserFiles,
};
use forge_runtime::secret_stores;
use forge_terminal::{ColorPreference, StdoutFormat, Ui, Verbosity};
use std::path::{Path, PathBuf};

/// State that every command starts from.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) ui: Ui,
    pub(crate) env: Environment,
    pub(crate) cwd: PathBuf,
    pub(crate) config: Option<PathBuf>,
    pub(crate) verbose: u8,
}

/// Configuration that a command adds.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigOverrides {
    /// Settings given as flags.
    pub(crate) flags: Vec<FlagSetting>,
    /// File given with `--env`.
    pub(crate) env_file: Option<PathBuf>,
}

impl Session {
    /// Reads the environment once and inspects the terminal.
    pub(crate) fn new(global: &GlobalFlags) -> Result<Self, CliError> {
        let env = Environment::capture();
        let cwd = std::env::current_dir().map_err(|error| {
            CliError::failed(format!("cannot determine the current directory: {error}"))
                .with_hint("change to an existing directory")
        })?;
        let wish = ColorPreference {
            flag: global.no_color,
            variable: env.get("NO_COLOR").is_some(),
            dumb: env.get("TERM") == Some("dumb"),
        };
        let format = if global.json { StdoutFormat::Json } else { StdoutFormat::Text };
        let volume = match (global.quiet, global.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, _) => Verbosity::Verbose,
        };
        let ui = Ui::new(format, volume, wish, hint_text);
        Ok(Self { ui, env, cwd, config: global.config.clone(), verbose: global.verbose })
    }

    /// Returns all sources of settings for the repository `repo`.
    pub(crate) fn config_sources(&self, repo: &Path, overlay: &ConfigOverrides) -> ConfigSources {
        ConfigSources {
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            repo: self.cwd.join(repo),
            config_path: self.config.clone(),
            env_file: overlay.env_file.clone(),
            flags: overlay.flags.clone(),
        }
    }

    /// Returns the files that the user names while working on `repos`.
    pub(crate) fn user_files(&self, repos: &[PathBuf]) -> UserFiles {
        UserFiles::new(repos, &self.cwd, &self.env)
    }

    /// Loads the settings for `repo` and prints their notices on stderr.
    pub(crate) fn load_config(
        &self,
        repo: &Path,
        overlay: &ConfigOverrides,
    ) -> Result<ResolvedConfig, CliError> {
        let mut loaded = self.load_silently(repo, overlay)?;
        self.print_notices(&mut loaded);
        Ok(loaded)
    }

    /// Loads the settings for `repo`, with keys from encrypted stores if one may be needed, and prints their notices on
    /// stderr.
    pub(crate) fn load_with_keys(
        &self,
        repo: &Path,
        overlay: &ConfigOverrides,
    ) -> Result<ResolvedConfig, CliError> {
        self.load_with_stores(repo, overlay, secret_stores::unlock)
    }

    /// Loads settings as [`Session::load_with_keys`] does, for a sandbox without a run.
    pub(crate) fn load_for_sandbox(
        &self,
        repo: &Path,
        overlay: &ConfigOverrides,
    ) -> Result<ResolvedConfig, CliError> {
        self.load_with_stores(repo, overlay, secret_stores::unlock_for_sandbox)
    }

    fn load_with_stores(
        &self,
        repo: &Path,
        overlay: &ConfigOverrides,
        open: fn(
            &mut ResolvedConfig,
            secret_stores::PassphrasePrompt<'_>,
        ) -> Result<(), secret_stores::SecretStoreError>,
    ) -> Result<ResolvedConfig, CliError> {
        let mut loaded = self.load_silently(repo, overlay)?;
        let opened = open(&mut loaded, &mut |path, tried| self.ask_passphrase(path, tried));
        self.print_notices(&mut loaded);
        opened?;
        Ok(loaded)
    }

    /// Adds the commands that they suggest to the notices, and prints them on stderr.
    fn print_notices(&self, loaded: &mut ResolvedConfig) {
        for notice in &mut loaded.notices {
            notice.message = message_with_command(&notice.message, notice.next_step.take().as_ref());
            self.ui.print_warning(&forge_terminal::text::sanitize_text(&notice.message));
        }
    }

    /// Asks for the passphrase of an existing store; `None` without a terminal or an answer.
    pub(crate) fn ask_passphrase(&self, store: &Path, tried: u32) -> Option<SecretValue> {
        let wrong = if tried > 0 { "Wrong passphrase. " } else { "" };
        let answer = self.ui.ask_hidden(&format!("{wrong}Passphrase for {}: ", store.display()))?;
        (!answer.is_empty()).then(|| SecretValue::new(answer))
    }

    /// Loads the settings for `repo` without printing anything.
    pub(crate) fn load_silently(
        &self,
        repo: &Path,
        overlay: &ConfigOverrides,
    ) -> Result<ResolvedConfig, CliError> {
        let loaded = forge_config::load(&self.config_sources(repo, overlay))?;
        forge_files::check_data_directory(&loaded.dirs.data)?;
        Ok(loaded)
    }

    /// Loads the settings for inspecting and cancelling runs, which must work even if the configuration here is
    /// invalid.
    pub(crate) fn load_read_only(&self) -> Result<ResolvedConfig, CliError> {
        if let Ok(dirs) = UserDirs::from_environment(&self.env) {
            // Not a matter of the configuration.
            forge_files::check_data_directory(&dirs.data)?;
        }
        let here = Path::new(".");
        if let Ok(loaded) = self.load_silently(here, &ConfigOverrides::default()) {
            return Ok(loaded);
        }
        self.ui.print_warning("the configuration here is invalid; run `forge config validate` for details");
        let folders = ["HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "PATH"];
        let kept =
            folders.into_iter().filter_map(|name| Some((name.to_owned(), self.env.get(name)?.to_owned())));
        // A directory that can't exist, so that no configuration is read.
        let none = "/dev/null/none";
        let env = kept.chain([("XDG_CONFIG_HOME".to_owned(), none.to_owned())]).collect();
        let bare = Self { env, config: None, ..self.clone() };
        bare.load_silently(Path::new(none), &ConfigOverrides::default())
    }

    /// Returns the user's directories.
    pub(crate) fn user_dirs(&self) -> Result<UserDirs, CliError> {
        let dirs = UserDirs::from_environment(&self.env)?;
        forge_files::check_data_directory(&dirs.data)?;
        Ok(dirs)
    }
}

impl From<ConfigErrors> for CliError {
    fn from(faults: ConfigErrors) -> Self {
        Self::usage(faults.to_string())
    }
}
