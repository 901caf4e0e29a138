//! Which messages give way to a summary.
//!
//! A call goes with its results or not at all. The task, what the user said while the run worked, failures that nothing
//! mended yet and the newest messages stay as they are.

use super::room;
use crate::budget;
use forge_types::{
    CompactCause, Executor, Message, PartKind, Plan, RunState, Span, ToolCall, ToolResultPart,
};
use std::sync::Arc;

/// Failures that are kept word by word.
const FAILURES: usize = 2;
/// Arguments that name what a call is about.
const SUBJECTS: [&str; 3] = ["path", "command", "url"];
/// Bytes that stand around a summary.
const AROUND: u64 = 400;

/// Messages that go or stay together.
struct Group {
    span: Span,
    bytes: u64,
    kept: bool,
}

/// The messages that go, and their bytes; `None` if nothing is won by it.
pub(super) fn gone(
    state: &RunState,
    plan: &Plan,
    target: u32,
    cause: CompactCause,
) -> Option<(Vec<Span>, u64)> {
    let window = plan.target(target).facts.window;
    let groups = groups(state, plan, window);
    let free = |group: &&Group| !group.kept;
    let all: u64 = groups.iter().filter(free).map(|group| group.bytes).sum();
    let room = room(state, plan, target, cause) + AROUND;
    let mut after = state.clone();
    after.measured = None;
    let mut prompt = |removed: u64| {
        after.message_bytes = (state.message_bytes + room).saturating_sub(removed);
        budget::estimate_input(&after, plan, target)
    };
    let share = window.saturating_mul(plan.context.compact_percent.into()) / 100;
    let (last, older) = groups.split_last()?;
    let (mut spans, mut removed) = (Vec::new(), 0);
    // One summary stands for all before it: the one that there is goes, wherever it stands.
    let is_summary = |group: &Group| state.compact.summary == Some(group.span.from);
    for group in older.iter().filter(free) {
        if is_summary(group) || removed * 2 < all || prompt(removed) > share {
            take(group, &mut spans, &mut removed);
        }
    }
    // Better a summary of what was said last than the end of the run.
    if !last.kept && (is_summary(last) || prompt(removed) + budget::SMALLEST_REPLY > window) {
        take(last, &mut spans, &mut removed);
    }
    let too_long = cause == CompactCause::Overflow
        || budget::estimate_input(state, plan, target) + budget::SMALLEST_REPLY > window;
    let worth = if too_long { room } else { (2 * room).max(window.saturating_mul(3) / 16) };
    (removed > worth).then_some((spans, removed))
}

fn take(group: &Group, spans: &mut Vec<Span>, removed: &mut u64) {
    *removed += group.bytes;
    match spans.last_mut() {
        Some(before) if before.until == group.span.from => before.until = group.span.until,
        _ => spans.push(group.span),
    }
}

fn groups(state: &RunState, plan: &Plan, window: u64) -> Vec<Group> {
    let failures = open_failures(state);
    let task = state.compact.pinned.first().copied().unwrap_or(0);
    // A router's steps are counted by their results; there are few of them.
    let steps_stay = matches!(plan.executor, Executor::Router { .. });
    let mut groups: Vec<Group> = Vec::new();
    let mut calls = 0_usize;
    for (place, message) in (0_u32..).zip(&state.messages) {
        let bytes = message.sent_bytes();
        let results = results(message).count();
        match groups.last_mut() {
            Some(group) if calls > 0 && results > 0 => {
                group.span.until = place + 1;
                group.bytes += bytes;
            }
            _ => {
                let pinned = state.compact.pinned.contains(&place) || (steps_stay && place >= task);
                groups.push(Group { span: Span { from: place, until: place + 1 }, bytes, kept: pinned });
                calls = message.calls().count();
            }
        }
        calls = calls.saturating_sub(results);
        if let Some(group) = groups.last_mut().filter(|_| failures.contains(&place)) {
            group.kept = true;
        }
    }
    // What is kept for a failure must not fill the window.
    for group in &mut groups {
        let of_user =
            state.compact.pinned.contains(&group.span.from) || (steps_stay && group.span.from >= task);
        group.kept &= of_user || group.bytes <= window.saturating_mul(3) / 10;
    }
    groups
}

/// The places of the last failed results after which nothing of the same kind succeeded.
fn open_failures(state: &RunState) -> Vec<u32> {
    let calls: Vec<&ToolCall> = state.messages.iter().flat_map(|message| message.calls()).collect();
    let of = |result: &ToolResultPart| calls.iter().find(|call| call.id == result.call_id).copied();
    let mut open = Vec::new();
    let mut mended: Vec<(String, String)> = Vec::new();
    for (place, message) in (0_u32..).zip(&state.messages).collect::<Vec<_>>().into_iter().rev() {
        for result in results(message) {
            let Some(call) = of(result) else { continue };
            let about = (call.name.clone(), subject(call));
            if mended.contains(&about) {
                continue;
            }
            if !result.ok {
                open.push(place);
            }
            mended.push(about);
        }
        if open.len() >= FAILURES {
            break;
        }
    }
    open.truncate(FAILURES);
    open
}

/// What a call is about: its file, its command, else all its arguments.
fn subject(call: &ToolCall) -> String {
    let arguments = call.parsed().unwrap_or_default();
    let named = SUBJECTS.iter().find_map(|name| arguments.get(*name)).and_then(|value| value.as_str());
    named.unwrap_or(&call.arguments).to_owned()
}

fn results(message: &Arc<Message>) -> impl Iterator<Item = &ToolResultPart> {
    message.parts.iter().filter_map(|part| match &part.kind {
        PartKind::Result(result) => Some(result),
        _ => None,
    })
}
