//! Command-line arguments. Only this crate sees them.

mod chat;
mod choices;
mod routing;
mod secret;
mod workspace;

pub(crate) use chat::{ChatArgs, ExecutorFlags};
use choices::choices_of;
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use forge_config::ProjectLanguage;
pub(crate) use routing::{
    BudgetAction, BudgetArgs, ModelsAction, ModelsArgs, PricesAction, PricesArgs, RouteAction, RouteArgs,
    RouteExplainArgs, RoutingAction, RoutingArgs, WeightRowArgs,
};
pub(crate) use secret::{LoginArgs, LogoutArgs, SecretAction, SecretArgs};
use std::path::PathBuf;
use workspace::workspace_modes;
pub(crate) use workspace::{
    ApplyArgs, DiffArgs, GcArgs, ImageKind, NetworkFlags, SandboxAction, SandboxArgs, SandboxBuildArgs,
    SandboxExecArgs, SandboxVerifyArgs, UndoArgs,
};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "forge",
    version,
    about = "A coding agent: sandboxed, journalled, resumable",
    after_help = "Exit codes: 0 completed, 1 failed, 2 wrong usage or configuration, 3 limit reached, \
                  4 cancelled (130: by a signal), 5 waiting.",
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalFlags,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// Global flags.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GlobalFlags {
    /// Use this configuration file instead of the project's forge.toml or forge.yaml
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Print only JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Verbose output (-vv: debug logs)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print only errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Disable colours
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Run the agent on a task
    Run(RunArgs),
    /// Chat with a model about a repository
    Chat(ChatArgs),
    /// Show a run, or the project and its latest runs
    Status(StatusArgs),
    /// List runs
    List(ListArgs),
    /// Show the events of a run
    Logs(LogsArgs),
    /// Resume a run
    Resume(ResumeArgs),
    /// Cancel a run, from any terminal
    Cancel(RunIdArg),
    /// Show the changes of a run or of one step
    Diff(DiffArgs),
    /// Restore a run's workspace to an earlier step
    Undo(UndoArgs),
    /// Reverse the last undo
    Redo(RunIdArg),
    /// Apply a run's result to its repository
    Apply(ApplyArgs),
    /// Remove old snapshots
    Gc(GcArgs),
    /// Show, check and change the configuration
    Config(ConfigArgs),
    /// Check the requirements of runs: sandbox, keys, store, tools
    Doctor,
    /// Show providers: keys, availability, cooldowns, context windows, prices
    Models(ModelsArgs),
    /// Explain which model a task would use
    Route(RouteArgs),
    /// Show and change the weights for choosing models
    Routing(RoutingArgs),
    /// Show and update model prices
    Prices(PricesArgs),
    /// Show spending per day and per run; raise a run's budget
    Budget(BudgetArgs),
    /// Create a configuration for a project
    Init(InitArgs),
    /// Check a project's configuration
    Validate(ValidateArgs),
    /// Review and trust this repository's configuration
    Trust(TrustArgs),
    /// Manage keys in an encrypted file
    Secret(SecretArgs),
    /// Log in to a provider with your browser, instead of a key
    Login(LoginArgs),
    /// Log out of a provider
    Logout(LogoutArgs),
    /// Show the tools available to a model
    Tool(ToolArgs),
    /// Run commands in the sandbox; verify it; build its images
    Sandbox(SandboxArgs),
    /// Fix a small project with a scripted model, without a key
    Demo(DemoArgs),
    /// Print a shell completion script
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

/// `forge run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Task, in plain language
    #[arg(value_name = "TASK")]
    pub(crate) words: Option<String>,
    /// Same as TASK
    #[arg(long, value_name = "TASK", conflicts_with = "words")]
    pub(crate) task: Option<String>,
    /// Read the task from a file, or from stdin with `-`
    #[arg(long, value_name = "PATH", conflicts_with_all = ["words", "task"])]
    pub(crate) task_file: Option<PathBuf>,
    /// Repository to work on (default: current directory); repeatable
    #[arg(long, value_name = "PATH")]
    pub(crate) repo: Vec<PathBuf>,
    /// Workspace mode
    #[arg(long, value_name = "MODE", value_parser = workspace_modes())]
    pub(crate) workspace: Option<String>,
    /// When to apply the result
    #[arg(long, value_name = "WHEN", value_parser = choices_of("workspace.apply", &[
        "When the run completes, unless the same paths changed in the repository",
        "After confirmation",
        "Only by `forge apply`",
    ]))]
    pub(crate) apply: Option<String>,
    #[command(flatten)]
    pub(crate) executor: ExecutorFlags,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) sandbox: SandboxFlags,
    /// Read environment variables that are not set from this file
    #[arg(long, value_name = "PATH")]
    pub(crate) env: Option<PathBuf>,
    /// Write a JSON summary to this file
    #[arg(long, value_name = "PATH")]
    pub(crate) report_file: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) output_format: Option<OutputFormat>,
}

/// Flags that select the model.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ModelFlags {
    /// Provider: openai, anthropic, gemini, openrouter, ollama, llama_cpp, custom, scripted
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Model name, as used by the provider
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Base URL of the provider's API
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
}

/// Limits of a run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LimitFlags {
    /// Maximum number of model turns
    #[arg(long, value_name = "N")]
    pub(crate) max_iterations: Option<u32>,
    /// Maximum number of tokens
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u64>,
    /// Maximum cost in dollars
    #[arg(long, value_name = "USD")]
    pub(crate) max_cost: Option<f64>,
}

/// Sandbox of a run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SandboxFlags {
    /// Sandbox backend: auto, native, docker, podman, process
    #[arg(long, value_name = "NAME")]
    pub(crate) sandbox_backend: Option<String>,
    /// Image that provides the sandbox's root file system
    #[arg(long, value_name = "NAME")]
    pub(crate) sandbox_image: Option<String>,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    /// Keep the journal in memory only; the run can't be resumed or inspected later
    #[arg(long)]
    pub(crate) no_durable: bool,
    /// Timeout of a command in seconds, unless the model names one
    #[arg(long, value_name = "SECONDS")]
    pub(crate) command_timeout: Option<u64>,
}

/// Output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Human-readable text.
    #[default]
    Text,
    /// One JSON document at the end.
    Json,
    /// One JSON event per line, as it happens.
    Jsonl,
}

/// Id of a run.
#[derive(Debug, Args)]
pub(crate) struct RunIdArg {
    /// Run id or unique prefix; `last` is the newest run
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `forge status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Run id or unique prefix, or `last` (default: the project and its latest runs)
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
}

/// `forge list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only runs with this status
    #[arg(long, value_name = "STATUS", value_parser = run_statuses())]
    pub(crate) status: Option<String>,
    /// Maximum number of runs; 0 means all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Only runs on this repository
    #[arg(long, value_name = "PATH")]
    pub(crate) repo: Option<PathBuf>,
}

fn run_statuses() -> clap::builder::PossibleValuesParser {
    forge_types::RunStatus::ALL.map(forge_types::RunStatus::name).into()
}

/// `forge logs`
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Run id or unique prefix; `last` is the newest run
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Follow the run until it ends
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `forge resume`
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Run id or unique prefix; `last` is the newest run
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    /// Read environment variables that are not set from this file
    #[arg(long, value_name = "PATH")]
    pub(crate) env: Option<PathBuf>,
    /// Write a JSON summary to this file
    #[arg(long, value_name = "PATH")]
    pub(crate) report_file: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) output_format: Option<OutputFormat>,
}

/// `forge config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: Option<ConfigAction>,
}

/// Actions of `forge config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Show every value and its origin
    Show,
    /// Show one value
    Get {
        /// Key, such as `model.name`
        key: String,
    },
    /// Change a value in a file
    Set {
        /// Key, such as `model.name`
        key: String,
        /// New value
        value: String,
        /// Write to your user configuration instead of the project's
        #[arg(long)]
        user: bool,
    },
    /// Report all errors
    Validate,
    /// Show the files that are read
    Path,
}

/// `forge init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Project name (default: name of the directory)
    #[arg(value_name = "NAME")]
    pub(crate) words: Option<String>,
    /// Same as NAME
    #[arg(short, long, value_name = "NAME", conflicts_with = "words")]
    pub(crate) name: Option<String>,
    /// Project language (default: detected from the files)
    #[arg(short, long, value_name = "LANGUAGE", value_parser = languages())]
    pub(crate) language: Option<ProjectLanguage>,
    /// Provider to configure (default: chosen by the keys that are set)
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// File format
    #[arg(long, value_enum, default_value_t = FileFormat::Yaml, value_name = "FORMAT")]
    pub(crate) format: FileFormat,
    /// Do not ask questions
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Returns the parser of project languages.
fn languages() -> impl TypedValueParser<Value = ProjectLanguage> {
    let names = choices_of("language", &["Rust", "Python", "JavaScript or TypeScript"]);
    names.try_map(|name| ProjectLanguage::from_name(&name).ok_or("not a language of a project"))
}

/// Formats of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// forge.yaml
    Yaml,
    /// forge.toml
    Toml,
}

/// `forge validate`
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Project directory
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
}

/// `forge trust`
#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// Repository
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    /// Only show the configuration and whether it is trusted
    #[arg(long, conflicts_with_all = ["revoke", "yes"])]
    pub(crate) show: bool,
    /// Revoke trust
    #[arg(long, conflicts_with = "yes")]
    pub(crate) revoke: bool,
    /// Trust without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `forge tool`
#[derive(Debug, Args)]
pub(crate) struct ToolArgs {
    #[command(subcommand)]
    pub(crate) action: ToolAction,
}

/// Actions of `forge tool`.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolAction {
    /// List all tools
    List,
    /// Describe a tool and its parameters
    Describe {
        /// Name or alias of the tool
        name: String,
    },
}

/// `forge demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the project and the journal, and print their paths
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `forge completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: CompletionShell,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_has_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_last_word_on_the_network_counts() {
        let flags = |words: &[&str]| {
            let all = ["forge", "run", "task"].iter().chain(words);
            match Cli::try_parse_from(all).map(|cli| cli.command) {
                Ok(CliCommand::Run(run)) => (run.sandbox.network.network, run.sandbox.network.no_network),
                other => panic!("{other:?}"),
            }
        };
        let host = || Some("host".to_owned());
        assert_eq!(flags(&["--no-network", "--network"]), (host(), false));
        assert_eq!(flags(&["--network=none"]), (Some("none".to_owned()), false));
        assert_eq!(flags(&["--network", "--no-network"]), (None, true));
        assert_eq!(flags(&[]), (None, false));
    }

    #[test]
    fn two_tasks_are_an_error() {
        assert!(Cli::try_parse_from(["forge", "run", "a", "--task", "b"]).is_err());
        assert!(Cli::try_parse_from(["forge", "run", "a", "--task-file", "b"]).is_err());
    }
}
