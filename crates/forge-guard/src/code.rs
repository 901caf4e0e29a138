//! Static check of generated programs for risky operations, before they run (SBX-8).
//!
//! The text is split into tokens, so that comments and string contents are not mistaken for code, and names are
//! followed through imports. A program can hide its behaviour from any such check: this is a hint for the record, or a
//! rule against honest mistakes, and never the isolation.

mod javascript;
mod python;
mod shell;
mod tokens;

#[cfg(test)]
mod tests;

use forge_types::ErrorClass;
use std::fmt;
use std::str::FromStr;

/// Maximum number of bytes of a program that are checked.
const MAX_CODE_BYTES: usize = 1 << 20;
/// Maximum number of warnings returned.
const MAX_WARNINGS: usize = 100;

/// The language of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeLanguage {
    /// Python 3.
    Python,
    /// JavaScript and TypeScript.
    JavaScript,
    /// POSIX sh and bash.
    Shell,
}

impl CodeLanguage {
    /// Returns the language with this name or file extension.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "python" | "python3" | "py" => Some(Self::Python),
            "javascript" | "js" | "mjs" | "cjs" | "node" | "typescript" | "ts" => Some(Self::JavaScript),
            "shell" | "sh" | "bash" => Some(Self::Shell),
            _ => None,
        }
    }
}

/// A warning about a risky operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaticWarning {
    /// The line number, from 1.
    pub line: u32,
    /// The rule: `process`, `eval`, `dynamic-import`, `native`, `system-files`, `network`, `unpickle`, `privilege` or
    /// `length`.
    pub rule: &'static str,
    /// A description of the operation.
    pub message: String,
}

impl fmt::Display for StaticWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {} ({})", self.line, self.message, self.rule)
    }
}

/// The reaction to warnings: `sandbox.static_check`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaticCheckPolicy {
    /// Record the warnings and run the program.
    #[default]
    Warn,
    /// Refuse a program with any warning.
    Deny,
    /// Skip the check.
    Off,
}

impl StaticCheckPolicy {
    /// Returns the name used in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Deny => "deny",
            Self::Off => "off",
        }
    }

    /// Returns the warnings about a program that may run.
    ///
    /// # Errors
    /// [`CodeDenied`] if there are warnings and the policy denies them.
    pub fn check_code(self, language: CodeLanguage, code: &str) -> Result<Vec<StaticWarning>, CodeDenied> {
        match self {
            Self::Off => Ok(Vec::new()),
            Self::Warn => Ok(collect_warnings(language, code)),
            Self::Deny => match collect_warnings(language, code) {
                none if none.is_empty() => Ok(none),
                warnings => Err(CodeDenied { warnings }),
            },
        }
    }
}

/// A name other than `warn`, `deny` and `off`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of warn, deny and off")]
pub struct UnknownCheck(pub String);

impl FromStr for StaticCheckPolicy {
    type Err = UnknownCheck;

    fn from_str(name: &str) -> Result<Self, UnknownCheck> {
        [Self::Warn, Self::Deny, Self::Off]
            .into_iter()
            .find(|check| check.name() == name)
            .ok_or_else(|| UnknownCheck(name.to_owned()))
    }
}

/// The refusal of a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the program was not run (sandbox.static_check = deny): {}", join_warnings(warnings))]
pub struct CodeDenied {
    /// The warnings, in order of lines.
    pub warnings: Vec<StaticWarning>,
}

impl CodeDenied {
    /// Returns the class of this error, which decides how the caller handles it.
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Denied
    }
}

fn join_warnings(warnings: &[StaticWarning]) -> String {
    let shown: Vec<String> = warnings.iter().take(5).map(ToString::to_string).collect();
    let more = if warnings.len() > 5 { format!("; and {} more", warnings.len() - 5) } else { String::new() };
    shown.join("; ") + &more
}

/// Returns the warnings about a program in order of lines, at most one per rule and line.
pub fn collect_warnings(language: CodeLanguage, code: &str) -> Vec<StaticWarning> {
    let end = (0..=code.len().min(MAX_CODE_BYTES)).rev().find(|&at| code.is_char_boundary(at)).unwrap_or(0);
    let looked_at = &code[..end];
    let mut found = match language {
        CodeLanguage::Python => python::scan_python(looked_at),
        CodeLanguage::JavaScript => javascript::scan_javascript(looked_at),
        CodeLanguage::Shell => shell::scan_shell(looked_at),
    };
    found.sort();
    found.dedup_by(|a, b| (a.line, a.rule) == (b.line, b.rule));
    found.truncate(MAX_WARNINGS);
    if end < code.len() {
        let line = u32::try_from(looked_at.lines().count()).unwrap_or(u32::MAX);
        let message = format!("only the first {} MB were checked", MAX_CODE_BYTES >> 20);
        found.push(StaticWarning { line, rule: "length", message });
    }
    found
}

/// Returns a warning if the text is the path of a system file.
fn system_file(line: u32, text: &str) -> Option<StaticWarning> {
    let path = text.strip_prefix("file://").unwrap_or(text);
    let folder = ["/etc", "/proc", "/sys"].into_iter().find(|folder| {
        path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })?;
    Some(StaticWarning { line, rule: "system-files", message: format!("names a file in {folder}") })
}
