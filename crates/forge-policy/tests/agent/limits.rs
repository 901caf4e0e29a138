//! Stories of limits.

use super::*;

#[test]
fn limits_end_the_run() {
    check_with(
        |plan| plan.shared.limits.max_iterations = 2,
        "begin\nmodel: !read a\ntool: A\nmodel: !read b\ntool: B",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model: !read a
              run #2 read c1.1
            tool: A
              ask #3 turn 2.1 max 1000
            model: !read b
              run #4 read c1_2_1.1
            tool: B
              => timed_out [iterations]: agent loop exceeded maximum iterations (2) (budget_exceeded)
        "#]],
    );
    check_with(
        |plan| plan.shared.limits.max_tokens = 400,
        "begin\nmodel: !read a\ntool: A",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 271
            model: !read a
              run #2 read c1.1
            tool: A
              => timed_out [tokens]: token limit reached: 110 of 400 tokens are used and the next request needs about 117 (budget_exceeded)
        "#]],
    );
    check_with(
        |plan| plan.shared.limits.max_duration_ms = 5_000,
        "begin\nafter: 4999\nafter: 1\nmodel cancelled",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            after: 4999
            after: 1
              cancel [1]
            model cancelled
              => timed_out [wall_clock]: time limit reached: 5 s of work (runtime.max_pipeline_duration_ms) (budget_exceeded)
        "#]],
    );
    check_with(
        |plan| plan.shared.limits.max_cost = Money(1_500_000_000),
        "begin\nmodel: !read a\ntool: A",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 269
            model: !read a
              run #2 read c1.1
            tool: A
              ask #3 turn 2.1 max 487
        "#]],
    );
    check_with(
        |plan| plan.shared.limits.max_cost = Money(1_200_000_000),
        "begin",
        expect![[r#"
            begin
              running
              => timed_out [cost]: cost limit reached: $0.0000 of $0.0012 are spent and the next call could exceed the limit (budget_exceeded)
        "#]],
    );
}

#[test]
fn a_limit_can_wait_to_be_raised() {
    check_with(
        |plan| {
            plan.shared.limits.max_iterations = 1;
            plan.shared.limits.on_limit = OnLimit::Wait;
        },
        "begin\nmodel: !read a\ntool: A\nresume\nraise\nmodel: done",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model: !read a
              run #2 read c1.1
            tool: A
              waiting for budget: agent loop exceeded maximum iterations (1)
            resume
              running
              waiting for budget: agent loop exceeded maximum iterations (1)
            raise
              running
              ask #3 turn 2.1 max 1000
            model: done
              => completed
        "#]],
    );
}

#[test]
fn waiting_does_not_count_as_working() {
    check_with(
        |plan| plan.shared.limits.max_duration_ms = 5_000,
        "begin\nmodel: !read a\npause\ntool: A\nafter: 999999\nresume\nafter: 4000\nmodel: done",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model: !read a
              run #2 read c1.1
            pause
            tool: A
              waiting for paused: on request
            after: 999999
            resume
              running
              ask #3 turn 2.1 max 1000
            after: 4000
            model: done
              => completed
        "#]],
    );
}

#[test]
fn unknown_prices_matter_only_under_the_users_own_ceiling() {
    check_with(
        |plan| plan.agent_mut().expect("an agent").first.facts.price = None,
        "begin\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: done
          => completed
    "#]],
    );
    check_with(
        |plan| {
            plan.agent_mut().expect("an agent").first.facts.price = None;
            plan.shared.cost_rule = CostRule::Strict;
        },
        "begin",
        expect![[r#"
            begin
              running
              => failed: the price of p/m is unknown, so your cost ceiling can't be enforced. Choose another model, or allow it with cost.allow_unknown = true (budget_exceeded)
        "#]],
    );
}

#[test]
fn a_conversation_that_outgrows_the_window_ends_with_a_reason() {
    check_with(
        |plan| plan.agent_mut().expect("an agent").first.facts.window = 200,
        "begin",
        expect![[r#"
            begin
              running
              => failed: the conversation has grown to about 129 tokens and p/m takes 200. Split the task, or choose a model with a larger window (context_overflow)
        "#]],
    );
}

#[test]
fn only_what_completed_goes_into_the_repository_and_only_if_the_run_may_apply() {
    use forge_policy::lifecycle::{ResultDisposition, result_disposition};
    let id = |n: u8| SnapshotId(Digest::of_bytes(&[n]));
    let close = |mode, apply, status, current: u8, applied: Option<u8>| {
        let mut plan = plan();
        plan.shared.sandbox.mode = mode;
        plan.shared.sandbox.apply = apply;
        let mut state = RunState::new(RunId::from_u128(7));
        state.history.beginning = Some(id(0));
        state.history.current = Some(id(current));
        state.history.applied = applied.map(id);
        result_disposition(&state, &plan.shared, status)
    };
    use {ApplyPolicy::*, RunStatus::*, WorkspaceMode::*};
    assert_eq!(close(Transaction, Auto, Completed, 1, None), ResultDisposition::Apply);
    assert_eq!(close(Branch, Auto, Completed, 1, None), ResultDisposition::Publish);
    for (mode, apply, status, current, applied) in [
        (Inplace, Auto, Completed, 1, None),
        (Transaction, Never, Completed, 1, None),
        (Transaction, Ask, Completed, 1, None),
        (Transaction, Auto, Failed, 1, None),
        (Transaction, Auto, Cancelled, 1, None),
        (Branch, Auto, TimedOut, 1, None),
        (Transaction, Auto, Completed, 0, None),
        (Transaction, Auto, Completed, 1, Some(1)),
    ] {
        assert_eq!(
            close(mode, apply, status, current, applied),
            ResultDisposition::Leave,
            "{mode:?} {apply:?} {status:?}"
        );
    }
}
