//! A provider that was given up is left alone by all runs, and asked again once its time is over.

use crate::harness::World;
use crate::model::{Brain, call, say};
use forge_ports::model::Error;
use forge_types::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn busy() -> Error {
    Error { kind: ErrorKind::RateLimit, message: "429".into(), retry_after: None, next_steps: Vec::new() }
}

/// The plan with another provider to ask.
fn with_other(plan: &mut Plan) {
    let route = ModelRoute { provider: "q".into(), model: "m".into() };
    let agent = plan.agent_mut().expect("an agent");
    agent.fallbacks = vec![ModelTarget { route, facts: agent.first.facts.clone(), organization: None }];
    agent.retry.tries = 3;
}

#[tokio::test]
async fn the_first_is_asked_again_in_the_next_turn_after_its_cooldown() {
    let world = World::new();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let brain = |failing: usize| {
        let (asked, clock) = (asked.clone(), world.clock.clone());
        Brain::new(move |request, n| {
            asked.lock().expect("no panic").push(request.route.provider.clone());
            match (request.route.provider.as_str(), n) {
                ("p", n) if n < failing => Err(busy()),
                ("p", _) => Ok(say("done")),
                (_, n) => {
                    if n == failing + 1 {
                        clock.advance(Duration::from_secs(61));
                    }
                    Ok(call("c", "list_directory", "{}"))
                }
            }
        })
    };
    let shown = world.run(brain(3), with_other).await;
    assert_eq!(shown.state.status, RunStatus::Completed);
    assert_eq!(asked.lock().expect("no panic").join(" "), "p p p q q p");
    assert_eq!(shown.summary.provider, "p", "who was asked last");
    asked.lock().expect("no panic").clear();
    let shown = world.run(brain(0), with_other).await;
    assert_eq!(shown.state.status, RunStatus::Completed);
    assert_eq!(asked.lock().expect("no panic").join(" "), "p", "one success forgets the failures");
}

#[tokio::test]
async fn runs_that_come_later_do_not_ask_who_was_given_up() {
    let world = World::new();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    for _ in 0..5 {
        let asked = asked.clone();
        let brain = Brain::new(move |request, _| {
            asked.lock().expect("no panic").push(request.route.provider.clone());
            if request.route.provider == "p" { Err(busy()) } else { Ok(say("done")) }
        });
        let shown = world.run(brain, with_other).await;
        assert_eq!(shown.state.status, RunStatus::Completed);
    }
    assert_eq!(asked.lock().expect("no panic").join(" "), "p p p q q q q q");
}

#[tokio::test]
async fn what_a_call_costs_is_what_its_own_model_charges() {
    let world = World::new();
    let brain =
        Brain::new(|request, _| if request.route.provider == "p" { Err(busy()) } else { Ok(say("done")) });
    let dear = Price { input: 7_000, output: 9_000, cached_input: 0, cache_write: 0 };
    let shown = world
        .run(brain, |plan| {
            with_other(plan);
            plan.agent_mut().expect("an agent").fallbacks[0].facts.price = Some(dear);
        })
        .await;
    assert_eq!(shown.state.cost, dear.cost(&shown.state.usage));
}
