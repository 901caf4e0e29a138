//! Executors that call no provider, and the router's additions to those that do (LOOP-10, OBS-6).

use crate::live::LiveSink;
use crate::program_tool::{PROGRAM_TOOL, REQUEST_PARAMETER};
use forge_policy::router::{self, ContentStream, DecisionSource, RouterDecision};
use forge_ports::DeltaSink;
use forge_ports::sandbox::{BackgroundPolicy, ExecResult, ExecSpec, InheritedEnv};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_redact::Redactor;
use forge_types::{
    AgentPlanRef, ErrorInfo, ErrorKind, FinishReason, Message, MessagePart, ModelReply, ModelRequest, Role,
    ToolCall, ToolOutput, ToolRun, Usage,
};
use forge_wire::LiveFrame;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most bytes of a program's output that are kept (SEC-5).
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// The largest request to a program, in bytes.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Variables that a program always gets if the sandbox has them.
const DEFAULT_ENV_VARS: [&str; 10] = [
    "PATH",
    "LANG",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "OPENAI_ORG_ID",
];

/// Builds a reply that no model produced.
fn synthetic_reply(parts: Vec<MessagePart>, finish: FinishReason, plan: AgentPlanRef<'_>) -> ModelReply {
    let usage = Usage { known: true, ..Usage::default() };
    ModelReply { parts, usage, model: plan.agent.first.route.model.clone(), finish, latency_ms: 0 }
}

/// Returns the canned reply of a turn, beginning with the first. One that names a tool in the router's format
/// becomes a call of it.
pub(super) fn stub_reply(plan: AgentPlanRef<'_>, replies: &[String], request: &ModelRequest) -> ModelReply {
    let answered = request.messages.iter().filter(|message| message.role == Role::Assistant).count();
    let at = answered % replies.len().max(1);
    let text = replies.get(at).cloned().unwrap_or_default();
    let reply = synthetic_reply(vec![MessagePart::text(text.clone())], FinishReason::Stop, plan);
    let (routed, decision) = router::route_reply(reply.clone(), &plan.agent.tools);
    if decision.how == DecisionSource::Json && !text.trim().is_empty() { routed } else { reply }
}

/// Builds the only turn of a program: a call that starts it with its task.
pub(super) fn subprocess_call(plan: AgentPlanRef<'_>, request: &ModelRequest) -> ModelReply {
    let said = |message: &Arc<Message>| {
        let text: String = message.text_parts().filter_map(|text| text.inline_text()).collect();
        (message.role, text)
    };
    let mut said: Vec<_> = request.messages.iter().map(said).collect();
    let task = said.pop().map(|(_, text)| text).unwrap_or_default();
    let mut history: Vec<Value> = said
        .into_iter()
        .filter(|(role, _)| matches!(role, Role::User | Role::Assistant))
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect();
    let text = loop {
        let all = json!({"version": 1, "task": task, "history": history, "workspace": "/workspace"});
        let text = all.to_string();
        if text.len() <= MAX_REQUEST_BYTES || history.is_empty() {
            break text;
        }
        // The oldest messages matter least.
        history.drain(..history.len().div_ceil(4));
    };
    let arguments = json!({ REQUEST_PARAMETER: text }).to_string().into();
    let call = ToolCall { id: String::new(), name: PROGRAM_TOOL.to_owned(), arguments };
    synthetic_reply(vec![MessagePart::call(call)], FinishReason::ToolCalls, plan)
}

/// Runs the program in the sandbox, with its request on stdin and only the named environment variables (SEC-5).
pub(super) async fn run_program(
    argv: &[String],
    passthrough: &[String],
    request: &str,
    env: &ToolEnv,
) -> Result<ToolOutput, SandboxGone> {
    let names = DEFAULT_ENV_VARS.iter().copied().map(str::to_owned).chain(passthrough.iter().cloned());
    let spec = ExecSpec {
        argv: argv.to_vec(),
        cwd: String::new(),
        inherited_env: InheritedEnv::Only(names.collect()),
        env: BTreeMap::from([("HOME".to_owned(), "/workspace".to_owned())]),
        stdin: Some(format!("{request}\n").into_bytes()),
        timeout: env.max_timeout,
        keep_bytes: MAX_OUTPUT_BYTES,
        background: BackgroundPolicy::Kill,
        // The user, not a model, chose this program.
        also: argv.first().cloned().into_iter().collect(),
    };
    match env.workspace.exec(spec, env.output.as_ref()).await {
        Ok(result) => Ok(parse_program_output(&result)),
        Err(error) => Err(SandboxGone(ErrorInfo::fatal(ErrorKind::Died, error.to_string()))),
    }
}

/// Extracts the answer of a program: the last JSON object with an answer, otherwise its whole output.
fn parse_program_output(result: &ExecResult) -> ToolOutput {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&result.stdout.bytes), text(&result.stderr.bytes));
    let tail = |text: &str| {
        text.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    let mut output = if result.timed_out {
        let seconds = result.duration_ms / 1000;
        let text = format!(
            "the program did not finish within {seconds} s (sandbox.timeout_seconds)\n{}",
            tail(&err)
        );
        ToolOutput::failed(ErrorKind::Timeout, text)
    } else if result.exit_code != 0 {
        let code = result.exit_code;
        ToolOutput::failed(
            ErrorKind::Execution,
            format!("the program failed with exit code {code}\n{}", tail(&err)),
        )
    } else {
        match out.lines().rev().find_map(parse_answer_line) {
            Some(Ok(answer)) => ToolOutput::ok(answer),
            Some(Err(why)) => ToolOutput::failed(ErrorKind::Execution, why),
            None => ToolOutput::ok(out.trim()),
        }
    };
    output.exit_code = Some(result.exit_code);
    output.timed_out = result.timed_out;
    output.truncated = result.stdout.is_truncated();
    output
}

fn parse_answer_line(line: &str) -> Option<Result<String, String>> {
    let Ok(Value::Object(map)) = serde_json::from_str(line.trim()) else { return None };
    let text = ["output", "answer", "content", "result"].iter().find_map(|name| map.get(*name));
    let text = text.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    if map.get("ok") == Some(&Value::Bool(false)) {
        let why = map.get("error").and_then(Value::as_str).map(str::to_owned).or(text);
        return Some(Err(why.unwrap_or_else(|| "the program reported a failure".to_owned())));
    }
    text.map(Ok)
}

/// Returns the output of a mocked tool (`--mock-tools`).
pub(super) fn mock_output(run: &ToolRun) -> ToolOutput {
    ToolOutput::ok(format!("mock: {} was not run; it was given {}", run.call.name, run.call.arguments))
}

/// A sink that shows the text of a router's answer while its JSON arrives.
pub(super) struct RouterDeltas<'a> {
    inner: &'a dyn DeltaSink,
    stream: Mutex<ContentStream>,
}

impl<'a> RouterDeltas<'a> {
    pub(super) fn new(inner: &'a dyn DeltaSink) -> Self {
        Self { inner, stream: Mutex::default() }
    }
}

impl DeltaSink for RouterDeltas<'_> {
    fn push_text(&self, text: &str) {
        let words = self.stream.lock().push(text);
        if !words.is_empty() {
            self.inner.push_text(&words);
        }
    }

    fn push_reasoning(&self, text: &str) {
        self.inner.push_reasoning(text);
    }
}

/// A reporter of the router's actions, without secrets (OBS-6).
pub(super) struct RouterDebug<'a> {
    pub(super) live: &'a dyn LiveSink,
    pub(super) redactor: &'a Redactor,
}

impl RouterDebug<'_> {
    pub(super) fn emit_debug(&self, name: &'static str, mut data: Value) {
        self.redact(&mut data);
        self.live.on_frame(LiveFrame::Debug { name: name.to_owned(), data });
    }

    fn redact(&self, data: &mut Value) {
        match data {
            Value::String(text) => self.redactor.redact_in_place(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact(item)),
            Value::Object(map) => map.values_mut().for_each(|item| self.redact(item)),
            _ => {}
        }
    }

    /// Reports the tools, once, before the first request.
    pub(super) fn tools_registered(&self, plan: AgentPlanRef<'_>, made_in_ms: u64) {
        for tool in &plan.agent.tools {
            let data = json!({"tool": tool.name, "aliases": tool.aliases, "duration_ms": made_in_ms});
            self.emit_debug("tool.registered", data);
        }
    }

    pub(super) fn prompt_built(&self, request: &ModelRequest) {
        let line = |message: &Arc<Message>| {
            let text: String = message.text_parts().filter_map(|text| text.inline_text()).collect();
            json!({"role": message.role, "content": text})
        };
        let messages: Vec<_> = request.messages.iter().map(line).collect();
        self.emit_debug(
            "router.prompt",
            json!({"system": request.system, "messages": messages, "duration_ms": 0}),
        );
    }

    pub(super) fn decision_made(&self, decision: &RouterDecision, asked_ms: u64, parsed_ms: u64) {
        self.emit_debug("router.raw_output", json!({"text": decision.raw, "duration_ms": asked_ms}));
        let data = json!({
            "tool": decision.tool, "content": decision.content, "found": decision.how.name(), "done": !decision.more,
            "duration_ms": parsed_ms,
        });
        self.emit_debug("router.decision", data);
    }
}
