//! Stories of replies and tool calls.

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
              refuse c1_2_1: not executed: `path` (string) is missing; `file` is not a parameter (parameters: path). The tool is read(path: string) - does it (bad_arguments)
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
          refuse c1: refused: `rm -rf /` is always forbidden, because it removes the whole file system. Leave it out (denied)
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
fn the_arguments_of_a_call_are_parsed_once() {
    let world = tell(plan(), "begin\nmodel: !read a");
    let judged = world.state.calls[0].call.arguments.parsed().expect("an object");
    let runs = world.state.open.values().find_map(|open| match &open.what {
        Effect::RunTool(run) => run.call.arguments.parsed().ok(),
        _ => None,
    });
    assert!(std::ptr::eq(runs.expect("the call runs"), judged));
}
