//! What `forge init` writes, what it keeps, and that the project works at once.

use super::scaffold::{InitOptions, InitOutcome, detect_language, init_project};
use forge_config::{
    ConfigFormat, ConfigSources, NoticeKind, ProjectLanguage, ResolvedConfig, UserDirs, load,
};
use std::fs;
use std::path::PathBuf;

/// A home and a repository in a temporary directory.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::TempDir::new().unwrap();
        fs::create_dir_all(root.path().join("home")).unwrap();
        fs::create_dir_all(root.path().join("repo")).unwrap();
        Self { root }
    }

    fn repo(&self) -> PathBuf {
        self.root.path().join("repo")
    }

    fn sources(&self) -> ConfigSources {
        let env = [("HOME", self.root.path().join("home").display().to_string())].into_iter().collect();
        ConfigSources { env, cwd: self.repo(), repo: self.repo(), ..ConfigSources::default() }
    }

    fn dirs(&self) -> UserDirs {
        UserDirs::from_environment(&self.sources().env).unwrap()
    }

    fn load(&self) -> ResolvedConfig {
        load(&self.sources()).unwrap()
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn project(&self, text: &str) {
        self.write("repo/forge.toml", text);
    }

    /// The keys that were refused.
    fn refused(&self) -> Vec<String> {
        let notices = self.load().notices.into_iter().filter(|notice| notice.kind == NoticeKind::Refused);
        notices.filter_map(|notice| notice.key).collect()
    }
}

fn options(place: &Place, format: ConfigFormat, provider: Option<&str>) -> InitOptions {
    InitOptions {
        dir: place.repo(),
        name: None,
        language: None,
        format,
        provider: provider.map(str::to_owned),
    }
}

#[test]
fn a_new_project_loads_and_its_settings_take_effect() {
    for format in [ConfigFormat::Yaml, ConfigFormat::Toml] {
        for provider in [None, Some("anthropic"), Some("ollama"), Some("custom")] {
            let place = Place::new();
            place.write("repo/Cargo.toml", "");
            let made = init_project(&options(&place, format, provider), &place.dirs()).unwrap();
            assert_eq!(made.iter().map(|made| made.fate).collect::<Vec<_>>(), [InitOutcome::Created; 3]);
            let loaded = place.load();
            assert_eq!(loaded.settings.name.as_deref(), Some("repo"));
            assert_eq!(loaded.settings.language, Some(ProjectLanguage::Rust));
            assert_eq!(loaded.settings.model.provider.as_deref(), provider);
            assert_eq!(place.refused(), [""; 0], "the user's own project needs no trust");
            assert!(place.repo().join(".forge").is_dir());
        }
    }
}

#[test]
fn nothing_is_overwritten_and_a_second_time_changes_nothing() {
    let place = Place::new();
    place.write("repo/.gitignore", "target\n.forge/*");
    place.project("name = \"mine\"\n[sandbox]\nnetwork_enabled = true\n");
    let made = init_project(&options(&place, ConfigFormat::Yaml, None), &place.dirs()).unwrap();
    assert_eq!(
        made.iter().map(|made| made.fate).collect::<Vec<_>>(),
        [InitOutcome::Kept, InitOutcome::Created, InitOutcome::Extended]
    );
    let ignored = fs::read_to_string(place.repo().join(".gitignore")).unwrap();
    assert_eq!(ignored, "target\n.forge/*\n!.forge/agents/\n!.forge/pipelines/\n");
    assert!(!place.load().settings.sandbox.network_enabled, "a file that was there is not trusted by this");
    let again = init_project(&options(&place, ConfigFormat::Toml, None), &place.dirs()).unwrap();
    assert!(again.iter().all(|made| made.fate == InitOutcome::Kept));
}

#[test]
fn a_cloned_repository_does_not_become_trusted_with_its_prompts() {
    let place = Place::new();
    place.write("repo/.forge/agents/a/prompt.md", "obey me");
    init_project(&options(&place, ConfigFormat::Yaml, Some("openai")), &place.dirs()).unwrap();
    assert_eq!(place.refused(), ["model.provider", ".forge/agents"]);
}

#[test]
fn what_is_wrong_is_told_before_anything_is_written() {
    let place = Place::new();
    let mut wrong = options(&place, ConfigFormat::Yaml, Some("opnai"));
    wrong.name = Some("two\nlines".to_owned());
    let error = init_project(&wrong, &place.dirs()).unwrap_err().to_string();
    assert!(error.contains("--name") && error.contains("did you mean `openai`?"), "{error}");
    assert_eq!(fs::read_dir(place.repo()).unwrap().count(), 0);

    let outside = place.write("outside", "precious\n");
    std::os::unix::fs::symlink(&outside, place.repo().join(".gitignore")).unwrap();
    assert!(init_project(&options(&place, ConfigFormat::Yaml, None), &place.dirs()).is_err());
    assert_eq!(fs::read_to_string(outside).unwrap(), "precious\n");
}

#[test]
fn odd_names_of_folders_are_written_safely() {
    let place = Place::new();
    for format in [ConfigFormat::Yaml, ConfigFormat::Toml] {
        let mut odd = options(&place, format, None);
        odd.dir = place.repo().join(format!("it's \"{format:?}\": #1"));
        init_project(&odd, &place.dirs()).unwrap();
    }
}

#[test]
fn languages_are_told_by_files() {
    for (file, language) in [
        ("Cargo.toml", ProjectLanguage::Rust),
        ("package.json", ProjectLanguage::Node),
        ("requirements.txt", ProjectLanguage::Python),
    ] {
        let place = Place::new();
        assert_eq!(detect_language(&place.repo()), None);
        place.write(&format!("repo/{file}"), "");
        assert_eq!(detect_language(&place.repo()), Some(language));
    }
}
