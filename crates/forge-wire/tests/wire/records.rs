//! The files of a run directory.

use crate::journal::{Writer, part_call, run};
use forge_types::{
    ErrorInfo, ErrorKind, EventKind, FinishReason, MessagePart, OpaqueState, RunStatus, ToolAccess,
    ToolCallVerdict, ToolOutput,
};
use forge_wire::record::{message_lines, run_record, run_summary, tool_invocations, wire_events};

fn journal() -> Writer {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    let mut signed = part_call("a", "read_file", r#"{"path":"a.py"}"#);
    signed.opaque = Some(OpaqueState { provider: "gemini".into(), model: "g".into(), data: "sig".into() });
    let calls = vec![MessagePart::text("I look."), signed, part_call("b", "nonsense", "{broken")];
    writer.reply(effect, calls, FinishReason::ToolCalls);
    let effect = writer.call("a", "read_file", ToolAccess::Read, 1);
    writer.done(effect, ToolOutput { duration_ms: 4, ..ToolOutput::ok("print()") });
    let error = ErrorInfo::fatal(ErrorKind::UnknownTool, "there is no tool `nonsense`");
    let (call_id, tool) = ("b".to_owned(), "nonsense".to_owned());
    writer.add(EventKind::ToolCallRejected { call_id, tool, verdict: ToolCallVerdict::Malformed, error });
    let effect = writer.ask();
    writer.reply(effect, vec![MessagePart::text("All "), MessagePart::text("done.")], FinishReason::Stop);
    writer.finish(RunStatus::Completed, None);
    writer
}

#[test]
fn the_run_record_holds_every_call_with_its_result() {
    let writer = journal();
    let record = run_record(&writer.state, None, &writer.events);
    assert_eq!((record.iterations, record.tokens.total), (2, 200));
    let calls: Vec<_> = record
        .tool_invocations
        .iter()
        .map(|call| format!("{} {} {} {}", call.tool, call.arguments, call.result, call.ok))
        .collect();
    assert_eq!(
        calls,
        [
            r#"read_file {"path":"a.py"} print() true"#,
            r#"nonsense "{broken" there is no tool `nonsense` false"#,
        ]
    );
    assert_eq!(record.completed_at, Some(writer.state.at));
}

#[test]
fn messages_are_lines_with_calls_results_and_signatures() {
    let lines: Vec<_> = message_lines(&journal().state, None)
        .iter()
        .map(|line| serde_json::to_string(line).unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            r#"{"role":"user","content":"Fix the failing test"}"#,
            r#"{"role":"assistant","content":"I look.","tool_calls":[{"id":"a","name":"read_file","arguments":{"path":"a.py"},"thought_signature":"sig"},{"id":"b","name":"nonsense","arguments":"{broken"}]}"#,
            r#"{"role":"tool","content":"print()","tool_call_id":"a"}"#,
            r#"{"role":"tool","content":"there is no tool `nonsense`","tool_call_id":"b"}"#,
            r#"{"role":"assistant","content":"All done."}"#,
        ]
    );
}

#[test]
fn the_summary_says_what_came_of_it() {
    let writer = journal();
    let summary = run_summary(&writer.state, None, writer.state.at);
    assert_eq!(summary.answer, "All done.");
    assert_eq!(summary.tools.average_ms, 4);
    assert_eq!(summary.files_modified, ["src/lib.rs"]);
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["status"], "completed");
    assert_eq!(serde_json::from_value::<forge_wire::record::RunSummary>(json).unwrap(), summary);
}

#[test]
fn a_journal_that_breaks_off_gives_what_there_is() {
    let mut events = journal().events;
    events.remove(5);
    assert_eq!(tool_invocations(run(), &events).len(), 0);
    assert_eq!(wire_events(run(), None, &events).len(), 6);
}
