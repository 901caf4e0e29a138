//! `forge init`: a configuration for a project. Nothing is overwritten.

use crate::args::{FileFormat, Init, Language};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use forge_config::init::{self, Fate, InitError, InitOptions};
use forge_config::{KEYED, LOCAL};
use forge_types::Class;
use std::path::Path;

/// Writes what a project needs into the current folder.
pub(crate) fn init(session: &Session, args: Init) -> Result<Exit, CliError> {
    let dirs = session.dirs()?;
    let provider = match args.provider {
        Some(provider) => Some(provider),
        None if args.yes => None,
        None => ask_provider(session),
    };
    let options = InitOptions {
        dir: session.cwd.clone(),
        name: args.words.or(args.name),
        language: args.language.map(|language| match language {
            Language::Rust => forge_config::Language::Rust,
            Language::Python => forge_config::Language::Python,
            Language::Node => forge_config::Language::Node,
        }),
        format: match args.format {
            FileFormat::Yaml => forge_config::Format::Yaml,
            FileFormat::Toml => forge_config::Format::Toml,
        },
        provider,
    };
    let made = init::init(&options, &dirs)?;
    if session.ui.format == Format::Json {
        session.ui.json(&made);
        return Ok(Exit::Done);
    }
    for file in &made {
        let fate = match file.fate {
            Fate::Created => "created",
            Fate::Extended => "extended",
            Fate::Kept => "kept",
        };
        session.ui.line(&format!("{fate:8}  {}", file.path.display()));
    }
    if keys(session).is_empty() {
        session
            .ui
            .note("No key of a provider is set. Set one, such as OPENAI_API_KEY, or start a local server.");
    }
    session.ui.note("Next: forge doctor, then forge run \"what is to be done\"");
    Ok(Exit::Done)
}

/// Providers whose keys are set.
fn keys(session: &Session) -> Vec<&'static str> {
    let loaded = session.load_silently(Path::new("."), &Overlay::default());
    KEYED.into_iter().filter(|name| loaded.as_ref().is_ok_and(|l| l.secrets.can_ask(name))).collect()
}

/// Asks for a provider where somebody can answer; no answer leaves the choice to the keys that are set.
fn ask_provider(session: &Session) -> Option<String> {
    if !session.ui.interactive() {
        return None;
    }
    let found = keys(session);
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    let names: Vec<_> = KEYED.iter().chain(&LOCAL).copied().collect();
    session.ui.note(&format!("Providers: {}, custom. Keys found: {found}.", names.join(", ")));
    let answer = session.ui.ask("Provider (empty: chosen by the keys that are set): ");
    let answer = answer.trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}

impl From<InitError> for CliError {
    fn from(error: InitError) -> Self {
        match error.class() {
            Class::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
