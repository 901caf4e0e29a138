//! `forge config`: what is in force and where it came from; one value; a change; the files' places.

use super::validate;
use crate::args::{Config, ConfigAction};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::table::{self, fixed, flexible};
use crate::ui::text::{clean, one_line};
use crate::ui::{Format, Ui};
use forge_config::edit::{self, EditError, Target};
use forge_config::{Loaded, Origin, Resolved};
use forge_runtime::vault;
use forge_types::Class;
use std::path::Path;

const HERE: &str = ".";

/// Does what was asked; `show` if nothing was.
pub(crate) fn config(session: &Session, args: Config) -> Result<Exit, CliError> {
    match args.action.unwrap_or(ConfigAction::Show) {
        ConfigAction::Show => show(session),
        ConfigAction::Get { key } => get(session, &key),
        ConfigAction::Set { key, value, user } => set(session, &key, &value, user),
        ConfigAction::Validate => validate::check(session, Path::new(HERE)),
        ConfigAction::Path => path(session),
    }
}

fn show(session: &Session) -> Result<Exit, CliError> {
    let mut loaded = session.load(Path::new(HERE), &Overlay::default())?;
    if let Err(error) = vault::unlock_silently(&mut loaded) {
        session.ui.warn(&clean(&error.to_string()));
    }
    let keys = keys(&loaded);
    if session.ui.format == Format::Json {
        let mut all = loaded.as_json();
        for (name, value, origin) in keys {
            all[name] = serde_json::json!({"value": value, "origin": origin});
        }
        session.ui.json(&all);
        return Ok(Exit::Done);
    }
    let mut rows: Vec<_> = loaded.values.iter().map(row).collect();
    rows.extend(keys.into_iter().map(|(name, value, origin)| vec![name, value, origin]));
    let head = [fixed("KEY"), flexible("VALUE"), flexible("FROM")];
    session.ui.lines(&table::lines(&head, &rows, session.ui.out_width()));
    Ok(Exit::Done)
}

/// The keys that runs would use, masked, and stores that nobody has opened.
fn keys(loaded: &Loaded) -> Vec<(String, String, String)> {
    let found = loaded.secrets.found();
    let mut keys: Vec<_> = found
        .map(|(name, value, origin)| (name.to_owned(), vault::masked(value.expose()), origin.to_string()))
        .collect();
    keys.sort();
    if loaded.passphrase.is_none() {
        keys.extend(loaded.stores().0.into_iter().map(|(origin, path)| {
            (path.display().to_string(), "(opened when a key is needed)".to_owned(), origin.to_string())
        }));
    }
    keys
}

fn row(value: &Resolved) -> Vec<String> {
    let shown = value.value.as_deref().map_or_else(|| "-".to_owned(), one_line);
    vec![value.key.to_owned(), shown, origin(&value.origin)]
}

fn origin(origin: &Origin) -> String {
    one_line(&origin.to_string())
}

fn get(session: &Session, key: &str) -> Result<Exit, CliError> {
    let loaded = session.load(Path::new(HERE), &Overlay::default())?;
    let found = edit::get(&loaded, key)?;
    match session.ui.format {
        Format::Json => session.ui.json(found),
        Format::Text => match &found.value {
            Some(value) => session.ui.line(value),
            None => session.ui.note(&format!("{} is not set", found.key)),
        },
    }
    Ok(Exit::Done)
}

fn set(session: &Session, key: &str, value: &str, user: bool) -> Result<Exit, CliError> {
    let dirs = session.dirs()?;
    let target = if user { Target::User } else { Target::Project(&session.cwd) };
    let edited = edit::set(&dirs, target, key, value)?;
    said(&session.ui, &edited)
}

fn said(ui: &Ui, edited: &edit::Edited) -> Result<Exit, CliError> {
    match ui.format {
        Format::Json => ui.json(edited),
        Format::Text => ui.line(&format!("{} set at {}:{}", edited.key, edited.path.display(), edited.line)),
    }
    Ok(Exit::Done)
}

fn path(session: &Session) -> Result<Exit, CliError> {
    let places = edit::paths(&session.sources(Path::new(HERE), &Overlay::default()))?;
    if session.ui.format == Format::Json {
        session.ui.json(&places);
        return Ok(Exit::Done);
    }
    for place in places {
        let absent = if place.exists { "" } else { "  (not there)" };
        session.ui.line(&format!("{:8}  {}{absent}", place.layer, place.path.display()));
    }
    Ok(Exit::Done)
}

impl From<EditError> for CliError {
    fn from(error: EditError) -> Self {
        match error.class() {
            Class::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
