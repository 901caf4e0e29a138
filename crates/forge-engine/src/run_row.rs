//! The row of a run in lists, built from its state.

use forge_ports::journal::RunRow;
use forge_types::{Payload, Plan, RunState, Timestamp};

/// The most characters of a task in a list.
const MAX_LISTED_TASK_CHARS: usize = 200;

/// Builds the row of a run.
pub(crate) fn run_row(state: &RunState, plan: &Plan, now: Timestamp) -> RunRow {
    let asked = plan.route_at(state.target);
    let created = state.created.as_ref();
    let ending = state.ending.as_ref();
    let error = ending.and_then(|ending| ending.error.as_ref());
    RunRow {
        run: state.run,
        task: created.map_or_else(String::new, |created| summarize_task(&created.task)),
        repo: created.map_or_else(String::new, |created| created.repo.display().to_string()),
        pipeline: created.map_or_else(String::new, |created| created.pipeline.clone()),
        status: state.status,
        waiting_for: state.waiting_for,
        phase: state.phase().to_owned(),
        provider: asked.map_or_else(String::new, |route| route.provider.clone()),
        model: asked.map_or_else(String::new, |route| route.model.clone()),
        iterations: state.iterations,
        tokens_in: state.usage.input,
        tokens_out: state.usage.output,
        cost: state.cost,
        duration_ms: state.worked_ms(now),
        limit: ending.and_then(|ending| ending.limit),
        error_kind: error.map(|error| error.kind.name().to_owned()),
        error_message: error.map(|error| error.message.clone()),
        created_at: state.created_at,
        updated_at: state.at,
        completed_at: ending.map(|ending| ending.at),
    }
}

fn summarize_task(task: &Payload) -> String {
    task.inline_text().unwrap_or("(long task)").chars().take(MAX_LISTED_TASK_CHARS).collect()
}
