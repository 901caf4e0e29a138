//! `search_code`: lines that match a regular expression (TOOL-5). No shell is involved.

use crate::arguments::{
    Arguments, bad_arguments, builtin_spec, optional_positive, optional_text, required_text,
};
use crate::path::{relative_path, visible_path};
use crate::terminal::{escape_controls, one_line};
use crate::tool_error::{ToolError, into_result};
use crate::workspace_error::from_workspace_error;
use forge_ports::sandbox::{Error, SearchSpec};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};
use std::fmt::Write as _;

/// Default number of matches shown.
const DEFAULT_MATCHES: u64 = 20;
/// Maximum number of matches shown.
const MAX_MATCHES: u64 = 200;
/// Maximum number of files with matches.
const MAX_FILES: usize = 50;

/// Searches file contents.
#[derive(Debug)]
pub(crate) struct SearchCode;

#[async_trait]
impl Tool for SearchCode {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("search_code", &["search_codebase", "search", "search_content", "grep_search"]),
            ToolAccess::Read,
            "Search file contents; gives path:line: text. Ignored files are left out",
            &[
                ("pattern", ParamType::String, "regular expression"),
                ("path?", ParamType::String, "file or directory"),
                ("file_glob?", ParamType::String, "such as *.py"),
                ("max_results?", ParamType::Integer, "default 20, at most 200"),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(search_contents(arguments, env.workspace.as_ref()).await)
    }
}

async fn search_contents(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, ToolError> {
    let pattern = required_text(arguments, "pattern")?;
    if pattern.is_empty() {
        return Err(bad_arguments("the pattern is empty. Give a regular expression"));
    }
    let path = relative_path(optional_text(arguments, "path")?.unwrap_or_default())?;
    let glob = optional_text(arguments, "file_glob")?.filter(|glob| !glob.is_empty());
    let wanted = optional_positive(arguments, "max_results")?.unwrap_or(DEFAULT_MATCHES).min(MAX_MATCHES);
    let spec = SearchSpec {
        pattern: pattern.to_owned(),
        path: path.clone(),
        glob: glob.map(ToOwned::to_owned),
        max_matches: usize::try_from(wanted).unwrap_or(usize::MAX),
        max_files: MAX_FILES,
    };
    let mut found = match workspace.search_contents(spec).await {
        Ok(found) => found,
        Err(Error::Invalid { why }) => {
            let literal = escape_regex(pattern);
            let hint =
                if literal == pattern { String::new() } else { format!(". For just this text: {literal}") };
            return Err(bad_arguments(format!("{why}{hint}")));
        }
        Err(error) => return Err(from_workspace_error(workspace, &path, error).await),
    };
    if found.items.is_empty() {
        let place = glob.map_or_else(
            || visible_path(&path),
            |glob| format!("{} ({})", visible_path(&path), escape_controls(glob)),
        );
        return Ok(ToolOutput::ok(format!(
            "No line in {place} matches `{}`. Ignored files and .git were not searched",
            escape_controls(pattern)
        )));
    }
    // Matches of one file are kept together, whatever the order in which files were searched.
    found.items.sort_by(|a, b| a.path.cmp(&b.path).then(a.line.cmp(&b.line)));
    let mut text = String::new();
    for line in &found.items {
        // Writing to a String can't fail.
        let _ =
            writeln!(text, "{}:{}: {}", visible_path(&line.path), line.line, one_line(line.text.trim_end()));
    }
    if found.more {
        let hint = if wanted < MAX_MATCHES { ", or raise max_results" } else { "" };
        let _ = write!(
            text,
            "[{} matches shown, there are more: narrow it by path or file_glob{hint}]",
            found.items.len()
        );
    }
    let mut output = ToolOutput::ok(text);
    output.truncated = found.more;
    Ok(output)
}

/// Returns a regular expression for exactly this text.
fn escape_regex(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
