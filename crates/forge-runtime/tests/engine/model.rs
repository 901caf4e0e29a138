//! Models that are functions of the conversation.

use forge_ports::model::{DeltaSink, Error};
use forge_ports::{Model, async_trait};
use forge_types::*;
use std::sync::Mutex;

/// A step that the model wants done, and how it finds out whether it was.
pub(crate) struct Step {
    pub(crate) tool: &'static str,
    pub(crate) arguments: &'static str,
    /// A read that shows whether the step took effect.
    pub(crate) check: &'static str,
    /// What the check's result holds then.
    pub(crate) done: fn(&str) -> bool,
}

/// Eight steps: read, write, append, look, edit, append, count, commit.
pub(crate) const STEPS: [Step; 8] = [
    Step { tool: "list_directory", arguments: "{}", check: "a.txt", done: |_| true },
    Step {
        tool: "write_file",
        arguments: r#"{"path":"a.txt","content":"A"}"#,
        check: "a.txt",
        done: |text| text.contains('A'),
    },
    Step {
        tool: "run_shell",
        arguments: r#"{"command":"echo one >> log.txt"}"#,
        check: "log.txt",
        done: |text| text.contains("one"),
    },
    Step { tool: "run_shell", arguments: r#"{"command":"cat log.txt"}"#, check: "log.txt", done: |_| true },
    Step {
        tool: "edit_file",
        arguments: r#"{"path":"a.txt","old_text":"A","new_text":"B"}"#,
        check: "a.txt",
        done: |text| text.contains('B'),
    },
    Step {
        tool: "run_shell",
        arguments: r#"{"command":"echo two >> log.txt"}"#,
        check: "log.txt",
        done: |text| text.contains("two"),
    },
    Step {
        tool: "run_shell",
        arguments: r#"{"command":"n=$(cat count || echo 0); echo $((n + 1)) > count"}"#,
        check: "count",
        done: |text| text.contains('1'),
    },
    Step {
        tool: "run_shell",
        arguments: r#"{"command":"git init -q && git add -A && git -c user.name=t -c user.email=t@t commit -qm step && git log --format='%s %T' > commits"}"#,
        check: "commits",
        done: |text| text.contains("step"),
    },
];

type Mind = Box<dyn Fn(&ModelRequest, usize) -> Result<ModelReply, Error> + Send + Sync>;

/// A model made of a function over the request and the number of requests before it.
pub(crate) struct Brain {
    mind: Mind,
    pub(crate) requests: Mutex<Vec<ModelRequest>>,
}

impl Brain {
    pub(crate) fn new(
        mind: impl Fn(&ModelRequest, usize) -> Result<ModelReply, Error> + Send + Sync + 'static,
    ) -> Self {
        Self { mind: Box::new(mind), requests: Mutex::default() }
    }

    /// Replies one after the other, the last one for ever.
    pub(crate) fn replies(replies: Vec<Result<ModelReply, Error>>) -> Self {
        Self::new(move |_, n| replies[n.min(replies.len() - 1)].clone())
    }

    /// Does [`STEPS`], and looks before it repeats what was interrupted.
    pub(crate) fn careful() -> Self {
        Self::new(|request, _| Ok(next_step(request)))
    }
}

#[async_trait]
impl Model for Brain {
    async fn request_reply(
        &self,
        request: ModelRequest,
        deltas: &dyn DeltaSink,
    ) -> Result<ModelReply, Error> {
        let n = {
            let mut requests = self.requests.lock().expect("no panic");
            requests.push(request.clone());
            requests.len() - 1
        };
        // A real model takes a while: others get a chance to run.
        tokio::task::yield_now().await;
        let reply = (self.mind)(&request, n)?;
        for part in &reply.parts {
            if let PartKind::Text { text } = &part.kind {
                text.inline_text()
                    .unwrap_or_default()
                    .split_inclusive(' ')
                    .for_each(|piece| deltas.push_text(piece));
            }
        }
        Ok(reply)
    }
}

fn next_step(request: &ModelRequest) -> ModelReply {
    let (mut at, mut unsure) = (0, false);
    for message in &request.messages {
        for part in &message.parts {
            let PartKind::Result(result) = &part.kind else { continue };
            let text = result.content.inline_text().expect("texts are in place");
            if result.call_id.starts_with("check") {
                unsure = false;
                at += usize::from((STEPS[at].done)(text));
            } else if text.contains("interrupted") {
                unsure = true;
            } else {
                at += 1;
            }
        }
    }
    let Some(step) = STEPS.get(at) else { return say("all done") };
    if unsure {
        return call("check", "read_file", &serde_json::json!({ "path": step.check }).to_string());
    }
    call("step", step.tool, step.arguments)
}

pub(crate) fn say(text: &str) -> ModelReply {
    reply(vec![MessagePart::text(text)], FinishReason::Stop)
}

pub(crate) fn call(id: &str, name: &str, arguments: &str) -> ModelReply {
    let call = ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() };
    reply(vec![MessagePart::call(call)], FinishReason::ToolCalls)
}

pub(crate) fn shell(command: &str) -> ModelReply {
    call("shell", "run_shell", &serde_json::json!({ "command": command }).to_string())
}

fn reply(parts: Vec<MessagePart>, finish: FinishReason) -> ModelReply {
    let usage = Usage { input: 100, output: 10, known: true, ..Usage::default() };
    ModelReply { parts, usage, model: "m".into(), finish, latency_ms: 1 }
}

pub(crate) fn failure(kind: ErrorKind, retry_after: Option<std::time::Duration>) -> Error {
    Error { kind, message: format!("the server said {kind}"), retry_after, next_steps: Vec::new() }
}
