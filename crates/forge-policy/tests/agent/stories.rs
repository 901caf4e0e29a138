//! Stories of replies, tool calls, failures and commands.

use super::*;

#[test]
fn a_reply_without_calls_ends_the_run() {
    check(
        "begin\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: done
          => completed
    "#]],
    );
}

#[test]
fn calls_run_and_their_results_go_back() {
    check(
        "begin\nmodel: look !read a\ntool: text\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: look !read a
          run #2 read c1.1
        tool: text
          ask #3 turn 2.1 max 1000
        model: done
          => completed
    "#]],
    );
}

#[test]
fn reads_run_together_and_writers_alone_in_order() {
    check(
        "begin\nmodel: !read a !read b !write c\ntool: A\ntool: B\ntool: C\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !read a !read b !write c
          run #2 read c1.1
          run #3 read c2.1
        tool: A
        tool: B
          run #4 write c3.1
        tool: C
          ask #5 turn 2.1 max 1000
        model: done
          => completed
    "#]],
    );
}

#[test]
fn a_read_after_a_writer_waits_for_it() {
    check(
        "begin\nmodel: !write a !read b\ntool: ok\ntool: B",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !write a !read b
          run #2 write c1.1
        tool: ok
          run #3 read c2.1
        tool: B
          ask #4 turn 2.1 max 1000
    "#]],
    );
}

#[test]
fn wrong_calls_are_refused_with_words_and_the_run_goes_on() {
    check(
        "begin\nmodel: !nope a !fly b !read ={\"path\":\nmodel: !read ={\"file\":\"x\"} !read =[]\nmodel: done",
        expect![[r#"
            begin
              running
              ask #1 turn 1.1 max 1000
            model: !nope a !fly b !read ={"path":
              refuse c1: there is no tool `nope`. Available tools: read, write, shell (unknown_tool)
              refuse c2: the tool `fly` is not enabled in this run. Available tools: read, write, shell (not_enabled)
              refuse c3: not executed: the arguments are not valid JSON: EOF while parsing a value at line 1 column 8. Send the call again with read(path: string) - does it (bad_arguments)
              ask #2 turn 2.1 max 1000
            model: !read ={"file":"x"} !read =[]
              refuse c1_2_1: not executed: `path` (string) is missing; `file` is not a parameter (there are: path). The tool is read(path: string) - does it (bad_arguments)
              refuse c2_2_1: not executed: the arguments are not a JSON object. Send the call again with read(path: string) - does it (bad_arguments)
              ask #3 turn 3.1 max 1000
            model: done
              => completed
        "#]],
    );
}

#[test]
fn an_alias_runs_the_tool() {
    check(
        "begin\nmodel: !read_alias a",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !read_alias a
          run #2 read c1.1
    "#]],
    );
}

#[test]
fn two_calls_with_one_id_run_once() {
    check(
        "begin\nmodel: !write@x a !write@x b\ntool: ok\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !write@x a !write@x b
          run #2 write x.1
        tool: ok
          refuse x_1_1: not executed: another call of the same reply has the same id. Send this one again (bad_arguments)
          ask #3 turn 2.1 max 1000
        model: done
          => completed
    "#]],
    );
}

#[test]
fn ids_that_come_again_in_a_later_reply_are_other_calls() {
    check(
        "begin\nmodel: !read@x a\ntool: A\nmodel: !read@x b\ntool: B\nmodel: !read@none c",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !read@x a
          run #2 read x.1
        tool: A
          ask #3 turn 2.1 max 1000
        model: !read@x b
          run #4 read x_2_1.1
        tool: B
          ask #5 turn 3.1 max 1000
        model: !read@none c
          run #6 read call_3_1.1
    "#]],
    );
}

#[test]
fn too_many_calls_of_one_reply_are_refused() {
    check(
        "begin\nmodel: !read a !read b !read c !read d\ntool: A\ntool: B\ntool: C",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !read a !read b !read c !read d
          refuse c4: not executed: at most 3 tool calls are taken from one reply. Ask for fewer (budget_exceeded)
          run #2 read c1.1
          run #3 read c2.1
          run #4 read c3.1
        tool: A
        tool: B
        tool: C
          ask #5 turn 2.1 max 1000
    "#]],
    );
}

#[test]
fn the_shell_budget_ends() {
    check(
        "begin\nmodel: !shell true !shell true !shell true\ntool: 1\ntool: 2",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !shell true !shell true !shell true
          run #2 shell c1.1
        tool: 1
          run #3 shell c2.1
        tool: 2
          refuse c3: Shell command budget exhausted (2) (budget_exceeded)
          ask #4 turn 2.1 max 1000
    "#]],
    );
}

#[test]
fn a_forbidden_command_is_refused_and_the_run_goes_on() {
    check(
        "begin\nmodel: !shell rm -rf /\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: !shell rm -rf /
          refuse c1: refused: `rm -rf /` is never run, because it removes the whole file system. Leave it out (denied)
          ask #2 turn 2.1 max 1000
        model: done
          => completed
    "#]],
    );
}

#[test]
fn a_cut_answer_is_continued_once() {
    check(
        "begin\nmodel cut: half of it\nmodel: the rest",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model cut: half of it
          ask #2 turn 2.1 max 2000
        model: the rest
          => completed
    "#]],
    );
    check(
        "begin\nmodel cut: half\nmodel cut: more",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model cut: half
          ask #2 turn 2.1 max 2000
        model cut: more
          => failed: the reply was cut off at the token limit twice in a row. Raise model.max_tokens, or split the task (malformed_response)
    "#]],
    );
}

#[test]
fn cut_calls_are_not_run() {
    check(
        "begin\nmodel cut: !write a\nmodel: !write a\ntool: ok\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model cut: !write a
          refuse c1: not executed: your reply was cut off at the token limit, so this call may be incomplete. Send it again, in smaller pieces if it is long (bad_arguments)
          ask #2 turn 2.1 max 2000
        model: !write a
          run #3 write c1_2_1.1
        tool: ok
          ask #4 turn 3.1 max 1000
        model: done
          => completed
    "#]],
    );
}

#[test]
fn stop_with_calls_does_not_end_the_run() {
    // Providers send "stop" beside tool calls (LOOP-N1).
    check(
        "begin\nmodel: all done !read a",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model: all done !read a
          run #2 read c1.1
    "#]],
    );
}

#[test]
fn an_empty_reply_is_asked_again_once() {
    check(
        "begin\nmodel:\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model:
          ask #2 turn 2.1 max 1000
        model: done
          => completed
    "#]],
    );
    check(
        "begin\nmodel:\nmodel:",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model:
          ask #2 turn 2.1 max 1000
        model:
          => failed: p/m gave an empty or broken reply twice in a row. Try another model (malformed_response)
    "#]],
    );
    check(
        "begin\nmodel error: I can't\nmodel: done",
        expect![[r#"
        begin
          running
          ask #1 turn 1.1 max 1000
        model error: I can't
          ask #2 turn 2.1 max 1000
        model: done
          => completed
    "#]],
    );
}

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
          waiting for retry until 3600000: it said rate_limit: asked to wait until 1970-01-01T01:00:00.000Z. `forge resume` goes on at once
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
          waiting for retry until 3600000: it said rate_limit: asked to wait until 1970-01-01T01:00:00.000Z. `forge resume` goes on at once
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
          waiting for retry until 3600000: it said rate_limit: asked to wait until 1970-01-01T01:00:00.000Z. `forge resume` goes on at once
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
          => failed: the sandbox went away twice; what was done until then is kept. `forge doctor` checks it (died)
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
          waiting for paused: paused; `forge resume` goes on
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
    let mut before: Vec<Message> = Vec::new();
    for line in story.lines() {
        world.happen(line);
        world.decide();
        assert!(world.state.messages.starts_with(&before), "{line}");
        before.clone_from(&world.state.messages);
    }
    assert!(world.state.is_whole());
}
