//! Answers for the model when the workspace refuses an operation.

use crate::path::{literal_glob, visible_path};
use crate::tool_error::{ToolError, tool_failure};
use forge_ports::Workspace;
use forge_ports::sandbox::{EntryKind, Error, PathErrorKind};
use forge_ports::tool::SandboxGone;
use forge_types::{ErrorInfo, ErrorKind};
use std::collections::BTreeSet;

/// Maximum number of directory entries among which similar names are searched.
const MAX_SIBLINGS: usize = 500;
/// Maximum number of similar names shown.
const MAX_NEAR_NAMES: usize = 5;

/// Converts `error` into an answer for the model, which asked for `path` (relative to the workspace).
pub(crate) async fn from_workspace_error(workspace: &dyn Workspace, path: &str, error: Error) -> ToolError {
    let gone = |kind, error: &Error| {
        let text = error.to_string();
        let info = if error.class().retryable() {
            ErrorInfo::retryable(kind, text, None)
        } else {
            ErrorInfo::fatal(kind, text)
        };
        ToolError::Gone(SandboxGone(info.with_next_steps(error.next_steps())))
    };
    match error {
        Error::Missing { .. } => gone(ErrorKind::BackendMissing, &error),
        Error::Startup { .. } => gone(ErrorKind::Startup, &error),
        Error::Died { .. } => gone(ErrorKind::Died, &error),
        Error::View { .. } | Error::NoSpace { .. } | Error::NoBranch { .. } => {
            gone(ErrorKind::Startup, &error)
        }
        Error::Ceiling { .. } => gone(ErrorKind::BudgetExceeded, &error),
        Error::Stopped => gone(ErrorKind::Cancelled, &error),
        Error::Conflicts { .. } => tool_failure(ErrorKind::Execution, error.to_string()),
        Error::Invalid { why } => tool_failure(ErrorKind::BadArguments, why),
        Error::Path { path: place, why, kind } => from_path_fault(workspace, path, &place, &why, kind).await,
    }
}

async fn from_path_fault(
    workspace: &dyn Workspace,
    path: &str,
    place: &str,
    why: &str,
    kind: PathErrorKind,
) -> ToolError {
    let name = visible_path(path);
    let masked = workspace.report().masked;
    if masked.iter().any(|hidden| path == hidden || path.starts_with(&format!("{hidden}/"))) {
        let text = format!(
            "`{name}` looks like it contains credentials and is masked. Do without it, or ask the user to \
             name it in `workspace.reveal`"
        );
        return tool_failure(ErrorKind::Denied, text);
    }
    let (error, text) = match kind {
        PathErrorKind::NotFound => (ErrorKind::NotFound, not_found(workspace, path).await),
        PathErrorKind::Escapes => (
            ErrorKind::Denied,
            format!(
                "`{name}` leads out of the workspace ({why}). Only files of the workspace can be reached"
            ),
        ),
        PathErrorKind::IsDirectory => (
            ErrorKind::Execution,
            format!("`{name}` is a directory, not a file. list_directory shows its contents"),
        ),
        PathErrorKind::NotDirectory => (
            ErrorKind::Execution,
            format!("`{}` is a file where a directory is needed ({why})", visible_path(place)),
        ),
        PathErrorKind::Special => (
            ErrorKind::Execution,
            format!(
                "`{name}` is no regular file but a device, FIFO or socket ({why}). It can't be read or written"
            ),
        ),
        PathErrorKind::NoSpace => (
            ErrorKind::Execution,
            format!(
                "`{name}` was not written: no space is left. It is unchanged. Remove files that are not needed"
            ),
        ),
        PathErrorKind::Denied => (ErrorKind::Denied, format!("`{name}`: {why}")),
        PathErrorKind::Exists | PathErrorKind::Other => (ErrorKind::Execution, format!("`{name}`: {why}")),
    };
    tool_failure(error, text)
}

async fn not_found(workspace: &dyn Workspace, path: &str) -> String {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut near: Vec<String> = Vec::new();
    // A file of the same name elsewhere is the most likely.
    if let Ok(found) = workspace.find_files(&format!("**/{}", literal_glob(name)), MAX_NEAR_NAMES).await {
        near.extend(found.items.into_iter().map(|entry| entry.path));
    }
    let mut place = parent;
    let siblings = loop {
        match workspace.list_directory(place, 1, MAX_SIBLINGS).await {
            Ok(listing) => break listing.items,
            Err(_) if place.is_empty() => break Vec::new(),
            Err(_) => place = place.rsplit_once('/').map_or("", |(above, _)| above),
        }
    };
    let wanted = if place == parent { path.to_lowercase() } else { parent.to_lowercase() };
    let lowered: Vec<String> = siblings.iter().map(|entry| entry.path.to_lowercase()).collect();
    let candidates: Vec<&str> = lowered.iter().map(String::as_str).collect();
    for close in similar::get_close_matches(wanted.as_str(), &candidates, MAX_NEAR_NAMES, 0.6) {
        near.extend(
            siblings.iter().filter(|e| e.path.to_lowercase() == *close).map(|e| {
                if e.kind == EntryKind::Directory { format!("{}/", e.path) } else { e.path.clone() }
            }),
        );
    }
    let mut seen = BTreeSet::new();
    let near: Vec<_> = near
        .into_iter()
        .filter(|path| seen.insert(path.clone()))
        .take(MAX_NEAR_NAMES)
        .map(|path| format!("`{}`", visible_path(&path)))
        .collect();
    let missing = format!("`{}` does not exist", visible_path(path));
    if !near.is_empty() {
        return format!("{missing}. Near it: {}", near.join(", "));
    }
    let hint = "find_files finds a file by its name";
    if place == parent {
        format!("{missing}. {hint}")
    } else {
        format!("{missing}: there is no directory `{}`. {hint}", visible_path(parent))
    }
}
