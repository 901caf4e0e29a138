//! `create_file`: a file for the user, beside the project (TOOL-14).

use crate::arguments::{Arguments, bad, spec, text};
use crate::fault::{Stop, end};
use crate::write_file::put;
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ParamType, ToolAccess, ToolOutput, ToolSpec};
use serde_json::json;

/// Where such files stand.
const FOLDER: &str = ".forge/files";
/// Longest name in bytes, as file systems allow it.
const MAX_NAME: usize = 255;

/// Extensions that a file may have, with their media types.
const TYPES: [(&str, &str); 19] = [
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

/// Creates a file that is handed to the user.
#[derive(Debug)]
pub(crate) struct CreateFile;

#[async_trait]
impl Tool for CreateFile {
    fn spec(&self) -> ToolSpec {
        spec(
            ("create_file", &["file_create"]),
            ToolAccess::Write,
            "Hand the user a file that is no part of the project",
            &[
                ("filename", ParamType::String, "without folders, such as report.md"),
                ("content", ParamType::String, ""),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        end(create(arguments, env.workspace.as_ref()).await)
    }
}

async fn create(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, Stop> {
    let filename = text(arguments, "filename")?;
    let content = text(arguments, "content")?;
    let mime_type = accepted(filename)?;
    let path = format!("{FOLDER}/{filename}");
    put(workspace, &path, content).await?;
    let result = json!({"filename": filename, "content": content, "mime_type": mime_type, "path": path});
    Ok(ToolOutput::ok(result.to_string()))
}

/// The media type of an acceptable name.
fn accepted(filename: &str) -> Result<&'static str, Stop> {
    if filename.contains(['/', '\\']) || filename.contains("..") {
        return Err(bad("the filename must be a plain name: no `/`, no `\\`, no `..`"));
    }
    if filename.starts_with('.') || filename.len() > MAX_NAME || filename.chars().any(char::is_control) {
        return Err(bad(
            "the filename must be a visible name of at most 255 bytes without control characters",
        ));
    }
    let extension = filename.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let known = TYPES.iter().find(|(known, _)| Some(*known) == extension.as_deref());
    known.map(|(_, mime_type)| *mime_type).ok_or_else(|| {
        let allowed: Vec<&str> = TYPES.iter().map(|(extension, _)| *extension).collect();
        bad(format!("the filename must end in one of: .{}", allowed.join(", .")))
    })
}
