//! Checks of settings that depend on each other, and of the environment.

use crate::environment::UserDirs;
use crate::error::{ConfigError, ConfigNotice, NoticeKind, ValueOrigin};
use crate::layers::ResolvedValue;
use crate::memories;
use crate::schema;
use crate::secrets;
use crate::settings::{ForgeSettings, MemorySettings, SandboxBackend, SecretsSettings};
use crate::trust_state::TrustState;
use forge_catalog::vendors::{OWN_SERVER, SCRIPTED_PROVIDER};
use std::path::Path;

/// Reports combinations of settings that are invalid.
pub(crate) fn check_settings(
    settings: &ForgeSettings,
    values: &[ResolvedValue],
    notices: &[ConfigNotice],
    faults: &mut Vec<ConfigError>,
) {
    let origin =
        |key: &str| schema::key_index(key).map_or(ValueOrigin::Default, |index| values[index].1.clone());
    let sandbox = &settings.sandbox;
    let set = |key: &str| origin(key) != ValueOrigin::Default;
    if set("sandbox.command_timeout_seconds") && sandbox.command_timeout_seconds > sandbox.timeout_seconds {
        faults.push(
            ConfigError::new(
                origin("sandbox.command_timeout_seconds"),
                format!("at most sandbox.timeout_seconds, which is {}", sandbox.timeout_seconds),
                format!("`{}`", sandbox.command_timeout_seconds),
            )
            .with_key("sandbox.command_timeout_seconds")
            .with_hint("lower it, or raise sandbox.timeout_seconds"),
        );
    }
    if sandbox.backend == SandboxBackend::Process && !sandbox.allow_unisolated {
        faults.push(
            ConfigError::new(
                origin("sandbox.backend"),
                "an isolating backend",
                "`process`, which runs commands on the host",
            )
            .with_key("sandbox.backend")
            .with_hint("use `auto`, or set sandbox.allow_unisolated = true if nothing on this machine needs protection"),
        );
    }
    for name in sandbox.env_vars.iter().filter(|name| secrets::holds_key(settings, name)) {
        faults.push(
            ConfigError::new(
                origin("sandbox.env_vars"),
                "variables that hold no API keys",
                format!("`{name}`, which holds one"),
            )
            .with_key("sandbox.env_vars")
            .with_hint("remove it: API keys never enter the sandbox"),
        );
    }
    if let Err(bad) = settings.egress.parse_rules() {
        let key = if settings.egress.keys.iter().any(|entry| entry.contains(&bad.entry)) {
            "egress.keys"
        } else {
            "egress.allowed_domains"
        };
        let expected = "a host, `*.domain` or address, with or without `:port`";
        faults.push(
            ConfigError::new(origin(key), expected, format!("`{}`", bad.entry))
                .with_key(key)
                .with_hint(bad.expected),
        );
    }
    check_secret_sources(settings, &origin, faults);
    check_provider(settings, &origin, notices, faults);
    crate::routing_checks::check_routing(settings, &origin, faults);
}

/// Reports unknown names in `secrets.providers`.
fn check_secret_sources(
    settings: &ForgeSettings,
    origin: &dyn Fn(&str) -> ValueOrigin,
    faults: &mut Vec<ConfigError>,
) {
    let key = "secrets.providers";
    let known = SecretsSettings::SOURCE_NAMES.map(|(name, _)| name);
    for name in settings.secrets.providers.iter().filter(|name| !known.contains(&name.as_str())) {
        let hint = match name.to_ascii_lowercase().as_str() {
            "environment" | "envs" => "write `env`",
            "file" | "encrypted_file" | "store" => "write `encrypted-file`",
            _ => "keys have no other sources",
        };
        let fault = ConfigError::new(
            origin(key),
            "encrypted-file or env",
            format!("`{}`", schema::escape_controls(name)),
        );
        faults.push(fault.with_key(key).with_hint(hint));
    }
}

/// Reports a provider that lacks a required setting.
fn check_provider(
    settings: &ForgeSettings,
    origin: &dyn Fn(&str) -> ValueOrigin,
    notices: &[ConfigNotice],
    faults: &mut Vec<ConfigError>,
) {
    let Some(name) = settings.model.provider.as_deref() else { return };
    let own = settings.providers.get(name);
    let missing = match name {
        OWN_SERVER if settings.model.base_url.is_none() && own.is_none_or(|own| own.base_url.is_none()) => {
            "model.base_url"
        }
        SCRIPTED_PROVIDER if own.is_none_or(|own| own.script.is_none()) => "providers.scripted.script",
        _ => return,
    };
    // The setting may exist and have been ignored; its notice is not shown when there are errors.
    let dropped = notices.iter().find(|notice| notice.key.as_deref() == Some(missing));
    let hint = dropped.map_or_else(|| format!("set {missing}"), |notice| notice.message.clone());
    faults.push(
        ConfigError::new(origin("model.provider"), format!("{missing} for the provider `{name}`"), "nothing")
            .with_key("model.provider")
            .with_hint(hint),
    );
}

/// Returns notices about the location of directories and files.
pub(crate) fn environment_notices(
    dirs: &UserDirs,
    repo: &Path,
    standing: TrustState,
    memory: &MemorySettings,
) -> Vec<ConfigNotice> {
    let mut out = Vec::new();
    let mut note = |message| {
        out.push(ConfigNotice { kind: NoticeKind::Surroundings, key: None, message, next_step: None })
    };
    let whole = repo.canonicalize().unwrap_or_else(|_| repo.to_owned());
    for (folder, what) in [(&dirs.data, "state and trust records"), (&dirs.config, "your own configuration")]
    {
        let full = folder.ancestors().find_map(|folder| folder.canonicalize().ok());
        if full.is_some_and(|full| full.starts_with(&whole)) {
            note(format!(
                "{} holds {what} and is inside the repository, so no run works there; work in a subdirectory of {} \
                 instead",
                folder.display(),
                whole.display()
            ));
        }
    }
    let misnamed = repo.join("forge.yml");
    if misnamed.symlink_metadata().is_ok() {
        note(format!("{} is not read; rename it to forge.yaml", misnamed.display()));
    }
    out.extend(memories::memory_refusal(dirs, repo, memory));
    if !standing.is_trusted() {
        for folder in [".forge/agents", ".forge/pipelines"] {
            if repo.join(folder).read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                out.push(crate::layers::refusal_notice(
                    folder,
                    &repo.join(folder).display().to_string(),
                    None,
                    standing,
                ));
            }
        }
    }
    out
}
