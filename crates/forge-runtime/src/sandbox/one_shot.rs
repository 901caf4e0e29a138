//! Generated programs: a static check, then a fresh sandbox for each.

use crate::{Error, Project};
use forge_config::StaticCheckMode;
use forge_policy::guard::code;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// A generated program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedProgram {
    /// The source code.
    pub code: String,
    /// The language: `py`, `python`, `js`, `mjs`, `node` or `javascript`.
    pub language: String,
    /// The time limit; defaults to that of the settings.
    pub timeout: Option<Duration>,
}

/// The outcome of a generated program (SBX-7).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OneShotReport {
    /// Exit code; 124 after a timeout.
    pub exit_code: i32,
    /// Standard output, at most 512 KB.
    pub stdout: String,
    /// Standard error, at most 512 KB.
    pub stderr: String,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Peak memory use in MiB.
    pub memory_mb: u64,
    /// Whether the time limit was reached.
    pub timed_out: bool,
    /// Findings of the static check.
    pub warnings: Vec<CodeWarning>,
}

/// A finding of the static check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeWarning {
    /// The line, counted from 1.
    pub line: u32,
    /// The rule, for filters.
    pub rule: String,
    /// The finding.
    pub message: String,
}

impl Project {
    /// Runs a generated program in a fresh sandbox of its own.
    ///
    /// # Errors
    /// If the language is unknown, the static check denies the program, or the sandbox can't be opened.
    pub async fn run_one_shot(&self, once: GeneratedProgram) -> Result<OneShotReport, Error> {
        let loaded = self.config();
        let settings = &loaded.settings.sandbox;
        let language = parse_language(&once.language)?;
        let check = match settings.static_check {
            StaticCheckMode::Off => code::StaticCheckPolicy::Off,
            StaticCheckMode::Warn => code::StaticCheckPolicy::Warn,
            StaticCheckMode::Deny => code::StaticCheckPolicy::Deny,
        };
        let found =
            check.check_code(language, &once.code).map_err(|e| Error::Invalid { what: e.to_string() })?;
        let spec = crate::sandbox::base_spec(loaded, Path::new("/"), &[])?;
        let longest = Duration::from_secs(settings.exec_timeout_seconds);
        let program = forge_sandbox::OneShotSpec {
            network: spec.network,
            timeout: once.timeout.unwrap_or(longest).min(longest),
            memory_bytes: settings.exec_memory_mb << 20,
            image: spec.image,
            env: spec.env,
            read_only: spec.read_only,
            ..forge_sandbox::OneShotSpec::new(
                match language {
                    code::CodeLanguage::Python => forge_sandbox::ProgramLanguage::Python,
                    _ => forge_sandbox::ProgramLanguage::Node,
                },
                once.code,
            )
        };
        let ran = self.backends().run_one_shot(program).await?;
        let text =
            |kept: &forge_ports::sandbox::CapturedOutput| String::from_utf8_lossy(&kept.bytes).into_owned();
        Ok(OneShotReport {
            exit_code: ran.exit_code,
            stdout: text(&ran.stdout),
            stderr: text(&ran.stderr),
            duration_ms: ran.duration_ms,
            memory_mb: ran.memory_mb,
            timed_out: ran.timed_out,
            warnings: found
                .into_iter()
                .map(|warning| CodeWarning {
                    line: warning.line,
                    rule: warning.rule.to_owned(),
                    message: warning.message,
                })
                .collect(),
        })
    }
}

fn parse_language(name: &str) -> Result<code::CodeLanguage, Error> {
    match name.to_ascii_lowercase().as_str() {
        "py" | "python" => Ok(code::CodeLanguage::Python),
        "js" | "mjs" | "cjs" | "node" | "javascript" => Ok(code::CodeLanguage::JavaScript),
        other => {
            let what = format!("programs in `{other}` can't be executed: use a .py or .js file");
            Err(Error::Invalid { what })
        }
    }
}
