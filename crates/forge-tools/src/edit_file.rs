//! `edit_file`: replacement of one place in a file, or of all equal places (TOOL-3).

use crate::arguments::{Arguments, bad_arguments, builtin_spec, optional_flag, required_text};
use crate::bytes::{binary_kind, decode_lossless, display_decoded, encode_lossless, format_size};
use crate::matching::{EditScope, EditedText, ReplaceError, replace_text};
use crate::path::{visible_path, writable_path};
use crate::read_file::not_text;
use crate::tool_error::{ToolError, into_result, tool_failure};
use crate::workspace_error::from_workspace_error;
use crate::write_file::MAX_CONTENT_BYTES;
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Maximum size of an edited file in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Maximum size of a resulting file in bytes.
const MAX_RESULT_BYTES: usize = 8 << 20;
/// Bytes per read.
const READ_CHUNK_BYTES: usize = 1 << 20;
/// Maximum number of places listed in a message.
const MAX_LISTED_PLACES: usize = 20;

/// Replaces text in a file.
#[derive(Debug)]
pub(crate) struct EditFile;

#[async_trait]
impl Tool for EditFile {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("edit_file", &["file_edit"]),
            ToolAccess::Write,
            "Replace text in a file. old_text must occur exactly once; add lines around it to make it unique",
            &[
                ("path", ParamType::String, ""),
                ("old_text", ParamType::String, "copied from read_file"),
                ("new_text", ParamType::String, ""),
                ("replace_all?", ParamType::Boolean, "every occurrence"),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(edit_text(arguments, env.workspace.as_ref()).await)
    }
}

async fn edit_text(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, ToolError> {
    let path = writable_path(required_text(arguments, "path")?)?;
    let (old, new) = (required_text(arguments, "old_text")?, required_text(arguments, "new_text")?);
    let scope = if optional_flag(arguments, "replace_all")? { EditScope::All } else { EditScope::One };
    if old.is_empty() {
        return Err(bad_arguments(
            "old_text is empty. Give the text to be replaced; write_file creates or replaces a file",
        ));
    }
    if old == new {
        return Err(bad_arguments("old_text and new_text are the same: there is nothing to change"));
    }
    if new.len() > MAX_CONTENT_BYTES {
        return Err(bad_arguments(format!(
            "new_text is longer than {}. Make several edits",
            format_size(MAX_CONTENT_BYTES as u64)
        )));
    }
    let before = load_text(workspace, &path).await?;
    let replaced = replace_text(&before, old, new, scope, MAX_RESULT_BYTES)
        .map_err(|miss| report_no_match(&path, old, miss))?;
    if let Err(error) = workspace.write_file(&path, &encode_lossless(&replaced.text)).await {
        return Err(from_workspace_error(workspace, &path, error).await);
    }
    Ok(ToolOutput::ok(describe_edit(&path, &replaced)))
}

async fn load_text(workspace: &dyn Workspace, path: &str) -> Result<String, ToolError> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let chunk = match workspace.read_file(path, bytes.len() as u64, READ_CHUNK_BYTES).await {
            Ok(chunk) => chunk,
            Err(error) => return Err(from_workspace_error(workspace, path, error).await),
        };
        if bytes.is_empty()
            && let Some(kind) = binary_kind(&chunk.bytes)
        {
            return Err(not_text(path, kind, chunk.size));
        }
        if chunk.size > MAX_FILE_BYTES || bytes.len() as u64 > MAX_FILE_BYTES {
            let text = format!(
                "`{}` has {}; files up to {} can be edited. Use run_shell with `sed -i`",
                visible_path(path),
                format_size(chunk.size),
                format_size(MAX_FILE_BYTES)
            );
            return Err(tool_failure(ErrorKind::Execution, text));
        }
        if chunk.bytes.is_empty() {
            break;
        }
        bytes.extend_from_slice(&chunk.bytes);
        if bytes.len() as u64 >= chunk.size {
            break;
        }
    }
    let unusual =
        || tool_failure(ErrorKind::Execution, format!("`{}` can't be edited as text", visible_path(path)));
    decode_lossless(&bytes).ok_or_else(unusual)
}

fn describe_edit(path: &str, replaced: &EditedText) -> String {
    let places = if replaced.lines.len() == 1 { "place" } else { "places" };
    let mut text = format!(
        "Edited `{}` in {} {places}: {}",
        visible_path(path),
        replaced.lines.len(),
        format_lines(&replaced.lines, "line")
    );
    if replaced.tolerant {
        text.push_str(". White space of old_text differed from the file's; the file's indentation was kept");
    }
    text
}

fn report_no_match(path: &str, old: &str, miss: ReplaceError) -> ToolError {
    let name = visible_path(path);
    let text = match miss {
        ReplaceError::Several { lines, tolerant } => {
            let how = if tolerant { " (apart from white space)" } else { "" };
            let all = if tolerant { "" } else { ", or set replace_all" };
            format!(
                "old_text occurs {} times in `{name}`{how}: {}. Add lines around it to make it unique{all}",
                lines.len(),
                format_lines(&lines, "line")
            )
        }
        ReplaceError::TooLarge => {
            format!("`{name}` would become larger than {}", format_size(MAX_RESULT_BYTES as u64))
        }
        ReplaceError::Nowhere { nearest } => {
            let mut text = format!("old_text was not found in `{name}`");
            if has_line_numbers(old) {
                text.push_str(". It seems to contain line numbers: leave them out");
            }
            match nearest {
                Some(near) => text.push_str(&format!(
                    ". Nearest are lines {}-{}:\n{}",
                    near.first,
                    near.last,
                    display_decoded(&near.text)
                )),
                None => text.push_str(", nor anything similar. Look at the file with read_file first"),
            }
            text
        }
    };
    tool_failure(ErrorKind::Execution, text)
}

/// Returns whether every line begins with a number, as in listings with line numbers.
fn has_line_numbers(old: &str) -> bool {
    old.lines().filter(|line| !line.trim().is_empty()).all(|line| {
        let line = line.trim_start();
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < line.len() && rest.starts_with(['\t', ':', '|', '→'])
    })
}

fn format_lines(lines: &[usize], what: &str) -> String {
    let shown: Vec<String> = lines.iter().take(MAX_LISTED_PLACES).map(ToString::to_string).collect();
    let more = if lines.len() > MAX_LISTED_PLACES { " …" } else { "" };
    format!("{what}{} {}{more}", if lines.len() == 1 { "" } else { "s" }, shown.join(", "))
}
