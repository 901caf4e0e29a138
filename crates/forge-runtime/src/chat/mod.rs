//! Conversations. Each turn is a run that receives the earlier messages; only turns that produced an answer are
//! saved to memory (MEM-1, LOOP-N4).

mod retrieval;

use self::retrieval::relevant_turns;
use crate::executors::{self, REMEMBER_TOOL};
use crate::providers::routing::RoutingJob;
use crate::{Error, NewRun, Project, RunDetails};
use forge_engine::LiveSink;
use forge_policy::router::{self, AgentResult};
use forge_ports::Memory;
use forge_types::{
    AgentPlan, ChatMessage, Executor, MemoryFact, Message, Plan, Role, RunId, RunSource, RunStatus,
    SharedPlan, TaskKind,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The output of a turn that ended with neither an answer nor an error.
const NO_ANSWER_MESSAGE: &str = "The run ended without an answer.";
/// Characters per token, a conservative estimate.
const CHARS_PER_TOKEN: u64 = 3;

/// The outcome of a turn.
#[derive(Clone, Debug)]
pub struct ChatAnswer {
    /// The run of the turn.
    pub run: RunId,
    /// The answer, or a sentence that explains why there is none.
    pub output: String,
    /// The tool that produced the answer, if a router chose one.
    pub tool: Option<String>,
    /// The number of tools dispatched.
    pub steps: u32,
    /// Whether `output` is an answer.
    pub ok: bool,
    /// The reason that there is no answer, and what to do about it.
    pub error: Option<String>,
    /// The details of the run.
    pub details: Box<RunDetails>,
    /// A problem with the memory.
    pub warning: Option<String>,
}

/// A conversation about one repository.
pub struct ChatConversation {
    project: Project,
    repo: PathBuf,
    shared: SharedPlan,
    agent: AgentPlan,
    own: Option<String>,
    max_history: usize,
    memory: Option<Arc<dyn Memory>>,
    /// The messages that the next turn receives. With a memory they mirror the file; without one they exist
    /// only here.
    history: Vec<ChatMessage>,
    /// Older messages, passed on only when the user refers to them.
    older: Vec<ChatMessage>,
    warning: Option<String>,
}

impl ChatConversation {
    /// Starts a conversation, or continues the one in the memory.
    ///
    /// # Errors
    /// As [`Project::plan`].
    pub async fn open(project: Project, repo: &Path) -> Result<Self, Error> {
        let (shared, agent) = conversation_plan(&project, repo).await?;
        let memory = executors::open_memory(&agent, &project.parts().clock);
        let settings = project.config().settings.clone();
        let mut conversation = Self {
            project,
            repo: repo.to_owned(),
            shared,
            agent,
            own: settings.agent.system_prompt.clone(),
            max_history: usize::try_from(settings.memory.max_history).unwrap_or(usize::MAX),
            memory,
            history: Vec::new(),
            older: Vec::new(),
            warning: None,
        };
        conversation.load_memory().await;
        Ok(conversation)
    }

    /// Switches to another model or other settings.
    ///
    /// # Errors
    /// As [`Project::plan`]; the conversation then continues unchanged.
    pub async fn reconfigure(&mut self, project: Project) -> Result<(), Error> {
        (self.shared, self.agent) = conversation_plan(&project, &self.repo).await?;
        self.project = project;
        Ok(())
    }

    /// Returns the plan of the agent that answers.
    pub const fn agent(&self) -> &AgentPlan {
        &self.agent
    }

    /// Takes the pending warning about the memory.
    pub fn pop_warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Returns the messages that the next turn receives.
    pub fn history(&self) -> &[ChatMessage] {
        &self.history
    }

    /// Returns the facts in the memory.
    pub async fn facts(&self) -> Vec<MemoryFact> {
        match &self.memory {
            Some(memory) => memory.list_facts().await,
            None => Vec::new(),
        }
    }

    /// Clears the messages; facts stay.
    pub async fn clear(&mut self) {
        self.history.clear();
        self.older.clear();
        if let Some(memory) = &self.memory
            && let Err(error) = memory.clear_history().await
        {
            self.warning = Some(error.to_string());
        }
    }

    /// Creates the run of the next turn, so that it can be cancelled while [`Self::finish_turn`] works on it.
    ///
    /// # Errors
    /// If the task can't be used or the store can't be written.
    pub async fn start_turn(&mut self, text: &str) -> Result<RunId, Error> {
        self.load_memory().await;
        let (older, facts) = (std::mem::take(&mut self.older), self.facts().await);
        self.agent.system =
            executors::system_prompt(&self.agent, &self.shared.sandbox, self.own.as_deref(), &facts);
        let new = NewRun {
            task: text.to_owned(),
            repo: self.repo.clone(),
            source: RunSource::Chat,
            history: self.replayed_history(text, &older),
        };
        let plan = Plan::for_agent(self.shared.clone(), self.agent.clone());
        self.project.create(new, &plan).await
    }

    /// Works on the turn until it ends, and saves it to memory if it was answered.
    ///
    /// # Errors
    /// If the run's journal can't be read or written.
    pub async fn finish_turn(&mut self, run: RunId, live: Arc<dyn LiveSink>) -> Result<ChatAnswer, Error> {
        let shown = self.project.drive(run, live).await?;
        let task = shown.summary.task.clone();
        let mut answer = self.build_answer(run, shown);
        if answer.ok {
            let said = |role, content: &str| ChatMessage { role, content: content.to_owned() };
            self.store_turn(vec![said(Role::User, &task), said(Role::Assistant, &answer.output)]).await;
        }
        answer.warning = self.warning.take();
        Ok(answer)
    }

    async fn load_memory(&mut self) {
        let Some(memory) = &self.memory else { return };
        let remembered = memory.load_all().await;
        self.warning = remembered.warning.or(self.warning.take());
        self.older = remembered.history;
        let kept = self.older.len().saturating_sub(self.max_history);
        self.history = self.older.split_off(kept);
    }

    async fn store_turn(&mut self, said: Vec<ChatMessage>) {
        if let Some(memory) = &self.memory
            && let Err(error) = memory.add_turn(said.clone()).await
        {
            self.warning = Some(error.to_string());
        }
        self.history.extend(said);
        let drop = self.history.len().saturating_sub(self.max_history);
        self.history.drain(..drop);
    }

    /// Selects the earlier messages to send: the newest, uncut, as many as fit with the prompt, the task and a
    /// reply.
    fn replayed_history(&self, task: &str, older: &[ChatMessage]) -> Vec<Message> {
        let plan = &self.agent;
        let reply = plan.settings.max_tokens.unwrap_or(0).min(plan.first.facts.window / 4);
        let tools: usize = plan.tools.iter().map(|tool| tool.prompt_signature().len() * 2 + 60).sum();
        let taken = (plan.system.len() + tools + task.len()) as u64;
        let mut room = plan.first.facts.window.saturating_sub(reply).saturating_mul(CHARS_PER_TOKEN);
        // Tool results can be long, so they get half of the space.
        if !plan.executor.answers_with_tool_output() && plan.needs_sandbox() {
            room /= 2;
        }
        let mut room = room.saturating_sub(taken);
        let fits = |said: &&ChatMessage| {
            let size = said.content.len() as u64 + 40;
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        };
        let kept = self.history.iter().rev().take_while(fits).count();
        let mut said = &self.history[self.history.len() - kept..];
        // No provider accepts a conversation that starts with an assistant message.
        while said.first().is_some_and(|said| said.role != Role::User) {
            said = &said[1..];
        }
        let left_out = &self.history[..self.history.len() - said.len()];
        let older: Vec<ChatMessage> = older.iter().chain(left_out).cloned().collect();
        // Placed right before the question, so that the requests keep a common prefix.
        let reference = relevant_turns(&older, task).map(Message::user);
        said.iter().map(|said| self.history_message(said)).chain(reference).collect()
    }

    fn history_message(&self, said: &ChatMessage) -> Message {
        match (said.role, &self.agent.executor) {
            (Role::User, _) => Message::user(said.content.clone()),
            // In the form that the model itself would write, so that it sees only one form.
            (_, Executor::Router { .. }) => Message::assistant(router::format_answer(&said.content)),
            _ => Message::assistant(said.content.clone()),
        }
    }

    fn build_answer(&self, run: RunId, shown: RunDetails) -> ChatAnswer {
        let result = AgentResult::from_state(&shown.state);
        let mut output = shown.summary.answer.trim().to_owned();
        let ok = shown.state.status == RunStatus::Completed && !output.is_empty();
        let error = result.error.or_else(|| match shown.state.status {
            RunStatus::Completed if ok => None,
            RunStatus::Waiting => Some(match shown.state.waiting_for {
                Some(what) => format!("the run is waiting ({})", what.name()),
                None => "the run is waiting".to_owned(),
            }),
            status => Some(format!("the run is {status}")),
        });
        if output.is_empty() || (!ok && !self.agent.executor.answers_with_tool_output()) {
            // A partial answer is discarded.
            output = match shown.state.last_error {
                Some(_) => router::BACKEND_DOWN.to_owned(),
                None => NO_ANSWER_MESSAGE.to_owned(),
            };
        }
        ChatAnswer {
            run,
            output,
            tool: result.tool.filter(|_| self.agent.executor.answers_with_tool_output()),
            steps: result.steps,
            ok,
            error,
            details: Box::new(shown),
            warning: None,
        }
    }
}

/// Builds the plan of the turns: that of any run, plus the tool that saves facts if there is a memory.
async fn conversation_plan(project: &Project, repo: &Path) -> Result<(SharedPlan, AgentPlan), Error> {
    let job = RoutingJob::task_of_kind(TaskKind::Chat, String::new());
    let (shared, mut plan) = project.plan_agent(repo, &[], &job).await?;
    let wanted = plan.memory.is_some()
        && project.config().settings.tools.enabled.is_empty()
        && !matches!(plan.executor, Executor::Subprocess { .. })
        && plan.find_tool(REMEMBER_TOOL).is_none();
    if wanted && let Some(spec) = project.parts().tools.find_spec(REMEMBER_TOOL) {
        plan.tools.push(spec.clone());
        plan.disabled.retain(|name| name != REMEMBER_TOOL);
    }
    Ok((shared, plan))
}
