//! The plan of a child run, from the plan of its parent.

use crate::isolation;
use forge_types::{AccountCeiling, PipelineNode, Plan, RunId, RunState, SharedPlan, Work};

/// Returns the node of a pipeline with this name.
pub fn find_node<'a>(plan: &'a Plan, name: &str) -> Option<&'a PipelineNode> {
    match &plan.work {
        Work::Pipeline(pipeline) => pipeline.nodes.iter().find(|node| node.name == name),
        Work::Agent(_) => None,
    }
}

/// Returns the plan of the child run of a node. Its isolation is the parent's or stricter, and its cost counts against
/// the ceilings of the parent and of the parent's ancestors.
pub fn child_plan(parent: &RunState, plan: &Plan, node: &PipelineNode) -> Plan {
    let limits = crate::budget::limits(parent, &plan.shared);
    let own = AccountCeiling { account: run_account(parent.run), limit: limits.max_cost };
    let mut ceilings = plan.shared.ceilings.clone();
    ceilings.push(own);
    let sandbox = isolation::inherit(&plan.shared.sandbox, &node.sandbox);
    let shared = SharedPlan { limits, ceilings, sandbox, ..plan.shared.clone() };
    Plan::for_agent(shared, node.agent.clone())
}

/// Returns the account of the ledger on which the cost of a run is booked.
pub fn run_account(run: RunId) -> String {
    format!("run:{run}")
}
