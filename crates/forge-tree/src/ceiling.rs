//! The ceilings of a workspace, and how an exceeded one is described.

use std::fmt;

/// A ceiling of [`WorkspaceLimits`](forge_types::WorkspaceLimits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkspaceCeiling {
    /// Files, directories and links.
    Paths,
    /// Paths that differ from the baseline.
    ChangedPaths,
    /// Bytes of names.
    PathBytes,
    /// Depth of nested directories.
    Depth,
    /// Bytes of a single file.
    FileBytes,
}

impl WorkspaceCeiling {
    /// Returns the setting that configures the ceiling.
    pub const fn setting_name(self) -> &'static str {
        match self {
            Self::Paths => "workspace.max_paths",
            Self::ChangedPaths => "workspace.max_changed_paths",
            Self::PathBytes => "workspace.max_path_bytes",
            Self::Depth => "workspace.max_depth",
            Self::FileBytes => "workspace.max_file_size",
        }
    }
}

/// A description of an exceeded ceiling, with its limit.
pub struct CeilingExcess(pub WorkspaceCeiling, pub u64);

impl fmt::Display for CeilingExcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = group_thousands(self.1);
        match self.0 {
            WorkspaceCeiling::Paths => write!(f, "holds more than {most} files and directories"),
            WorkspaceCeiling::ChangedPaths => {
                write!(f, "has more than {most} changed paths")
            }
            WorkspaceCeiling::PathBytes => {
                write!(f, "has file names and link targets of more than {most} bytes in total")
            }
            WorkspaceCeiling::Depth => write!(f, "has directories nested more than {most} deep"),
            WorkspaceCeiling::FileBytes => write!(f, "is larger than {most} bytes, including holes"),
        }
    }
}

/// Formats a number with thousands separators.
fn group_thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
