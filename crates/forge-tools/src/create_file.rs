//! `create_file`: a file for the user that is separate from the project (TOOL-14).

use crate::arguments::{Arguments, bad_arguments, builtin_spec, required_text};
use crate::tool_error::{ToolError, into_result};
use crate::write_file::replace_file;
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};
use serde_json::json;

/// Directory of such files.
const FILES_DIR: &str = ".forge/files";
/// Maximum length of a name in bytes, as in file systems.
const MAX_NAME_BYTES: usize = 255;

/// Permitted extensions with their media types.
const MEDIA_TYPES: [(&str, &str); 19] = [
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("log", "text/plain"),
    ("csv", "text/csv"),
    ("tsv", "text/tab-separated-values"),
    ("json", "application/json"),
    ("jsonl", "application/jsonl"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("toml", "application/toml"),
    ("xml", "application/xml"),
    ("html", "text/html"),
    ("css", "text/css"),
    ("js", "text/javascript"),
    ("ts", "text/typescript"),
    ("py", "text/x-python"),
    ("rs", "text/x-rust"),
    ("sql", "application/sql"),
    ("svg", "image/svg+xml"),
];

/// Creates a file for the user.
#[derive(Debug)]
pub(crate) struct CreateFile;

#[async_trait]
impl Tool for CreateFile {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("create_file", &["file_create"]),
            ToolAccess::Write,
            "Hand the user a file that is no part of the project",
            &[
                ("filename", ParamType::String, "without directories, such as report.md"),
                ("content", ParamType::String, ""),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(create_user_file(arguments, env.workspace.as_ref()).await)
    }
}

async fn create_user_file(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, ToolError> {
    let filename = required_text(arguments, "filename")?;
    let content = required_text(arguments, "content")?;
    let mime_type = accepted_media_type(filename)?;
    let path = format!("{FILES_DIR}/{filename}");
    replace_file(workspace, &path, content).await?;
    let result = json!({"filename": filename, "content": content, "mime_type": mime_type, "path": path});
    Ok(ToolOutput::ok(result.to_string()))
}

/// Returns the media type of a permitted name.
fn accepted_media_type(filename: &str) -> Result<&'static str, ToolError> {
    if filename.contains(['/', '\\']) || filename.contains("..") {
        return Err(bad_arguments("the filename must be a plain name: no `/`, no `\\`, no `..`"));
    }
    if filename.starts_with('.') || filename.len() > MAX_NAME_BYTES || filename.chars().any(char::is_control)
    {
        return Err(bad_arguments(
            "the filename must be a visible name of at most 255 bytes without control characters",
        ));
    }
    let extension = filename.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let known = MEDIA_TYPES.iter().find(|(known, _)| Some(*known) == extension.as_deref());
    known.map(|(_, mime_type)| *mime_type).ok_or_else(|| {
        let allowed: Vec<&str> = MEDIA_TYPES.iter().map(|(extension, _)| *extension).collect();
        bad_arguments(format!("the filename must end in one of: .{}", allowed.join(", .")))
    })
}
