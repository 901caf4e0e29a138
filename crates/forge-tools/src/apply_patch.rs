//! `apply_patch`: changes in several places and files at once (TOOL-8).
//!
//! The patch is read and every file computed in memory first. Only then is anything written, removals last; if that
//! fails in the middle, what was done is undone.

use crate::arguments::{Arguments, bad, spec, text};
use crate::bytes::{binary, decode, encode, shown, size};
use crate::fault::{Stop, end, explain, failed};
use crate::patch::place::{Applied, Miss, Trouble, apply};
use crate::patch::{Action, FilePatch, Hunk, Sign, parse};
use crate::path::{visible, writable};
use crate::read_file::not_text;
use forge_ports::sandbox::{Error, ExecSpec, Leftovers, PathFault};
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest patch.
const MAX_PATCH: usize = 1 << 20;
/// Largest file that is patched.
const MAX_FILE: u64 = 4 << 20;
/// Largest file that a patch may make.
const MAX_RESULT: usize = 8 << 20;
/// Bytes of all files that one patch may touch.
const MAX_TOTAL: usize = 64 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Places that a message names.
const MAX_NAMED: usize = 10;
/// What a new file may be done with, as everywhere.
const NEW_FILE: u32 = 0o644;

/// Applies a patch.
#[derive(Debug)]
pub(crate) struct ApplyPatch;

#[async_trait]
impl Tool for ApplyPatch {
    fn spec(&self) -> ToolSpec {
        spec(
            ("apply_patch", &["file_patch"]),
            ToolAccess::Write,
            "Change several files at once, all or nothing",
            &[("patch", ParamType::String, "unified diff, or *** Begin Patch form")],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        end(patch(arguments, env.workspace.as_ref()).await)
    }
}

async fn patch(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, Stop> {
    let patch = text(arguments, "patch")?;
    if patch.len() > MAX_PATCH {
        let (has, most) = (size(patch.len() as u64), size(MAX_PATCH as u64));
        return Err(bad(format!("the patch has {has}; {most} at most. Make several patches")));
    }
    let files = parse(patch).map_err(|fault| bad(fault.0))?;
    let mut plan = Plan { workspace, drafts: Vec::new(), total: 0 };
    let mut said = Vec::new();
    for file in &files {
        said.push(plan.take(file).await?);
    }
    plan.carry_out().await?;
    let count = said.len();
    let head = format!("Applied the patch to {count} file{}:\n", if count == 1 { "" } else { "s" });
    Ok(ToolOutput::ok(head + &said.join("\n")))
}

/// A file as it stands and as it is to be.
struct Draft {
    path: String,
    before: Option<Content>,
    now: Option<Content>,
}

#[derive(Clone, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
}

struct Plan<'a> {
    workspace: &'a dyn Workspace,
    drafts: Vec<Draft>,
    total: usize,
}

impl Plan<'_> {
    /// Computes what a part of the patch makes of its file; what is said of it.
    async fn take(&mut self, patch: &FilePatch) -> Result<String, Stop> {
        match &patch.action {
            Action::Add { path } => self.add(path, patch).await,
            Action::Delete { path } => self.delete(path, &patch.hunks).await,
            Action::Update { from, to } | Action::Copy { from, to } => self.update(from, to, patch).await,
        }
    }

    async fn add(&mut self, path: &str, patch: &FilePatch) -> Result<String, Stop> {
        let draft = self.draft(path).await?;
        if self.drafts[draft].now.is_some() {
            return Err(exists(&self.drafts[draft].path));
        }
        let path = self.drafts[draft].path.clone();
        let applied = self.applied(&path, "", &patch.hunks)?;
        let mode = patch.mode.unwrap_or(NEW_FILE);
        self.drafts[draft].now = Some(Content { bytes: encode(&applied.text), mode });
        Ok(format!("A {} +{}", visible(&path), applied.added))
    }

    async fn delete(&mut self, path: &str, hunks: &[Hunk]) -> Result<String, Stop> {
        let (draft, content) = self.existing(path).await?;
        let path = self.drafts[draft].path.clone();
        let lines = content.bytes.iter().filter(|&&byte| byte == b'\n').count();
        if !hunks.is_empty() {
            let applied = self.applied(&path, &readable(&path, &content.bytes)?, hunks)?;
            if !applied.text.is_empty() {
                let left = applied.text.lines().count();
                let name = visible(&path);
                let text = format!(
                    "the patch removes `{name}` but not all it holds: {left} lines would be left. Nothing was \
                     applied. Remove all lines, or use `*** Delete File: {name}`"
                );
                return Err(failed(ErrorKind::Execution, text));
            }
        }
        self.drafts[draft].now = None;
        Ok(format!("D {} -{lines}", visible(&path)))
    }

    async fn update(&mut self, from: &str, to: &str, patch: &FilePatch) -> Result<String, Stop> {
        let (source, content) = self.existing(from).await?;
        let target = self.draft(to).await?;
        let moves = source != target;
        if moves && self.drafts[target].now.is_some() {
            return Err(exists(&self.drafts[target].path));
        }
        let name = self.drafts[source].path.clone();
        let mode = patch.mode.unwrap_or(content.mode);
        let (bytes, applied) = if patch.hunks.is_empty() {
            (content.bytes, Applied::default())
        } else {
            let applied = self.applied(&name, &readable(&name, &content.bytes)?, &patch.hunks)?;
            (encode(&applied.text), applied)
        };
        let copies = matches!(patch.action, Action::Copy { .. });
        if moves && !copies {
            self.drafts[source].now = None;
        }
        self.drafts[target].now = Some(Content { bytes, mode });
        let mut said = match (moves, copies) {
            (false, _) => format!("M {}", visible(&name)),
            (true, false) => format!("R {} -> {}", visible(&name), visible(&self.drafts[target].path)),
            (true, true) => format!("C {} -> {}", visible(&name), visible(&self.drafts[target].path)),
        };
        said.push_str(&format!(" +{} -{}", applied.added, applied.removed));
        if patch.mode.is_some_and(|mode| mode != content.mode) {
            said.push_str(&format!(", mode {mode:o}"));
        }
        said.push_str(&remarks(&applied, &patch.hunks));
        Ok(said)
    }

    /// The text after its hunks.
    fn applied(&mut self, path: &str, before: &str, hunks: &[Hunk]) -> Result<Applied, Stop> {
        let applied = apply(before, hunks).map_err(|miss| missed(path, hunks, &miss))?;
        if applied.text.len() > MAX_RESULT {
            let (name, most) = (visible(path), size(MAX_RESULT as u64));
            return Err(failed(ErrorKind::Execution, format!("`{name}` would become larger than {most}")));
        }
        self.weigh(applied.text.len())?;
        Ok(applied)
    }

    fn weigh(&mut self, bytes: usize) -> Result<(), Stop> {
        self.total += bytes;
        if self.total <= MAX_TOTAL {
            return Ok(());
        }
        let text =
            format!("the files of the patch have more than {}. Make several patches", size(MAX_TOTAL as u64));
        Err(failed(ErrorKind::Execution, text))
    }

    /// The file that must be there, as the patch has made it so far.
    async fn existing(&mut self, path: &str) -> Result<(usize, Content), Stop> {
        let draft = self.draft(path).await?;
        if let Some(content) = self.drafts[draft].now.clone() {
            return Ok((draft, content));
        }
        let path = self.drafts[draft].path.clone();
        let error =
            Error::Path { path: path.clone(), why: "not there".to_owned(), kind: PathFault::NotFound };
        Err(explain(self.workspace, &path, error).await)
    }

    /// The draft of a file, which is read if this is the first time.
    async fn draft(&mut self, path: &str) -> Result<usize, Stop> {
        let path = writable(path)?;
        if let Some(at) = self.drafts.iter().position(|draft| draft.path == path) {
            return Ok(at);
        }
        let before = self.load(&path).await?;
        self.weigh(before.as_ref().map_or(0, |content| content.bytes.len()))?;
        self.drafts.push(Draft { path, now: before.clone(), before });
        Ok(self.drafts.len() - 1)
    }

    async fn load(&self, path: &str) -> Result<Option<Content>, Stop> {
        let mut bytes = Vec::new();
        loop {
            let chunk = match self.workspace.read(path, bytes.len() as u64, CHUNK).await {
                Ok(chunk) => chunk,
                Err(Error::Path { kind: PathFault::NotFound, .. }) if bytes.is_empty() => return Ok(None),
                Err(error) => return Err(explain(self.workspace, path, error).await),
            };
            if chunk.size > MAX_FILE || bytes.len() as u64 > MAX_FILE {
                let (name, has, most) = (visible(path), size(chunk.size), size(MAX_FILE));
                let text = format!("`{name}` has {has}; files up to {most} can be patched. Use run_shell");
                return Err(failed(ErrorKind::Execution, text));
            }
            let last = chunk.bytes.is_empty();
            bytes.extend_from_slice(&chunk.bytes);
            if last || bytes.len() as u64 >= chunk.size {
                return Ok(Some(Content { bytes, mode: chunk.mode & 0o777 }));
            }
        }
    }

    /// Writes what changed, then removes; undoes all of it if a part fails.
    async fn carry_out(&self) -> Result<(), Stop> {
        let changed = |draft: &&Draft| draft.before != draft.now;
        let (keep, remove): (Vec<&Draft>, Vec<&Draft>) =
            self.drafts.iter().filter(changed).partition(|draft| draft.now.is_some());
        let mut done: Vec<&Draft> = Vec::new();
        for draft in keep.into_iter().chain(remove) {
            let wrote = self.put(&draft.path, draft.before.as_ref(), draft.now.as_ref()).await;
            let Err(error) = wrote else {
                done.push(draft);
                continue;
            };
            let stop = explain(self.workspace, &draft.path, error).await;
            let Stop::Answer(mut output) = stop else { return Err(stop) };
            // The one that failed may have been written and only its mode not.
            done.push(draft);
            let left = self.undo(&done).await;
            let why = output.content.inline().unwrap_or_default().to_owned();
            let state = if left.is_empty() {
                "Nothing was applied".to_owned()
            } else {
                format!("These could not be put back and stand changed: {}", left.join(", "))
            };
            output.content = format!("{why}. {state}").into();
            return Err(Stop::Answer(output));
        }
        Ok(())
    }

    async fn put(&self, path: &str, stands: Option<&Content>, wanted: Option<&Content>) -> Result<(), Error> {
        let Some(wanted) = wanted else { return self.workspace.remove(path).await };
        // A mode alone is written as well: the write is what refuses places of git's, and what parts the file from its
        // other names, which may be there.
        if stands.is_none_or(|stands| stands != wanted) {
            self.workspace.write(path, &wanted.bytes).await?;
        }
        let mode = stands.map_or(NEW_FILE, |stands| stands.mode);
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
            leftovers: Leftovers::Kill,
            also: vec!["chmod".to_owned()],
        };
        let result = self.workspace.exec(spec, &()).await?;
        if result.exit_code == 0 {
            return Ok(());
        }
        let why =
            format!("its mode could not be set: {}", String::from_utf8_lossy(&result.stderr.bytes).trim());
        Err(Error::Path { path: path.to_owned(), why, kind: PathFault::Other })
    }

    /// Puts back what was done; the files for which that fails.
    async fn undo(&self, done: &[&Draft]) -> Vec<String> {
        let mut left = Vec::new();
        for draft in done.iter().rev() {
            let stands = self.load(&draft.path).await.ok();
            if stands.as_ref() == Some(&draft.before) {
                continue;
            }
            let stands = stands.flatten();
            let gone = |kind| matches!(kind, PathFault::NotFound | PathFault::NotDirectory);
            match self.put(&draft.path, stands.as_ref(), draft.before.as_ref()).await {
                Ok(()) => {}
                Err(Error::Path { kind, .. }) if draft.before.is_none() && gone(kind) => {}
                Err(_) => left.push(format!("`{}`", visible(&draft.path))),
            }
        }
        left
    }
}

fn exists(path: &str) -> Stop {
    let name = visible(path);
    let text = format!(
        "`{name}` exists already, so the patch can't make it. Nothing was applied. Change it instead"
    );
    failed(ErrorKind::Execution, text)
}

/// The bytes of a file as text.
fn readable(path: &str, bytes: &[u8]) -> Result<String, Stop> {
    if let Some(kind) = binary(bytes) {
        return Err(not_text(path, kind, bytes.len() as u64));
    }
    let unusual = || failed(ErrorKind::Execution, format!("`{}` can't be patched as text", visible(path)));
    decode(bytes).ok_or_else(unusual)
}

/// What the model should know beside the counts.
fn remarks(applied: &Applied, hunks: &[Hunk]) -> String {
    let mut parts = Vec::new();
    if applied.moved > 0 {
        parts.push("line numbers were off".to_owned());
    }
    if hunks.iter().any(|hunk| hunk.miscounted) {
        parts.push("line counts of @@ were off".to_owned());
    }
    if applied.tolerant > 0 {
        parts.push("white space differed and was kept as the file has it".to_owned());
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

fn missed(path: &str, hunks: &[Hunk], miss: &Miss) -> Stop {
    let name = visible(path);
    let head = format!("hunk {} of {} for `{name}`", miss.hunk + 1, hunks.len());
    let first = hunks.get(miss.hunk).and_then(|hunk| {
        hunk.lines.iter().find(|line| line.sign != Sign::Add && !line.text.trim().is_empty())
    });
    let first = first.map_or_else(String::new, |line| {
        format!(" (`{}`)", visible(&line.text.trim().chars().take(80).collect::<String>()))
    });
    let why = match &miss.trouble {
        Trouble::Several(lines) => {
            let shown: Vec<String> = lines.iter().take(MAX_NAMED).map(ToString::to_string).collect();
            let more = if lines.len() > MAX_NAMED { " …" } else { "" };
            format!(
                "{head} fits at {} places: lines {}{more}. Nothing was applied. Add lines around it to make it unique",
                lines.len(),
                shown.join(", ")
            )
        }
        Trouble::Already(line) => format!(
            "{head} does not fit: its new lines stand at line {line} already. Nothing was applied. Leave it out if \
             the change is made"
        ),
        Trouble::NoAnchor(anchor) => format!(
            "{head}: the line behind @@ (`{}`) does not stand in the file. Nothing was applied",
            visible(&anchor.chars().take(80).collect::<String>())
        ),
        Trouble::BehindEnd(lines) => {
            format!("{head} begins behind the end of the file, which has {lines} lines. Nothing was applied")
        }
        Trouble::Repetitive => {
            format!(
                "{head}: the file repeats itself too much to find its place. Nothing was applied. Use edit_file"
            )
        }
        Trouble::Nowhere(None) => format!(
            "{head}{first} does not fit, nor does anything like it stand there. Nothing was applied. Look at the file \
             with read_file first"
        ),
        Trouble::Nowhere(Some(near)) => format!(
            "{head}{first} does not fit: its old lines do not stand in the file as they are in the patch. Nothing was \
             applied. Nearest are lines {}-{}:\n{}",
            near.first,
            near.last,
            shown(&near.text)
        ),
    };
    failed(ErrorKind::Execution, why)
}
