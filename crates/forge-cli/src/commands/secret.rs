//! `forge secret`: manages keys in an encrypted file instead of the environment.

use crate::args::{SecretAction, SecretArgs as Args};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_config::{SecretOrigin, SecretValue, stores};
use forge_runtime::secret_stores::{
    SecretStoreError, SecretStores, StoreScope, check_name, check_value, redacted_preview,
};
use forge_terminal::StdoutFormat;
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{one_line, pluralize};
use forge_types::ErrorClass;
use serde_json::json;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

/// Maximum number of bytes read of a value; no secret is longer.
const MAX_VALUE_BYTES: u64 = 128 << 10;
/// Minimum length of values that are redacted in logs and journals.
const MIN_REDACTED_LEN: usize = 8;
/// Maximum number of attempts to type a passphrase.
const MAX_PASSPHRASE_TRIES: u32 = 3;

/// Runs the action.
pub(crate) fn secret(session: &Session, args: Args) -> Result<CliExit, CliError> {
    let vault = SecretStores::new(session.user_dirs()?, session.cwd.clone());
    match args.action {
        SecretAction::Set { name, value, local } => {
            set_secret(session, &vault, store_scope(local), &name, value)
        }
        SecretAction::Get { name, local, masked } => show_secret(session, &vault, local, &name, masked),
        SecretAction::List { local } => list_secrets(session, &vault, local),
        SecretAction::Delete { name, local } => delete_secret(session, &vault, store_scope(local), &name),
    }
}

const fn store_scope(local: bool) -> StoreScope {
    if local { StoreScope::Project } else { StoreScope::User }
}

fn set_secret(
    session: &Session,
    vault: &SecretStores,
    place: StoreScope,
    name: &str,
    value: Option<String>,
) -> Result<CliExit, CliError> {
    require_valid_name(name)?;
    let value = match value {
        Some(value) => {
            session.ui.print_warning(
                "a value given as an argument is visible to other programs and kept in your shell's history: omit it \
                 to be prompted, or pipe it in",
            );
            value
        }
        None => read_value(session, name)?,
    };
    check_value(&value).map_err(|bad| {
        CliError::usage(bad.to_string()).with_hint(format!("pipe it in: forge secret set {name} < file"))
    })?;
    if value.len() < MIN_REDACTED_LEN {
        session.ui.print_warning(&format!(
            "a value with fewer than {MIN_REDACTED_LEN} characters is not redacted in logs and journals"
        ));
    }
    let passphrase = if vault.exists(place) {
        passphrase_and_count(session, vault, place)?.0
    } else {
        new_passphrase(session, vault, place)?
    };
    let before = vault.set_secret(place, &passphrase, name, &SecretValue::new(value))?;
    let origin = place.origin();
    match session.ui.format {
        StdoutFormat::Json => session.ui.print_json(&json!({
            "name": name, "from": origin.name(), "path": vault.path(place), "replaced": before})),
        StdoutFormat::Text => {
            let what = if before { "replaced" } else { "set" };
            session
                .ui
                .print_line(&format!("{name} {what} in the {origin} ({})", vault.path(place).display()));
        }
    }
    Ok(CliExit::Done)
}

/// Reads the value from stdin, or asks for it without echo.
fn read_value(session: &Session, name: &str) -> Result<String, CliError> {
    if std::io::stdin().is_terminal() {
        return session.ui.ask_hidden(&format!("Value of {name}: ")).ok_or_else(|| {
            CliError::usage(format!("no value was given for {name}"))
                .with_hint(format!("type it, or pipe it in: forge secret set {name} < file"))
        });
    }
    let mut value = String::new();
    std::io::stdin().lock().take(MAX_VALUE_BYTES).read_to_string(&mut value).map_err(|error| {
        CliError::usage(format!("cannot read the value of {name} from stdin: {error}"))
            .with_hint("secrets must be text; encode other data, for example with base64")
    })?;
    // Remove the newline that `echo` and editors add; other white space may belong to the value.
    let line = value.strip_suffix('\n').map_or(value.len(), |line| line.trim_end_matches('\r').len());
    value.truncate(line);
    Ok(value)
}

fn show_secret(
    session: &Session,
    vault: &SecretStores,
    local: bool,
    name: &str,
    hide: bool,
) -> Result<CliExit, CliError> {
    require_valid_name(name)?;
    let found = find_secret(session, vault, local, name)?;
    let Some((value, origin)) = found else {
        let place = if local { "the project store" } else { "the stores or the environment" };
        return Err(CliError::failed(format!("{name} is not in {place}"))
            .with_hint("list secrets with `forge secret list`")
            .with_hint(format!("store it with `forge secret set {name}`")));
    };
    match session.ui.format {
        StdoutFormat::Json => session.ui.print_json(
            &json!({"name": name, "from": origin.name(), "masked": redacted_preview(value.expose())}),
        ),
        StdoutFormat::Text if hide => session.ui.print_line(&redacted_preview(value.expose())),
        StdoutFormat::Text => session.ui.print_raw_line(value.expose()),
    }
    Ok(CliExit::Done)
}

/// Looks up a secret in the order that runs use: project store, user store, environment.
fn find_secret(
    session: &Session,
    vault: &SecretStores,
    local: bool,
    name: &str,
) -> Result<Option<(SecretValue, SecretOrigin)>, CliError> {
    let mut known = None;
    for place in usable_stores(session, vault, local)? {
        let values = open_store(session, vault, place, &mut known)?;
        if let Some((_, value)) = values.into_iter().find(|(found, _)| found == name) {
            return Ok(Some((value, place.origin())));
        }
    }
    let environment = session.env.get(name).filter(|_| !local);
    Ok(environment.map(|value| (SecretValue::new(value), SecretOrigin::Environment)))
}

/// Returns the existing stores that may be used, in order of precedence.
fn usable_stores(session: &Session, vault: &SecretStores, local: bool) -> Result<Vec<StoreScope>, CliError> {
    if local {
        return Ok(if vault.exists(StoreScope::Project) { vec![StoreScope::Project] } else { Vec::new() });
    }
    let mut places = Vec::new();
    if vault.exists(StoreScope::Project) {
        if stores::is_adopted(&session.user_dirs()?, &session.cwd) {
            places.push(StoreScope::Project);
        } else {
            session.ui.print_warning(&format!(
                "ignoring {}: it was not created by you on this machine. If it is yours, open it once with `forge secret list --local`",
                vault.path(StoreScope::Project).display()
            ));
        }
    }
    places.extend(Some(StoreScope::User).filter(|place| vault.exists(*place)));
    Ok(places)
}

/// A row of the list.
struct SecretRow {
    name: String,
    origin: SecretOrigin,
    masked: String,
    used: bool,
}

fn list_secrets(session: &Session, vault: &SecretStores, local: bool) -> Result<CliExit, CliError> {
    let mut rows: Vec<SecretRow> = Vec::new();
    let mut known = None;
    for place in usable_stores(session, vault, local)? {
        let values = open_store(session, vault, place, &mut known)?;
        rows.extend(values.into_iter().map(|(name, value)| (name, value, place.origin())).map(secret_row));
    }
    if !local && let Ok(loaded) = session.load_silently(Path::new("."), &ConfigOverrides::default()) {
        let found =
            loaded.secrets.found_keys().map(|(name, value, origin)| (name.to_owned(), value.clone(), origin));
        rows.extend(found.filter(|(.., origin)| *origin == SecretOrigin::Environment).map(secret_row));
    }
    for at in 0..rows.len() {
        rows[at].used = !rows[..at].iter().any(|before| before.name == rows[at].name);
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name).then(b.used.cmp(&a.used)));
    match session.ui.format {
        StdoutFormat::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| {
                    json!({"name": row.name, "from": row.origin.name(), "masked": row.masked, "used": row.used})
                })
                .collect();
            session.ui.print_json(&rows);
        }
        StdoutFormat::Text if rows.is_empty() => {
            session.ui.print_note("There are no secrets yet. Store one: forge secret set OPENAI_API_KEY");
        }
        StdoutFormat::Text => {
            let cells: Vec<Vec<String>> = rows
                .iter()
                .map(|row| {
                    let shadowed = if row.used { "" } else { " (not used)" };
                    vec![row.name.clone(), format!("{}{shadowed}", row.origin), one_line(&row.masked)]
                })
                .collect();
            let head = [flexible_column("NAME"), fixed_column("FROM"), fixed_column("VALUE")];
            session.ui.print_lines(table::render_table(&head, &cells, session.ui.out_width()));
        }
    }
    Ok(CliExit::Done)
}

fn secret_row((name, value, origin): (String, SecretValue, SecretOrigin)) -> SecretRow {
    SecretRow { name, origin, masked: redacted_preview(value.expose()), used: true }
}

fn delete_secret(
    session: &Session,
    vault: &SecretStores,
    place: StoreScope,
    name: &str,
) -> Result<CliExit, CliError> {
    require_valid_name(name)?;
    let (passphrase, left) = match vault.exists(place) {
        true => passphrase_and_count(session, vault, place)?,
        false => return Err(not_found_error(name, place)),
    };
    if !vault.delete_secret(place, &passphrase, name)? {
        return Err(not_found_error(name, place));
    }
    let origin = place.origin();
    match session.ui.format {
        StdoutFormat::Json => {
            session.ui.print_json(&json!({"name": name, "from": origin.name(), "deleted": true}))
        }
        StdoutFormat::Text => {
            let left = pluralize(left.saturating_sub(1), "secret", "secrets");
            session.ui.print_line(&format!("{name} deleted from the {origin}; {left} left"));
        }
    }
    Ok(CliExit::Done)
}

fn not_found_error(name: &str, place: StoreScope) -> CliError {
    let other = if place == StoreScope::User {
        "with --local: the project's store"
    } else {
        "without --local: your own"
    };
    CliError::failed(format!("{name} is not in the {}", place.origin()))
        .with_hint(format!("list secrets with `forge secret list` ({other})"))
}

fn require_valid_name(name: &str) -> Result<(), CliError> {
    check_name(name).map_err(|bad| {
        CliError::usage(bad.to_string())
            .with_hint("give only the name; the value is prompted for: forge secret set OPENAI_API_KEY")
    })
}

/// Opens a store with the known passphrase, or asks for it.
fn open_store(
    session: &Session,
    vault: &SecretStores,
    place: StoreScope,
    known: &mut Option<SecretValue>,
) -> Result<Vec<(String, SecretValue)>, CliError> {
    if let Some(phrase) = known.as_ref()
        && let Ok(values) = vault.open(place, phrase)
    {
        return Ok(values);
    }
    let (phrase, values) = unlock_store(session, vault, place)?;
    *known = Some(phrase);
    Ok(values)
}

/// Returns the passphrase of an existing store and its number of secrets.
fn passphrase_and_count(
    session: &Session,
    vault: &SecretStores,
    place: StoreScope,
) -> Result<(SecretValue, usize), CliError> {
    unlock_store(session, vault, place).map(|(phrase, values)| (phrase, values.len()))
}

fn unlock_store(
    session: &Session,
    vault: &SecretStores,
    place: StoreScope,
) -> Result<(SecretValue, Vec<(String, SecretValue)>), CliError> {
    if let Some(phrase) = session.env.get(stores::PASSPHRASE_VAR) {
        let phrase = SecretValue::new(phrase);
        let values = vault.open(place, &phrase)?;
        return Ok((phrase, values));
    }
    let path = vault.path(place);
    for tried in 0..MAX_PASSPHRASE_TRIES {
        let Some(phrase) = session.ask_passphrase(&path, tried) else { break };
        match vault.open(place, &phrase) {
            Ok(values) => return Ok((phrase, values)),
            Err(error) if error.is_wrong_passphrase() && tried + 1 < MAX_PASSPHRASE_TRIES => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(SecretStoreError::NoPassphrase { path }.into())
}

/// Asks for the passphrase of a new store.
fn new_passphrase(
    session: &Session,
    vault: &SecretStores,
    place: StoreScope,
) -> Result<SecretValue, CliError> {
    let path = vault.path(place);
    if let Some(phrase) = session.env.get(stores::PASSPHRASE_VAR) {
        return Ok(SecretValue::new(phrase));
    }
    let question = format!("New passphrase for {} (it can't be recovered): ", path.display());
    let Some(phrase) = session.ui.ask_hidden(&question) else {
        return Err(SecretStoreError::NoPassphrase { path }.into());
    };
    if phrase.is_empty() {
        return Err(CliError::usage("the passphrase is empty").with_hint("nothing was stored; try again"));
    }
    let again = session.ui.ask_hidden("Repeat passphrase: ");
    if again.as_deref() != Some(phrase.as_str()) {
        return Err(
            CliError::usage("the passphrases do not match").with_hint("nothing was stored; try again")
        );
    }
    Ok(SecretValue::new(phrase))
}

impl From<SecretStoreError> for CliError {
    fn from(error: SecretStoreError) -> Self {
        match error.class() {
            ErrorClass::Invalid | ErrorClass::Denied => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
