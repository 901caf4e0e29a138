//! `forge chat`: a conversation in which each turn is a run.

mod chat_commands;
mod lines;

use super::drive::ask_to_apply;
use crate::args::ChatArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::request::chat_flags;
use crate::session::{ConfigOverrides, Session};
use chat_commands::{ChatLine, HELP_LINES};
use forge_config::FlagSetting;
use forge_runtime::{ChatAnswer, ChatConversation, LiveSink, Project, check_repo};
use forge_terminal::StdoutFormat;
use forge_terminal::text::{format_count, format_dollars, one_line, pluralize, sanitize_text};
use forge_terminal::turn_display::TurnDisplay;
use forge_types::{ApplyPolicy, RunCommand, RunId, RunStatus};
use forge_wire::{LiveFrame, WireEvent};
use lines::{InputEvent, LineReader};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// History of typed lines, in the data directory.
const HISTORY_FILE: &str = "chat_history";

/// Forwards events and live frames to the display.
struct TurnSink(Arc<TurnDisplay>);

impl LiveSink for TurnSink {
    fn on_event(&self, event: &WireEvent) {
        self.0.show_event(event);
    }

    fn on_frame(&self, frame: LiveFrame) {
        self.0.show_frame(&frame);
    }
}

/// Signals handled during a conversation.
struct ChatSignals {
    interrupt: Signal,
    terminate: Signal,
}

/// A conversation in this process.
struct ChatSession<'a> {
    session: &'a Session,
    repo: PathBuf,
    overlay: ConfigOverrides,
    project: Project,
    conversation: ChatConversation,
    terminal: bool,
    cost: f64,
    tokens: u64,
    turns: usize,
    failed: bool,
}

/// Runs a conversation until the input ends.
pub(crate) async fn chat(session: &Session, args: ChatArgs) -> Result<CliExit, CliError> {
    let repo = check_repo(&args.repo.as_ref().map_or(session.cwd.clone(), |repo| session.cwd.join(repo)))?;
    let overlay = ConfigOverrides { flags: chat_flags(&args), env_file: args.env.clone() };
    let loaded = session.load_with_keys(&repo, &overlay)?;
    crate::logging::init_logging(session, &loaded);
    let project = Project::open_for_run(loaded, &repo)?;
    let conversation = ChatConversation::open(project.clone(), &repo).await?;
    let terminal = session.ui.in_is_terminal && session.ui.err_is_terminal;
    let lines = if terminal && session.ui.out_is_terminal {
        LineReader::from_terminal(project.config().dirs.data.join(HISTORY_FILE))
    } else {
        LineReader::from_stdin()
    };
    let mut chatting = ChatSession {
        session,
        repo,
        overlay,
        project,
        conversation,
        terminal,
        cost: 0.0,
        tokens: 0,
        turns: 0,
        failed: false,
    };
    chatting.print_greeting();
    let exit = chatting.run_loop(lines).await?;
    if let Err(error) = chatting.project.run_cleanup().await {
        tracing::warn!(%error, "cannot remove old snapshots; try `forge gc`");
    }
    Ok(exit)
}

fn listen_for_signals() -> Result<ChatSignals, CliError> {
    let hear =
        |kind| signal(kind).map_err(|error| CliError::failed(format!("cannot handle signals: {error}")));
    Ok(ChatSignals { interrupt: hear(SignalKind::interrupt())?, terminate: hear(SignalKind::terminate())? })
}

impl ChatSession<'_> {
    fn print_greeting(&mut self) {
        let ui = &self.session.ui;
        let plan = self.conversation.agent();
        let known = self.conversation.history().len();
        let mut line = format!(
            "{} · {} · {}",
            plan.executor.name(),
            plan.first.route,
            one_line(&self.repo.display().to_string())
        );
        if known > 0 {
            line += &format!(" · {} remembered", pluralize(known, "message", "messages"));
        }
        if self.terminal {
            ui.print_note(&ui.err.dim(&format!("{line} · !help for help, Ctrl-D to quit")));
        } else {
            ui.print_note(&line);
        }
        if let Some(warning) = self.conversation.pop_warning() {
            ui.print_warning(&sanitize_text(&warning));
        }
    }

    async fn run_loop(&mut self, mut lines: LineReader) -> Result<CliExit, CliError> {
        let mut signals = listen_for_signals()?;
        let prompt = if self.terminal { "› " } else { "" };
        let (mut asked, mut idle_interrupts) = (false, 0);
        loop {
            if !asked {
                lines.request_line(prompt);
                asked = true;
            }
            let came = tokio::select! {
                came = lines.next() => came,
                _ = signals.terminate.recv() => return Ok(CliExit::Signal),
                _ = signals.interrupt.recv() => {
                    // On a terminal the editor reads Ctrl-C as a key.
                    if !self.terminal { return Ok(CliExit::Signal) }
                    continue;
                }
            };
            asked = false;
            let text = match came {
                InputEvent::Text(text) => text,
                InputEvent::Interrupted => {
                    idle_interrupts += 1;
                    if idle_interrupts > 1 {
                        return Ok(CliExit::Done);
                    }
                    self.session.ui.print_note("use Ctrl-D or !exit to quit");
                    continue;
                }
                InputEvent::End => return Ok(self.final_exit()),
                InputEvent::Failed(why) => {
                    return Err(CliError::failed(format!("cannot read the input: {why}")));
                }
            };
            idle_interrupts = 0;
            match chat_commands::parse_chat_line(&text) {
                ChatLine::Exit => return Ok(self.final_exit()),
                ChatLine::Message(text) => {
                    if let Some(exit) = self.run_turn(&text, &mut signals).await {
                        return Ok(exit);
                    }
                }
                line => self.run_chat_command(line).await,
            }
        }
    }

    /// Returns the exit code, which tells a script whether the last turn was answered.
    const fn final_exit(&self) -> CliExit {
        if self.failed && !self.terminal { CliExit::Failed } else { CliExit::Done }
    }

    /// Runs one turn. An error is printed and the conversation continues. Returns an exit code if a signal ended it.
    async fn run_turn(&mut self, text: &str, signals: &mut ChatSignals) -> Option<CliExit> {
        self.turns += 1;
        let run = match self.conversation.start_turn(text).await {
            Ok(run) => run,
            Err(error) => {
                self.print_failure(&error.into());
                return None;
            }
        };
        let talk = Arc::new(TurnDisplay::new(&self.session.ui));
        let project = self.project.clone();
        let told = self.finish_turn(run, talk.clone(), signals, &project).await;
        let (answer, leave) = told;
        match answer {
            Ok(answer) => self.print_answer(&talk, &answer).await,
            Err(error) => self.print_failure(&CliError::from(error)),
        }
        leave
    }

    /// Drives the run to its end; signals cancel it.
    async fn finish_turn(
        &mut self,
        run: RunId,
        talk: Arc<TurnDisplay>,
        signals: &mut ChatSignals,
        project: &Project,
    ) -> (Result<ChatAnswer, forge_runtime::Error>, Option<CliExit>) {
        let ui = &self.session.ui;
        let mut leave = None;
        let mut cancelled = 0;
        let finish = self.conversation.finish_turn(run, Arc::new(TurnSink(talk)));
        tokio::pin!(finish);
        loop {
            tokio::select! {
                answer = &mut finish => return (answer, leave),
                _ = signals.interrupt.recv() => {
                    if !self.terminal { leave = Some(CliExit::Signal) }
                }
                _ = signals.terminate.recv() => leave = Some(CliExit::Signal),
            }
            cancelled += 1;
            if cancelled > 2 {
                std::process::exit(CliExit::Signal.code().into());
            }
            if cancelled == 1 {
                ui.print_note("\ncancelling…");
            }
            let cancel = RunCommand::Cancel { by: "signal".to_owned() };
            // A run that has just ended can't and need not be cancelled.
            let _ = project.send_command(run, cancel).await;
        }
    }

    async fn print_answer(&mut self, talk: &TurnDisplay, answer: &ChatAnswer) {
        let ui = &self.session.ui;
        let summary = &answer.details.summary;
        self.cost += summary.cost_usd;
        self.tokens += summary.tokens.total;
        self.failed = !answer.ok;
        if ui.format == StdoutFormat::Json {
            ui.print_json_line(&json!({
                "run_id": answer.run, "output": answer.output, "ok": answer.ok, "tool": answer.tool,
                "steps": answer.steps, "error": answer.error, "status": summary.status, "limit": summary.limit,
                "provider": summary.provider, "model": summary.model, "tokens": summary.tokens,
                "cost_usd": summary.cost_usd, "files_modified": summary.files_modified,
                "files_omitted": summary.files_omitted,
            }));
        } else if self.terminal && answer.details.state.status == RunStatus::Cancelled {
            talk.finish("(cancelled)", None);
        } else {
            talk.finish(&answer.output, answer.error.as_deref());
        }
        if !summary.files_modified.is_empty() || summary.files_omitted > 0 {
            let files: Vec<_> = summary.files_modified.iter().take(8).map(|file| one_line(file)).collect();
            let more = (summary.files_modified.len() - files.len()) as u64 + summary.files_omitted;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            ui.print_note(&format!(
                "changed: {}{more} (undo: forge undo {} --to 0)",
                files.join(", "),
                answer.run
            ));
        }
        if answer.details.plan.as_ref().is_some_and(|plan| plan.shared.sandbox.apply == ApplyPolicy::Ask)
            && let Err(error) = ask_to_apply(self.session, &self.project, &answer.details).await
        {
            error.print_on(ui);
        }
        if let Some(warning) = &answer.warning {
            ui.print_warning(&sanitize_text(warning));
        }
    }

    fn print_failure(&mut self, error: &CliError) {
        self.failed = true;
        let ui = &self.session.ui;
        match ui.format {
            StdoutFormat::Text => error.print_on(ui),
            StdoutFormat::Json => {
                ui.print_json_line(&json!({"ok": false, "output": "", "error": error.message}));
            }
        }
    }

    async fn run_chat_command(&mut self, line: ChatLine) {
        let said = match line {
            ChatLine::Empty | ChatLine::Exit | ChatLine::Message(_) => return,
            ChatLine::Help => HELP_LINES.map(str::to_owned).to_vec(),
            ChatLine::Clear => {
                self.conversation.clear().await;
                vec!["Conversation cleared; facts kept.".to_owned()]
            }
            ChatLine::Facts => self.fact_lines().await,
            ChatLine::Memory => self.memory_lines().await,
            ChatLine::Cost => vec![format!(
                "{}, {} tokens, {}",
                pluralize(self.turns, "turn", "turns"),
                format_count(self.tokens),
                format_dollars(self.cost)
            )],
            ChatLine::Model(None) => vec![self.conversation.agent().first.route.to_string()],
            ChatLine::Model(Some(name)) => match self.change_model(&name).await {
                Ok(()) => vec![format!("model changed to {}", self.conversation.agent().first.route)],
                Err(error) => return self.print_failure(&error),
            },
            ChatLine::Unknown(text) => {
                let text = one_line(&text);
                return self.print_failure(
                    &CliError::usage(format!("unknown command `{text}`"))
                        .with_hint("type !help for the list"),
                );
            }
        };
        let ui = &self.session.ui;
        match ui.format {
            StdoutFormat::Text => {
                ui.print_lines(said.iter().map(|line| sanitize_text(line)).collect::<Vec<_>>())
            }
            StdoutFormat::Json => {
                ui.print_json_line(&json!({"ok": true, "output": said.join("\n")}));
            }
        }
        if let Some(warning) = self.conversation.pop_warning() {
            ui.print_warning(&sanitize_text(&warning));
        }
    }

    async fn fact_lines(&self) -> Vec<String> {
        let facts = self.conversation.facts().await;
        if facts.is_empty() {
            return vec!["No facts are stored.".to_owned()];
        }
        facts.iter().map(|fact| format!("{} = {}", one_line(&fact.key), one_line(&fact.value))).collect()
    }

    async fn memory_lines(&self) -> Vec<String> {
        let Some(file) = &self.conversation.agent().memory else {
            return vec!["The memory is disabled: memory.enabled is false.".to_owned()];
        };
        let (said, facts) = (self.conversation.history().len(), self.conversation.facts().await.len());
        vec![
            file.display().to_string(),
            format!(
                "{} for the next turn, {}",
                pluralize(said, "message", "messages"),
                pluralize(facts, "fact", "facts")
            ),
        ]
    }

    /// Switches to another model, as if it had been named at the start.
    async fn change_model(&mut self, name: &str) -> Result<(), CliError> {
        let mut overlay = self.overlay.clone();
        overlay.flags.retain(|flag| flag.key != "model.name");
        let names_provider = |name: &str| forge_runtime::Forge::is_provider(name);
        let model = match name.split_once('/').filter(|(provider, _)| names_provider(provider)) {
            Some((provider, model)) => {
                // A base URL given as a flag belongs to the previous provider.
                overlay
                    .flags
                    .retain(|flag| !matches!(flag.key.as_str(), "model.provider" | "model.base_url"));
                overlay.flags.push(model_flag("model.provider", provider));
                model
            }
            None => name,
        };
        overlay.flags.push(model_flag("model.name", model));
        let loaded = self.session.load_silently(&self.repo, &overlay)?;
        let project = Project::open_for_run(loaded, &self.repo)?;
        self.conversation.reconfigure(project.clone()).await?;
        (self.project, self.overlay) = (project, overlay);
        Ok(())
    }
}

fn model_flag(key: &str, value: &str) -> FlagSetting {
    FlagSetting { key: key.to_owned(), value: value.to_owned(), name: "!model".to_owned() }
}
