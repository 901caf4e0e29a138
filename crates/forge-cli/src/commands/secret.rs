//! `forge secret`: keys in an encrypted file instead of the environment.

use crate::args::{Secret as Args, SecretAction};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use crate::ui::table::{self, fixed, flexible};
use crate::ui::text::{one_line, plural};
use forge_config::{Secret, SecretOrigin, stores};
use forge_runtime::vault::{Place, Vault, VaultError, check_name, check_value, masked};
use forge_types::Class;
use serde_json::json;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

/// Bytes of a value that are read; no secret is longer.
const VALUE: u64 = 128 << 10;
/// Shorter values are not taken out of logs and journals.
const HIDDEN_FROM: usize = 8;
/// A passphrase that was typed may be wrong so many times.
const TRIES: u32 = 3;

/// Does what was asked.
pub(crate) fn secret(session: &Session, args: Args) -> Result<Exit, CliError> {
    let vault = Vault::new(session.dirs()?, session.cwd.clone());
    match args.action {
        SecretAction::Set { name, value, local } => set(session, &vault, place(local), &name, value),
        SecretAction::Get { name, local, masked } => get(session, &vault, local, &name, masked),
        SecretAction::List { local } => list(session, &vault, local),
        SecretAction::Delete { name, local } => delete(session, &vault, place(local), &name),
    }
}

const fn place(local: bool) -> Place {
    if local { Place::Project } else { Place::User }
}

fn set(
    session: &Session,
    vault: &Vault,
    place: Place,
    name: &str,
    value: Option<String>,
) -> Result<Exit, CliError> {
    named(name)?;
    let value = match value {
        Some(value) => {
            session.ui.warn(
                "a value given as an argument is seen by other programs of this machine and kept by your shell's \
                 history: better leave it out, or pipe it in",
            );
            value
        }
        None => read_value(session, name)?,
    };
    check_value(&value).map_err(|bad| {
        CliError::usage(bad.to_string()).hint(format!("pipe it in: forge secret set {name} < file"))
    })?;
    if value.len() < HIDDEN_FROM {
        session.ui.warn(&format!(
            "a value with fewer than {HIDDEN_FROM} characters is not taken out of logs and journals"
        ));
    }
    let passphrase = if vault.exists(place) {
        passphrase(session, vault, place)?.0
    } else {
        new_passphrase(session, vault, place)?
    };
    let before = vault.set(place, &passphrase, name, &Secret::new(value))?;
    let origin = place.origin();
    match session.ui.format {
        Format::Json => session.ui.json(&json!({
            "name": name, "from": origin.name(), "path": vault.path(place), "replaced": before})),
        Format::Text => {
            let what = if before { "replaced" } else { "set" };
            session.ui.line(&format!("{name} {what} in the {origin} ({})", vault.path(place).display()));
        }
    }
    Ok(Exit::Done)
}

/// The value from stdin, or typed unseen.
fn read_value(session: &Session, name: &str) -> Result<String, CliError> {
    if std::io::stdin().is_terminal() {
        return session.ui.ask_hidden(&format!("Value of {name}: ")).ok_or_else(|| {
            CliError::usage(format!("no value was given for {name}"))
                .hint(format!("type it, or pipe it in: forge secret set {name} < file"))
        });
    }
    let mut value = String::new();
    std::io::stdin().lock().take(VALUE).read_to_string(&mut value).map_err(|error| {
        CliError::usage(format!("the value of {name} can't be read from stdin: {error}"))
            .hint("secrets are text; encode anything else, with base64 for example")
    })?;
    // The line end that `echo` and editors add; any other white space may belong to it.
    let line = value.strip_suffix('\n').map_or(value.len(), |line| line.trim_end_matches('\r').len());
    value.truncate(line);
    Ok(value)
}

fn get(session: &Session, vault: &Vault, local: bool, name: &str, hide: bool) -> Result<Exit, CliError> {
    named(name)?;
    let found = find(session, vault, local, name)?;
    let Some((value, origin)) = found else {
        let place = if local { "the project store" } else { "the stores or the environment" };
        return Err(CliError::failed(format!("{name} is not in {place}"))
            .hint("`forge secret list` shows what there is")
            .hint(format!("keep it with `forge secret set {name}`")));
    };
    match session.ui.format {
        Format::Json => {
            session.ui.json(&json!({"name": name, "from": origin.name(), "masked": masked(value.expose())}))
        }
        Format::Text if hide => session.ui.line(&masked(value.expose())),
        Format::Text => session.ui.raw_line(value.expose()),
    }
    Ok(Exit::Done)
}

/// A secret as runs find it: in the project's store, in the user's, in the environment.
fn find(
    session: &Session,
    vault: &Vault,
    local: bool,
    name: &str,
) -> Result<Option<(Secret, SecretOrigin)>, CliError> {
    let mut known = None;
    for place in places(session, vault, local)? {
        let values = open(session, vault, place, &mut known)?;
        if let Some((_, value)) = values.into_iter().find(|(found, _)| found == name) {
            return Ok(Some((value, place.origin())));
        }
    }
    let environment = session.env.get(name).filter(|_| !local);
    Ok(environment.map(|value| (Secret::new(value), SecretOrigin::Environment)))
}

/// The stores that are there and count, first one first.
fn places(session: &Session, vault: &Vault, local: bool) -> Result<Vec<Place>, CliError> {
    if local {
        return Ok(if vault.exists(Place::Project) { vec![Place::Project] } else { Vec::new() });
    }
    let mut places = Vec::new();
    if vault.exists(Place::Project) {
        if stores::is_adopted(&session.dirs()?, &session.cwd) {
            places.push(Place::Project);
        } else {
            session.ui.warn(&format!(
                "{} is not used: it was not made here. If it is yours, open it once with `forge secret list --local`",
                vault.path(Place::Project).display()
            ));
        }
    }
    places.extend(Some(Place::User).filter(|place| vault.exists(*place)));
    Ok(places)
}

/// A row of the list.
struct Row {
    name: String,
    origin: SecretOrigin,
    masked: String,
    used: bool,
}

fn list(session: &Session, vault: &Vault, local: bool) -> Result<Exit, CliError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut known = None;
    for place in places(session, vault, local)? {
        let values = open(session, vault, place, &mut known)?;
        rows.extend(values.into_iter().map(|(name, value)| (name, value, place.origin())).map(row));
    }
    if !local && let Ok(loaded) = session.load_silently(Path::new("."), &Overlay::default()) {
        let found =
            loaded.secrets.found().map(|(name, value, origin)| (name.to_owned(), value.clone(), origin));
        rows.extend(found.filter(|(.., origin)| *origin == SecretOrigin::Environment).map(row));
    }
    for at in 0..rows.len() {
        rows[at].used = !rows[..at].iter().any(|before| before.name == rows[at].name);
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name).then(b.used.cmp(&a.used)));
    match session.ui.format {
        Format::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| {
                    json!({"name": row.name, "from": row.origin.name(), "masked": row.masked, "used": row.used})
                })
                .collect();
            session.ui.json(&rows);
        }
        Format::Text if rows.is_empty() => {
            session.ui.note("There are no secrets. Keep one with: forge secret set OPENAI_API_KEY");
        }
        Format::Text => {
            let cells: Vec<Vec<String>> = rows
                .iter()
                .map(|row| {
                    let shadowed = if row.used { "" } else { " (not used)" };
                    vec![row.name.clone(), format!("{}{shadowed}", row.origin), one_line(&row.masked)]
                })
                .collect();
            let head = [flexible("NAME"), fixed("FROM"), fixed("VALUE")];
            session.ui.lines(&table::lines(&head, &cells, session.ui.out_width()));
        }
    }
    Ok(Exit::Done)
}

fn row((name, value, origin): (String, Secret, SecretOrigin)) -> Row {
    Row { name, origin, masked: masked(value.expose()), used: true }
}

fn delete(session: &Session, vault: &Vault, place: Place, name: &str) -> Result<Exit, CliError> {
    named(name)?;
    let (passphrase, left) = match vault.exists(place) {
        true => passphrase(session, vault, place)?,
        false => return Err(absent(name, place)),
    };
    if !vault.delete(place, &passphrase, name)? {
        return Err(absent(name, place));
    }
    let origin = place.origin();
    match session.ui.format {
        Format::Json => session.ui.json(&json!({"name": name, "from": origin.name(), "deleted": true})),
        Format::Text => {
            let left = plural(left.saturating_sub(1), "secret is", "secrets are");
            session.ui.line(&format!("{name} deleted from the {origin}; {left} left in it"));
        }
    }
    Ok(Exit::Done)
}

fn absent(name: &str, place: Place) -> CliError {
    let other =
        if place == Place::User { "with --local: the project's store" } else { "without --local: your own" };
    CliError::failed(format!("{name} is not in the {}", place.origin()))
        .hint(format!("`forge secret list` shows what there is ({other})"))
}

fn named(name: &str) -> Result<(), CliError> {
    check_name(name).map_err(|bad| {
        CliError::usage(bad.to_string())
            .hint("the value is asked for afterwards: forge secret set OPENAI_API_KEY")
    })
}

/// What is in a store, opened with a passphrase that is known or asked for.
fn open(
    session: &Session,
    vault: &Vault,
    place: Place,
    known: &mut Option<Secret>,
) -> Result<Vec<(String, Secret)>, CliError> {
    if let Some(phrase) = known.as_ref()
        && let Ok(values) = vault.open(place, phrase)
    {
        return Ok(values);
    }
    let (phrase, values) = unlocked(session, vault, place)?;
    *known = Some(phrase);
    Ok(values)
}

/// The passphrase of a store that is there, and how many secrets are in it.
fn passphrase(session: &Session, vault: &Vault, place: Place) -> Result<(Secret, usize), CliError> {
    unlocked(session, vault, place).map(|(phrase, values)| (phrase, values.len()))
}

fn unlocked(
    session: &Session,
    vault: &Vault,
    place: Place,
) -> Result<(Secret, Vec<(String, Secret)>), CliError> {
    if let Some(phrase) = session.env.get(stores::PASSPHRASE) {
        let phrase = Secret::new(phrase);
        let values = vault.open(place, &phrase)?;
        return Ok((phrase, values));
    }
    let path = vault.path(place);
    for tried in 0..TRIES {
        let Some(phrase) = session.passphrase(&path, tried) else { break };
        match vault.open(place, &phrase) {
            Ok(values) => return Ok((phrase, values)),
            Err(error) if error.is_wrong_passphrase() && tried + 1 < TRIES => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(VaultError::NoPassphrase { path }.into())
}

/// The passphrase of a store that is to be made.
fn new_passphrase(session: &Session, vault: &Vault, place: Place) -> Result<Secret, CliError> {
    let path = vault.path(place);
    if let Some(phrase) = session.env.get(stores::PASSPHRASE) {
        return Ok(Secret::new(phrase));
    }
    let question = format!("New passphrase for {} (it can't be recovered): ", path.display());
    let Some(phrase) = session.ui.ask_hidden(&question) else {
        return Err(VaultError::NoPassphrase { path }.into());
    };
    if phrase.is_empty() {
        return Err(
            CliError::usage("the passphrase is empty").hint("nothing was kept; try again with another one")
        );
    }
    let again = session.ui.ask_hidden("The same once more: ");
    if again.as_deref() != Some(phrase.as_str()) {
        return Err(CliError::usage("the two passphrases differ").hint("nothing was kept; try again"));
    }
    Ok(Secret::new(phrase))
}

impl From<VaultError> for CliError {
    fn from(error: VaultError) -> Self {
        match error.class() {
            Class::Invalid | Class::Denied => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
