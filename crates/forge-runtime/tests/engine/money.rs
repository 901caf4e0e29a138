//! Ceilings: of a run, and of a day that many runs share.

use crate::harness::{World, plan};
use crate::model::{Brain, say};
use forge_ports::Ledger as _;
use forge_types::*;
use std::sync::Arc;

/// What one call of the test plan costs.
const CALL: Money = Money(100 * 1_000 + 10 * 2_000);

#[tokio::test]
async fn spending_is_booked_on_the_run_and_the_day() {
    let world = World::new();
    let shown = world.run(Brain::careful(), |_| {}).await;
    assert_eq!(shown.state.cost, Money(9 * CALL.0));
    let store = world.store.reopen();
    for account in [format!("run:{}", shown.state.run), format!("day:{}", shown.state.created_at.utc_day())] {
        let balance = store.balance(&account).await.expect("a ledger");
        assert_eq!((balance.spent, balance.reserved), (Money(9 * CALL.0), Money::ZERO), "{account}");
    }
}

#[tokio::test]
async fn the_ceiling_of_a_day_is_never_passed() {
    let world = World::new();
    let ceiling = Money(9_000_000);
    let mut ended = Vec::new();
    for _ in 0..60 {
        let shown = world
            .run(Brain::new(|_, _| Ok(say("done"))), |plan| plan.shared.day_ceiling = Some(ceiling))
            .await;
        ended.push(shown.state.status);
        let balance =
            world.store.reopen().balance(&format!("day:{}", shown.state.created_at.utc_day())).await;
        let balance = balance.expect("a ledger");
        assert!(balance.spent.plus(balance.reserved) <= ceiling, "{balance:?}");
        if shown.state.status == RunStatus::TimedOut {
            assert_eq!(shown.summary.limit, Some(LimitKind::Cost));
            let message = shown.summary.error.expect("an error").message;
            assert!(message.contains("the ceiling of day:"), "{message}");
            break;
        }
    }
    assert_eq!(ended.last(), Some(&RunStatus::TimedOut), "the ceiling is reached in the end");
    assert!(ended.len() > 10, "many runs fit below it: {}", ended.len());
}

#[tokio::test]
async fn runs_side_by_side_share_the_ceiling() {
    let world = Arc::new(World::new());
    let ceiling = Money(60_000_000);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move {
                let mut plan = plan(&world.repo());
                plan.shared.day_ceiling = Some(ceiling);
                let project = world.project(&world.store.reopen(), Arc::new(Brain::careful()));
                let run = world.create(&project, &plan).await;
                project.drive(run, Arc::new(())).await.expect("it ends").state
            })
        })
        .collect();
    let mut spent = Money::ZERO;
    let mut day = String::new();
    for task in tasks {
        let state = task.await.expect("no panic");
        spent = spent.plus(state.cost);
        day = state.created_at.utc_day();
    }
    let balance = world.store.reopen().balance(&format!("day:{day}")).await.expect("a ledger");
    assert_eq!((balance.spent, balance.reserved), (spent, Money::ZERO));
    assert!(spent <= ceiling, "{spent:?}");
}
