//! The run directory `runs/<id>/`: a projection for people and scripts, never read by forge (JRN-1).

use crate::Error;
use forge_engine::PayloadCache;
use forge_ports::{Journal, journal};
use forge_types::{Digest, Event, EventKind, PartKind, Plan, RunId, RunState, Seq, Timestamp};
use forge_wire::record;
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest tool result, in characters, that gets no file of its own.
const MAX_EMBEDDED_RESULT_CHARS: u64 = 8_000;
/// The last file to be written.
const SUMMARY_FILE: &str = "summary.json";

/// Returns the directory of a run.
pub(crate) fn run_directory_path(data: &Path, run: RunId) -> PathBuf {
    data.join("runs").join(run.to_string())
}

/// Writes `run.json`, `messages.jsonl`, `events.jsonl`, `summary.json` and the files of long results, each atomically.
///
/// # Errors
/// If the journal can't be read or a file can't be written.
pub(crate) async fn write_run_directory(
    journal: &Arc<dyn Journal>,
    data: &Path,
    run: RunId,
    now: Timestamp,
) -> Result<(), Error> {
    let read = read_run(journal, run).await?;
    let folder = run_directory_path(data, run);
    tokio::task::spawn_blocking(move || write_files(&folder, &read, now)).await.map_err(Error::internal)?
}

/// Returns whether a run has ended but its directory is incomplete; the file checked is the last one written.
pub(crate) fn is_missing(data: &Path, state: &RunState) -> bool {
    state.status.is_terminal() && !run_directory_path(data, state.run).join(SUMMARY_FILE).exists()
}

/// A run's journal with all texts loaded, as far as it is readable.
pub(crate) struct RunContents {
    pub(crate) state: RunState,
    pub(crate) plan: Option<Plan>,
    pub(crate) events: Vec<Event>,
    pub(crate) damage: Option<String>,
}

pub(crate) async fn read_run(journal: &Arc<dyn Journal>, run: RunId) -> Result<RunContents, Error> {
    let blobs = PayloadCache::new(journal.clone());
    let pages = journal.read_events(run, Seq(0), 0).await?;
    let (mut events, mut damage) = (pages.events, pages.damage);
    for event in &mut events {
        for payload in event.kind.payloads_mut() {
            if let Err(error) = blobs.resolve(payload).await {
                damage.get_or_insert_with(|| damage_message(error));
            }
        }
    }
    let plan = match events.first().map(|event| &event.kind) {
        Some(EventKind::Created(created)) => match read_plan(journal, created.plan).await {
            Ok(plan) => Some(plan),
            Err(why) => {
                damage.get_or_insert(why);
                None
            }
        },
        _ => None,
    };
    let mut state = RunState::new(run);
    for event in &events {
        if let Err(error) = state.apply(event) {
            damage.get_or_insert_with(|| error.to_string());
            break;
        }
    }
    Ok(RunContents { state, plan, events, damage })
}

/// Reads the plan of a run; the error describes the damage.
async fn read_plan(journal: &Arc<dyn Journal>, digest: Digest) -> Result<Plan, String> {
    let bytes = journal.read_blob(digest).await.map_err(damage_message)?;
    Plan::from_json(&bytes).map_err(|error| format!("its plan can't be parsed: {error}"))
}

/// Describes damage without the prefix `damaged:`, as the message around it has its own.
fn damage_message(error: journal::Error) -> String {
    match error {
        journal::Error::Damaged { what } => what,
        other => other.to_string(),
    }
}

fn write_files(folder: &Path, read: &RunContents, now: Timestamp) -> Result<(), Error> {
    let (state, plan, events) = (&read.state, read.plan.as_ref(), &read.events);
    std::fs::create_dir_all(folder).map_err(|error| output_error(folder, &error))?;
    write_file(folder, "run.json", &to_pretty_json(&record::run_record(state, plan, events))?)?;
    write_file(folder, "messages.jsonl", &to_json_lines(&record::all_message_lines(state, plan, events))?)?;
    write_long_results(folder, state)?;
    write_file(folder, "events.jsonl", &to_json_lines(&record::wire_events(state.run, plan, events))?)?;
    write_file(folder, SUMMARY_FILE, &to_pretty_json(&record::run_summary(state, plan, now))?)
}

/// Writes results over [`MAX_EMBEDDED_RESULT_CHARS`] to files of their own: `files/<call id>.txt` (LOOP-11).
fn write_long_results(folder: &Path, state: &RunState) -> Result<(), Error> {
    let files = folder.join("files");
    let parts = state.messages.iter().flat_map(|message| &message.parts);
    for part in parts {
        let PartKind::Result(result) = &part.kind else { continue };
        let Some(text) =
            result.content.inline_text().filter(|_| result.content.char_len() > MAX_EMBEDDED_RESULT_CHARS)
        else {
            continue;
        };
        std::fs::create_dir_all(&files).map_err(|error| output_error(&files, &error))?;
        let name: String = result
            .call_id
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(100)
            .collect();
        write_file(&files, &format!("{name}.txt"), text.as_bytes())?;
    }
    Ok(())
}

fn to_pretty_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(Error::internal)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn to_json_lines<T: Serialize>(values: &[T]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    for value in values {
        serde_json::to_writer(&mut bytes, value).map_err(Error::internal)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let target = folder.join(name);
    // Two processes may write the same file at once; the last one leaves a complete file.
    let temporary = folder.join(format!(".{name}.{}.new", std::process::id()));
    std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, &target))
        .map_err(|error| output_error(&target, &error))
}

fn output_error(path: &Path, error: &std::io::Error) -> Error {
    Error::Output { path: path.display().to_string(), why: error.to_string() }
}
