//! A home and a repository in a temporary folder, and settings loaded from them.

use forge_config::{
    ConfigErrors, ConfigNotice, ConfigSources, Environment, FlagSetting, NoticeKind, ResolvedConfig,
    UserDirs, load, trust,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The surroundings of one test.
pub(crate) struct Place {
    root: TempDir,
    env: BTreeMap<String, String>,
    flags: Vec<FlagSetting>,
    pub(crate) config_path: Option<PathBuf>,
    pub(crate) env_file: Option<PathBuf>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir_all(root.path().join("home/.config/forge")).unwrap();
        fs::create_dir_all(root.path().join("repo")).unwrap();
        let env = [("HOME".to_owned(), root.path().join("home").display().to_string())].into();
        Self { root, env, flags: Vec::new(), config_path: None, env_file: None }
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.root.path().join("repo")
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Writes a file, given by its path from the root.
    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn project(&self, text: &str) -> &Self {
        self.write("repo/forge.toml", text);
        self
    }

    pub(crate) fn user(&self, text: &str) -> &Self {
        self.write("home/.config/forge/forge.toml", text);
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn unset(&mut self, name: &str) -> &mut Self {
        self.env.remove(name);
        self
    }

    pub(crate) fn flag(&mut self, key: &str, value: &str, name: &str) -> &mut Self {
        self.flags.push(FlagSetting { key: key.to_owned(), value: value.to_owned(), name: name.to_owned() });
        self
    }

    pub(crate) fn sources(&self) -> ConfigSources {
        ConfigSources {
            env: self.env.clone().into_iter().collect(),
            cwd: self.repo(),
            repo: self.repo(),
            config_path: self.config_path.clone(),
            env_file: self.env_file.clone(),
            flags: self.flags.clone(),
        }
    }

    pub(crate) fn dirs(&self) -> UserDirs {
        let env: Environment = self.env.clone().into_iter().collect();
        UserDirs::from_environment(&env).unwrap()
    }

    pub(crate) fn trust(&self) -> &Self {
        let extra: Vec<_> = self.config_path.iter().chain(&self.env_file).cloned().collect();
        let review = trust::review_repository(&self.dirs(), &self.repo(), &extra).unwrap();
        trust::grant_trust(&self.dirs(), &review).unwrap();
        self
    }

    pub(crate) fn try_load(&self) -> Result<ResolvedConfig, ConfigErrors> {
        load(&self.sources())
    }

    pub(crate) fn load(&self) -> ResolvedConfig {
        self.try_load().unwrap_or_else(|faults| panic!("{faults}"))
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let faults = self.try_load().expect_err("faults were expected");
        let root = self.root.path().display().to_string() + "/";
        faults.0.iter().map(|fault| fault.to_string().replace(&root, "")).collect()
    }
}

/// The value of a key as it is shown, with its origin.
pub(crate) fn value(loaded: &ResolvedConfig, key: &str) -> (Option<String>, String) {
    let found = loaded.values.iter().find(|value| value.key == key).unwrap();
    (found.value.clone(), found.origin.to_string())
}

/// The keys that were refused.
pub(crate) fn refused(notices: &[ConfigNotice]) -> Vec<String> {
    let refused = notices.iter().filter(|notice| notice.kind == NoticeKind::Refused);
    refused.filter_map(|notice| notice.key.clone()).collect()
}
