//! `edit_file`: one place of a file, or all that are alike (TOOL-3).

use crate::arguments::{Arguments, bad, flag, spec, text};
use crate::bytes::{binary, decode, encode, shown, size};
use crate::fault::{Stop, end, explain, failed};
use crate::matching::{Miss, Replaced, Scope, replace};
use crate::path::{visible, writable};
use crate::read_file::not_text;
use crate::write_file::MAX_CONTENT;
use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::{Tool, Workspace, async_trait};
use forge_types::{ErrorKind, ParamType, ToolAccess, ToolOutput, ToolSpec};

/// Largest file that is edited.
const MAX_FILE: u64 = 4 << 20;
/// Largest file that an edit may make.
const MAX_RESULT: usize = 8 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Places that a message names.
const MAX_NAMED: usize = 20;

/// Replaces text in a file.
#[derive(Debug)]
pub(crate) struct EditFile;

#[async_trait]
impl Tool for EditFile {
    fn spec(&self) -> ToolSpec {
        spec(
            ("edit_file", &["file_edit"]),
            ToolAccess::Write,
            "Replace text in a file. old_text must stand there exactly once; add lines around it to make it unique",
            &[
                ("path", ParamType::String, ""),
                ("old_text", ParamType::String, "copied from read_file"),
                ("new_text", ParamType::String, ""),
                ("replace_all?", ParamType::Boolean, "every occurrence"),
            ],
        )
    }

    async fn run(&self, arguments: &Arguments, env: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        end(edit(arguments, env.workspace.as_ref()).await)
    }
}

async fn edit(arguments: &Arguments, workspace: &dyn Workspace) -> Result<ToolOutput, Stop> {
    let path = writable(text(arguments, "path")?)?;
    let (old, new) = (text(arguments, "old_text")?, text(arguments, "new_text")?);
    let scope = if flag(arguments, "replace_all")? { Scope::All } else { Scope::One };
    if old.is_empty() {
        return Err(bad(
            "old_text is empty. Give the text to be replaced; write_file creates or replaces a file",
        ));
    }
    if old == new {
        return Err(bad("old_text and new_text are the same: there is nothing to change"));
    }
    if new.len() > MAX_CONTENT {
        return Err(bad(format!("new_text is longer than {}. Make several edits", size(MAX_CONTENT as u64))));
    }
    let before = load(workspace, &path).await?;
    let replaced = replace(&before, old, new, scope, MAX_RESULT).map_err(|miss| missed(&path, old, miss))?;
    if let Err(error) = workspace.write(&path, &encode(&replaced.text)).await {
        return Err(explain(workspace, &path, error).await);
    }
    Ok(ToolOutput::ok(done(&path, &replaced)))
}

async fn load(workspace: &dyn Workspace, path: &str) -> Result<String, Stop> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let chunk = match workspace.read(path, bytes.len() as u64, CHUNK).await {
            Ok(chunk) => chunk,
            Err(error) => return Err(explain(workspace, path, error).await),
        };
        if bytes.is_empty()
            && let Some(kind) = binary(&chunk.bytes)
        {
            return Err(not_text(path, kind, chunk.size));
        }
        if chunk.size > MAX_FILE || bytes.len() as u64 > MAX_FILE {
            let text = format!(
                "`{}` has {}; files up to {} can be edited. Use run_shell with `sed -i`",
                visible(path),
                size(chunk.size),
                size(MAX_FILE)
            );
            return Err(failed(ErrorKind::Execution, text));
        }
        if chunk.bytes.is_empty() {
            break;
        }
        bytes.extend_from_slice(&chunk.bytes);
        if bytes.len() as u64 >= chunk.size {
            break;
        }
    }
    let unusual = || failed(ErrorKind::Execution, format!("`{}` can't be edited as text", visible(path)));
    decode(&bytes).ok_or_else(unusual)
}

fn done(path: &str, replaced: &Replaced) -> String {
    let places = if replaced.lines.len() == 1 { "place" } else { "places" };
    let mut text = format!(
        "Edited `{}` in {} {places}: {}",
        visible(path),
        replaced.lines.len(),
        named(&replaced.lines, "line")
    );
    if replaced.tolerant {
        text.push_str(". White space of old_text differed from the file's; the file's indentation was kept");
    }
    text
}

fn missed(path: &str, old: &str, miss: Miss) -> Stop {
    let name = visible(path);
    let text = match miss {
        Miss::Several { lines, tolerant } => {
            let how = if tolerant { " (apart from white space)" } else { "" };
            let all = if tolerant { "" } else { ", or set replace_all" };
            format!(
                "old_text stands {} times in `{name}`{how}: {}. Add lines around it to make it unique{all}",
                lines.len(),
                named(&lines, "line")
            )
        }
        Miss::TooLarge => format!("`{name}` would become larger than {}", size(MAX_RESULT as u64)),
        Miss::Nowhere { nearest } => {
            let mut text = format!("old_text does not stand in `{name}`");
            if numbered(old) {
                text.push_str(". It seems to hold line numbers: leave them out");
            }
            match nearest {
                Some(near) => text.push_str(&format!(
                    ". Nearest are lines {}-{}:\n{}",
                    near.first,
                    near.last,
                    shown(&near.text)
                )),
                None => text.push_str(", nor anything like it. Look at the file with read_file first"),
            }
            text
        }
    };
    failed(ErrorKind::Execution, text)
}

/// Whether every line begins with a number, as listings with line numbers do.
fn numbered(old: &str) -> bool {
    old.lines().filter(|line| !line.trim().is_empty()).all(|line| {
        let line = line.trim_start();
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < line.len() && rest.starts_with(['\t', ':', '|', '→'])
    })
}

fn named(lines: &[usize], what: &str) -> String {
    let shown: Vec<String> = lines.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = if lines.len() > MAX_NAMED { " …" } else { "" };
    format!("{what}{} {}{more}", if lines.len() == 1 { "" } else { "s" }, shown.join(", "))
}
