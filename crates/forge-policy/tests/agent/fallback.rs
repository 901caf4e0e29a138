//! Stories of models that can't be had, and of those that take their place.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The usual plan with two others to ask.
fn three() -> Plan {
    let other = |provider: &str| ModelTarget {
        route: ModelRoute { provider: provider.into(), model: "m".into() },
        facts: plan().agent_mut().expect("an agent").first.facts.clone(),
        organization: None,
    };
    let mut plan = plan();
    let agent = plan.agent_mut().expect("an agent");
    agent.fallbacks = vec![other("q"), other("r")];
    agent.retry = RetryRule { tries: 2, base_ms: 1_000, ..RetryRule::default() };
    plan
}

#[allow(clippy::needless_pass_by_value)]
fn check_three(story: &str, expected: Expect) {
    expected.assert_eq(&tell(three(), story).log);
}

#[test]
fn each_is_asked_within_its_tries_and_in_order() {
    check_three(
        "begin\nmodel fails: rate_limit\nmodel fails: rate_limit\nmodel fails: unavailable\n\
         model fails: unavailable\nmodel: !read a\ntool: A\nmodel: done",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model fails: rate_limit
              ask #2 turn 1.2 max 1000 at 1221
            model fails: rate_limit
              ask q/m #3 turn 1.3 max 1000
            model fails: unavailable
              ask q/m #4 turn 1.4 max 1000 at 1153
            model fails: unavailable
              ask r/m #5 turn 1.5 max 1000
            model: !read a
              run #6 read c1.1
            tool: A
              ask #7 turn 2.1 max 1000
            model: done
              => completed
        "#]],
    );
}

#[test]
fn when_nobody_is_left_all_are_named() {
    check_three(
        "begin\nmodel fails: rate_limit\nmodel fails: rate_limit\nmodel fails: malformed_response\n\
         model fails: malformed_response\nmodel fails: timeout\nmodel fails: timeout",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model fails: rate_limit
              ask #2 turn 1.2 max 1000 at 1221
            model fails: rate_limit
              ask q/m #3 turn 1.3 max 1000
            model fails: malformed_response
              ask q/m #4 turn 1.4 max 1000 at 1153
            model fails: malformed_response
              ask r/m #5 turn 1.5 max 1000
            model fails: timeout
              ask r/m #6 turn 1.6 max 1000 at 1012
            model fails: timeout
              => failed: no model is available (FallbackExhausted): p/m: rate_limit after 2 tries: it said rate_limit; q/m: malformed_response after 2 tries: it said malformed_response; r/m: timeout after 2 tries: it said timeout (timeout)
        "#]],
    );
}

#[test]
fn a_long_retry_after_moves_on_and_is_remembered_when_nobody_is_left() {
    check_three(
        "begin\nmodel fails: rate_limit 90000\nmodel fails: rate_limit 60000\nmodel fails: overloaded\n\
         model fails: overloaded\nafter: 59000\nafter: 2000",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model fails: rate_limit 90000
              ask q/m #2 turn 1.2 max 1000
            model fails: rate_limit 60000
              ask r/m #3 turn 1.3 max 1000
            model fails: overloaded
              ask r/m #4 turn 1.4 max 1000 at 1153
            model fails: overloaded
              waiting for retry until 60000: no model is available (FallbackExhausted): p/m: rate_limit after 1 try: it said rate_limit; q/m: rate_limit after 1 try: it said rate_limit; r/m: overloaded after 2 tries: it said overloaded: asked to wait until 1970-01-01T00:01:00.000Z
            after: 59000
            after: 2000
              running
              ask #5 turn 1.5 max 1000
        "#]],
    );
}

#[test]
fn wrong_keys_bills_and_requests_end_the_run_although_others_are_there() {
    for kind in ["auth", "billing", "format"] {
        let log = tell(three(), &format!("begin\nmodel fails: {kind}!")).log;
        assert!(log.ends_with(&format!("=> failed: it said {kind}! ({kind})\n")), "{log}");
    }
}

#[test]
fn who_is_left_alone_is_passed_over_and_asked_again_in_the_next_turn_after_that() {
    check_three(
        "cool: p 60\nbegin\nmodel: !read a\ntool: A\nafter: 61000\nmodel: !read b\ntool: B\nmodel: done",
        expect![[r#"
            cool: p 60
              running
              ask q/m #1 turn 1.1 max 1000
            begin
            model: !read a
              run #2 read c1.1
            tool: A
              ask q/m #3 turn 2.1 max 1000
            after: 61000
            model: !read b
              run #4 read c1_2_1.1
            tool: B
              ask #5 turn 3.1 max 1000
            model: done
              => completed
        "#]],
    );
}

#[test]
fn another_run_may_find_out_first_that_asking_again_is_no_use() {
    check_three(
        "begin\ncool: p 60\nmodel fails: overloaded",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        cool: p 60
        model fails: overloaded
          ask q/m #2 turn 1.2 max 1000
    "#]],
    );
}

#[test]
fn if_all_are_left_alone_the_run_waits_and_a_person_may_insist() {
    let mut world = World::new(three());
    for cool in ["p 60", "q 30", "r 90"] {
        world.cool(cool);
    }
    for line in ["begin", "resume", "model fails: overloaded"] {
        let _ = writeln!(world.log, "{line}");
        world.happen(line);
        world.decide();
    }
    expect![[r#"
        begin
          running
          waiting for retry until 30000: no model is available (FallbackExhausted): p/m: in cooldown until 1970-01-01T00:01:00.000Z (rate_limit); q/m: in cooldown until 1970-01-01T00:00:30.000Z (rate_limit); r/m: in cooldown until 1970-01-01T00:01:30.000Z (rate_limit): asked to wait until 1970-01-01T00:00:30.000Z
        resume
          running
          ask #1 turn 1.1 max 1000
        model fails: overloaded
          ask #2 turn 1.2 max 1000 at 1221
    "#]].assert_eq(&world.log);
}

#[test]
fn a_call_that_was_cut_off_is_made_again_at_the_same_place() {
    check_three(
        "begin\nmodel fails: rate_limit\nmodel fails: rate_limit\ncrash\nmodel fails: timeout\ncrash",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model fails: rate_limit
              ask #2 turn 1.2 max 1000 at 1221
            model fails: rate_limit
              ask q/m #3 turn 1.3 max 1000
            crash
              ask q/m #4 turn 1.4 max 1000
            model fails: timeout
              ask q/m #5 turn 1.5 max 1000 at 1207
            crash
              ask q/m #6 turn 1.6 max 1000 at 1012
        "#]],
    );
}

#[test]
fn a_single_candidate_is_asked_although_it_is_left_alone() {
    let log = tell(plan(), "cool: p 60\nbegin").log;
    assert!(log.contains("ask #1"), "{log}");
}

#[test]
fn a_model_whose_price_is_not_known_is_passed_over_under_a_ceiling() {
    let mut plan = three();
    plan.shared.cost_rule = CostRule::Strict;
    plan.agent_mut().expect("an agent").first.facts.price = None;
    plan.agent_mut().expect("an agent").fallbacks[0].facts.price = None;
    let world = tell(plan, "begin");
    let Some(Effect::CallModel(call)) = world.state.open.values().next().map(|open| &open.what) else {
        panic!("a call was to come: {}", world.log)
    };
    assert_eq!((call.target, call.passed.len()), (2, 2));
    assert!(call.passed[0].reason.contains("price"), "{:?}", call.passed);
}

/// What a provider may say.
fn says() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("rate_limit"),
        2 => Just("overloaded"),
        2 => Just("timeout"),
        1 => Just("unavailable"),
        1 => Just("malformed_response"),
        1 => Just("unknown"),
        1 => Just("rate_limit 100"),
        1 => Just("rate_limit 29000"),
        1 => Just("rate_limit 50000"),
        1 => Just("crash"),
        2 => Just("reply"),
    ]
}

proptest! {
    /// However they fail: nobody is asked more often than allowed in a turn, nobody is gone back to, the waits are
    /// bounded, and the run comes to an end or is parked.
    #[test]
    fn tries_and_waits_are_bounded_and_the_order_is_kept(
        all in proptest::collection::vec(says(), 1..60),
        tries in 1_u32..6,
        max_wait_ms in 1_000_u64..400_000,
        cool in proptest::option::of(0_usize..3),
    ) {
        let mut plan = three();
        plan.agent_mut().expect("an agent").retry = RetryRule { tries, base_ms: 500, max_wait_ms, ..RetryRule::default() };
        plan.shared.limits.max_duration_ms = u64::MAX / 4;
        plan.shared.limits.max_iterations = 1_000;
        let mut world = World::new(plan);
        world.decide();
        if let Some(at) = cool {
            world.cool(&format!("{} 60", ["p", "q", "r"][at]));
        }
        let mut asked: BTreeMap<(u32, u32, u32), u32> = BTreeMap::new();
        let (mut last, mut left) = (None, BTreeSet::new());
        let mut seen = None;
        for said in all {
            if world.state.status == RunStatus::Waiting {
                world.now = world.state.wait_until.expect("a time");
                world.decide();
            }
            let Some((effect, open)) = world.state.open.iter().next() else { break };
            let Effect::CallModel(call) = &open.what else { panic!("only models are asked") };
            let key = (call.iteration, world.state.parked_count, call.target);
            if seen != Some(*effect) {
                seen = Some(*effect);
                if let Some(before) = last.filter(|before| *before != key) {
                    left.insert(before);
                }
                prop_assert!(!left.contains(&key), "back to {key:?}: {}", world.log);
                last = Some(key);
            }
            prop_assert!(world.state.delayed_ms <= max_wait_ms, "{}", world.log);
            if let Some(time) = call.not_before {
                world.now = world.now.max(time);
            }
            match said {
                "reply" => world.model(reply("!read a", FinishReason::Stop)),
                "crash" => {
                    // Who was cut off did not fail: it may be asked once more when its time has come.
                    last = None;
                    world.happen("crash");
                }
                fault => {
                    *asked.entry(key).or_default() += 1;
                    prop_assert!(asked[&key] <= tries, "{}", world.log);
                    world.model(failure(fault));
                }
            }
            world.decide();
            while world.state.open.values().any(|open| matches!(open.what, Effect::RunTool(_))) {
                world.tool(Outcome::ToolDone { output: ToolOutput::ok("A") });
                world.decide();
            }
        }
        let done = world.state.status.is_terminal();
        prop_assert!(done || world.state.status == RunStatus::Waiting || !world.state.open.is_empty());
    }
}
