//! Choice of the messages that a summary replaces.
//!
//! A call and its results are replaced together or not at all. The task, the user's messages during the run, unresolved
//! failures and the newest messages are kept.

use super::max_summary_bytes;
use crate::budget;
use forge_types::{
    AgentPlanRef, CompactCause, Executor, Message, MessageSpan, PartKind, RunState, ToolCall, ToolResultPart,
};
use std::sync::Arc;

/// Maximum number of failures that are kept verbatim.
const MAX_OPEN_FAILURES: usize = 2;
/// Arguments that identify the subject of a call.
const SUBJECT_ARGUMENTS: [&str; 3] = ["path", "command", "url"];
/// Overhead of a summary in bytes.
const SUMMARY_OVERHEAD_BYTES: u64 = 400;

/// Messages that are replaced or kept together.
struct MessageGroup {
    span: MessageSpan,
    bytes: u64,
    kept: bool,
}

/// Returns the messages to replace and their size in bytes; `None` if replacing them gains nothing.
pub(super) fn replaced_spans(
    state: &RunState,
    plan: AgentPlanRef<'_>,
    target: u32,
    cause: CompactCause,
) -> Option<(Vec<MessageSpan>, u64)> {
    let window = plan.agent.target_at(target).facts.window;
    let groups = group_messages(state, plan, window);
    let free = |group: &&MessageGroup| !group.kept;
    let all: u64 = groups.iter().filter(free).map(|group| group.bytes).sum();
    let room = max_summary_bytes(state, plan, target, cause) + SUMMARY_OVERHEAD_BYTES;
    let mut after = state.clone();
    after.last_measured_prompt = None;
    let mut prompt = |removed: u64| {
        after.message_bytes = (state.message_bytes + room).saturating_sub(removed);
        budget::estimate_input(&after, plan, target)
    };
    let share = window.saturating_mul(plan.agent.context.compact_percent.into()) / 100;
    let (last, older) = groups.split_last()?;
    let (mut spans, mut removed) = (Vec::new(), 0);
    // One summary covers everything before it, so an existing summary is replaced wherever it is.
    let is_summary = |group: &MessageGroup| state.compact.summary == Some(group.span.from);
    for group in older.iter().filter(free) {
        if is_summary(group) || removed * 2 < all || prompt(removed) > share {
            add_group(group, &mut spans, &mut removed);
        }
    }
    // A summary of the newest messages is better than the end of the run.
    if !last.kept && (is_summary(last) || prompt(removed) + budget::MIN_REPLY_TOKENS > window) {
        add_group(last, &mut spans, &mut removed);
    }
    let too_long = cause == CompactCause::Overflow
        || budget::estimate_input(state, plan, target) + budget::MIN_REPLY_TOKENS > window;
    let worth = if too_long { room } else { (2 * room).max(window.saturating_mul(3) / 16) };
    (removed > worth).then_some((spans, removed))
}

fn add_group(group: &MessageGroup, spans: &mut Vec<MessageSpan>, removed: &mut u64) {
    *removed += group.bytes;
    match spans.last_mut() {
        Some(before) if before.until == group.span.from => before.until = group.span.until,
        _ => spans.push(group.span),
    }
}

fn group_messages(state: &RunState, plan: AgentPlanRef<'_>, window: u64) -> Vec<MessageGroup> {
    let failures = open_failures(state);
    let task = state.compact.pinned.first().copied().unwrap_or(0);
    // A router's steps are counted by their results, and there are few of them.
    let steps_stay = matches!(plan.agent.executor, Executor::Router { .. });
    let mut groups: Vec<MessageGroup> = Vec::new();
    let mut calls = 0_usize;
    for (place, message) in (0_u32..).zip(&state.messages) {
        let bytes = message.sent_bytes();
        let results = tool_results(message).count();
        match groups.last_mut() {
            Some(group) if calls > 0 && results > 0 => {
                group.span.until = place + 1;
                group.bytes += bytes;
            }
            _ => {
                let pinned = state.compact.pinned.contains(&place) || (steps_stay && place >= task);
                groups.push(MessageGroup {
                    span: MessageSpan { from: place, until: place + 1 },
                    bytes,
                    kept: pinned,
                });
                calls = message.tool_calls().count();
            }
        }
        calls = calls.saturating_sub(results);
        if let Some(group) = groups.last_mut().filter(|_| failures.contains(&place)) {
            group.kept = true;
        }
    }
    // The messages kept for failures must not fill the window.
    for group in &mut groups {
        let of_user =
            state.compact.pinned.contains(&group.span.from) || (steps_stay && group.span.from >= task);
        group.kept &= of_user || group.bytes <= window.saturating_mul(3) / 10;
    }
    groups
}

/// Returns the positions of the last failed results that no success of the same kind followed.
fn open_failures(state: &RunState) -> Vec<u32> {
    let calls: Vec<&ToolCall> = state.messages.iter().flat_map(|message| message.tool_calls()).collect();
    let of = |result: &ToolResultPart| calls.iter().find(|call| call.id == result.call_id).copied();
    let mut open = Vec::new();
    let mut mended: Vec<(String, String)> = Vec::new();
    for (place, message) in (0_u32..).zip(&state.messages).collect::<Vec<_>>().into_iter().rev() {
        for result in tool_results(message) {
            let Some(call) = of(result) else { continue };
            let about = (call.name.clone(), call_subject(call));
            if mended.contains(&about) {
                continue;
            }
            if !result.ok {
                open.push(place);
            }
            mended.push(about);
        }
        if open.len() >= MAX_OPEN_FAILURES {
            break;
        }
    }
    open.truncate(MAX_OPEN_FAILURES);
    open
}

/// Returns the subject of a call: its file or command, else all its arguments.
fn call_subject(call: &ToolCall) -> String {
    let arguments = call.arguments.parsed().ok();
    let named =
        arguments.and_then(|arguments| SUBJECT_ARGUMENTS.iter().find_map(|name| arguments.get(*name)));
    named.and_then(|value| value.as_str()).unwrap_or(&call.arguments).to_owned()
}

fn tool_results(message: &Arc<Message>) -> impl Iterator<Item = &ToolResultPart> {
    message.parts.iter().filter_map(|part| match &part.kind {
        PartKind::Result(result) => Some(result),
        _ => None,
    })
}
