//! `run_shell`: a command line in the sandbox (TOOL-6). Whether it may run was decided before.

use crate::arguments::{
    Arguments, bad_arguments, builtin_spec, optional_flag, optional_positive, optional_text, required_text,
};
use crate::path::relative_path;
use crate::terminal::{cut_middle, render_output};
use crate::tool_error::{ToolError, into_result};
use crate::workspace_error::from_workspace_error;
use forge_ports::sandbox::{BackgroundPolicy, ExecResult, ExecSpec, InheritedEnv};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, ParamType, SandboxLayer, SandboxLayerState, ToolAccess, ToolOutput, ToolSpec};
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum size of the output shown to the model, in bytes.
const MAX_OUTPUT_BYTES: usize = 50 * 1024;
/// Share of the output reserved for standard error, in bytes.
const MIN_STDERR_BYTES: usize = 10 * 1024;
/// Maximum time limit of a call.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// Passes a line to bash; without bash nothing of it is run, since other shells would read it differently.
const BASH_WRAPPER: &str = "command -v bash >/dev/null || { echo 'bash is not installed: write the command for \
     POSIX sh' >&2; exit 127; }; exec bash -c \"$1\"";

/// The wording of shells and the C library for a refusal.
const DENIED_TEXT: &str = "ermission denied";
/// The sandbox's name for the isolation layer with a list of programs.
const PROGRAM_LIST: &str = "program list";
/// Added if the list may be the cause of a refusal.
const PROGRAM_LIST_NOTE: &str =
    "[the sandbox executes only the programs of runtime.allowed_shell_commands; others are denied]\n";

/// Runs a command line.
#[derive(Debug)]
pub(crate) struct RunShell;

#[async_trait]
impl Tool for RunShell {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("run_shell", &["shell_exec", "run_command"]),
            ToolAccess::Exec,
            "Run a shell command line; gives its output and exit code. What it starts ends with it; stdin is closed",
            &[
                ("command", ParamType::String, ""),
                ("working_dir?", ParamType::String, "default /workspace"),
                ("timeout_seconds?", ParamType::Integer, "default 120"),
                ("keep_background?", ParamType::Boolean, "what it starts with & lives on: dev servers"),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(run_command(arguments, env).await)
    }
}

async fn run_command(arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, ToolError> {
    let command = required_text(arguments, "command")?;
    if command.trim().is_empty() {
        return Err(bad_arguments("the command is empty"));
    }
    if command.contains('\0') {
        return Err(bad_arguments("the command contains a NUL character"));
    }
    let cwd = relative_path(optional_text(arguments, "working_dir")?.unwrap_or_default())?;
    let most = env.max_timeout.min(MAX_TIMEOUT);
    let asked =
        optional_positive(arguments, "timeout_seconds")?.map_or(env.default_timeout, Duration::from_secs);
    let timeout = asked.min(most);
    let leftovers = if optional_flag(arguments, "keep_background")? {
        BackgroundPolicy::Keep
    } else {
        BackgroundPolicy::Kill
    };
    let spec = ExecSpec {
        argv: shell_argv(command),
        cwd: cwd.clone(),
        env: BTreeMap::new(),
        timeout,
        keep_bytes: MAX_OUTPUT_BYTES,
        inherited_env: InheritedEnv::All,
        stdin: None,
        background: leftovers,
        also: Vec::new(),
    };
    match env.workspace.exec(spec, env.output.as_ref()).await {
        Ok(result) => {
            let note = may_be_refused(&result) && env.workspace.report().layers.iter().any(has_program_list);
            Ok(format_result(&result, timeout, most, if note { PROGRAM_LIST_NOTE } else { "" }))
        }
        Err(error) => Err(from_workspace_error(env.workspace.as_ref(), &cwd, error).await),
    }
}

/// Returns the shell's arguments. The command line is a single argument, never pasted into another line.
fn shell_argv(command: &str) -> Vec<String> {
    let parts: &[&str] = if needs_bash(command) {
        &["/bin/sh", "-c", BASH_WRAPPER, "sh", command]
    } else {
        &["/bin/sh", "-c", command]
    };
    parts.iter().map(|&part| part.to_owned()).collect()
}

/// Returns whether a line uses features that only bash has. `/bin/sh` starts in half the time and is preferred; false
/// positives are harmless.
fn needs_bash(command: &str) -> bool {
    const BASH_WORDS: [&str; 22] = [
        "[[",
        "<(",
        ">(",
        "<<<",
        "&>",
        "|&",
        "$'",
        "=(",
        "+=",
        "==",
        "pipefail",
        "source ",
        "declare ",
        "function ",
        "select ",
        "shopt",
        "mapfile",
        "readarray",
        "echo -e",
        "RANDOM",
        "BASH",
        "pushd",
    ];
    let arithmetic = command.match_indices("((").any(|(at, _)| !command[..at].ends_with('$'));
    let expansion = command.split("${").skip(1).any(|rest| {
        rest.split('}')
            .next()
            .unwrap_or_default()
            .trim_start_matches('#')
            .contains(['/', '^', ',', '[', '!', '@'])
            || rest.split_once(':').is_some_and(|(_, after)| !after.starts_with(['-', '=', '+', '?']))
    });
    let braces = command.match_indices('{').any(|(at, _)| {
        let inside = command[at + 1..].split(['}', ' ', '\n']).next().unwrap_or_default();
        !command[..at].ends_with('$') && (inside.contains(',') || inside.contains(".."))
    });
    arithmetic || expansion || braces || BASH_WORDS.iter().any(|word| command.contains(word))
}

/// Returns whether a program may have been refused, judged by the exit code, or by the output for a part of the line.
fn may_be_refused(result: &ExecResult) -> bool {
    const NOT_EXECUTABLE_EXIT_CODE: i32 = 126;
    result.exit_code == NOT_EXECUTABLE_EXIT_CODE
        || result.stderr.bytes.windows(DENIED_TEXT.len()).any(|window| window == DENIED_TEXT.as_bytes())
}

fn has_program_list(layer: &SandboxLayer) -> bool {
    layer.name == PROGRAM_LIST && layer.state == SandboxLayerState::Enforced
}

fn format_result(result: &ExecResult, timeout: Duration, most: Duration, note: &str) -> ToolOutput {
    let (stdout, stderr) = (render_output(&result.stdout.bytes), render_output(&result.stderr.bytes));
    let for_stderr = MAX_OUTPUT_BYTES.saturating_sub(stdout.len()).max(MIN_STDERR_BYTES).min(stderr.len());
    let for_stdout = (MAX_OUTPUT_BYTES - for_stderr).min(stdout.len());
    let mut text = String::new();
    for (name, part, limit) in [("", &stdout, for_stdout), ("[stderr]\n", &stderr, for_stderr)] {
        if !part.is_empty() {
            text.push_str(name);
            text.push_str(&cut_middle(part, limit));
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    if text.is_empty() {
        text.push_str("[no output]\n");
    }
    text.push_str(note);
    text.push_str(&describe_ending(result, timeout, most));
    let error = if result.timed_out {
        Some(ErrorKind::Timeout)
    } else if result.exit_code != 0 || result.out_of_memory {
        Some(ErrorKind::Execution)
    } else {
        None
    };
    let mut output = ToolOutput::ok(text);
    output.error = error;
    output.exit_code = Some(result.exit_code);
    output.timed_out = result.timed_out;
    output.truncated = result.stdout.is_truncated()
        || result.stderr.is_truncated()
        || for_stdout < stdout.len()
        || for_stderr < stderr.len();
    if output.truncated {
        // For output that was not kept only the number of bytes is known.
        output.output_chars = output.output_chars.max(result.stdout.total + result.stderr.total);
    }
    output.duration_ms = result.duration_ms;
    output
}

fn describe_ending(result: &ExecResult, timeout: Duration, most: Duration) -> String {
    let code = result.exit_code;
    if result.timed_out {
        let hint = if timeout < most {
            format!("Give a larger timeout_seconds (up to {}) or do less at once", most.as_secs())
        } else {
            "That is the longest time allowed: do less at once".to_owned()
        };
        return format!(
            "[timed out after {} s: the command and everything it started were killed; exit code {code}. {hint}]",
            timeout.as_secs_f32()
        );
    }
    if result.out_of_memory {
        return format!("[killed by the sandbox's memory limit; exit code {code}. Use less memory at once]");
    }
    let meaning = match code {
        126 => " (not executable)",
        127 => " (command not found)",
        137 => " (killed)",
        139 => " (segmentation fault)",
        _ => "",
    };
    format!("[exit code {code}{meaning}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_is_taken_where_sh_will_not_do() {
        for line in
            ["cargo test", "ls -l | wc -l", "echo $((1 + 2))", "x=1 y=$x; echo ${y:-z}", "f() { ls; }; f"]
        {
            assert!(!needs_bash(line), "{line}");
        }
        for line in [
            "[[ a == b ]]",
            "diff <(a) <(b)",
            "mkdir -p a/{b,c}",
            "echo {1..3}",
            "set -o pipefail",
            "echo ${x//a/b}",
            "echo ${x:1:2}",
            "((i++))",
            "a=(1 2)",
            "echo -e 'a\\n'",
        ] {
            assert!(needs_bash(line), "{line}");
        }
    }

    #[test]
    fn a_command_line_is_one_argument() {
        let line = "echo '\"$(x)\"'; rm -rf .";
        assert_eq!(shell_argv(line), ["/bin/sh", "-c", line]);
        assert_eq!(shell_argv("[[ x ]]").last().map(String::as_str), Some("[[ x ]]"));
    }
}
