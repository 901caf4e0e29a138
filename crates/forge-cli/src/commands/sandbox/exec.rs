//! `forge sandbox exec`: runs a command in the same sandbox as a run.

use crate::args::SandboxExecArgs;
use crate::commands::diff::diffstat_lines;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::request::{push_flag, push_network_flags, push_setting, resolve_repos};
use crate::session::{ConfigOverrides, Session};
use forge_config::{FlagSetting, ResolvedConfig};
use forge_runtime::{
    ByteStreamRedactor, GeneratedProgram, OutputSink, Project, Redactor, SandboxCommand,
    SandboxCommandResult, StdStream, StreamRedactor, check_repo,
};
use forge_terminal::text::{self, one_line};
use forge_terminal::{StdoutFormat, Ui};
use forge_types::SandboxLayerState;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Forwards the output of a command as it arrives, with known keys redacted. A terminal gets sanitized text; a file or
/// a pipe gets the bytes themselves.
struct ForwardOutput {
    redactor: Redactor,
    targets: [Mutex<OutputTarget>; 2],
}

/// Destination of one stream, with its pending output.
enum OutputTarget {
    /// A terminal, which gets text.
    Terminal { hold: StreamRedactor, cut: Vec<u8> },
    /// A file or a pipe.
    Bytes(ByteStreamRedactor),
}

impl OutputTarget {
    fn new(is_terminal: bool) -> Self {
        if is_terminal {
            Self::Terminal { hold: StreamRedactor::default(), cut: Vec::new() }
        } else {
            Self::Bytes(ByteStreamRedactor::default())
        }
    }

    fn take(&mut self, redactor: &Redactor, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Terminal { hold, cut } => {
                cut.extend_from_slice(bytes);
                let partial = partial_char_len(cut);
                let rest = cut.split_off(cut.len() - partial);
                let text = String::from_utf8_lossy(&std::mem::replace(cut, rest)).into_owned();
                text::sanitize_text(&hold.push(redactor, &text)).into_bytes()
            }
            Self::Bytes(hold) => hold.push(redactor, bytes),
        }
    }

    fn end(&mut self, redactor: &Redactor) -> Vec<u8> {
        match self {
            Self::Terminal { hold, cut } => {
                let text = String::from_utf8_lossy(&std::mem::take(cut)).into_owned();
                let shown = hold.push(redactor, &text) + &hold.flush(redactor);
                text::sanitize_text(&shown).into_bytes()
            }
            Self::Bytes(hold) => hold.flush(redactor),
        }
    }
}

/// Returns the number of bytes at the end that begin an incomplete character.
fn partial_char_len(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_partial = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
    if is_partial { last.len() } else { 0 }
}

impl ForwardOutput {
    fn new(ui: &Ui, loaded: &ResolvedConfig) -> Self {
        let targets = [ui.out_is_terminal, ui.err_is_terminal]
            .map(|is_terminal| Mutex::new(OutputTarget::new(is_terminal)));
        Self { redactor: Redactor::new(loaded.secrets.values_to_redact()), targets }
    }

    /// Forwards the pending output.
    fn end(&self) {
        for stream in [StdStream::Stdout, StdStream::Stderr] {
            let rest = self.target(stream).end(&self.redactor);
            write(stream, &rest);
        }
    }

    fn target(&self, stream: StdStream) -> MutexGuard<'_, OutputTarget> {
        self.targets[usize::from(stream == StdStream::Stderr)].lock()
    }
}

impl OutputSink for ForwardOutput {
    fn write_output(&self, stream: StdStream, bytes: &[u8]) {
        let passed = self.target(stream).take(&self.redactor, bytes);
        write(stream, &passed);
    }
}

fn write(stream: StdStream, bytes: &[u8]) {
    // A closed stream needs no further output.
    let _ = match stream {
        StdStream::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        StdStream::Stderr => std::io::stderr().lock().write_all(bytes),
    };
}

/// Maximum number of changed paths listed.
const MAX_LISTED_PATHS: usize = 20;
/// Maximum size of a program for `--code`, in bytes.
const MAX_PROGRAM_BYTES: u64 = 16 << 20;

/// Runs the command and exits with its exit code.
pub(crate) async fn exec(session: &Session, args: SandboxExecArgs) -> Result<CliExit, CliError> {
    let named = resolve_repos(session, &args.repo);
    let all = named.iter().map(|repo| check_repo(repo)).collect::<Result<Vec<_>, _>>()?;
    let (repo, more) = all.split_first().ok_or_else(|| CliError::usage("no repository given"))?;
    let loaded =
        session.load_for_sandbox(repo, &ConfigOverrides { flags: exec_flags(&args), env_file: None })?;
    // No run is created, and nothing is stored.
    let project = Project::open(loaded)?;
    let timeout = args.timeout.map(Duration::from_secs);
    if let Some(code) = &args.code {
        return run_program(session, &project, code, timeout).await;
    }
    let spec = project.sandbox_spec(repo, more).await?;
    let quiet = session.ui.format == StdoutFormat::Json;
    let command = SandboxCommand { argv: args.command, timeout };
    let ui = &session.ui;
    let pass_on = ForwardOutput::new(ui, project.config());
    let ran = if quiet {
        project.exec_in_sandbox(&spec, command, &()).await?
    } else {
        let ran = project.exec_in_sandbox(&spec, command, &pass_on).await;
        pass_on.end();
        ran?
    };
    if quiet {
        ui.print_json(&without_secrets(&pass_on.redactor, as_json(&ran)));
    } else {
        print_exec_notes(ui, &ran, &pass_on.redactor);
    }
    Ok(CliExit::Code(u8::try_from(ran.result.exit_code).unwrap_or(1)))
}

fn as_json(ran: &SandboxCommandResult) -> Value {
    json!({
        "exit_code": ran.result.exit_code,
        "timed_out": ran.result.timed_out,
        "out_of_memory": ran.result.out_of_memory,
        "stdout": String::from_utf8_lossy(&ran.result.stdout.bytes),
        "stderr": String::from_utf8_lossy(&ran.result.stderr.bytes),
        "truncated": ran.result.stdout.is_truncated() || ran.result.stderr.is_truncated(),
        "duration_ms": ran.result.duration_ms,
        "memory_mb": ran.result.peak_memory / (1 << 20),
        "sandbox": ran.report,
        "reached": ran.reached,
        "files": ran.changed.files,
        "files_omitted": ran.changed.omitted,
    })
}

/// Redacts secrets in all texts of the value.
fn without_secrets(redactor: &Redactor, mut value: Value) -> Value {
    match &mut value {
        Value::String(text) => redactor.redact_in_place(text),
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

/// Prints notes for the user after the output.
fn print_exec_notes(ui: &Ui, ran: &SandboxCommandResult, redactor: &Redactor) {
    if ran.result.timed_out {
        ui.print_warning(&format!("timed out after {}", text::format_duration(ran.result.duration_ms)));
    }
    if ran.result.out_of_memory {
        ui.print_warning("killed: memory limit exceeded");
    }
    if !ran.changed.is_empty() && !ran.kept {
        ui.print_note("discarding the changes in the private workspace (--workspace inplace keeps them):");
        let mut changed = ran.changed.clone();
        let paths = changed.files.len();
        changed.files.truncate(MAX_LISTED_PATHS);
        changed.omitted += (paths - changed.files.len()) as u64;
        let lines: Vec<String> = diffstat_lines(&changed).collect();
        ui.print_note(&redactor.redact_for_display(&lines.join("\n")));
    }
    for layer in &ran.report.layers {
        let SandboxLayerState::Absent(why) = &layer.state else { continue };
        let remedy = layer.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        ui.print_warning(&one_line(&format!("{} is not enforced: {why}{remedy}", layer.name)));
    }
    ran.report
        .warnings
        .iter()
        .for_each(|warning| ui.print_warning(&one_line(&redactor.redact_for_display(warning))));
}

async fn run_program(
    session: &Session,
    project: &Project,
    path: &Path,
    timeout: Option<Duration>,
) -> Result<CliExit, CliError> {
    let path = session.cwd.join(path);
    let code = forge_files::read_text(&path, MAX_PROGRAM_BYTES).map_err(|error| {
        CliError::file_error("cannot read the program from", &path, &error.into_io_error())
    })?;
    let language = path.extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
    let ran = project.run_one_shot(GeneratedProgram { code, language, timeout }).await?;
    let ui = &session.ui;
    let pass_on = ForwardOutput::new(ui, project.config());
    if ui.format == StdoutFormat::Json {
        let value = serde_json::to_value(&ran).map_err(|error| CliError::failed(error.to_string()))?;
        ui.print_json(&without_secrets(&pass_on.redactor, value));
    } else {
        for warning in &ran.warnings {
            let said = pass_on.redactor.redact_for_display(&warning.message);
            ui.print_warning(&one_line(&format!("line {}: {said}", warning.line)));
        }
        pass_on.write_output(StdStream::Stdout, ran.stdout.as_bytes());
        pass_on.write_output(StdStream::Stderr, ran.stderr.as_bytes());
        pass_on.end();
        if ran.timed_out {
            ui.print_warning(&format!("timed out after {}", text::format_duration(ran.duration_ms)));
        }
        ui.print_note(&format!("{} ms, {} MiB", ran.duration_ms, ran.memory_mb));
    }
    Ok(CliExit::Code(u8::try_from(ran.exit_code).unwrap_or(1)))
}

fn exec_flags(args: &SandboxExecArgs) -> Vec<FlagSetting> {
    let mut flags = Vec::new();
    push_flag(&mut flags, "sandbox.backend", "--backend", args.backend.as_ref());
    push_flag(&mut flags, "sandbox.image", "--image", args.image.as_ref());
    push_setting(&mut flags, "workspace.mode", args.workspace.as_ref());
    push_network_flags(&args.network, &mut flags);
    flags
}
