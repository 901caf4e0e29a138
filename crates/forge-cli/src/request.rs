//! What is meant by what was typed: flags become settings, a task becomes text.

use crate::args::{
    ChatArgs, ExecutorFlags, LimitFlags, ModelFlags, NetworkFlags, OutputFormat, RunArgs, SandboxFlags,
};
use crate::error::CliError;
use crate::logging::LogTarget;
use crate::session::{ConfigOverrides, Session};
use crate::ui::StdoutFormat;
use forge_config::FlagSetting;
use forge_types::{Money, RunLimits};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Bytes of a task file that are read; a task is far shorter, and a device never ends.
const MAX_TASK_FILE_BYTES: u64 = 4 << 20;

/// A run to be made.
#[derive(Clone, Debug)]
pub(crate) struct RunRequest {
    pub(crate) task: String,
    /// The first is the run's own; there is always one.
    pub(crate) repos: Vec<PathBuf>,
    pub(crate) overlay: ConfigOverrides,
    pub(crate) output: RunOutput,
}

/// What comes out of a run beside its changes.
#[derive(Clone, Debug)]
pub(crate) struct RunOutput {
    pub(crate) format: OutputFormat,
    pub(crate) report: Option<PathBuf>,
    /// Where the log goes, which decides what else may stand on the terminal.
    pub(crate) log: LogTarget,
}

impl RunOutput {
    /// The same, with the log where it was found to be.
    pub(crate) const fn with_log(mut self, log: LogTarget) -> Self {
        self.log = log;
        self
    }

    /// What stands on stdout, by the flag of its own or `--json`.
    pub(crate) fn new(
        session: &Session,
        format: Option<OutputFormat>,
        report: Option<PathBuf>,
    ) -> Result<Self, CliError> {
        let by_json =
            if session.ui.format == StdoutFormat::Json { OutputFormat::Json } else { OutputFormat::Text };
        let report = report.map(|path| session.cwd.join(path));
        // Better said before the work than after it.
        if let Some(path) =
            report.as_ref().filter(|path| !path.parent().is_some_and(Path::is_dir) || path.is_dir())
        {
            return Err(CliError::usage(format!("a report can't be written to {}", path.display()))
                .with_hint("name a file in a folder that exists with --report-file"));
        }
        Ok(Self { format: format.unwrap_or(by_json), report, log: LogTarget::Elsewhere })
    }
}

impl RunRequest {
    /// What `forge run …` means.
    pub(crate) fn new(session: &Session, run: RunArgs) -> Result<Self, CliError> {
        let task = resolve_task(session, run.words.or(run.task), run.task_file.as_deref())?;
        let mut flags = Vec::new();
        push_model_flags(&run.model, &mut flags);
        push_limit_flags(&run.limits, &mut flags);
        push_sandbox_flags(&run.sandbox, &mut flags);
        push_executor_flags(&run.executor, &mut flags);
        push_flag(
            &mut flags,
            "workspace.mode",
            "--workspace",
            run.workspace.map(crate::args::WorkspaceModeArg::name),
        );
        push_flag(&mut flags, "workspace.apply", "--apply", run.apply.map(crate::args::ApplyPolicyArg::name));
        Ok(Self {
            task,
            repos: resolve_repos(session, &run.repo),
            overlay: ConfigOverrides { flags, env_file: run.env },
            output: RunOutput::new(session, run.output_format, run.report_file)?,
        })
    }
}

/// The repositories that are named, or the current folder.
pub(crate) fn resolve_repos(session: &Session, named: &[PathBuf]) -> Vec<PathBuf> {
    match named {
        [] => vec![session.cwd.clone()],
        named => named.iter().map(|path| session.cwd.join(path)).collect(),
    }
}

fn resolve_task(session: &Session, words: Option<String>, file: Option<&Path>) -> Result<String, CliError> {
    match (words, file) {
        (Some(task), _) => Ok(task),
        (None, Some(path)) if path == Path::new("-") => read_task(std::io::stdin().lock())
            .map_err(|e| CliError::file_error("the task from", Path::new("stdin"), &e)),
        (None, Some(path)) => {
            let path = session.cwd.join(path);
            let text = std::fs::File::open(&path).and_then(read_task);
            text.map_err(|error| {
                let mut fault = CliError::file_error("the task can't be read from", &path, &error);
                fault.kind = crate::error::CliErrorKind::Usage;
                fault.with_hint("name a text file with --task-file, or give the task as words")
            })
        }
        (None, None) => Err(CliError::usage("there is no task")
            .with_hint("say what is to be done: forge run \"Fix the failing test\"")
            .with_hint("or read it from a file: forge run --task-file task.md")),
    }
}

fn read_task(source: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(MAX_TASK_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn push_flag(flags: &mut Vec<FlagSetting>, key: &str, name: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        flags.push(FlagSetting { key: key.to_owned(), value: value.to_string(), name: name.to_owned() });
    }
}

/// What `forge chat …` means.
pub(crate) fn chat_flags(chat: &ChatArgs) -> Vec<FlagSetting> {
    let mut flags = Vec::new();
    push_model_flags(&chat.model, &mut flags);
    push_limit_flags(&chat.limits, &mut flags);
    push_sandbox_flags(&chat.sandbox, &mut flags);
    push_executor_flags(&chat.executor, &mut flags);
    flags
}

fn push_executor_flags(executor: &ExecutorFlags, flags: &mut Vec<FlagSetting>) {
    push_flag(flags, "executor", "--executor", executor.executor.map(|name| name.name()));
    push_flag(flags, "tools.mock", "--mock-tools", executor.mock_tools.then_some(true));
}

/// Which model, as flags.
pub(crate) fn push_model_flags(model: &ModelFlags, flags: &mut Vec<FlagSetting>) {
    push_flag(flags, "model.provider", "--provider", model.provider.as_ref());
    push_flag(flags, "model.name", "--model", model.model.as_ref());
    push_flag(flags, "model.base_url", "--base-url", model.base_url.as_ref());
}

fn push_limit_flags(limits: &LimitFlags, flags: &mut Vec<FlagSetting>) {
    push_flag(flags, "agent.max_iterations", "--max-iterations", limits.max_iterations);
    push_flag(flags, "agent.max_tokens_per_run", "--max-tokens", limits.max_tokens);
    push_flag(flags, "agent.max_cost_usd", "--max-cost", limits.max_cost);
}

fn push_sandbox_flags(sandbox: &SandboxFlags, flags: &mut Vec<FlagSetting>) {
    push_flag(flags, "sandbox.backend", "--sandbox-backend", sandbox.sandbox_backend.as_ref());
    push_flag(flags, "sandbox.command_timeout_seconds", "--command-timeout", sandbox.command_timeout);
    push_flag(flags, "sandbox.image", "--sandbox-image", sandbox.sandbox_image.as_ref());
    push_network_flags(&sandbox.network, flags);
    push_flag(flags, "store.durable", "--no-durable", sandbox.no_durable.then_some(false));
}

/// What a box reaches: no network is no network, whatever list the configuration holds.
pub(crate) fn push_network_flags(network: &NetworkFlags, flags: &mut Vec<FlagSetting>) {
    let none = network.no_network || network.network.as_deref() == Some("none");
    let name = if network.no_network { "--no-network" } else { "--network" };
    if none {
        push_flag(flags, "sandbox.network_enabled", name, Some(false));
    } else if network.network.is_some() {
        push_flag(flags, "sandbox.network_enabled", name, Some(true));
    }
    if !network.allow_host.is_empty() {
        push_flag(flags, "egress.mode", "--allow-host", Some("allowlist"));
        push_flag(flags, "egress.allowed_domains", "--allow-host", Some(network.allow_host.join(",")));
    } else if none {
        push_flag(flags, "egress.mode", name, Some("deny-all"));
    }
}

/// The limits of a run that goes on: those it had, with what was typed in their place.
pub(crate) fn override_limits(typed: &LimitFlags, had: RunLimits) -> Result<Option<RunLimits>, CliError> {
    let mut limits = had;
    if let Some(max) = typed.max_iterations {
        limits.max_iterations = max;
    }
    if let Some(max) = typed.max_tokens {
        limits.max_tokens = max;
    }
    if let Some(max) = typed.max_cost {
        if !max.is_finite() || max <= 0.0 {
            return Err(CliError::usage(format!("--max-cost: {max} is no amount of dollars")));
        }
        limits.max_cost = Money::from_usd(max);
    }
    Ok((limits != had).then_some(limits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_typed_changes_a_limit() {
        let had = RunLimits::default();
        assert_eq!(override_limits(&LimitFlags::default(), had).unwrap(), None);
        let typed = LimitFlags { max_iterations: Some(99), ..LimitFlags::default() };
        let new = override_limits(&typed, had).unwrap().unwrap();
        assert_eq!((new.max_iterations, new.max_tokens), (99, had.max_tokens));
        let typed = LimitFlags { max_cost: Some(f64::NAN), ..LimitFlags::default() };
        assert!(override_limits(&typed, had).is_err());
    }

    #[test]
    fn flags_carry_their_own_name_for_error_messages() {
        let mut flags = Vec::new();
        let no_network = NetworkFlags { no_network: true, ..NetworkFlags::default() };
        push_limit_flags(&LimitFlags { max_cost: Some(0.5), ..LimitFlags::default() }, &mut flags);
        push_sandbox_flags(&SandboxFlags { network: no_network, ..SandboxFlags::default() }, &mut flags);
        let shown: Vec<_> = flags.iter().map(|f| format!("{} {}={}", f.name, f.key, f.value)).collect();
        assert_eq!(
            shown,
            [
                "--max-cost agent.max_cost_usd=0.5",
                "--no-network sandbox.network_enabled=false",
                "--no-network egress.mode=deny-all"
            ]
        );
    }
}
