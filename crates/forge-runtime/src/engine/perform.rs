//! Doing what was decided: one effect, one outcome. Decides nothing.

use super::{BoxKeeper, Parts};
use crate::blobs::BlobCache;
use crate::live::{LiveDeltas, LiveOutput, LiveSink};
use forge_ports::tool::ToolEnv;
use forge_types::{
    Effect, ErrorInfo, ErrorKind, ModelRequest, Outcome, Plan, SnapshotId, ToolCall, ToolOutput, ToolRun,
};
use std::sync::Arc;
use std::time::Duration;

/// What came of an effect, with the workspace as it left it.
#[derive(Clone)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) snapshot: Option<SnapshotId>,
}

impl Done {
    pub(super) const fn of(outcome: Outcome) -> Self {
        Self { outcome, snapshot: None }
    }
}

/// Does the effects of one run.
pub(super) struct Performer {
    pub(super) parts: Parts,
    pub(super) plan: Arc<Plan>,
    pub(super) blobs: Arc<BlobCache>,
    pub(super) keeper: Arc<BoxKeeper>,
    pub(super) live: Arc<dyn LiveSink>,
}

impl Performer {
    pub(super) async fn perform(&self, what: Effect, request: Option<ModelRequest>) -> Done {
        if let Some(time) = what.not_before() {
            self.parts.clock.sleep_until(time).await;
        }
        match (what, request) {
            (Effect::CallModel(call), Some(request)) => Done::of(self.call_model(call.target, request).await),
            (Effect::CallModel(_), None) => Done::of(Outcome::Interrupted),
            (Effect::RunTool(run), _) => {
                let outcome = self.run_tool(&run).await;
                self.keep(&run, outcome).await
            }
        }
    }

    /// Keeps the workspace as a tool that may have written left it. What can't be kept can't be built on either: the box
    /// is given up, and the call is repeated where it began.
    async fn keep(&self, run: &ToolRun, outcome: Outcome) -> Done {
        let done = matches!(outcome, Outcome::ToolDone { .. });
        let Some(workspace) = self.keeper.workspace().filter(|_| done && run.access.writes()) else {
            return Done::of(outcome);
        };
        match workspace.snapshot().await {
            Ok(snapshot) => Done { outcome, snapshot: Some(snapshot) },
            Err(error) => {
                let why = format!("what `{}` did can't be kept: {error}", run.call.name);
                Done::of(Outcome::SandboxLost { why })
            }
        }
    }

    async fn call_model(&self, target: u32, mut request: ModelRequest) -> Outcome {
        for message in &mut request.messages {
            // Only a message that lacks a text is copied.
            if message.is_inline() {
                continue;
            }
            for payload in Arc::make_mut(message).payloads_mut() {
                if let Err(error) = self.blobs.resolve(payload).await {
                    let error = ErrorInfo::fatal(ErrorKind::StoreUnavailable, error.to_string());
                    return Outcome::ModelFailed { error };
                }
            }
        }
        let deltas = LiveDeltas::new(self.live.clone(), self.parts.redactor.clone());
        let result = self.parts.model.reply(request, &deltas).await;
        deltas.flush();
        match result {
            Ok(reply) => {
                let price = self.plan.target(target).facts.price;
                let cost = price.map(|price| price.cost(&reply.usage));
                Outcome::Replied { reply, cost }
            }
            Err(error) => Outcome::ModelFailed { error: error.info() },
        }
    }

    async fn run_tool(&self, run: &ToolRun) -> Outcome {
        let workspace = match self.keeper.open(self.parts.clock.as_ref()).await {
            Ok(workspace) => workspace,
            Err(error) => return Outcome::SandboxLost { why: error.message },
        };
        let Some(tool) = self.parts.tools.get(&run.call.name) else {
            let text = format!("the tool `{}` is not part of this version of forge", run.call.name);
            return Outcome::ToolDone { output: ToolOutput::failed(ErrorKind::UnknownTool, text) };
        };
        let arguments = match parsed(&run.call) {
            Ok(arguments) => arguments,
            Err(output) => return Outcome::ToolDone { output },
        };
        let max_timeout = Duration::from_millis(self.plan.sandbox.limits.command_ms);
        let output = Arc::new(LiveOutput::new(self.live.clone(), self.parts.redactor.clone()));
        let env = ToolEnv {
            workspace,
            output: output.clone(),
            default_timeout: Duration::from_millis(self.plan.command_ms).min(max_timeout),
            max_timeout,
        };
        let begun = self.parts.clock.now();
        let result = tool.run(&arguments, &env).await;
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

fn parsed(call: &ToolCall) -> Result<serde_json::Map<String, serde_json::Value>, ToolOutput> {
    call.parsed().map_err(|why| ToolOutput::failed(ErrorKind::BadArguments, why))
}
