//! What can only be told from several settings together, and from the surroundings.

use crate::conversation::Memory;
use crate::environment::Dirs;
use crate::fault::{Fault, Notice, NoticeKind, Origin};
use crate::layers::Slot;
use crate::memories;
use crate::schema;
use crate::secrets;
use crate::settings::{Backend, SecretsSection, Settings};
use crate::trust::Standing;
use std::path::Path;

/// Faults of settings that do not go together.
pub(crate) fn settings(settings: &Settings, values: &[Slot], notices: &[Notice], faults: &mut Vec<Fault>) {
    let origin = |key: &str| schema::position(key).map_or(Origin::Default, |index| values[index].1.clone());
    let sandbox = &settings.sandbox;
    let set = |key: &str| origin(key) != Origin::Default;
    if set("sandbox.command_timeout_seconds") && sandbox.command_timeout_seconds > sandbox.timeout_seconds {
        faults.push(
            Fault::new(
                origin("sandbox.command_timeout_seconds"),
                format!("at most sandbox.timeout_seconds, which is {}", sandbox.timeout_seconds),
                format!("`{}`", sandbox.command_timeout_seconds),
            )
            .key("sandbox.command_timeout_seconds")
            .hint("lower it, or raise sandbox.timeout_seconds"),
        );
    }
    if sandbox.backend == Backend::Process && !sandbox.allow_unisolated {
        faults.push(
            Fault::new(
                origin("sandbox.backend"),
                "a backend that isolates",
                "`process`, which runs commands on the host",
            )
            .key("sandbox.backend")
            .hint("use `auto`, or set sandbox.allow_unisolated = true if nothing on this machine needs protection"),
        );
    }
    for name in sandbox.env_vars.iter().filter(|name| secrets::holds_key(settings, name)) {
        faults.push(
            Fault::new(
                origin("sandbox.env_vars"),
                "variables without keys",
                format!("`{name}`, which holds one"),
            )
            .key("sandbox.env_vars")
            .hint("remove it: keys never enter the sandbox"),
        );
    }
    if let Err(bad) = settings.egress.rules() {
        let key = if settings.egress.keys.iter().any(|entry| entry.contains(&bad.entry)) {
            "egress.keys"
        } else {
            "egress.allowed_domains"
        };
        let expected = "a host, `*.domain` or address, with or without `:port`";
        faults
            .push(Fault::new(origin(key), expected, format!("`{}`", bad.entry)).key(key).hint(bad.expected));
    }
    sources(settings, &origin, faults);
    provider(settings, &origin, notices, faults);
    crate::routing_checks::check(settings, &origin, faults);
}

/// Faults of `secrets.providers`.
fn sources(settings: &Settings, origin: &dyn Fn(&str) -> Origin, faults: &mut Vec<Fault>) {
    let key = "secrets.providers";
    let known = SecretsSection::SOURCES.map(|(name, _)| name);
    for name in settings.secrets.providers.iter().filter(|name| !known.contains(&name.as_str())) {
        let hint = match name.to_ascii_lowercase().as_str() {
            "environment" | "envs" => "write `env`",
            "file" | "encrypted_file" | "store" => "write `encrypted-file`",
            _ => "there is no other place that keys are looked up in",
        };
        let fault = Fault::new(origin(key), "encrypted-file or env", format!("`{}`", schema::escaped(name)));
        faults.push(fault.key(key).hint(hint));
    }
}

/// Providers that need one more setting.
fn provider(
    settings: &Settings,
    origin: &dyn Fn(&str) -> Origin,
    notices: &[Notice],
    faults: &mut Vec<Fault>,
) {
    let Some(name) = settings.model.provider.as_deref() else { return };
    let own = settings.providers.get(name);
    let missing = match name {
        "custom" if settings.model.base_url.is_none() && own.is_none_or(|own| own.base_url.is_none()) => {
            "model.base_url"
        }
        "scripted" if own.is_none_or(|own| own.script.is_none()) => "providers.scripted.script",
        _ => return,
    };
    // It may have been there and not have been used; with faults, nobody sees the notice that says so.
    let dropped = notices.iter().find(|notice| notice.key.as_deref() == Some(missing));
    let hint = dropped.map_or_else(|| format!("set {missing}"), |notice| notice.message.clone());
    faults.push(
        Fault::new(origin("model.provider"), format!("{missing} beside the provider `{name}`"), "nothing")
            .key("model.provider")
            .hint(hint),
    );
}

/// Notices about where things lie.
pub(crate) fn surroundings(dirs: &Dirs, repo: &Path, standing: Standing, memory: &Memory) -> Vec<Notice> {
    let mut out = Vec::new();
    let mut note = |message| out.push(Notice { kind: NoticeKind::Surroundings, key: None, message });
    let whole = repo.canonicalize().unwrap_or_else(|_| repo.to_owned());
    for (folder, what) in [(&dirs.data, "state and trust records"), (&dirs.config, "your own configuration")]
    {
        let full = folder.ancestors().find_map(|folder| folder.canonicalize().ok());
        if full.is_some_and(|full| full.starts_with(&whole)) {
            note(format!(
                "{} holds {what} and lies inside the repository, where a run can change it; \
                 work on a folder below {} instead",
                folder.display(),
                whole.display()
            ));
        }
    }
    let misnamed = repo.join("forge.yml");
    if misnamed.symlink_metadata().is_ok() {
        note(format!("{} is not read; call it forge.yaml", misnamed.display()));
    }
    out.extend(memories::refusal(dirs, repo, memory));
    if !standing.is_trusted() {
        for folder in [".forge/agents", ".forge/pipelines"] {
            if repo.join(folder).read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                out.push(crate::layers::refusal(
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
