//! `read_file`: a part of a text file (TOOL-1).

use crate::arguments::{Arguments, builtin_spec, optional_positive, required_text};
use crate::bytes::{binary_kind, format_size};
use crate::path::{file_path, visible_path};
use crate::terminal::floor_boundary;
use crate::tool_error::{ToolError, into_result, tool_failure};
use crate::workspace_error::from_workspace_error;
use forge_ports::sandbox::FileChunk;
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Maximum number of bytes shown per call.
const MAX_BYTES: usize = 100 * 1024;
/// Maximum number of lines shown per call.
const MAX_LINES: u64 = 10_000;
/// Bytes per read.
const READ_CHUNK_BYTES: usize = 256 * 1024;
/// Maximum number of bytes of a file that are searched for a line.
const MAX_SCAN_BYTES: u64 = 256 << 20;
/// Maximum size of files that are read to their end to count their lines.
const MAX_COUNTED_BYTES: u64 = 4 << 20;

/// Returns the text of a file without line numbers, so that it can be copied into `edit_file` unchanged.
#[derive(Debug)]
pub(crate) struct ReadFile;

#[async_trait]
impl Tool for ReadFile {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("read_file", &["file_read"]),
            ToolAccess::Read,
            "Read a text file verbatim (no line numbers); at most 10000 lines or 100 KB",
            &[
                ("path", ParamType::String, ""),
                ("offset?", ParamType::Integer, "first line, from 1"),
                ("limit?", ParamType::Integer, "number of lines"),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(read_lines(arguments, env.workspace.as_ref()).await)
    }
}

async fn read_lines(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, ToolError> {
    let path = file_path(required_text(arguments, "path")?)?;
    let first = optional_positive(arguments, "offset")?.unwrap_or(1);
    let limit = optional_positive(arguments, "limit")?.unwrap_or(MAX_LINES).min(MAX_LINES);
    let mut window = LineWindow::new(first, limit);
    let mut offset = 0;
    let mut size = 0;
    while !(window.full && size > MAX_COUNTED_BYTES) {
        let chunk = read_chunk(workspace, &path, offset).await?;
        size = chunk.size;
        if offset == 0
            && let Some(kind) = binary_kind(&chunk.bytes)
        {
            return Err(not_text(&path, kind, size));
        }
        if chunk.bytes.is_empty() {
            window.ended = true;
            break;
        }
        offset += chunk.bytes.len() as u64;
        window.push_chunk(&chunk.bytes);
        if offset > MAX_SCAN_BYTES && !window.full {
            let text = format!(
                "line {first} does not begin in the first {} of `{}` ({} in all). Use run_shell with `tail`, `sed -n` \
                 or `grep -n` for what follows",
                crate::bytes::format_size(MAX_SCAN_BYTES),
                visible_path(&path),
                crate::bytes::format_size(size)
            );
            return Err(tool_failure(ErrorKind::Execution, text));
        }
    }
    window.into_output(&path, size)
}

async fn read_chunk(workspace: &dyn Workspace, path: &str, offset: u64) -> Result<FileChunk, ToolError> {
    match workspace.read_file(path, offset, READ_CHUNK_BYTES).await {
        Ok(chunk) => Ok(chunk),
        Err(error) => Err(from_workspace_error(workspace, path, error).await),
    }
}

/// Returns the answer for a file that is not text.
pub(crate) fn not_text(path: &str, kind: &str, bytes: u64) -> ToolError {
    let text = format!(
        "`{}` is a binary file, {kind} ({}), and can't be shown or edited as text. Use run_shell with a program \
         made for it (`file`, `xxd | head`, `strings`)",
        visible_path(path),
        format_size(bytes)
    );
    tool_failure(ErrorKind::Execution, text)
}

/// The requested lines, collected while the file is read.
struct LineWindow {
    first: u64,
    limit: u64,
    bytes: Vec<u8>,
    /// The line of the next byte.
    line: u64,
    /// Whether the next byte begins a line.
    fresh: bool,
    /// The start of the last line in `bytes`.
    last_start: usize,
    /// Whether no more bytes are accepted.
    full: bool,
    /// Whether a single line exceeded the maximum.
    cut: bool,
    /// Whether the end of the file was reached.
    ended: bool,
    /// The line at which to continue.
    next: u64,
}

impl LineWindow {
    fn new(first: u64, limit: u64) -> Self {
        let (bytes, last_start) = (Vec::new(), 0);
        let (full, cut, ended, fresh) = (false, false, false, true);
        Self { first, limit, bytes, line: 1, fresh, last_start, full, cut, ended, next: first }
    }

    fn push_chunk(&mut self, chunk: &[u8]) {
        for part in chunk.split_inclusive(|&byte| byte == b'\n') {
            let ends = part.ends_with(b"\n");
            if self.line >= self.first && !self.full {
                self.append_part(part);
            }
            self.fresh = ends;
            if ends {
                self.line += 1;
                if !self.full && self.line > self.first {
                    self.next = self.line;
                    self.full = self.line - self.first >= self.limit;
                }
            }
        }
    }

    fn append_part(&mut self, part: &[u8]) {
        if self.fresh {
            self.last_start = self.bytes.len();
        }
        let room = MAX_BYTES - self.bytes.len();
        if part.len() <= room {
            self.bytes.extend_from_slice(part);
            return;
        }
        self.full = true;
        if self.last_start > 0 {
            self.bytes.truncate(self.last_start);
            self.next = self.line;
        } else {
            self.bytes.extend_from_slice(&part[..room]);
            self.cut = true;
            self.next = self.line + 1;
        }
    }

    /// Returns the number of lines of the file, if its end was reached.
    fn line_count(&self) -> Option<u64> {
        self.ended.then(|| if self.fresh { self.line - 1 } else { self.line })
    }

    fn into_output(self, path: &str, size: u64) -> Result<ToolOutput, ToolError> {
        let total = self.line_count();
        if size == 0 {
            return Ok(ToolOutput::ok(format!("[`{}` is empty]", visible_path(path))));
        }
        if let Some(total) = total.filter(|&total| self.first > total) {
            let text =
                format!("`{}` has {total} lines; offset {} is after its end", visible_path(path), self.first);
            return Err(tool_failure(ErrorKind::BadArguments, text));
        }
        let more = match total {
            Some(total) => self.next <= total && (self.full || self.cut),
            None => true,
        };
        let (mut text, mut notes) = to_lf_text(&self.bytes, self.cut);
        if self.cut {
            notes.push(format!("line {} is cut; `cut -c` in run_shell shows the rest", self.first));
        }
        let last = if more { self.next - 1 } else { total.unwrap_or(self.next) };
        if more || self.first > 1 {
            let of = total
                .map_or_else(|| format!("a file of {}", crate::bytes::format_size(size)), |n| n.to_string());
            notes.push(format!("lines {}-{last} of {of}", self.first));
        }
        if more {
            notes.push(format!("continue with offset={}", self.next));
        }
        if !notes.is_empty() {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("[{}]", notes.join("; ")));
        }
        let mut output = ToolOutput::ok(text);
        output.truncated = more || self.cut;
        Ok(output)
    }
}

/// Returns the bytes as text with LF line ends, with notes for the model about the conversion.
fn to_lf_text(bytes: &[u8], cut: bool) -> (String, Vec<String>) {
    let mut notes = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut odd = bytes.iter().filter(|&&byte| byte == 0).count();
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            odd += chunk.invalid().len();
            text.push('\u{fffd}');
        }
    }
    if cut {
        // The cut may split a character.
        let whole = text.trim_end_matches('\u{fffd}').len();
        odd = odd.saturating_sub(usize::from(whole < text.len()));
        text.truncate(floor_boundary(&text, whole));
    }
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
    }
    if text.contains("\r\n") {
        text = text.replace("\r\n", "\n");
        notes.push("line ends are CRLF, shown as LF; edit_file keeps them".to_owned());
    }
    if odd > 0 {
        notes.push(format!("{odd} bytes are not UTF-8, shown as \u{fffd}; edit_file keeps them"));
    }
    (text, notes)
}
