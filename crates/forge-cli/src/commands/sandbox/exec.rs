//! `forge sandbox exec`: a command in exactly the box that a run would get.

use crate::args::Exec;
use crate::commands::diff::stat;
use crate::error::CliError;
use crate::exit::Exit;
use crate::request::{network, repos};
use crate::session::{Overlay, Session};
use crate::ui::text::{self, one_line};
use crate::ui::{Format, Ui};
use forge_config::{Flag, Loaded};
use forge_runtime::{
    BoxCommand, BoxRun, Forge, HoldBack, HoldBytes, Once, OutputSink, Redactor, Stream, check_repo,
};
use forge_types::LayerState;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Passes a command's output on as it comes, without keys that are known. A terminal gets what it can show and nothing
/// that it obeys; a file or a pipe gets the bytes themselves.
struct PassOn {
    redactor: Redactor,
    ways: [Mutex<Way>; 2],
}

/// Where one stream goes, and what of it waits.
enum Way {
    /// To a terminal, as text.
    Terminal { hold: HoldBack, cut: Vec<u8> },
    /// To a file or a pipe.
    Bytes(HoldBytes),
}

impl Way {
    fn new(is_terminal: bool) -> Self {
        if is_terminal {
            Self::Terminal { hold: HoldBack::default(), cut: Vec::new() }
        } else {
            Self::Bytes(HoldBytes::default())
        }
    }

    fn take(&mut self, redactor: &Redactor, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Terminal { hold, cut } => {
                cut.extend_from_slice(bytes);
                let begun = begun_character(cut);
                let rest = cut.split_off(cut.len() - begun);
                let text = String::from_utf8_lossy(&std::mem::replace(cut, rest)).into_owned();
                text::clean(&hold.push(redactor, &text)).into_bytes()
            }
            Self::Bytes(hold) => hold.push(redactor, bytes),
        }
    }

    fn end(&mut self, redactor: &Redactor) -> Vec<u8> {
        match self {
            Self::Terminal { hold, cut } => {
                let text = String::from_utf8_lossy(&std::mem::take(cut)).into_owned();
                let shown = hold.push(redactor, &text) + &hold.flush(redactor);
                text::clean(&shown).into_bytes()
            }
            Self::Bytes(hold) => hold.flush(redactor),
        }
    }
}

/// Bytes at the end that are the beginning of a character.
fn begun_character(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let begun = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
    if begun { last.len() } else { 0 }
}

impl PassOn {
    fn new(ui: &Ui, loaded: &Loaded) -> Self {
        let ways =
            [ui.out_is_terminal, ui.err_is_terminal].map(|is_terminal| Mutex::new(Way::new(is_terminal)));
        Self { redactor: Redactor::new(loaded.secrets.values()), ways }
    }

    /// Passes on what waited.
    fn end(&self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = self.way(stream).end(&self.redactor);
            write(stream, &rest);
        }
    }

    fn way(&self, stream: Stream) -> MutexGuard<'_, Way> {
        self.ways[usize::from(stream == Stream::Stderr)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutputSink for PassOn {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        let passed = self.way(stream).take(&self.redactor, bytes);
        write(stream, &passed);
    }
}

fn write(stream: Stream, bytes: &[u8]) {
    // Whoever closed our stream does not want the rest.
    let _ = match stream {
        Stream::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => std::io::stderr().lock().write_all(bytes),
    };
}

/// Paths that are listed of what a command changed.
const MOST_PATHS: usize = 20;
/// The most bytes of a program for `--code`.
const MAX_PROGRAM_BYTES: u64 = 16 << 20;

/// Runs it and ends with its exit code.
pub(crate) async fn exec(session: &Session, args: Exec) -> Result<Exit, CliError> {
    let named = repos(session, &args.repo);
    let all = named.iter().map(|repo| check_repo(repo)).collect::<Result<Vec<_>, _>>()?;
    let (repo, more) = all.split_first().ok_or_else(|| CliError::usage("there is no repository"))?;
    let loaded = session.load_for_box(repo, &Overlay { flags: flags(&args), env_file: None })?;
    // Nothing of it is kept: no run is made.
    let forge = Forge::open(&loaded)?;
    let timeout = args.timeout.map(Duration::from_secs);
    if let Some(code) = &args.code {
        return once(session, &forge, &loaded, code, timeout).await;
    }
    let spec = forge.sandbox_spec(&loaded, repo, more).await?;
    let quiet = session.ui.format == Format::Json;
    let command = BoxCommand { argv: args.command, timeout };
    let ui = &session.ui;
    let pass_on = PassOn::new(ui, &loaded);
    let ran = if quiet {
        forge.exec(&loaded, &spec, command, &()).await?
    } else {
        let ran = forge.exec(&loaded, &spec, command, &pass_on).await;
        pass_on.end();
        ran?
    };
    if quiet {
        ui.json(&without_secrets(&pass_on.redactor, as_json(&ran)));
    } else {
        say(ui, &ran, &pass_on.redactor);
    }
    Ok(Exit::Code(u8::try_from(ran.result.exit_code).unwrap_or(1)))
}

fn as_json(ran: &BoxRun) -> Value {
    json!({
        "exit_code": ran.result.exit_code,
        "timed_out": ran.result.timed_out,
        "out_of_memory": ran.result.out_of_memory,
        "stdout": String::from_utf8_lossy(&ran.result.stdout.bytes),
        "stderr": String::from_utf8_lossy(&ran.result.stderr.bytes),
        "truncated": ran.result.stdout.truncated() || ran.result.stderr.truncated(),
        "duration_ms": ran.result.duration_ms,
        "memory_mb": ran.result.peak_memory / (1 << 20),
        "sandbox": ran.report,
        "reached": ran.reached,
        "files": ran.changed,
    })
}

/// The value with each of its texts clean of secrets.
fn without_secrets(redactor: &Redactor, mut value: Value) -> Value {
    match &mut value {
        Value::String(text) => redactor.text(text),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| *item = without_secrets(redactor, item.take()));
        }
        Value::Object(map) => {
            map.values_mut().for_each(|item| *item = without_secrets(redactor, item.take()));
        }
        _ => {}
    }
    value
}

/// What a person should know besides the output.
fn say(ui: &Ui, ran: &BoxRun, redactor: &Redactor) {
    if ran.result.timed_out {
        ui.warn("the command's time was up");
    }
    if ran.result.out_of_memory {
        ui.warn("the memory limit ended the command");
    }
    if !ran.changed.is_empty() && !ran.kept {
        ui.note("changed in a private view, which is thrown away now (--workspace inplace keeps changes):");
        let mut lines = stat(&ran.changed);
        // The sum at the end counts them all.
        let paths = ran.changed.len();
        if paths > MOST_PATHS {
            lines.splice(MOST_PATHS..paths, [format!("… and {} more", paths - MOST_PATHS)]);
        }
        ui.note(&redactor.shown(&lines.join("\n")));
    }
    for layer in &ran.report.layers {
        let LayerState::Absent(why) = &layer.state else { continue };
        let remedy = layer.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        ui.warn(&one_line(&format!("{} is not in force: {why}{remedy}", layer.name)));
    }
    ran.report.warnings.iter().for_each(|warning| ui.warn(&one_line(&redactor.shown(warning))));
}

async fn once(
    session: &Session,
    forge: &Forge,
    loaded: &Loaded,
    path: &Path,
    timeout: Option<Duration>,
) -> Result<Exit, CliError> {
    let path = session.cwd.join(path);
    let code = forge_files::read_text(&path, MAX_PROGRAM_BYTES)
        .map_err(|error| CliError::file("the program can't be read from", &path, &error.into_io()))?;
    let language = path.extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
    let ran = forge.execute_once(loaded, Once { code, language, timeout }).await?;
    let ui = &session.ui;
    let pass_on = PassOn::new(ui, loaded);
    if ui.format == Format::Json {
        let value = serde_json::to_value(&ran).map_err(|error| CliError::failed(error.to_string()))?;
        ui.json(&without_secrets(&pass_on.redactor, value));
    } else {
        for warning in &ran.warnings {
            let said = pass_on.redactor.shown(&warning.message);
            ui.warn(&one_line(&format!("line {}: {said}", warning.line)));
        }
        pass_on.output(Stream::Stdout, ran.stdout.as_bytes());
        pass_on.output(Stream::Stderr, ran.stderr.as_bytes());
        pass_on.end();
        if ran.timed_out {
            ui.warn("the command's time was up");
        }
        ui.note(&format!("{} ms, {} MiB", ran.duration_ms, ran.memory_mb));
    }
    Ok(Exit::Code(u8::try_from(ran.exit_code).unwrap_or(1)))
}

fn flags(args: &Exec) -> Vec<Flag> {
    let mut flags = Vec::new();
    let mut flag = |key: &str, name: &str, value: Option<String>| {
        if let Some(value) = value {
            flags.push(Flag { key: key.to_owned(), value, name: name.to_owned() });
        }
    };
    flag("sandbox.backend", "--backend", args.backend.clone());
    flag("sandbox.image", "--image", args.image.clone());
    flag("workspace.mode", "--workspace", args.workspace.map(|mode| mode.name().to_owned()));
    network(&args.network, &mut flags);
    flags
}
