//! `run_shell`.

use crate::{Bench, said};
use forge_ports::sandbox::{BackgroundPolicy, CapturedOutput, Error, ExecResult};
use forge_types::{ErrorClass, ErrorKind};
use serde_json::json;
use std::time::Duration;

fn result() -> ExecResult {
    ExecResult {
        exit_code: 0,
        timed_out: false,
        out_of_memory: false,
        stdout: CapturedOutput::default(),
        stderr: CapturedOutput::default(),
        duration_ms: 7,
        peak_memory: 0,
    }
}

#[test]
fn output_and_exit_code_are_shown() {
    let bench = Bench::new();
    bench.put("sub/x", "");
    let run = |command: &str| bench.call("run_shell", json!({"command": command}));
    assert_eq!(said(&run("echo hi")), "hi\n[exit code 0]");
    assert_eq!(said(&run("true")), "[no output]\n[exit code 0]");
    let failed = run("echo out; echo err >&2; exit 3");
    assert_eq!(said(&failed), "out\n[stderr]\nerr\n[exit code 3]");
    assert_eq!((failed.error, failed.exit_code), (Some(ErrorKind::Execution), Some(3)));
    assert!(said(&run("no-such-program")).ends_with("[exit code 127 (command not found)]"));
    assert_eq!(said(&run("printf '\\033[31mred\\033[0m\\n\\377\\n'")), "red\n\u{fffd}\n[exit code 0]");
    assert_eq!(said(&run("x='a  b'; echo \"$x\" '$(id)'")), "a  b $(id)\n[exit code 0]");
    assert_eq!(said(&run("[[ a == a ]] && echo {1..3}")), "1 2 3\n[exit code 0]");
    // Nothing waits on stdin.
    assert_eq!(said(&run("cat; read x; echo \"$?\"")), "1\n[exit code 0]");
    let sub = bench.ok("shell_exec", json!({"command": "ls", "working_dir": "/workspace/sub"}));
    assert_eq!(sub, "x\n[exit code 0]");
}

#[test]
fn time_is_bounded_by_the_call_and_the_sandbox() {
    let bench = Bench::new();
    let asked = |timeout: serde_json::Value| {
        bench.workspace.answer_next(Ok(result()));
        bench.ok("run_shell", json!({"command": "true", "timeout_seconds": timeout}));
        bench.workspace.requested_commands().pop().unwrap().timeout
    };
    assert_eq!(asked(json!(null)), Duration::from_secs(120));
    assert_eq!(asked(json!(5)), Duration::from_secs(5));
    assert_eq!(asked(json!(9999)), Duration::from_secs(300));
    bench.fails("run_shell", json!({"command": "true", "timeout_seconds": 0}), ErrorKind::BadArguments);
    let output = bench.call("run_shell", json!({"command": "exec sleep 60", "timeout_seconds": 1}));
    assert_eq!(
        (output.error, output.exit_code, output.timed_out),
        (Some(ErrorKind::Timeout), Some(124), true)
    );
    let text = said(&output);
    assert!(text.contains("timed out after 1 s") && text.contains("exit code 124"), "{text}");
    assert!(text.contains("up to 300"), "{text}");
}

#[test]
fn the_line_reaches_the_shell_as_one_argument() {
    let bench = Bench::new();
    bench.workspace.answer_next(Ok(result()));
    let line = "echo '; rm -rf .' \"$(id)\"";
    bench.ok("run_command", json!({"command": line}));
    let spec = bench.workspace.requested_commands().pop().unwrap();
    assert_eq!(spec.argv, ["/bin/sh", "-c", line]);
    assert_eq!((spec.cwd.as_str(), spec.keep_bytes), ("", 50 * 1024));
    bench.fails("run_shell", json!({"command": " \n"}), ErrorKind::BadArguments);
    bench.fails("run_shell", json!({"command": "a\0b"}), ErrorKind::BadArguments);
    bench.fails("run_shell", json!({"command": "ls", "working_dir": "../x"}), ErrorKind::Denied);
    bench.fails("run_shell", json!({"command": "ls", "working_dir": "nope"}), ErrorKind::NotFound);
}

#[test]
fn much_output_keeps_both_ends_of_both_streams() {
    let bench = Bench::new();
    let output = bench.call("run_shell", json!({"command": "seq 100000; seq 200000 260000 >&2"}));
    let text = said(&output);
    assert!(output.truncated && text.len() < 52 * 1024, "{}", text.len());
    assert!(text.starts_with("1\n2\n3\n") && text.contains("\n100000\n[stderr]\n200000\n"));
    assert!(text.ends_with("\n260000\n[exit code 0]"));
    assert!(text.contains("left out"));
    assert!(output.output_chars > 900_000);
}

#[test]
fn memory_and_the_end_of_the_sandbox_are_told_apart() {
    let bench = Bench::new();
    bench.workspace.answer_next(Ok(ExecResult { exit_code: 137, out_of_memory: true, ..result() }));
    let text = bench.fails("run_shell", json!({"command": "x"}), ErrorKind::Execution);
    assert!(text.contains("memory limit") && text.contains("137"), "{text}");
    bench.workspace.answer_next(Err(Error::Died { why: "its init was killed".into() }));
    let gone = bench.try_call("run_shell", json!({"command": "x"})).unwrap_err();
    assert_eq!((gone.0.kind, gone.0.retryable), (ErrorKind::Died, true));
    let missing = Error::missing("user namespaces");
    assert_eq!(missing.class(), ErrorClass::Unavailable);
    bench.workspace.answer_next(Err(missing));
    let gone = bench.try_call("run_shell", json!({"command": "x"})).unwrap_err();
    assert_eq!((gone.0.kind, gone.0.retryable), (ErrorKind::BackendMissing, false));
}

#[test]
fn what_a_command_leaves_behind_lives_on_only_if_that_is_asked_for() {
    let bench = Bench::new();
    let asked = |keep: serde_json::Value| {
        bench.workspace.answer_next(Ok(result()));
        bench.ok("run_shell", json!({"command": "serve >log 2>&1 &", "keep_background": keep}));
        bench.workspace.requested_commands().pop().unwrap().background
    };
    assert_eq!(asked(json!(null)), BackgroundPolicy::Kill);
    assert_eq!(asked(json!(false)), BackgroundPolicy::Kill);
    assert_eq!(asked(json!(true)), BackgroundPolicy::Keep);
}
