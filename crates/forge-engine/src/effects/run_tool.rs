//! The effect of a tool call, and the snapshot after it.

use super::{EffectExecutor, EffectResult, executor_replies};
use crate::live::LiveOutput;
use crate::no_workspace::NoWorkspace;
use crate::program_tool::{PROGRAM_TOOL, REQUEST_PARAMETER};
use forge_ports::tool::ToolEnv;
use forge_ports::{Workspace, sandbox};
use forge_types::{
    AgentPlanRef, ErrorInfo, ErrorKind, Executor, Outcome, ToolAccess, ToolLayer, ToolOutput, ToolRun,
};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

impl EffectExecutor {
    /// Runs a tool. Failures are outcomes.
    pub(super) async fn run_tool(&self, plan: AgentPlanRef<'_>, run: &ToolRun) -> Outcome {
        let debug = matches!(plan.agent.executor, Executor::Router { debug: true, .. });
        let tell = executor_replies::RouterDebug { live: self.live.as_ref(), redactor: &self.parts.redactor };
        if debug {
            let data = json!({"tool": run.call.name, "arguments": run.call.arguments, "duration_ms": 0});
            tell.emit_debug("tool.dispatch", data);
        }
        let outcome = match plan.agent.tool_layer {
            ToolLayer::Real => self.run_real_tool(plan, run).await,
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

    async fn run_real_tool(&self, plan: AgentPlanRef<'_>, run: &ToolRun) -> Outcome {
        let workspace: Arc<dyn Workspace> = if run.access == ToolAccess::Nothing {
            Arc::new(NoWorkspace)
        } else {
            match self.session.open(self.parts.clock.as_ref()).await {
                Ok(workspace) => workspace,
                Err(error) => return Outcome::SandboxLost { why: error.message },
            }
        };
        let arguments = match run.call.arguments.parsed() {
            Ok(arguments) => arguments,
            Err(why) => {
                let output = ToolOutput::failed(ErrorKind::BadArguments, why);
                return Outcome::ToolDone { output };
            }
        };
        let max_timeout = Duration::from_millis(plan.shared.sandbox.limits.command_ms);
        let output = Arc::new(LiveOutput::new(self.live.clone(), self.parts.redactor.clone()));
        let env = ToolEnv {
            workspace,
            memory: (self.parts.open_memory)(plan.agent),
            pull_requests: plan.shared.pull_requests.clone(),
            past: Some(Arc::new(self.transcript())),
            output: output.clone(),
            idempotency_key: run.idempotency_key(self.run),
            default_timeout: Duration::from_millis(plan.shared.command_ms).min(max_timeout),
            max_timeout,
        };
        let begun = self.parts.clock.now();
        let result = match (&plan.agent.executor, self.parts.tools.get(&run.call.name)) {
            (Executor::Subprocess { argv, passthrough }, _) if run.call.name == PROGRAM_TOOL => {
                let request =
                    arguments.get(REQUEST_PARAMETER).and_then(|text| text.as_str()).unwrap_or_default();
                executor_replies::run_program(argv, passthrough, request, &env).await
            }
            (_, Some(tool)) => tool.run(arguments, &env).await,
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

    /// Takes a snapshot of the workspace after a tool that may have written. If that fails, nothing can build
    /// on the changes: the sandbox is given up, and the call is repeated from where it began.
    pub(super) async fn snapshot_after(&self, run: &ToolRun, outcome: Outcome) -> EffectResult {
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
}
