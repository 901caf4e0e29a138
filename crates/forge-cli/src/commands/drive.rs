//! Driving a run from this process: what is shown meanwhile, signals, and what is said at the end.

use super::stoppable::stoppable;
use crate::args::OutputFormat;
use crate::error::CliError;
use crate::exit::Exit;
use crate::logging::Log;
use crate::request::Output;
use crate::session::Session;
use crate::ui::live::{Live, Shown as Showing, Stdout};
use crate::ui::{Ui, Volume, report, text, width_of};
use forge_runtime::{Error, Forge, LiveSink, Merge, Shown};
use forge_types::record::Summary;
use forge_types::wire::{LiveFrame, WireEvent};
use forge_types::{ApplyPolicy, Command, Limits, RunId, RunStatus};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// Passes what the runtime shows on to the terminal.
struct Sink(Arc<Live>);

impl LiveSink for Sink {
    fn event(&self, event: &WireEvent) {
        self.0.event(event);
    }

    fn frame(&self, frame: LiveFrame) {
        self.0.frame(frame);
    }
}

/// How a run is taken up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Take {
    /// For the first time.
    New,
    /// Again, perhaps with other limits.
    Again(Option<Limits>),
}

/// Works on a run until it ends or is parked, and says what came of it.
pub(crate) async fn drive(
    session: &Session,
    forge: &Forge,
    run: RunId,
    take: Take,
    output: &Output,
) -> Result<Exit, CliError> {
    let ui = &session.ui;
    let live = Arc::new(Live::start(ui, showing(ui, output), stdout(output.format)));
    if matches!((take, output.format), (Take::New, OutputFormat::Jsonl)) {
        // The stream of a new run begins with its creation.
        let mut past = forge.follow(run, 0);
        while let Some(event) = past.present().await? {
            live.event(&event);
        }
    }
    let told = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch_signals(forge.clone(), run, live.clone(), told.clone()));
    let sink: Arc<dyn LiveSink> = Arc::new(Sink(live.clone()));
    let ended = match take {
        Take::New => forge.drive(run, sink).await,
        Take::Again(limits) => forge.resume(run, limits, sink).await,
    };
    watcher.abort();
    live.finish();
    let mut shown = ended.map_err(|error| CliError::from(error).about(run))?;
    if ask_to_apply(session, forge, &shown).await? {
        shown = forge.show(run).await?;
    }
    say(ui, &shown, output)?;
    Ok(Exit::of(shown.state.status, told.load(Ordering::Relaxed)))
}

/// Asks before a result goes into the repository, if the run's policy wants that and somebody is there to answer.
/// Says whether something was applied.
pub(super) async fn ask_to_apply(session: &Session, forge: &Forge, shown: &Shown) -> Result<bool, CliError> {
    let ui = &session.ui;
    let asks = shown.plan.as_ref().is_some_and(|plan| plan.sandbox.apply == ApplyPolicy::Ask);
    if !asks || !shown.summary.workspace.pending || shown.state.status != RunStatus::Completed {
        return Ok(false);
    }
    let run = shown.state.run;
    let changes = stoppable(forge, run, ui, forge.changes(run, None)).await?;
    ui.note(&super::diff::stat(&changes.files).join("\n"));
    if !ui.confirm("Apply this to the repository?") {
        return Ok(false);
    }
    stoppable(forge, run, ui, forge.apply(run, None, Merge::No)).await?;
    Ok(true)
}

/// A picture where a person sees it, lines where a file gets them or log lines stand between.
fn showing(ui: &Ui, output: &Output) -> Showing {
    match (ui.volume, output.format, output.log) {
        (Volume::Quiet, ..) => Showing::Nothing,
        // Events on the same terminal would tear the picture apart.
        (_, OutputFormat::Jsonl, _) if ui.out_is_terminal => Showing::Nothing,
        (_, _, Log::Elsewhere) if ui.err_is_terminal => Showing::Picture,
        _ => Showing::Lines,
    }
}

const fn stdout(format: OutputFormat) -> Stdout {
    match format {
        OutputFormat::Jsonl => Stdout::Events,
        OutputFormat::Text | OutputFormat::Json => Stdout::Untouched,
    }
}

/// The first signal cancels the run, which then ends in order; the second one ends this process.
async fn watch_signals(forge: Forge, run: RunId, live: Arc<Live>, told: Arc<AtomicBool>) {
    // A hang-up is left alone: `nohup` stays what it is, and a run that dies with its terminal can be resumed.
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        match signal(kind) {
            Ok(signal) => signals.push(signal),
            // Without a handler the system's own end of the process stays.
            Err(error) => live.note(format!("signals can't be handled: {error}")),
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
            std::process::exit(Exit::Signal.code().into());
        }
        live.note("cancelling… (once more: exit at once)");
        if let Err(error) = forge.send(run, Command::Cancel { by: "signal".to_owned() }).await {
            live.note(format!("the run can't be cancelled: {}", text::clean(&error.to_string())));
        }
    }
}

/// A summary as it stands on stdout and in report files.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    /// The run directory.
    journal: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<&'a str>,
}

fn say(ui: &Ui, shown: &Shown, output: &Output) -> Result<(), CliError> {
    let report = Report { summary: &shown.summary, journal: &shown.folder, damage: shown.damage.as_deref() };
    match output.format {
        OutputFormat::Json => ui.json(&report),
        OutputFormat::Jsonl => {}
        OutputFormat::Text => say_text(ui, shown),
    }
    if shown.state.status == RunStatus::Waiting {
        ui.note(&format!("go on with: forge resume {}", shown.state.run));
    }
    match &output.report {
        Some(path) => write_report(path, &report),
        None => Ok(()),
    }
}

fn say_text(ui: &Ui, shown: &Shown) {
    let answer = text::clean(shown.summary.answer.trim());
    // On a terminal it has just been streamed.
    let streamed = ui.err_is_terminal && ui.out_is_terminal && ui.volume > Volume::Quiet;
    if !answer.is_empty() && !streamed {
        ui.line(&answer);
    }
    if ui.volume == Volume::Quiet {
        return;
    }
    let limits = shown.state.limits.or_else(|| shown.plan.as_ref().map(|plan| plan.limits));
    let width = if ui.out_is_terminal { width_of(&std::io::stdout()) } else { 100 };
    let journal = if shown.kept {
        shown.folder.display().to_string()
    } else {
        "not kept (store.durable is off)".to_owned()
    };
    ui.lines(&report::end_box(&shown.summary, limits.as_ref(), &journal, width, ui.out));
}

/// Writes the report so that nobody ever reads half of it.
fn write_report(path: &PathBuf, report: &Report<'_>) -> Result<(), CliError> {
    let text = crate::ui::json::pretty(report)
        .map_err(|error| CliError::failed(format!("the report can't be made: {error}")))?;
    let bytes = format!("{}\n", forge_runtime::without_keys(&text)).into_bytes();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = std::fs::write(&beside, &bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // Nothing is left over of a report that could not be put in place.
        let _ = std::fs::remove_file(&beside);
        CliError::file("the report can't be written to", path, &error).hint("the run itself is not affected")
    })
}

impl CliError {
    /// Names the run, so that it can be found again.
    fn about(self, run: RunId) -> Self {
        let named = self.message.contains(&run.to_string());
        if named { self } else { self.hint(format!("the run is {run}: forge status {run}")) }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match error.class() {
            forge_types::Class::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
