//! `forge init`: creates a configuration for a project. Existing files are not overwritten.

mod scaffold;
#[cfg(test)]
mod tests;

use crate::args::{FileFormat, InitArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_config::{keyed_providers, local_providers};
use forge_terminal::StdoutFormat;
pub(crate) use scaffold::detect_language;
use scaffold::{InitOptions, InitOutcome, init_project};
use std::path::Path;

/// Creates the files of a project in the current directory.
pub(crate) fn init(session: &Session, args: InitArgs) -> Result<CliExit, CliError> {
    let dirs = session.user_dirs()?;
    let provider = match args.provider {
        Some(provider) => Some(provider),
        None if args.yes => None,
        None => ask_provider(session),
    };
    let options = InitOptions {
        dir: session.cwd.clone(),
        name: args.words.or(args.name),
        language: args.language,
        format: match args.format {
            FileFormat::Yaml => forge_config::ConfigFormat::Yaml,
            FileFormat::Toml => forge_config::ConfigFormat::Toml,
        },
        provider,
    };
    let made = init_project(&options, &dirs)?;
    if session.ui.format == StdoutFormat::Json {
        session.ui.print_json(&made);
        return Ok(CliExit::Done);
    }
    for file in &made {
        let fate = match file.fate {
            InitOutcome::Created => "created",
            InitOutcome::Extended => "extended",
            InitOutcome::Kept => "exists, unchanged",
        };
        session.ui.print_line(&format!("{fate:17}  {}", file.path.display()));
    }
    if providers_with_keys(session).is_empty() {
        session
            .ui
            .print_note("No API key found. Set one, such as OPENAI_API_KEY, or start Ollama or llama.cpp.");
    }
    session.ui.print_note("Next: forge doctor, then forge run \"Fix the failing test\"");
    Ok(CliExit::Done)
}

/// Returns the providers with a key.
fn providers_with_keys(session: &Session) -> Vec<&'static str> {
    let loaded = session.load_silently(Path::new("."), &ConfigOverrides::default());
    keyed_providers().filter(|name| loaded.as_ref().is_ok_and(|l| l.secrets.can_ask(name))).collect()
}

/// Asks for a provider on a terminal; without an answer, the keys that are set decide.
fn ask_provider(session: &Session) -> Option<String> {
    if !session.ui.is_interactive() {
        return None;
    }
    let found = providers_with_keys(session);
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    let names: Vec<_> = keyed_providers().chain(local_providers()).collect();
    session.ui.print_note(&format!("Providers: {}, custom. Keys found: {found}.", names.join(", ")));
    let answer = session.ui.ask_line("Provider (empty: chosen by the keys that are set): ");
    let answer = answer.trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}
