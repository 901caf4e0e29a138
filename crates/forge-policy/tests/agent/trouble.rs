//! Stories of failures, crashes and commands.

use super::*;

#[test]
fn failures_are_tried_again_later_and_later() {
    check(
        "begin\nmodel fails: overloaded\nmodel fails: timeout\nmodel fails: overloaded\nmodel fails: unavailable\n\
         model fails: overloaded",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model fails: overloaded
              ask #2 turn 1.2 max 1000 at 2443
            model fails: timeout
              ask #3 turn 1.3 max 1000 at 4632
            model fails: overloaded
              ask #4 turn 1.4 max 1000 at 8678
            model fails: unavailable
              ask #5 turn 1.5 max 1000 at 18212
            model fails: overloaded
              => failed: p/m failed 5 times; the last time: it said overloaded (overloaded)
        "#]],
    );
}

#[test]
fn success_forgets_the_failures_before() {
    check(
        "begin\nmodel fails: overloaded\nmodel: !read a\ntool: A\nmodel fails: overloaded",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model fails: overloaded
          ask #2 turn 1.2 max 1000 at 2443
        model: !read a
          run #3 read c1.1
        tool: A
          ask #4 turn 2.1 max 1000
        model fails: overloaded
          ask #5 turn 2.2 max 1000 at 2415
    "#]],
    );
}

#[test]
fn a_wrong_key_ends_the_run_at_once() {
    check(
        "begin\nmodel fails: auth!",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model fails: auth!
          => failed: it said auth! (auth)
    "#]],
    );
}

#[test]
fn a_long_retry_after_parks_the_run() {
    check(
        "begin\nmodel fails: rate_limit 3600000\nafter: 1000\nafter: 3600000",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model fails: rate_limit 3600000
          waiting for retry until 3600000: it said rate_limit: asked to wait until 1970-01-01T01:00:00.000Z
        after: 1000
        after: 3600000
          running
          ask #2 turn 1.2 max 1000
    "#]],
    );
    check(
        "begin\nmodel fails: rate_limit 3600000\nresume",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model fails: rate_limit 3600000
          waiting for retry until 3600000: it said rate_limit: asked to wait until 1970-01-01T01:00:00.000Z
        resume
          running
          ask #2 turn 1.2 max 1000
    "#]],
    );
    check(
        "begin\nmodel fails: rate_limit 3600000\ncancel",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model fails: rate_limit 3600000
          waiting for retry until 3600000: it said rate_limit: asked to wait until 1970-01-01T01:00:00.000Z
        cancel
          => cancelled
    "#]],
    );
}

#[test]
fn cancel_ends_what_runs_first() {
    check(
        "begin\ncancel\nmodel cancelled",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        cancel
          cancel [1]
        model cancelled
          => cancelled
    "#]],
    );
    check(
        "begin\nmodel: !shell sleep\ncancel\ntool cancelled",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !shell sleep
          run #2 shell c1.1
        cancel
          cancel [2]
        tool cancelled
          => cancelled
    "#]],
    );
    check(
        "begin\nmodel: !shell sleep !write a\ncancel\ntool: it was done before",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !shell sleep !write a
          run #2 shell c1.1
        cancel
          cancel [2]
        tool: it was done before
          => cancelled
    "#]],
    );
}

#[test]
fn a_crash_repeats_models_and_reads_but_no_writer() {
    check(
        "begin\ncrash\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        crash
          ask #2 turn 1.2 max 1000
        model: done
          => completed
    "#]],
    );
    check(
        "begin\nmodel: !read a !write b\ncrash\ntool: A\ntool: B",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !read a !write b
          run #2 read c1.1
        crash
          run #3 read c1.2
        tool: A
          run #4 write c2.1
        tool: B
          ask #5 turn 2.1 max 1000
    "#]],
    );
    check(
        "begin\nmodel: !write a\ncrash\nmodel: looked, it was there",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !write a
          run #2 write c1.1
        crash
          ask #3 turn 2.1 max 1000
        model: looked, it was there
          => completed
    "#]],
    );
    check(
        "begin\nmodel: !shell make\ncrash",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !shell make
          run #2 shell c1.1
        crash
          ask #3 turn 2.1 max 1000
    "#]],
    );
}

#[test]
fn a_lost_box_is_replaced_once() {
    check(
        "begin\nmodel: !read a\ntool lost: oom\ntool: A\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !read a
          run #2 read c1.1
        tool lost: oom
          run #3 read c1.2 at 2000
        tool: A
          ask #4 turn 2.1 max 1000
        model: done
          => completed
    "#]],
    );
    check(
        "begin\nmodel: !write a\ntool lost: oom\nmodel: !read a\ntool lost: oom",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model: !write a
              run #2 write c1.1
            tool lost: oom
              ask #3 turn 2.1 max 1000
            model: !read a
              run #4 read c1_2_1.1
            tool lost: oom
              => failed: the sandbox went away twice, the last time: oom. The work so far is kept (died)
        "#]],
    );
}

#[test]
fn steering_joins_before_the_next_request() {
    check(
        "begin\nsteer: look at b too\nmodel: done\nmodel: done with b",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        steer: look at b too
        model: done
          ask #2 turn 2.1 max 1000
        model: done with b
          => completed
    "#]],
    );
}

#[test]
fn a_pause_waits_for_what_runs() {
    check(
        "begin\nmodel: !shell make\npause\ntool: ok\nresume\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !shell make
          run #2 shell c1.1
        pause
        tool: ok
          waiting for paused: on request
        resume
          running
          ask #3 turn 2.1 max 1000
        model: done
          => completed
    "#]],
    );
}

#[test]
fn a_cancelled_run_is_never_failed() {
    // LOOP-N2: whatever arrives while it is being cancelled.
    for arrives in ["model cancelled", "model fails: auth!", "model: done", "crash"] {
        let world = tell(plan(), &format!("begin\ncancel\n{arrives}"));
        assert_eq!(world.state.status, RunStatus::Cancelled, "{arrives}");
    }
}

#[test]
fn the_conversation_is_only_ever_extended() {
    let story = "begin\nmodel: !read a !write b\ntool: A\ntool: B\nsteer: more\nmodel cut: half\nmodel: !nope x\nmodel: done";
    let mut world = World::new(plan());
    let mut before: Vec<std::sync::Arc<Message>> = Vec::new();
    for line in story.lines() {
        world.happen(line);
        world.decide();
        assert!(world.state.messages.starts_with(&before), "{line}");
        before.clone_from(&world.state.messages);
    }
    assert!(world.state.is_consistent());
}
