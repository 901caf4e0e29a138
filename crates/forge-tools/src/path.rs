//! Paths as models write them (TOOL-24).
//!
//! Only the text is checked here. The workspace checks again, on the opened file, that it really is in the workspace.

use crate::arguments::bad_arguments;
use crate::tool_error::ToolError;
use forge_types::{ErrorKind, ToolOutput};

/// Path of the workspace in the sandbox.
const WORKSPACE_ROOT: &str = "/workspace";

/// Returns the path relative to the workspace, without `.`, `..` and doubled slashes; empty for the workspace itself.
pub(crate) fn relative_path(path: &str) -> Result<String, ToolError> {
    if path.contains('\0') {
        return Err(bad_arguments("the path contains a NUL character"));
    }
    let inside = match path.strip_prefix(WORKSPACE_ROOT) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ if path.starts_with('/') => return Err(outside_error(path, "is outside the workspace")),
        _ => path,
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in inside.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(outside_error(path, "leads out of the workspace"));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Returns the relative path of a file, like [`relative_path`]; refuses the workspace itself.
pub(crate) fn file_path(path: &str) -> Result<String, ToolError> {
    match relative_path(path)? {
        inside if inside.is_empty() => {
            Err(bad_arguments(format!("`{path}` names no file. Give the path of a file")))
        }
        inside => Ok(inside),
    }
}

/// Returns the relative path of a file to write, like [`file_path`]; refuses git's own files.
pub(crate) fn writable_path(path: &str) -> Result<String, ToolError> {
    let inside = file_path(path)?;
    if inside.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
        let text = format!("`{path}` belongs to git. Change it with git commands in run_shell");
        return Err(ToolError::Answer(ToolOutput::failed(ErrorKind::Denied, text)));
    }
    Ok(inside)
}

fn outside_error(path: &str, why: &str) -> ToolError {
    let text = format!(
        "`{}` {why}. Use a path relative to {WORKSPACE_ROOT}, such as `src/main.rs`",
        visible_path(path)
    );
    ToolError::Answer(ToolOutput::failed(ErrorKind::Denied, text))
}

/// Formats a path for an answer: on one line, without control characters.
pub(crate) fn visible_path(path: &str) -> String {
    if path.is_empty() { "/workspace".to_owned() } else { crate::terminal::escape_controls(path) }
}

/// Returns a glob that matches exactly this text.
pub(crate) fn literal_glob(text: &str) -> String {
    let mut glob = String::with_capacity(text.len());
    for c in text.chars() {
        if "*?[]{}\\!".contains(c) {
            glob.extend(['[', c, ']']);
        } else {
            glob.push(c);
        }
    }
    glob
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_cut_to_the_workspace_or_refused() {
        let ok = |path: &str| relative_path(path).ok();
        for (path, wanted) in [
            ("src/main.rs", "src/main.rs"),
            ("./src//a/../main.rs", "src/main.rs"),
            ("/workspace", ""),
            ("/workspace/src/", "src"),
            (".", ""),
            ("", ""),
            ("a b/ü", "a b/ü"),
            ("...", "..."),
        ] {
            assert_eq!(ok(path).as_deref(), Some(wanted), "{path}");
        }
        for path in
            ["/etc/passwd", "/", "..", "a/../..", "/workspace/..", "/workspacex", "a\0b", "../workspace"]
        {
            assert_eq!(ok(path), None, "{path}");
        }
        assert!(writable_path("sub/.GIT/hooks/x").is_err() && writable_path(".gitignore").is_ok());
        assert!(file_path("/workspace/").is_err());
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_workspace(path in "[a./\\\\ ~]{0,30}|\\PC{0,30}") {
            if let Ok(inside) = relative_path(&path) {
                prop_assert!(!inside.starts_with('/') && !inside.contains('\0'));
                prop_assert!(inside.split('/').all(|part| part != ".."));
                let again = relative_path(&inside).ok();
                prop_assert_eq!(again, Some(inside));
            }
        }
    }
}
