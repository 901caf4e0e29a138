//! `forge config`: shows values with their origin, changes one, checks them, and lists the files.

use super::validate;
use crate::args::{ConfigAction, ConfigArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_config::edit::{self, EditError, EditTarget};
use forge_config::{ResolvedConfig, ResolvedSetting, ValueOrigin};
use forge_runtime::secret_stores;
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{one_line, sanitize_text};
use forge_terminal::{StdoutFormat, Ui};
use forge_types::ErrorClass;
use std::path::Path;

const CURRENT_DIR: &str = ".";

/// Runs the action; the default is `show`.
pub(crate) fn config(session: &Session, args: ConfigArgs) -> Result<CliExit, CliError> {
    match args.action.unwrap_or(ConfigAction::Show) {
        ConfigAction::Show => show_values(session),
        ConfigAction::Get { key } => show_value(session, &key),
        ConfigAction::Set { key, value, user } => set_value(session, &key, &value, user),
        ConfigAction::Validate => validate::check_config(session, Path::new(CURRENT_DIR)),
        ConfigAction::Path => show_paths(session),
    }
}

fn show_values(session: &Session) -> Result<CliExit, CliError> {
    let mut loaded = session.load_config(Path::new(CURRENT_DIR), &ConfigOverrides::default())?;
    if let Err(error) = secret_stores::unlock_silently(&mut loaded) {
        session.ui.print_warning(&sanitize_text(&error.to_string()));
    }
    let keys = key_rows(&loaded);
    if session.ui.format == StdoutFormat::Json {
        let mut all = loaded.to_plan_json();
        for (name, value, origin) in keys {
            all[name] = serde_json::json!({"value": value, "origin": origin});
        }
        session.ui.print_json(&all);
        return Ok(CliExit::Done);
    }
    let mut rows: Vec<_> = loaded.values.iter().map(value_row).collect();
    rows.extend(keys.into_iter().map(|(name, value, origin)| vec![name, value, origin]));
    let head = [fixed_column("KEY"), flexible_column("VALUE"), flexible_column("FROM")];
    session.ui.print_lines(table::render_table(&head, &rows, session.ui.out_width()));
    Ok(CliExit::Done)
}

/// Returns the keys that runs would use, redacted, and the stores that are not open.
fn key_rows(loaded: &ResolvedConfig) -> Vec<(String, String, String)> {
    let found = loaded.secrets.found_keys();
    let mut keys: Vec<_> = found
        .map(|(name, value, origin)| {
            (name.to_owned(), secret_stores::redacted_preview(value.expose()), origin.to_string())
        })
        .collect();
    keys.sort();
    if loaded.passphrase.is_none() {
        keys.extend(loaded.usable_stores().0.into_iter().map(|(origin, path)| {
            (path.display().to_string(), "(opened when a key is needed)".to_owned(), origin.to_string())
        }));
    }
    keys
}

fn value_row(value: &ResolvedSetting) -> Vec<String> {
    let shown = value.value.as_deref().map_or_else(|| "-".to_owned(), one_line);
    vec![value.key.to_owned(), shown, origin_text(&value.origin)]
}

fn origin_text(origin: &ValueOrigin) -> String {
    one_line(&origin.to_string())
}

fn show_value(session: &Session, key: &str) -> Result<CliExit, CliError> {
    let loaded = session.load_config(Path::new(CURRENT_DIR), &ConfigOverrides::default())?;
    let found = edit::get_key(&loaded, key)?;
    match session.ui.format {
        StdoutFormat::Json => session.ui.print_json(found),
        StdoutFormat::Text => match &found.value {
            Some(value) => session.ui.print_line(value),
            None => session.ui.print_note(&format!("{} is not set", found.key)),
        },
    }
    Ok(CliExit::Done)
}

fn set_value(session: &Session, key: &str, value: &str, user: bool) -> Result<CliExit, CliError> {
    let dirs = session.user_dirs()?;
    let target = if user { EditTarget::User } else { EditTarget::Project(&session.cwd) };
    let edited = edit::set_key(&dirs, target, key, value)?;
    print_edit(&session.ui, &edited)
}

fn print_edit(ui: &Ui, edited: &edit::EditedKey) -> Result<CliExit, CliError> {
    match ui.format {
        StdoutFormat::Json => ui.print_json(edited),
        StdoutFormat::Text => {
            ui.print_line(&format!("{} set at {}:{}", edited.key, edited.path.display(), edited.line))
        }
    }
    Ok(CliExit::Done)
}

fn show_paths(session: &Session) -> Result<CliExit, CliError> {
    let places =
        edit::config_locations(&session.config_sources(Path::new(CURRENT_DIR), &ConfigOverrides::default()))?;
    if session.ui.format == StdoutFormat::Json {
        session.ui.print_json(&places);
        return Ok(CliExit::Done);
    }
    for place in places {
        let absent = if place.exists { "" } else { "  (not found)" };
        session.ui.print_line(&format!("{:8}  {}{absent}", place.layer, place.path.display()));
    }
    Ok(CliExit::Done)
}

impl From<EditError> for CliError {
    fn from(error: EditError) -> Self {
        let shown = match error.class() {
            ErrorClass::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        };
        shown.with_next_steps(error.next_step().as_slice())
    }
}
