//! `forge chat`: a conversation in which each turn is a run.

mod lines;
mod words;

use super::drive::ask_to_apply;
use crate::args::Chat;
use crate::error::CliError;
use crate::exit::Exit;
use crate::request::chat_flags;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use crate::ui::talk::Talk;
use crate::ui::text::{clean, count, dollars, one_line, plural};
use forge_config::Flag;
use forge_runtime::{Answer, Conversation, Forge, LiveSink, check_repo};
use forge_types::wire::{LiveFrame, WireEvent};
use forge_types::{ApplyPolicy, Command, RunId, RunStatus};
use lines::{Came, Lines};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use words::{HELP, Line};

/// The file of what was typed, in the data folder.
const HISTORY: &str = "chat_history";

/// Passes what the runtime shows on to the terminal.
struct Sink(Arc<Talk>);

impl LiveSink for Sink {
    fn event(&self, event: &WireEvent) {
        self.0.event(event);
    }

    fn frame(&self, frame: LiveFrame) {
        self.0.frame(&frame);
    }
}

/// Signals that a conversation hears.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// One conversation of this process.
struct Chatting<'a> {
    session: &'a Session,
    repo: PathBuf,
    overlay: Overlay,
    forge: Forge,
    conversation: Conversation,
    terminal: bool,
    cost: f64,
    tokens: u64,
    turns: usize,
    failed: bool,
}

/// Talks until the input ends.
pub(crate) async fn chat(session: &Session, args: Chat) -> Result<Exit, CliError> {
    let repo = check_repo(&args.repo.as_ref().map_or(session.cwd.clone(), |repo| session.cwd.join(repo)))?;
    let overlay = Overlay { flags: chat_flags(&args), env_file: args.env.clone() };
    let loaded = session.load_with_keys(&repo, &overlay)?;
    crate::logging::start(&loaded, session.verbose);
    let forge = Forge::open_to_run(&loaded, &repo)?;
    let conversation = Conversation::open(forge.clone(), &loaded, &repo).await?;
    let terminal = session.ui.in_is_terminal && session.ui.err_is_terminal;
    let lines = if terminal && session.ui.out_is_terminal {
        Lines::edited(loaded.dirs.data.join(HISTORY))
    } else {
        Lines::plain()
    };
    let mut chatting = Chatting {
        session,
        repo,
        overlay,
        forge,
        conversation,
        terminal,
        cost: 0.0,
        tokens: 0,
        turns: 0,
        failed: false,
    };
    chatting.greet();
    let exit = chatting.talk(lines).await?;
    if let Err(error) = chatting.forge.tidy(&loaded).await {
        tracing::warn!(%error, "old snapshots are not cleared away; `forge gc` does it as well");
    }
    Ok(exit)
}

fn signals() -> Result<Signals, CliError> {
    let hear =
        |kind| signal(kind).map_err(|error| CliError::failed(format!("signals can't be handled: {error}")));
    Ok(Signals { interrupt: hear(SignalKind::interrupt())?, terminate: hear(SignalKind::terminate())? })
}

impl Chatting<'_> {
    fn greet(&mut self) {
        let ui = &self.session.ui;
        let plan = self.conversation.plan();
        let known = self.conversation.history().len();
        let mut line = format!(
            "{} · {} · {}",
            plan.executor.name(),
            plan.route,
            one_line(&self.repo.display().to_string())
        );
        if known > 0 {
            line += &format!(" · {} remembered", plural(known, "message", "messages"));
        }
        if self.terminal {
            ui.note(&ui.err.dim(&format!("{line} · !help, Ctrl-D ends")));
        } else {
            ui.note(&line);
        }
        if let Some(warning) = self.conversation.take_warning() {
            ui.warn(&clean(&warning));
        }
    }

    async fn talk(&mut self, mut lines: Lines) -> Result<Exit, CliError> {
        let mut signals = signals()?;
        let prompt = if self.terminal { "› " } else { "" };
        let (mut asked, mut idle_interrupts) = (false, 0);
        loop {
            if !asked {
                lines.ask(prompt);
                asked = true;
            }
            let came = tokio::select! {
                came = lines.next() => came,
                _ = signals.terminate.recv() => return Ok(Exit::Signal),
                _ = signals.interrupt.recv() => {
                    // On a terminal the editor reads Ctrl-C as a key.
                    if !self.terminal { return Ok(Exit::Signal) }
                    continue;
                }
            };
            asked = false;
            let text = match came {
                Came::Text(text) => text,
                Came::Interrupted => {
                    idle_interrupts += 1;
                    if idle_interrupts > 1 {
                        return Ok(Exit::Done);
                    }
                    self.session.ui.note("Ctrl-D or !exit ends the conversation");
                    continue;
                }
                Came::End => return Ok(self.end()),
                Came::Failed(why) => return Err(CliError::failed(format!("the input can't be read: {why}"))),
            };
            idle_interrupts = 0;
            match words::read(&text) {
                Line::Exit => return Ok(self.end()),
                Line::Message(text) => {
                    if let Some(exit) = self.turn(&text, &mut signals).await {
                        return Ok(exit);
                    }
                }
                line => self.obey(line).await,
            }
        }
    }

    /// A script hears of it if the last turn brought no answer.
    const fn end(&self) -> Exit {
        if self.failed && !self.terminal { Exit::Failed } else { Exit::Done }
    }

    /// One turn. Whatever goes wrong is said, and the conversation goes on; a program that is told to end ends.
    async fn turn(&mut self, text: &str, signals: &mut Signals) -> Option<Exit> {
        self.turns += 1;
        let run = match self.conversation.begin(text).await {
            Ok(run) => run,
            Err(error) => {
                self.fault(&error.into());
                return None;
            }
        };
        let talk = Arc::new(Talk::new(&self.session.ui));
        let forge = self.forge.clone();
        let told = self.finish(run, talk.clone(), signals, &forge).await;
        let (answer, leave) = told;
        match answer {
            Ok(answer) => self.say(&talk, &answer).await,
            Err(error) => self.fault(&CliError::from(error)),
        }
        leave
    }

    /// Drives the run; signals cancel it.
    async fn finish(
        &mut self,
        run: RunId,
        talk: Arc<Talk>,
        signals: &mut Signals,
        forge: &Forge,
    ) -> (Result<Answer, forge_runtime::Error>, Option<Exit>) {
        let ui = &self.session.ui;
        let mut leave = None;
        let mut cancelled = 0;
        let finish = self.conversation.finish(run, Arc::new(Sink(talk)));
        tokio::pin!(finish);
        loop {
            tokio::select! {
                answer = &mut finish => return (answer, leave),
                _ = signals.interrupt.recv() => {
                    if !self.terminal { leave = Some(Exit::Signal) }
                }
                _ = signals.terminate.recv() => leave = Some(Exit::Signal),
            }
            cancelled += 1;
            if cancelled > 2 {
                std::process::exit(Exit::Signal.code().into());
            }
            if cancelled == 1 {
                ui.note("\ncancelling…");
            }
            let cancel = Command::Cancel { by: "signal".to_owned() };
            // A run that has just ended can't be cancelled, and need not be.
            let _ = forge.send(run, cancel).await;
        }
    }

    async fn say(&mut self, talk: &Talk, answer: &Answer) {
        let ui = &self.session.ui;
        let summary = &answer.shown.summary;
        self.cost += summary.cost_usd;
        self.tokens += summary.tokens.total;
        self.failed = !answer.ok;
        if ui.format == Format::Json {
            ui.json_line(&json!({
                "run_id": answer.run, "output": answer.output, "ok": answer.ok, "tool": answer.tool,
                "steps": answer.steps, "error": answer.error, "status": summary.status, "limit": summary.limit,
                "provider": summary.provider, "model": summary.model, "tokens": summary.tokens,
                "cost_usd": summary.cost_usd, "files_modified": summary.files_modified,
            }));
        } else if self.terminal && answer.shown.state.status == RunStatus::Cancelled {
            talk.end("(cancelled)", None);
        } else {
            talk.end(&answer.output, answer.error.as_deref());
        }
        if !summary.files_modified.is_empty() {
            let files: Vec<_> = summary.files_modified.iter().take(8).map(|file| one_line(file)).collect();
            let more = summary.files_modified.len().saturating_sub(files.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            ui.note(&format!(
                "changed: {}{more} (forge undo {} --to 0 takes it back)",
                files.join(", "),
                answer.run
            ));
        }
        if answer.shown.plan.as_ref().is_some_and(|plan| plan.sandbox.apply == ApplyPolicy::Ask)
            && let Err(error) = ask_to_apply(self.session, &self.forge, &answer.shown).await
        {
            ui.error(&error);
        }
        if let Some(warning) = &answer.warning {
            ui.warn(&clean(warning));
        }
    }

    fn fault(&mut self, error: &CliError) {
        self.failed = true;
        let ui = &self.session.ui;
        match ui.format {
            Format::Text => ui.error(error),
            Format::Json => {
                ui.json_line(&json!({"ok": false, "output": "", "error": error.message}));
            }
        }
    }

    async fn obey(&mut self, line: Line) {
        let said = match line {
            Line::Empty | Line::Exit | Line::Message(_) => return,
            Line::Help => HELP.map(str::to_owned).to_vec(),
            Line::Clear => {
                self.conversation.clear().await;
                vec!["What was said is forgotten; facts stay.".to_owned()]
            }
            Line::Facts => self.facts().await,
            Line::Memory => self.memory().await,
            Line::Cost => vec![format!(
                "{}, {} tokens, {}",
                plural(self.turns, "turn", "turns"),
                count(self.tokens),
                dollars(self.cost)
            )],
            Line::Model(None) => vec![self.conversation.plan().route.to_string()],
            Line::Model(Some(name)) => match self.model(&name).await {
                Ok(()) => vec![format!("from now on: {}", self.conversation.plan().route)],
                Err(error) => return self.fault(&error),
            },
            Line::Unknown(text) => {
                let text = one_line(&text);
                return self.fault(
                    &CliError::usage(format!("there is no command `{text}`")).hint("!help shows them"),
                );
            }
        };
        let ui = &self.session.ui;
        match ui.format {
            Format::Text => ui.lines(&said.iter().map(|line| clean(line)).collect::<Vec<_>>()),
            Format::Json => {
                ui.json_line(&json!({"ok": true, "output": said.join("\n")}));
            }
        }
        if let Some(warning) = self.conversation.take_warning() {
            ui.warn(&clean(&warning));
        }
    }

    async fn facts(&self) -> Vec<String> {
        let facts = self.conversation.facts().await;
        if facts.is_empty() {
            return vec!["No facts are remembered.".to_owned()];
        }
        facts.iter().map(|fact| format!("{} = {}", one_line(&fact.key), one_line(&fact.value))).collect()
    }

    async fn memory(&self) -> Vec<String> {
        let Some(file) = &self.conversation.plan().memory else {
            return vec!["Nothing is remembered: memory.enabled is false.".to_owned()];
        };
        let (said, facts) = (self.conversation.history().len(), self.conversation.facts().await.len());
        vec![
            file.display().to_string(),
            format!(
                "{} told to the next turn, {}",
                plural(said, "message", "messages"),
                plural(facts, "fact", "facts")
            ),
        ]
    }

    /// Another model, as if it had been named at the start.
    async fn model(&mut self, name: &str) -> Result<(), CliError> {
        let mut overlay = self.overlay.clone();
        overlay.flags.retain(|flag| flag.key != "model.name");
        let names_provider = |name: &str| forge_runtime::is_provider(name);
        let model = match name.split_once('/').filter(|(provider, _)| names_provider(provider)) {
            Some((provider, model)) => {
                // What was typed of the address belongs to the provider that was.
                overlay
                    .flags
                    .retain(|flag| !matches!(flag.key.as_str(), "model.provider" | "model.base_url"));
                overlay.flags.push(flag("model.provider", provider));
                model
            }
            None => name,
        };
        overlay.flags.push(flag("model.name", model));
        let loaded = self.session.load_silently(&self.repo, &overlay)?;
        let forge = Forge::open_to_run(&loaded, &self.repo)?;
        self.conversation.change(forge.clone(), &loaded).await?;
        (self.forge, self.overlay) = (forge, overlay);
        Ok(())
    }
}

fn flag(key: &str, value: &str) -> Flag {
    Flag { key: key.to_owned(), value: value.to_owned(), name: "!model".to_owned() }
}
