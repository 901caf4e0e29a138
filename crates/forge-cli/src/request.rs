//! Interpretation of arguments: flags become settings, a task becomes text.

use crate::args::{
    ChatArgs, ExecutorFlags, LimitFlags, ModelFlags, NetworkFlags, OutputFormat, RunArgs, SandboxFlags,
};
use crate::error::{CliError, io_error_text};
use crate::logging::LogTarget;
use crate::session::{ConfigOverrides, Session};
use forge_config::FlagSetting;
use forge_config::schema::find_key;
use forge_files::UserFile;
use forge_terminal::StdoutFormat;
use forge_types::{Money, RunLimits};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Maximum number of bytes read from a task file. A task is far shorter, and a device never ends.
const MAX_TASK_FILE_BYTES: u64 = 4 << 20;

/// A run to create.
#[derive(Clone, Debug)]
pub(crate) struct RunRequest {
    pub(crate) task: String,
    /// Repositories, at least one; the first is the run's own.
    pub(crate) repos: Vec<PathBuf>,
    pub(crate) overlay: ConfigOverrides,
    pub(crate) output: RunOutput,
}

/// Output of a run other than its changes.
#[derive(Clone, Debug)]
pub(crate) struct RunOutput {
    pub(crate) format: OutputFormat,
    pub(crate) report: Option<UserFile>,
    /// Destination of the log, which decides what else the terminal may show.
    pub(crate) log: LogTarget,
}

impl RunOutput {
    /// Returns the same output with this destination of the log.
    pub(crate) const fn with_log(mut self, log: LogTarget) -> Self {
        self.log = log;
        self
    }

    /// Chooses the format by `--output-format` or `--json`, and checks the path of the report.
    pub(crate) fn new(
        session: &Session,
        repos: &[PathBuf],
        format: Option<OutputFormat>,
        report: Option<PathBuf>,
    ) -> Result<Self, CliError> {
        let by_json =
            if session.ui.format == StdoutFormat::Json { OutputFormat::Json } else { OutputFormat::Text };
        let report = report.map(|path| session.user_files(repos).locate(&session.cwd.join(path)));
        // Fail before the work, not after it.
        if let Some(error) = report.as_ref().and_then(|file| file.check_writable().err()) {
            let path = report.as_ref().map(UserFile::path).unwrap_or_default();
            let message = format!("cannot write a report to {}: {}", path.display(), error.reason());
            return Err(
                CliError::usage(message).with_hint("name a file in an existing directory with --report-file")
            );
        }
        Ok(Self { format: format.unwrap_or(by_json), report, log: LogTarget::Elsewhere })
    }
}

impl RunRequest {
    /// Interprets the arguments of `forge run`.
    pub(crate) fn new(session: &Session, run: RunArgs) -> Result<Self, CliError> {
        let repos = resolve_repos(session, &run.repo);
        let task = resolve_task(session, &repos, run.words.or(run.task), run.task_file.as_deref())?;
        let mut flags = Vec::new();
        push_model_flags(&run.model, &mut flags);
        push_limit_flags(&run.limits, &mut flags);
        push_sandbox_flags(&run.sandbox, &mut flags);
        push_executor_flags(&run.executor, &mut flags);
        push_setting(&mut flags, "workspace.mode", run.workspace);
        push_setting(&mut flags, "workspace.apply", run.apply);
        Ok(Self {
            task,
            overlay: ConfigOverrides { flags, env_file: run.env },
            output: RunOutput::new(session, &repos, run.output_format, run.report_file)?,
            repos,
        })
    }
}

/// Returns the named repositories, or the current directory.
pub(crate) fn resolve_repos(session: &Session, named: &[PathBuf]) -> Vec<PathBuf> {
    match named {
        [] => vec![session.cwd.clone()],
        named => named.iter().map(|path| session.cwd.join(path)).collect(),
    }
}

fn resolve_task(
    session: &Session,
    repos: &[PathBuf],
    words: Option<String>,
    file: Option<&Path>,
) -> Result<String, CliError> {
    match (words, file) {
        (Some(task), _) => Ok(task),
        (None, Some(path)) if path == Path::new("-") => read_task(std::io::stdin().lock())
            .map_err(|e| CliError::file_error("cannot read the task from", Path::new("stdin"), &e)),
        (None, Some(path)) => {
            let path = session.cwd.join(path);
            let text = if is_open_file(&path) {
                std::fs::File::open(&path).and_then(read_task).map_err(|error| io_error_text(&error))
            } else {
                let files = session.user_files(repos);
                files.read_text(&path, MAX_TASK_FILE_BYTES).map_err(|error| error.reason())
            };
            text.map_err(|why| {
                CliError::usage(format!("cannot read the task from {}: {why}", path.display()))
                    .with_hint("name a text file with --task-file, or give the task as an argument")
                    .with_hint(
                        "to read it from another program, use `--task-file -` or `--task-file <(program)`",
                    )
            })
        }
        (None, None) => Err(CliError::usage("no task given")
            .with_hint("name the task: forge run \"Fix the failing test\"")
            .with_hint("or read it from a file: forge run --task-file task.md")),
    }
}

/// Returns whether a path names a file that this process has open, as the shell's `<(program)` and `/dev/stdin` do: the
/// user opened it, so it may be a pipe.
fn is_open_file(path: &Path) -> bool {
    let is_number = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let text = path.to_str().unwrap_or_default();
    let number = text.strip_prefix("/dev/fd/").or_else(|| text.strip_prefix("/proc/self/fd/"));
    text == "/dev/stdin" || number.is_some_and(is_number)
}

fn read_task(source: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(MAX_TASK_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Adds a setting under the name of the flag that sets its key in `forge run` or, if that has none, elsewhere.
pub(crate) fn push_setting(flags: &mut Vec<FlagSetting>, key: &str, value: Option<impl ToString>) {
    let name = find_key(key).and_then(|key| key.flags.first().copied()).unwrap_or_default();
    push_flag(flags, key, name, value);
}

/// Adds a setting under the name of the flag that was typed.
pub(crate) fn push_flag(flags: &mut Vec<FlagSetting>, key: &str, name: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        flags.push(FlagSetting { key: key.to_owned(), value: value.to_string(), name: name.to_owned() });
    }
}

/// Converts the arguments of `forge chat` to settings.
pub(crate) fn chat_flags(chat: &ChatArgs) -> Vec<FlagSetting> {
    let mut flags = Vec::new();
    push_model_flags(&chat.model, &mut flags);
    push_limit_flags(&chat.limits, &mut flags);
    push_sandbox_flags(&chat.sandbox, &mut flags);
    push_executor_flags(&chat.executor, &mut flags);
    flags
}

fn push_executor_flags(executor: &ExecutorFlags, flags: &mut Vec<FlagSetting>) {
    push_setting(flags, "executor", executor.executor.as_ref());
    push_setting(flags, "tools.mock", executor.mock_tools.then_some(true));
}

/// Adds the settings that select the model.
pub(crate) fn push_model_flags(model: &ModelFlags, flags: &mut Vec<FlagSetting>) {
    push_setting(flags, "model.provider", model.provider.as_ref());
    push_setting(flags, "model.name", model.model.as_ref());
    push_setting(flags, "model.base_url", model.base_url.as_ref());
}

fn push_limit_flags(limits: &LimitFlags, flags: &mut Vec<FlagSetting>) {
    push_setting(flags, "agent.max_iterations", limits.max_iterations);
    push_setting(flags, "agent.max_tokens_per_run", limits.max_tokens);
    push_setting(flags, "agent.max_cost_usd", limits.max_cost);
}

fn push_sandbox_flags(sandbox: &SandboxFlags, flags: &mut Vec<FlagSetting>) {
    push_setting(flags, "sandbox.backend", sandbox.sandbox_backend.as_ref());
    push_setting(flags, "sandbox.command_timeout_seconds", sandbox.command_timeout);
    push_setting(flags, "sandbox.image", sandbox.sandbox_image.as_ref());
    push_network_flags(&sandbox.network, flags);
    push_setting(flags, "store.durable", sandbox.no_durable.then_some(false));
}

/// Adds the settings for network access. No network means none, whatever allowlist the configuration holds.
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

/// Returns the limits of a resumed run: its previous ones, overridden by flags. `None` if nothing changes.
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
            return Err(CliError::usage(format!(
                "--max-cost: expected an amount in dollars above 0, got {max}"
            )));
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
    fn every_flag_of_the_schema_is_an_argument() {
        fn add_arguments(command: &clap::Command, found: &mut Vec<String>) {
            found
                .extend(command.get_arguments().filter_map(|a| a.get_long()).map(|long| format!("--{long}")));
            command.get_subcommands().for_each(|command| add_arguments(command, found));
        }
        let mut arguments = Vec::new();
        add_arguments(&<crate::args::Cli as clap::CommandFactory>::command(), &mut arguments);
        for key in forge_config::schema::KEYS {
            for flag in key.flags {
                assert!(arguments.iter().any(|known| known == flag), "{}: {flag}", key.path);
            }
        }
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
