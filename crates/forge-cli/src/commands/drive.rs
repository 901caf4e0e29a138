//! Driving a run from this process: live display, signals, and the final output.

use super::stop_on_signal::stop_on_signal;
use crate::args::OutputFormat;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::logging::LogTarget;
use crate::request::RunOutput;
use crate::session::Session;
use forge_files::UserFile;
use forge_runtime::{Error, LiveSink, MergePolicy, Project, RunDetails};
use forge_terminal::live::{DisplayMode as Showing, LiveDisplay, StdoutEvents};
use forge_terminal::{Ui, Verbosity, report, terminal_width, text};
use forge_types::{ApplyPolicy, ChangeList, ModelRoute, RunCommand, RunId, RunLimits, RunStatus};
use forge_wire::record::RunSummary;
use forge_wire::{LiveFrame, WireEvent};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Forwards events and live frames to the display.
struct RunSink(Arc<LiveDisplay>);

impl LiveSink for RunSink {
    fn on_event(&self, event: &WireEvent) {
        self.0.send_event(event);
    }

    fn on_frame(&self, frame: LiveFrame) {
        self.0.send_frame(frame);
    }
}

/// Ways to start work on a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartMode {
    /// First start.
    New,
    /// Resumption, perhaps with other limits.
    Again(Option<RunLimits>),
}

/// Returns the line that announces a run, with the model that it calls.
pub(crate) fn start_line(run: RunId, route: Option<&ModelRoute>) -> String {
    match route {
        Some(route) => format!("run {run} · {route}"),
        None => format!("run {run}"),
    }
}

/// Drives a run until it ends or is parked, and prints the result.
pub(crate) async fn drive_run(
    session: &Session,
    project: &Project,
    run: RunId,
    take: StartMode,
    output: &RunOutput,
) -> Result<CliExit, CliError> {
    let ui = &session.ui;
    let live = Arc::new(LiveDisplay::start(ui, display_mode(ui, output), stdout_events(output.format)));
    if matches!((take, output.format), (StartMode::New, OutputFormat::Jsonl)) {
        // The stream of a new run begins with its creation.
        let mut past = project.forge().follow(run, 0);
        while let Some(event) = past.next_ready().await.map_err(forge_runtime::Error::from)? {
            live.send_event(&event);
        }
    }
    let told = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch_signals(project.clone(), run, live.clone(), told.clone()));
    let sink: Arc<dyn LiveSink> = Arc::new(RunSink(live.clone()));
    let ended = match take {
        StartMode::New => project.drive(run, sink).await,
        StartMode::Again(limits) => project.resume(run, limits, sink).await,
    };
    watcher.abort();
    live.finish();
    let mut shown = ended.map_err(|error| CliError::from(error).with_run_hint(run))?;
    if ask_to_apply(session, project, &shown).await? {
        shown = project.forge().run_details(run).await?;
    }
    print_result(ui, &shown, output)?;
    Ok(CliExit::from_run_status(shown.state.status, told.load(Ordering::Relaxed)))
}

/// Asks whether to apply a result, if the run's policy requires it and the user can answer. Returns whether the result
/// was applied.
pub(super) async fn ask_to_apply(
    session: &Session,
    project: &Project,
    shown: &RunDetails,
) -> Result<bool, CliError> {
    let ui = &session.ui;
    let asks = shown.plan.as_ref().is_some_and(|plan| plan.shared.sandbox.apply == ApplyPolicy::Ask);
    if !asks || !shown.summary.workspace.pending || shown.state.status != RunStatus::Completed {
        return Ok(false);
    }
    let run = shown.state.run;
    let changes = ChangeList::from(stop_on_signal(project, run, ui, project.changed_paths(run, None)).await?);
    ui.print_note(&super::diff::diffstat_lines(&changes).collect::<Vec<_>>().join("\n"));
    if !ui.confirm("Apply these changes to the repository?") {
        return Ok(false);
    }
    stop_on_signal(project, run, ui, project.apply(run, None, MergePolicy::No)).await?;
    Ok(true)
}

/// Chooses an animated display on a terminal, and lines in a file or between log lines.
fn display_mode(ui: &Ui, output: &RunOutput) -> Showing {
    match (ui.volume, output.format, output.log) {
        (Verbosity::Quiet, ..) => Showing::Nothing,
        // Events on the same terminal would disrupt the display.
        (_, OutputFormat::Jsonl, _) if ui.out_is_terminal => Showing::Nothing,
        (_, _, LogTarget::Elsewhere) if ui.err_is_terminal => Showing::Picture,
        _ => Showing::Lines,
    }
}

const fn stdout_events(format: OutputFormat) -> StdoutEvents {
    match format {
        OutputFormat::Jsonl => StdoutEvents::Events,
        OutputFormat::Text | OutputFormat::Json => StdoutEvents::Untouched,
    }
}

/// Cancels the run cleanly on the first signal, and ends this process on the second.
async fn watch_signals(project: Project, run: RunId, live: Arc<LiveDisplay>, told: Arc<AtomicBool>) {
    // SIGHUP is not handled: `nohup` keeps working, and a run that dies with its terminal can be resumed.
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        match signal(kind) {
            Ok(signal) => signals.push(signal),
            // Without a handler, the signal keeps its default action.
            Err(error) => live.send_note(format!("cannot handle signals: {error}")),
        }
    }
    let [interrupt, terminate] = signals.as_mut_slice() else { return };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if told.swap(true, Ordering::Relaxed) {
            live.finish();
            std::process::exit(CliExit::Signal.code().into());
        }
        live.send_note("cancelling… (Ctrl-C again to exit at once)");
        if let Err(error) = project.send_command(run, RunCommand::Cancel { by: "signal".to_owned() }).await {
            live.send_note(format!("cannot cancel the run: {}", text::sanitize_text(&error.to_string())));
        }
    }
}

/// A summary, as printed on stdout and written to report files.
#[derive(Debug, Serialize)]
struct RunReport<'a> {
    #[serde(flatten)]
    summary: &'a RunSummary,
    /// Directory of the run.
    journal: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<&'a str>,
}

fn print_result(ui: &Ui, shown: &RunDetails, output: &RunOutput) -> Result<(), CliError> {
    let report =
        RunReport { summary: &shown.summary, journal: &shown.folder, damage: shown.damage.as_deref() };
    match output.format {
        OutputFormat::Json => ui.print_json(&report),
        OutputFormat::Jsonl => {}
        OutputFormat::Text => print_text_result(ui, shown),
    }
    if shown.state.status == RunStatus::Waiting {
        ui.print_note(&format!("continue: forge resume {}", shown.state.run));
    }
    match &output.report {
        Some(file) => write_report(file, &report),
        None => Ok(()),
    }
}

fn print_text_result(ui: &Ui, shown: &RunDetails) {
    let answer = text::sanitize_text(shown.summary.answer.trim());
    // On a terminal, the answer was just streamed.
    let streamed = ui.err_is_terminal && ui.out_is_terminal && ui.volume > Verbosity::Quiet;
    if !answer.is_empty() && !streamed {
        ui.print_line(&answer);
    }
    if ui.volume == Verbosity::Quiet {
        return;
    }
    let limits = shown.state.limits.or_else(|| shown.plan.as_ref().map(|plan| plan.shared.limits));
    let width = if ui.out_is_terminal { terminal_width(&std::io::stdout()) } else { 100 };
    let journal = if shown.kept {
        shown.folder.display().to_string()
    } else {
        "not kept (store.durable is off)".to_owned()
    };
    ui.print_lines(report::summary_frame(
        &shown.summary,
        limits.as_ref(),
        &journal,
        width,
        ui.out,
        ui.hint_text,
    ));
}

fn write_report(file: &UserFile, report: &RunReport<'_>) -> Result<(), CliError> {
    let text = forge_terminal::json::to_pretty_json(report)
        .map_err(|error| CliError::failed(format!("cannot create the report: {error}")))?;
    let bytes = format!("{}\n", forge_runtime::redact_keys(&text)).into_bytes();
    file.replace(&bytes).map_err(|error| {
        CliError::file_error("cannot write the report to", &file.path(), &error.into_io_error())
            .with_hint("the run itself is not affected")
    })
}

impl CliError {
    /// Adds a hint that names the run, unless the message names it.
    fn with_run_hint(self, run: RunId) -> Self {
        let named = self.message.contains(&run.to_string());
        if named { self } else { self.with_hint(format!("see the run: forge status {run}")) }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let shown = match error.class() {
            forge_types::ErrorClass::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        };
        shown.with_next_steps(&error.next_steps())
    }
}
