//! `apply_patch`: changes in several places and files at once (TOOL-8).
//!
//! The patch is parsed and every file computed in memory first. Only then are files written, and removals come last; a
//! failure in the middle undoes everything done so far.

use crate::arguments::{Arguments, bad_arguments, builtin_spec, required_text};
use crate::bytes::{binary_kind, decode_lossless, display_decoded, encode_lossless, format_size};
use crate::patch::locate::{LocateError, NoMatch, PatchedText, apply_hunks};
use crate::patch::{FileAction, FilePatch, Hunk, LineSign, parse_patch};
use crate::path::{visible_path, writable_path};
use crate::read_file::not_text;
use crate::tool_error::{ToolError, into_result, tool_failure};
use crate::workspace_error::from_workspace_error;
use forge_ports::sandbox::{BackgroundPolicy, Error, ExecSpec, InheritedEnv, PathErrorKind};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum size of a patch in bytes.
const MAX_PATCH_BYTES: usize = 1 << 20;
/// Maximum size of a patched file in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Maximum size of a resulting file in bytes.
const MAX_RESULT_BYTES: usize = 8 << 20;
/// Maximum total size of the files of one patch in bytes.
const MAX_TOTAL_BYTES: usize = 64 << 20;
/// Bytes per read.
const READ_CHUNK_BYTES: usize = 1 << 20;
/// Maximum number of places listed in a message.
const MAX_LISTED_PLACES: usize = 10;
/// Mode of new files, as everywhere.
const NEW_FILE_MODE: u32 = 0o644;

/// Applies a patch.
#[derive(Debug)]
pub(crate) struct ApplyPatch;

#[async_trait]
impl Tool for ApplyPatch {
    fn spec(&self) -> ToolSpec {
        builtin_spec(
            ("apply_patch", &["file_patch"]),
            ToolAccess::Write,
            "Change several files at once, all or nothing",
            &[("patch", ParamType::String, "unified diff, or *** Begin Patch form")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        into_result(patch_workspace(arguments, env.workspace.as_ref()).await)
    }
}

async fn patch_workspace(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, ToolError> {
    let patch = required_text(arguments, "patch")?;
    if patch.len() > MAX_PATCH_BYTES {
        let (has, most) = (format_size(patch.len() as u64), format_size(MAX_PATCH_BYTES as u64));
        return Err(bad_arguments(format!("the patch has {has}; {most} at most. Make several patches")));
    }
    let files = parse_patch(patch).map_err(|fault| bad_arguments(fault.0))?;
    let mut plan = PatchPlan { workspace, drafts: Vec::new(), total: 0 };
    let mut said = Vec::new();
    for file in &files {
        said.push(plan.add_file_patch(file).await?);
    }
    plan.carry_out().await?;
    let count = said.len();
    let head = format!("Applied the patch to {count} file{}:\n", if count == 1 { "" } else { "s" });
    Ok(ToolOutput::ok(head + &said.join("\n")))
}

/// A file before and after the patch.
struct FileDraft {
    path: String,
    before: Option<FileContent>,
    now: Option<FileContent>,
}

#[derive(Clone, PartialEq, Eq)]
struct FileContent {
    bytes: Vec<u8>,
    mode: u32,
}

struct PatchPlan<'a> {
    workspace: &'a dyn Workspace,
    drafts: Vec<FileDraft>,
    total: usize,
}

impl PatchPlan<'_> {
    /// Applies a part of the patch to its file in memory; returns a report.
    async fn add_file_patch(&mut self, patch: &FilePatch) -> Result<String, ToolError> {
        match &patch.action {
            FileAction::Add { path } => self.add_file(path, patch).await,
            FileAction::Delete { path } => self.delete_file(path, &patch.hunks).await,
            FileAction::Update { from, to } | FileAction::Copy { from, to } => {
                self.update_file(from, to, patch).await
            }
        }
    }

    async fn add_file(&mut self, path: &str, patch: &FilePatch) -> Result<String, ToolError> {
        let draft = self.load_draft(path).await?;
        if self.drafts[draft].now.is_some() {
            return Err(already_exists(&self.drafts[draft].path));
        }
        let path = self.drafts[draft].path.clone();
        let applied = self.apply_hunks(&path, "", &patch.hunks)?;
        let mode = patch.mode.unwrap_or(NEW_FILE_MODE);
        self.drafts[draft].now = Some(FileContent { bytes: encode_lossless(&applied.text), mode });
        Ok(format!("A {} +{}", visible_path(&path), applied.added))
    }

    async fn delete_file(&mut self, path: &str, hunks: &[Hunk]) -> Result<String, ToolError> {
        let (draft, content) = self.existing_file(path).await?;
        let path = self.drafts[draft].path.clone();
        let lines = content.bytes.iter().filter(|&&byte| byte == b'\n').count();
        if !hunks.is_empty() {
            let applied = self.apply_hunks(&path, &require_text(&path, &content.bytes)?, hunks)?;
            if !applied.text.is_empty() {
                let left = applied.text.lines().count();
                let name = visible_path(&path);
                let text = format!(
                    "the patch removes `{name}` but not all its lines: {left} would remain. Nothing was \
                     applied. Remove all lines, or use `*** Delete File: {name}`"
                );
                return Err(tool_failure(ErrorKind::Execution, text));
            }
        }
        self.drafts[draft].now = None;
        Ok(format!("D {} -{lines}", visible_path(&path)))
    }

    async fn update_file(&mut self, from: &str, to: &str, patch: &FilePatch) -> Result<String, ToolError> {
        let (source, content) = self.existing_file(from).await?;
        let target = self.load_draft(to).await?;
        let moves = source != target;
        if moves && self.drafts[target].now.is_some() {
            return Err(already_exists(&self.drafts[target].path));
        }
        let name = self.drafts[source].path.clone();
        let mode = patch.mode.unwrap_or(content.mode);
        let (bytes, applied) = if patch.hunks.is_empty() {
            (content.bytes, PatchedText::default())
        } else {
            let applied = self.apply_hunks(&name, &require_text(&name, &content.bytes)?, &patch.hunks)?;
            (encode_lossless(&applied.text), applied)
        };
        let copies = matches!(patch.action, FileAction::Copy { .. });
        if moves && !copies {
            self.drafts[source].now = None;
        }
        self.drafts[target].now = Some(FileContent { bytes, mode });
        let mut said = match (moves, copies) {
            (false, _) => format!("M {}", visible_path(&name)),
            (true, false) => {
                format!("R {} -> {}", visible_path(&name), visible_path(&self.drafts[target].path))
            }
            (true, true) => {
                format!("C {} -> {}", visible_path(&name), visible_path(&self.drafts[target].path))
            }
        };
        said.push_str(&format!(" +{} -{}", applied.added, applied.removed));
        if patch.mode.is_some_and(|mode| mode != content.mode) {
            said.push_str(&format!(", mode {mode:o}"));
        }
        said.push_str(&format_remarks(&applied, &patch.hunks));
        Ok(said)
    }

    /// Returns the text with the hunks applied.
    fn apply_hunks(&mut self, path: &str, before: &str, hunks: &[Hunk]) -> Result<PatchedText, ToolError> {
        let applied = apply_hunks(before, hunks).map_err(|miss| report_no_match(path, hunks, &miss))?;
        if applied.text.len() > MAX_RESULT_BYTES {
            let (name, most) = (visible_path(path), format_size(MAX_RESULT_BYTES as u64));
            return Err(tool_failure(
                ErrorKind::Execution,
                format!("`{name}` would become larger than {most}"),
            ));
        }
        self.charge_bytes(applied.text.len())?;
        Ok(applied)
    }

    fn charge_bytes(&mut self, bytes: usize) -> Result<(), ToolError> {
        self.total += bytes;
        if self.total <= MAX_TOTAL_BYTES {
            return Ok(());
        }
        let text = format!(
            "the files of the patch have more than {}. Make several patches",
            format_size(MAX_TOTAL_BYTES as u64)
        );
        Err(tool_failure(ErrorKind::Execution, text))
    }

    /// Returns a file that must exist, as changed by the patch so far.
    async fn existing_file(&mut self, path: &str) -> Result<(usize, FileContent), ToolError> {
        let draft = self.load_draft(path).await?;
        if let Some(content) = self.drafts[draft].now.clone() {
            return Ok((draft, content));
        }
        let path = self.drafts[draft].path.clone();
        let error =
            Error::Path { path: path.clone(), why: "not there".to_owned(), kind: PathErrorKind::NotFound };
        Err(from_workspace_error(self.workspace, &path, error).await)
    }

    /// Returns the draft of a file, reading the file on first use.
    async fn load_draft(&mut self, path: &str) -> Result<usize, ToolError> {
        let path = writable_path(path)?;
        if let Some(at) = self.drafts.iter().position(|draft| draft.path == path) {
            return Ok(at);
        }
        let before = self.load_file(&path).await?;
        self.charge_bytes(before.as_ref().map_or(0, |content| content.bytes.len()))?;
        self.drafts.push(FileDraft { path, now: before.clone(), before });
        Ok(self.drafts.len() - 1)
    }

    async fn load_file(&self, path: &str) -> Result<Option<FileContent>, ToolError> {
        let mut bytes = Vec::new();
        loop {
            let chunk = match self.workspace.read_file(path, bytes.len() as u64, READ_CHUNK_BYTES).await {
                Ok(chunk) => chunk,
                Err(Error::Path { kind: PathErrorKind::NotFound, .. }) if bytes.is_empty() => {
                    return Ok(None);
                }
                Err(error) => return Err(from_workspace_error(self.workspace, path, error).await),
            };
            if chunk.size > MAX_FILE_BYTES || bytes.len() as u64 > MAX_FILE_BYTES {
                let (name, has, most) =
                    (visible_path(path), format_size(chunk.size), format_size(MAX_FILE_BYTES));
                let text = format!("`{name}` has {has}; files up to {most} can be patched. Use run_shell");
                return Err(tool_failure(ErrorKind::Execution, text));
            }
            let last = chunk.bytes.is_empty();
            bytes.extend_from_slice(&chunk.bytes);
            if last || bytes.len() as u64 >= chunk.size {
                return Ok(Some(FileContent { bytes, mode: chunk.mode & 0o777 }));
            }
        }
    }

    /// Writes the changed files, then removes files; undoes everything if one step fails.
    async fn carry_out(&self) -> Result<(), ToolError> {
        let changed = |draft: &&FileDraft| draft.before != draft.now;
        let (keep, remove): (Vec<&FileDraft>, Vec<&FileDraft>) =
            self.drafts.iter().filter(changed).partition(|draft| draft.now.is_some());
        let mut done: Vec<&FileDraft> = Vec::new();
        for draft in keep.into_iter().chain(remove) {
            let wrote = self.write_state(&draft.path, draft.before.as_ref(), draft.now.as_ref()).await;
            let Err(error) = wrote else {
                done.push(draft);
                continue;
            };
            let stop = from_workspace_error(self.workspace, &draft.path, error).await;
            let ToolError::Answer(mut output) = stop else { return Err(stop) };
            // The failed file may have been written without its mode.
            done.push(draft);
            let left = self.undo_writes(&done).await;
            let why = output.content.inline_text().unwrap_or_default().to_owned();
            let state = if left.is_empty() {
                "Nothing was applied".to_owned()
            } else {
                format!("These could not be restored and remain changed: {}", left.join(", "))
            };
            output.content = format!("{why}. {state}").into();
            return Err(ToolError::Answer(output));
        }
        Ok(())
    }

    async fn write_state(
        &self,
        path: &str,
        stands: Option<&FileContent>,
        wanted: Option<&FileContent>,
    ) -> Result<(), Error> {
        let Some(wanted) = wanted else { return self.workspace.remove_file(path).await };
        // Written even if only the mode differs: the write refuses git's own paths, and separates the file from its
        // hard links.
        if stands.is_none_or(|stands| stands != wanted) {
            self.workspace.write_file(path, &wanted.bytes).await?;
        }
        let mode = stands.map_or(NEW_FILE_MODE, |stands| stands.mode);
        if mode == wanted.mode { Ok(()) } else { self.chmod(path, wanted.mode).await }
    }

    async fn chmod(&self, path: &str, mode: u32) -> Result<(), Error> {
        let argv = ["chmod", &format!("{mode:o}"), &format!("./{path}")];
        let spec = ExecSpec {
            argv: argv.iter().map(|&part| part.to_owned()).collect(),
            cwd: String::new(),
            env: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            keep_bytes: 1024,
            inherited_env: InheritedEnv::All,
            stdin: None,
            background: BackgroundPolicy::Kill,
            also: vec!["chmod".to_owned()],
        };
        let result = self.workspace.exec(spec, &()).await?;
        if result.exit_code == 0 {
            return Ok(());
        }
        let why =
            format!("its mode could not be set: {}", String::from_utf8_lossy(&result.stderr.bytes).trim());
        Err(Error::Path { path: path.to_owned(), why, kind: PathErrorKind::Other })
    }

    /// Undoes the changes; returns the files for which that fails.
    async fn undo_writes(&self, done: &[&FileDraft]) -> Vec<String> {
        let mut left = Vec::new();
        for draft in done.iter().rev() {
            let stands = self.load_file(&draft.path).await.ok();
            if stands.as_ref() == Some(&draft.before) {
                continue;
            }
            let stands = stands.flatten();
            let gone = |kind| matches!(kind, PathErrorKind::NotFound | PathErrorKind::NotDirectory);
            match self.write_state(&draft.path, stands.as_ref(), draft.before.as_ref()).await {
                Ok(()) => {}
                Err(Error::Path { kind, .. }) if draft.before.is_none() && gone(kind) => {}
                Err(_) => left.push(format!("`{}`", visible_path(&draft.path))),
            }
        }
        left
    }
}

fn already_exists(path: &str) -> ToolError {
    let name = visible_path(path);
    let text = format!(
        "`{name}` already exists, so the patch can't create it. Nothing was applied. Change it instead"
    );
    tool_failure(ErrorKind::Execution, text)
}

/// Returns the bytes of a file as text.
fn require_text(path: &str, bytes: &[u8]) -> Result<String, ToolError> {
    if let Some(kind) = binary_kind(bytes) {
        return Err(not_text(path, kind, bytes.len() as u64));
    }
    let unusual =
        || tool_failure(ErrorKind::Execution, format!("`{}` can't be patched as text", visible_path(path)));
    decode_lossless(bytes).ok_or_else(unusual)
}

/// Returns remarks for the model in addition to the counts.
fn format_remarks(applied: &PatchedText, hunks: &[Hunk]) -> String {
    let mut parts = Vec::new();
    if applied.relocated > 0 {
        parts.push("line numbers were off".to_owned());
    }
    if hunks.iter().any(|hunk| hunk.miscounted) {
        parts.push("line counts of @@ were off".to_owned());
    }
    if applied.tolerant > 0 {
        parts.push("white space differed; the file's was kept".to_owned());
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

fn report_no_match(path: &str, hunks: &[Hunk], miss: &NoMatch) -> ToolError {
    let name = visible_path(path);
    let head = format!("hunk {} of {} for `{name}`", miss.hunk + 1, hunks.len());
    let first = hunks.get(miss.hunk).and_then(|hunk| {
        hunk.lines.iter().find(|line| line.sign != LineSign::Add && !line.text.trim().is_empty())
    });
    let first = first.map_or_else(String::new, |line| {
        format!(" (`{}`)", visible_path(&line.text.trim().chars().take(80).collect::<String>()))
    });
    let why = match &miss.trouble {
        LocateError::Several(lines) => {
            let shown: Vec<String> = lines.iter().take(MAX_LISTED_PLACES).map(ToString::to_string).collect();
            let more = if lines.len() > MAX_LISTED_PLACES { " …" } else { "" };
            format!(
                "{head} applies at {} places: lines {}{more}. Nothing was applied. Add lines around it to make it \
                unique",
                lines.len(),
                shown.join(", ")
            )
        }
        LocateError::Already(line) => format!(
            "{head} does not apply: its new lines are already at line {line}. Nothing was applied. Leave it out if \
             the change is made"
        ),
        LocateError::NoAnchor(anchor) => format!(
            "{head}: the line after @@ (`{}`) is not in the file. Nothing was applied",
            visible_path(&anchor.chars().take(80).collect::<String>())
        ),
        LocateError::BehindEnd(lines) => {
            format!("{head} begins after the end of the file, which has {lines} lines. Nothing was applied")
        }
        LocateError::Repetitive => {
            format!(
                "{head}: the file is too repetitive to find its place. Nothing was applied. Use edit_file"
            )
        }
        LocateError::Nowhere(None) => format!(
            "{head}{first} does not apply, and the file contains nothing similar. Nothing was applied. Look at the \
             file with read_file first"
        ),
        LocateError::Nowhere(Some(near)) => format!(
            "{head}{first} does not apply: the file does not contain its old lines as written. Nothing was \
             applied. Nearest are lines {}-{}:\n{}",
            near.first,
            near.last,
            display_decoded(&near.text)
        ),
    };
    tool_failure(ErrorKind::Execution, why)
}
