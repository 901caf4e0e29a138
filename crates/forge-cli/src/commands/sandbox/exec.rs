//! `forge sandbox exec`: a command in exactly the box that a run would get.

use crate::args::Exec;
use crate::commands::diff::stat;
use crate::error::CliError;
use crate::exit::Exit;
use crate::request::{network, repos};
use crate::session::{Overlay, Session};
use crate::ui::text::one_line;
use crate::ui::{Format, Ui};
use forge_config::{Flag, Loaded};
use forge_runtime::{BoxCommand, BoxRun, Forge, Once, OutputSink, Stream, check_repo};
use forge_types::LayerState;
use serde_json::json;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Passes a command's output on as it comes, byte for byte.
struct PassOn;

impl OutputSink for PassOn {
    fn output(&self, stream: Stream, bytes: &[u8]) {
        // Whoever closed our stream does not want the rest.
        let _ = match stream {
            Stream::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            Stream::Stderr => std::io::stderr().lock().write_all(bytes),
        };
    }
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
    let ran = if quiet {
        forge.exec(&loaded, &spec, command, &()).await?
    } else {
        forge.exec(&loaded, &spec, command, &PassOn).await?
    };
    let ui = &session.ui;
    if quiet {
        ui.json(&json!({
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
        }));
    } else {
        say(ui, &ran);
    }
    Ok(Exit::Code(u8::try_from(ran.result.exit_code).unwrap_or(1)))
}

/// What a person should know besides the output.
fn say(ui: &Ui, ran: &BoxRun) {
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
        ui.note(&lines.join("\n"));
    }
    for layer in &ran.report.layers {
        let LayerState::Absent(why) = &layer.state else { continue };
        let remedy = layer.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        ui.warn(&one_line(&format!("{} is not in force: {why}{remedy}", layer.name)));
    }
    ran.report.warnings.iter().for_each(|warning| ui.warn(&one_line(warning)));
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
    if ui.format == Format::Json {
        ui.json(&ran);
    } else {
        for warning in &ran.warnings {
            ui.warn(&one_line(&format!("line {}: {}", warning.line, warning.message)));
        }
        PassOn.output(Stream::Stdout, ran.stdout.as_bytes());
        PassOn.output(Stream::Stderr, ran.stderr.as_bytes());
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
