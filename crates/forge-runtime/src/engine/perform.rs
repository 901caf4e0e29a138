//! Execution of effects: one effect, one outcome. Decides nothing.

use super::{EngineParts, SandboxSession, executor_replies};
use crate::executors::{self, PROGRAM_TOOL, REQUEST_PARAMETER};
use crate::live::{CutText, LiveDeltas, LiveOutput, LiveSink, ReplyEnd};
use crate::no_workspace::NoWorkspace;
use crate::payload_cache::PayloadCache;
use forge_policy::{context, router};
use forge_ports::tool::ToolEnv;
use forge_ports::{DeltaSink as _, Workspace, model};
use forge_ports::{FlushHandle, sandbox};
use forge_types::{
    Effect, ErrorInfo, ErrorKind, Executor, FinishReason, MAX_MESSAGE_CHARS, Message, ModelCall, ModelReply,
    ModelRequest, Outcome, Plan, Role, RunId, SnapshotId, ToolAccess, ToolCall, ToolLayer, ToolOutput,
    ToolRun,
};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The outcome of an effect, with a snapshot of the workspace after it.
#[derive(Clone)]
pub(super) struct EffectResult {
    pub(super) outcome: Outcome,
    pub(super) snapshot: Option<SnapshotId>,
    /// The handle that waits until the snapshot is on disk.
    pub(super) durable: FlushHandle,
    /// The error that ends the run, if the snapshot exceeds a ceiling.
    pub(super) too_large: Option<ErrorInfo>,
}

impl EffectResult {
    pub(super) const fn from_outcome(outcome: Outcome) -> Self {
        Self { outcome, snapshot: None, durable: FlushHandle::done(), too_large: None }
    }
}

/// The messages that an effect needs.
pub(super) enum EffectInput {
    /// All messages, as a request.
    Request(Box<ModelRequest>),
    /// The messages to summarize.
    Messages(Vec<Arc<Message>>),
    /// No messages.
    Nothing,
}

/// The executor of one run's effects.
pub(super) struct EffectExecutor {
    pub(super) parts: EngineParts,
    pub(super) plan: Arc<Plan>,
    pub(super) blobs: Arc<PayloadCache>,
    pub(super) session: Arc<SandboxSession>,
    pub(super) live: Arc<dyn LiveSink>,
    pub(super) run: RunId,
    /// The number of consecutive replies before this effect that the token limit cut off.
    pub(super) cuts: u32,
    /// Withheld text of these replies.
    pub(super) cut_text: CutText,
}

impl EffectExecutor {
    pub(super) async fn execute(&self, what: Effect, said: EffectInput) -> EffectResult {
        if let Some(time) = what.not_before() {
            self.parts.clock.sleep_until(time).await;
        }
        match (what, said) {
            (Effect::CallModel(call), EffectInput::Request(request)) => {
                EffectResult::from_outcome(self.call_model(&call, *request).await)
            }
            (Effect::Compact(compaction), EffectInput::Messages(messages)) => {
                EffectResult::from_outcome(self.summarize(&compaction, messages).await)
            }
            (Effect::CallModel(_) | Effect::Compact(_), _) => {
                EffectResult::from_outcome(Outcome::Interrupted)
            }
            (Effect::RunTool(run), _) => {
                let outcome = self.run_tool(&run).await;
                self.snapshot_after(&run, outcome).await
            }
        }
    }

    /// Takes a snapshot of the workspace after a tool that may have written. If that fails, nothing can build
    /// on the changes: the sandbox is given up, and the call is repeated from where it began.
    async fn snapshot_after(&self, run: &ToolRun, outcome: Outcome) -> EffectResult {
        let done = matches!(outcome, Outcome::ToolDone { .. });
        let Some(workspace) = self.session.workspace().filter(|_| done && run.access.writes()) else {
            return EffectResult::from_outcome(outcome);
        };
        match workspace.start_snapshot().await {
            Ok((snapshot, durable)) => {
                EffectResult { snapshot: Some(snapshot), durable, ..EffectResult::from_outcome(outcome) }
            }
            // A repetition would fail in the same way.
            Err(error @ sandbox::Error::Ceiling { .. }) => {
                let what = format!(
                    "the changes of `{}` can't be saved: {error}. Earlier changes are kept",
                    run.call.name
                );
                let info = ErrorInfo::fatal(ErrorKind::BudgetExceeded, what);
                EffectResult { too_large: Some(info), ..EffectResult::from_outcome(outcome) }
            }
            Err(error) => {
                let why = format!("the changes of `{}` can't be saved: {error}", run.call.name);
                EffectResult::from_outcome(Outcome::SandboxLost { why })
            }
        }
    }

    async fn call_model(&self, call: &ModelCall, mut request: ModelRequest) -> Outcome {
        if let Err(error) = resolve_request(&self.blobs, &mut request).await {
            let error = ErrorInfo::fatal(ErrorKind::StoreUnavailable, error.to_string());
            return Outcome::ModelFailed { error };
        }
        let before = text_before_continuation(&request.messages, self.cuts);
        let deltas = LiveDeltas::new(self.live.clone(), self.parts.redactor.clone(), self.cut_text.clone());
        let result = self.model_reply(call, request, &deltas).await;
        deltas.end(match &result {
            Ok(reply) if reply.finish == FinishReason::Length && reply.tool_calls().next().is_none() => {
                ReplyEnd::Cut
            }
            Ok(_) => ReplyEnd::Whole,
            Err(_) => ReplyEnd::Failed,
        });
        match result {
            Ok(mut reply) => {
                self.parts.redactor.redact_reply(&mut reply, &before);
                let price = self.plan.target_at(call.target).facts.price;
                let cost = price.map(|price| price.cost(&reply.usage));
                Outcome::Replied { reply, cost }
            }
            Err(error) => Outcome::ModelFailed { error: error.to_info() },
        }
    }

    /// Returns the reply of the executor's model, or of its substitute.
    async fn model_reply(
        &self,
        call: &ModelCall,
        request: ModelRequest,
        deltas: &LiveDeltas,
    ) -> Result<ModelReply, model::Error> {
        match &self.plan.executor {
            Executor::React => self.parts.model.request_reply(request, deltas).await,
            Executor::Router { debug, .. } => self.routed_reply(call, request, deltas, *debug).await,
            Executor::Subprocess { .. } => Ok(executor_replies::subprocess_call(&self.plan, &request)),
            Executor::Stub { replies } => {
                let reply = executor_replies::stub_reply(&self.plan, replies, &request);
                reply.inline_texts().for_each(|text| deltas.push_text(text));
                Ok(reply)
            }
        }
    }

    /// Asks a router's model and returns its decision as a tool call.
    async fn routed_reply(
        &self,
        call: &ModelCall,
        request: ModelRequest,
        deltas: &LiveDeltas,
        debug: bool,
    ) -> Result<ModelReply, model::Error> {
        let tell = executor_replies::RouterDebug { live: self.live.as_ref(), redactor: &self.parts.redactor };
        if debug {
            if call.iteration == 1 && call.attempt == 1 {
                tell.tools_registered(&self.plan, 0);
            }
            tell.prompt_built(&request);
        }
        let reply =
            self.parts.model.request_reply(request, &executor_replies::RouterDeltas::new(deltas)).await?;
        let (asked, begun) = (reply.latency_ms, self.parts.clock.now());
        let (reply, decision) = router::route_reply(reply, &self.plan.tools);
        if debug {
            tell.decision_made(&decision, asked, self.parts.clock.now().millis_since(begun));
        }
        Ok(reply)
    }

    async fn run_tool(&self, run: &ToolRun) -> Outcome {
        let debug = matches!(self.plan.executor, Executor::Router { debug: true, .. });
        let tell = executor_replies::RouterDebug { live: self.live.as_ref(), redactor: &self.parts.redactor };
        if debug {
            let data = json!({"tool": run.call.name, "arguments": run.call.arguments, "duration_ms": 0});
            tell.emit_debug("tool.dispatch", data);
        }
        let outcome = match self.plan.tool_layer {
            ToolLayer::Real => self.run_real_tool(run).await,
            ToolLayer::Mock => Outcome::ToolDone { output: executor_replies::mock_output(run) },
        };
        if debug && let Outcome::ToolDone { output } = &outcome {
            let (ok, length) = (output.is_ok(), output.output_chars);
            let data = json!({
                "tool": run.call.name, "ok": ok, "length": length, "duration_ms": output.duration_ms,
            });
            tell.emit_debug("tool.result", data);
        }
        outcome
    }

    async fn run_real_tool(&self, run: &ToolRun) -> Outcome {
        let workspace: Arc<dyn Workspace> = if run.access == ToolAccess::Nothing {
            Arc::new(NoWorkspace)
        } else {
            match self.session.open(self.parts.clock.as_ref()).await {
                Ok(workspace) => workspace,
                Err(error) => return Outcome::SandboxLost { why: error.message },
            }
        };
        let arguments = match parse_arguments(&run.call) {
            Ok(arguments) => arguments,
            Err(output) => return Outcome::ToolDone { output },
        };
        let max_timeout = Duration::from_millis(self.plan.sandbox.limits.command_ms);
        let output = Arc::new(LiveOutput::new(self.live.clone(), self.parts.redactor.clone()));
        let env = ToolEnv {
            workspace,
            memory: executors::open_memory(&self.plan, &self.parts.clock),
            pull_requests: self.plan.pull_requests.clone(),
            past: Some(Arc::new(self.transcript())),
            output: output.clone(),
            default_timeout: Duration::from_millis(self.plan.command_ms).min(max_timeout),
            max_timeout,
        };
        let begun = self.parts.clock.now();
        let result = match (&self.plan.executor, self.parts.tools.get(&run.call.name)) {
            (Executor::Subprocess { argv, passthrough }, _) if run.call.name == PROGRAM_TOOL => {
                let request =
                    arguments.get(REQUEST_PARAMETER).and_then(|text| text.as_str()).unwrap_or_default();
                executor_replies::run_program(argv, passthrough, request, &env).await
            }
            (_, Some(tool)) => tool.run(&arguments, &env).await,
            (_, None) => {
                let text = format!("the tool `{}` is not part of this version of forge", run.call.name);
                Ok(ToolOutput::failed(ErrorKind::UnknownTool, text))
            }
        };
        output.flush();
        match result {
            Ok(mut output) => {
                output.duration_ms = self.parts.clock.now().millis_since(begun);
                Outcome::ToolDone { output }
            }
            Err(gone) => Outcome::SandboxLost { why: gone.0.message },
        }
    }
}

/// Returns the text that a reply continues after `cuts` truncated replies: the answer joins them.
fn text_before_continuation(messages: &[Arc<Message>], cuts: u32) -> String {
    let said = messages.iter().rev().take_while(|message| message.role != Role::Tool);
    let mut cut: Vec<_> =
        said.filter(|message| message.role == Role::Assistant).take(cuts as usize).collect();
    cut.reverse();
    cut.iter().flat_map(|message| message.text_parts()).filter_map(|text| text.inline_text()).collect()
}

/// Loads the texts of a request that are stored separately.
pub(super) async fn resolve_request(
    blobs: &PayloadCache,
    request: &mut ModelRequest,
) -> Result<(), crate::Error> {
    for message in &mut request.messages {
        resolve_message(blobs, message).await?;
        if message.approx_bytes() > MAX_MESSAGE_CHARS {
            context::cut_message(Arc::make_mut(message));
        }
    }
    Ok(())
}

/// Loads the texts of a message that are stored separately.
pub(super) async fn resolve_message(
    blobs: &PayloadCache,
    message: &mut Arc<Message>,
) -> Result<(), crate::Error> {
    // Only a message that lacks a text is copied.
    if message.is_inline() {
        return Ok(());
    }
    for payload in Arc::make_mut(message).payloads_mut() {
        blobs.resolve(payload).await?;
    }
    Ok(())
}

fn parse_arguments(call: &ToolCall) -> Result<serde_json::Map<String, serde_json::Value>, ToolOutput> {
    call.parse_arguments().map_err(|why| ToolOutput::failed(ErrorKind::BadArguments, why))
}
