//! `code`: a router's answer as a program (TOOL-11).

use crate::arguments::{Arguments, builtin_spec, required_text};
use crate::tool_error::{into_result, tool_failure};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Returns a Python program as plain executable text, without a fence or common indentation.
#[derive(Debug)]
pub(crate) struct CodeTool;

#[async_trait]
impl Tool for CodeTool {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("code", &["generate_code"]),
            ToolAccess::Nothing,
            "Give the user a Python program",
            &[("content", ParamType::String, "the complete Python source and nothing else")],
        )
    }

    async fn run(&self, arguments: &Arguments, _env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(required_text(arguments, "content").and_then(|content| match extract_program(content) {
            program if program.trim().is_empty() => {
                Err(tool_failure(ErrorKind::EmptyOutput, "the program is empty"))
            }
            program => Ok(ToolOutput::ok(program)),
        }))
    }
}

/// Extracts the program from a text: removes its fence, if any, and normalises line ends.
fn extract_program(content: &str) -> String {
    let content = content.replace("\r\n", "\n").replace('\r', "\n");
    let content = strip_fence(&content);
    let lines: Vec<&str> = content.lines().map(str::trim_end).collect();
    let depth = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let common = lines.iter().filter(|line| !line.is_empty()).map(|line| depth(line)).min().unwrap_or(0);
    let begins = lines.iter().position(|line| !line.is_empty()).unwrap_or(0);
    let plain = lines.iter().skip(begins).map(|line| line.get(common..).unwrap_or_default());
    let text = plain.collect::<Vec<_>>().join("\n");
    format!("{}\n", text.trim_end())
}

fn strip_fence(content: &str) -> &str {
    let Some((_, rest)) = content.trim().split_once("```") else { return content };
    let body = match rest.split_once('\n') {
        Some((language, body)) if !language.contains("```") => body,
        _ => rest,
    };
    body.split("```").next().unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::extract_program;

    #[test]
    fn a_program_is_text_that_python_takes() {
        assert_eq!(extract_program("print(1)"), "print(1)\n");
        assert_eq!(extract_program("```python\nprint(1)\n```"), "print(1)\n");
        assert_eq!(extract_program("Here:\n```\nif x:\n    y()\n```\nDone."), "if x:\n    y()\n");
        assert_eq!(extract_program("\n    a = 1\n    if a:\n        b()\n"), "a = 1\nif a:\n    b()\n");
        assert_eq!(extract_program("a\r\nb\r\n"), "a\nb\n");
        assert_eq!(extract_program("```x = 1```"), "x = 1\n");
        assert_eq!(extract_program("  \n"), "\n");
    }
}
