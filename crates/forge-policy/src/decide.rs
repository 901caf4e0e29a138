//! The decision on a run's next step, by the decider of its work. It is called after every fold until it returns nothing
//! new.

use crate::agent;
use crate::lifecycle::{DecisionInput, decide_with};
use forge_types::{Decision, ErrorInfo, ErrorKind};

/// Decides the next step of a run.
pub fn decide(input: DecisionInput<'_>) -> Decision {
    decide_with(input, |input| match input.plan.agent() {
        Some(plan) => agent::next_step(input, plan),
        None => Decision::with_failure(ErrorInfo::fatal(
            ErrorKind::Unknown,
            "this version of forge can't work on pipelines",
        )),
    })
}
