//! Driving a run from this process: what is shown meanwhile, signals, and what is said at the end.

use super::stop_on_signal::stop_on_signal;
use crate::args::OutputFormat;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::logging::LogTarget;
use crate::request::RunOutput;
use crate::session::Session;
use crate::ui::live::{DisplayMode as Showing, LiveDisplay, StdoutEvents};
use crate::ui::{Ui, Verbosity, report, terminal_width, text};
use forge_runtime::{Error, Forge, LiveSink, MergePolicy, RunDetails};
use forge_types::record::RunSummary;
use forge_types::wire::{LiveFrame, WireEvent};
use forge_types::{ApplyPolicy, RunCommand, RunId, RunLimits, RunStatus};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Passes what the runtime shows on to the terminal.
struct RunSink(Arc<LiveDisplay>);

impl LiveSink for RunSink {
    fn on_event(&self, event: &WireEvent) {
        self.0.send_event(event);
    }

    fn on_frame(&self, frame: LiveFrame) {
        self.0.send_frame(frame);
    }
}

/// How a run is taken up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StartMode {
    /// For the first time.
    New,
    /// Again, perhaps with other limits.
    Again(Option<RunLimits>),
}

/// Works on a run until it ends or is parked, and says what came of it.
pub(crate) async fn drive_run(
    session: &Session,
    forge: &Forge,
    run: RunId,
    take: StartMode,
    output: &RunOutput,
) -> Result<CliExit, CliError> {
    let ui = &session.ui;
    let live = Arc::new(LiveDisplay::start(ui, display_mode(ui, output), stdout_events(output.format)));
    if matches!((take, output.format), (StartMode::New, OutputFormat::Jsonl)) {
        // The stream of a new run begins with its creation.
        let mut past = forge.follow(run, 0);
        while let Some(event) = past.next_ready().await? {
            live.send_event(&event);
        }
    }
    let told = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch_signals(forge.clone(), run, live.clone(), told.clone()));
    let sink: Arc<dyn LiveSink> = Arc::new(RunSink(live.clone()));
    let ended = match take {
        StartMode::New => forge.drive(run, sink).await,
        StartMode::Again(limits) => forge.resume(run, limits, sink).await,
    };
    watcher.abort();
    live.finish();
    let mut shown = ended.map_err(|error| CliError::from(error).with_run_hint(run))?;
    if ask_to_apply(session, forge, &shown).await? {
        shown = forge.run_details(run).await?;
    }
    print_result(ui, &shown, output)?;
    Ok(CliExit::from_run_status(shown.state.status, told.load(Ordering::Relaxed)))
}

/// Asks before a result goes into the repository, if the run's policy wants that and somebody is there to answer.
/// Says whether something was applied.
pub(super) async fn ask_to_apply(
    session: &Session,
    forge: &Forge,
    shown: &RunDetails,
) -> Result<bool, CliError> {
    let ui = &session.ui;
    let asks = shown.plan.as_ref().is_some_and(|plan| plan.sandbox.apply == ApplyPolicy::Ask);
    if !asks || !shown.summary.workspace.pending || shown.state.status != RunStatus::Completed {
        return Ok(false);
    }
    let run = shown.state.run;
    let changes = stop_on_signal(forge, run, ui, forge.changes(run, None)).await?;
    ui.print_note(&super::diff::diffstat_lines(&changes.files).join("\n"));
    if !ui.confirm("Apply this to the repository?") {
        return Ok(false);
    }
    stop_on_signal(forge, run, ui, forge.apply(run, None, MergePolicy::No)).await?;
    Ok(true)
}

/// A picture where a person sees it, lines where a file gets them or log lines stand between.
fn display_mode(ui: &Ui, output: &RunOutput) -> Showing {
    match (ui.volume, output.format, output.log) {
        (Verbosity::Quiet, ..) => Showing::Nothing,
        // Events on the same terminal would tear the picture apart.
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

/// The first signal cancels the run, which then ends in order; the second one ends this process.
async fn watch_signals(forge: Forge, run: RunId, live: Arc<LiveDisplay>, told: Arc<AtomicBool>) {
    // A hang-up is left alone: `nohup` stays what it is, and a run that dies with its terminal can be resumed.
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        match signal(kind) {
            Ok(signal) => signals.push(signal),
            // Without a handler the system's own end of the process stays.
            Err(error) => live.send_note(format!("signals can't be handled: {error}")),
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
        live.send_note("cancelling… (once more: exit at once)");
        if let Err(error) = forge.send_command(run, RunCommand::Cancel { by: "signal".to_owned() }).await {
            live.send_note(format!(
                "the run can't be cancelled: {}",
                text::sanitize_text(&error.to_string())
            ));
        }
    }
}

/// A summary as it stands on stdout and in report files.
#[derive(Debug, Serialize)]
struct RunReport<'a> {
    #[serde(flatten)]
    summary: &'a RunSummary,
    /// The run directory.
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
        ui.print_note(&format!("go on with: forge resume {}", shown.state.run));
    }
    match &output.report {
        Some(path) => write_report(path, &report),
        None => Ok(()),
    }
}

fn print_text_result(ui: &Ui, shown: &RunDetails) {
    let answer = text::sanitize_text(shown.summary.answer.trim());
    // On a terminal it has just been streamed.
    let streamed = ui.err_is_terminal && ui.out_is_terminal && ui.volume > Verbosity::Quiet;
    if !answer.is_empty() && !streamed {
        ui.print_line(&answer);
    }
    if ui.volume == Verbosity::Quiet {
        return;
    }
    let limits = shown.state.limits.or_else(|| shown.plan.as_ref().map(|plan| plan.limits));
    let width = if ui.out_is_terminal { terminal_width(&std::io::stdout()) } else { 100 };
    let journal = if shown.kept {
        shown.folder.display().to_string()
    } else {
        "not kept (store.durable is off)".to_owned()
    };
    ui.print_lines(&report::summary_frame(&shown.summary, limits.as_ref(), &journal, width, ui.out));
}

/// Writes the report so that nobody ever reads half of it.
fn write_report(path: &PathBuf, report: &RunReport<'_>) -> Result<(), CliError> {
    let text = crate::ui::json::to_pretty_json(report)
        .map_err(|error| CliError::failed(format!("the report can't be made: {error}")))?;
    let bytes = format!("{}\n", forge_runtime::redact_keys(&text)).into_bytes();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = std::fs::write(&beside, &bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // Nothing is left over of a report that could not be put in place.
        let _ = std::fs::remove_file(&beside);
        CliError::file_error("the report can't be written to", path, &error)
            .with_hint("the run itself is not affected")
    })
}

impl CliError {
    /// Names the run, so that it can be found again.
    fn with_run_hint(self, run: RunId) -> Self {
        let named = self.message.contains(&run.to_string());
        if named { self } else { self.with_hint(format!("the run is {run}: forge status {run}")) }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match error.class() {
            forge_types::ErrorClass::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
