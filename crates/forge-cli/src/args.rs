//! What can be typed. Nothing below this module and `request` sees it.

mod chat;
mod routing;
mod secret;
mod workspace;

pub(crate) use chat::{ChatArgs, ExecutorFlags};
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use routing::{
    BudgetAction, BudgetArgs, ModelsAction, ModelsArgs, PricesAction, PricesArgs, RouteAction, RouteArgs,
    RouteExplainArgs, RoutingAction, RoutingArgs, WeightRowArgs,
};
pub(crate) use secret::{LoginArgs, LogoutArgs, SecretAction, SecretArgs};
use std::path::PathBuf;
pub(crate) use workspace::{
    ApplyArgs, ApplyPolicyArg, DiffArgs, GcArgs, ImageKind, NetworkFlags, SandboxAction, SandboxArgs,
    SandboxBuildArgs, SandboxExecArgs, SandboxVerifyArgs, UndoArgs, WorkspaceModeArg,
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "forge",
    version,
    about = "An agent that changes your code: sandboxed, journalled, resumable",
    after_help = "Exit codes: 0 completed, 1 failed, 2 usage or configuration, 3 ended by a limit, \
                  4 cancelled (130 by a signal), 5 waiting.",
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalFlags,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GlobalFlags {
    /// Read this file instead of the project's own forge.toml or forge.yaml
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON on stdout and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more; twice: log lines too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say only what is wrong, and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// No colours
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Let the agent work on a task, in a repository
    Run(RunArgs),
    /// Talk with a model, about a repository
    Chat(ChatArgs),
    /// Show one run, or the project and its latest runs
    Status(StatusArgs),
    /// List runs
    List(ListArgs),
    /// Show what happened in a run
    Logs(LogsArgs),
    /// Go on with a run that was interrupted, is paused, or reached a limit
    Resume(ResumeArgs),
    /// End a run, from any terminal
    Cancel(RunIdArg),
    /// Show what a run changed, from its beginning or by one step
    Diff(DiffArgs),
    /// Put a run's workspace back to an earlier step
    Undo(UndoArgs),
    /// Bring back what the last undo took away
    Redo(RunIdArg),
    /// Bring a run's result into its repository
    Apply(ApplyArgs),
    /// Remove old snapshots
    Gc(GcArgs),
    /// Show, check and change the configuration
    Config(ConfigArgs),
    /// Check what runs need: sandbox, keys, store, tools
    Doctor,
    /// Show the providers: keys, whether they answer, cooldowns, windows, prices
    Models(ModelsArgs),
    /// Say which model a task would be given to, and why
    Route(RouteArgs),
    /// Show and change the weights by which models are chosen
    Routing(RoutingArgs),
    /// Show and refresh the prices of models
    Prices(PricesArgs),
    /// Show what days and runs spend, and raise what a run may
    Budget(BudgetArgs),
    /// Write a configuration for a project
    Init(InitArgs),
    /// Check a project's configuration
    Validate(ValidateArgs),
    /// Let a repository's own configuration count, after showing it
    Trust(TrustArgs),
    /// Keep keys in an encrypted file
    Secret(SecretArgs),
    /// Log in at a provider with your browser, in place of a key
    Login(LoginArgs),
    /// Forget a login
    Logout(LogoutArgs),
    /// Show the tools that a model can call
    Tool(ToolArgs),
    /// Look after the boxes that runs work in
    Sandbox(SandboxArgs),
    /// See it work: a small project is fixed by a scripted model, without a key
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

/// `forge run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The task, in your words
    #[arg(value_name = "TASK")]
    pub(crate) words: Option<String>,
    /// The same as TASK
    #[arg(long, value_name = "TASK", conflicts_with = "words")]
    pub(crate) task: Option<String>,
    /// Read the task from a file, or from stdin if it is `-`
    #[arg(long, value_name = "PATH", conflicts_with_all = ["words", "task"])]
    pub(crate) task_file: Option<PathBuf>,
    /// The repository to work on, the current folder if it is left out; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) repo: Vec<PathBuf>,
    /// How the run works on it
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) workspace: Option<WorkspaceModeArg>,
    /// When the result is applied
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) apply: Option<ApplyPolicyArg>,
    #[command(flatten)]
    pub(crate) executor: ExecutorFlags,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) sandbox: SandboxFlags,
    /// Fill variables that are not set from this file
    #[arg(long, value_name = "PATH")]
    pub(crate) env: Option<PathBuf>,
    /// Write a summary as JSON to this file
    #[arg(long, value_name = "PATH")]
    pub(crate) report_file: Option<PathBuf>,
    /// What stands on stdout: text, a summary as JSON, or one event per line as JSON
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) output_format: Option<OutputFormat>,
}

/// Which model.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ModelFlags {
    /// Provider: openai, anthropic, gemini, openrouter, ollama, llama_cpp, custom, scripted
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// Model, as its provider writes it
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Base URL of the provider's API
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
}

/// How far a run may go.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LimitFlags {
    /// Model turns at most
    #[arg(long, value_name = "N")]
    pub(crate) max_iterations: Option<u32>,
    /// Tokens at most
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u64>,
    /// Dollars at most
    #[arg(long, value_name = "USD")]
    pub(crate) max_cost: Option<f64>,
}

/// The box that a run gets.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SandboxFlags {
    /// Sandbox backend: auto, native, docker, podman, process
    #[arg(long, value_name = "NAME")]
    pub(crate) sandbox_backend: Option<String>,
    /// Image that gives the box's root folder
    #[arg(long, value_name = "NAME")]
    pub(crate) sandbox_image: Option<String>,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    /// Keep the journal in memory only: nothing can be resumed or looked at afterwards
    #[arg(long)]
    pub(crate) no_durable: bool,
    /// Seconds that a command may take if the model names no time
    #[arg(long, value_name = "SECONDS")]
    pub(crate) command_timeout: Option<u64>,
}

/// What stands on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document at the end.
    Json,
    /// One event per line as it happens.
    Jsonl,
}

/// A run by its id.
#[derive(Debug, Args)]
pub(crate) struct RunIdArg {
    /// The run's id, or the beginning of it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `forge status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The run's id, or the beginning of it; none: the project and its latest runs
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
}

/// `forge list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only runs with this status
    #[arg(long, value_name = "STATUS", value_parser = run_statuses())]
    pub(crate) status: Option<String>,
    /// At most so many; 0: all
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
    /// The run's id, or the beginning of it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Go on until the run ends
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `forge resume`
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run's id, or the beginning of it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    /// Fill variables that are not set from this file
    #[arg(long, value_name = "PATH")]
    pub(crate) env: Option<PathBuf>,
    /// Write a summary as JSON to this file
    #[arg(long, value_name = "PATH")]
    pub(crate) report_file: Option<PathBuf>,
    /// What stands on stdout: text, a summary as JSON, or one event per line as JSON
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    pub(crate) output_format: Option<OutputFormat>,
}

/// `forge config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: Option<ConfigAction>,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Every value and where it came from
    Show,
    /// One value
    Get {
        /// The key, such as `model.name`
        key: String,
    },
    /// Change a value in a file
    Set {
        /// The key, such as `model.name`
        key: String,
        /// The value
        value: String,
        /// In your own file instead of the project's
        #[arg(long)]
        user: bool,
    },
    /// Say everything that is wrong
    Validate,
    /// Which files are read
    Path,
}

/// `forge init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The project's name; the folder's name if it is left out
    #[arg(value_name = "NAME")]
    pub(crate) words: Option<String>,
    /// The same as NAME
    #[arg(short, long, value_name = "NAME", conflicts_with = "words")]
    pub(crate) name: Option<String>,
    /// The project's language; guessed from its files if it is left out
    #[arg(short, long, value_enum, value_name = "LANGUAGE")]
    pub(crate) language: Option<LanguageArg>,
    /// The provider to write down; found from the keys present if it is left out
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
    /// The file's format
    #[arg(long, value_enum, default_value_t = FileFormat::Yaml, value_name = "FORMAT")]
    pub(crate) format: FileFormat,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Languages of projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LanguageArg {
    /// Rust
    Rust,
    /// Python
    Python,
    /// JavaScript or TypeScript
    Node,
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
    /// The project
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
}

/// `forge trust`
#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// The repository
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    /// Only show what would be trusted and whether it is
    #[arg(long, conflicts_with_all = ["revoke", "yes"])]
    pub(crate) show: bool,
    /// Trust it no longer
    #[arg(long, conflicts_with = "yes")]
    pub(crate) revoke: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `forge tool`
#[derive(Debug, Args)]
pub(crate) struct ToolArgs {
    #[command(subcommand)]
    pub(crate) action: ToolAction,
}

/// What to show of the tools.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolAction {
    /// All tools
    List,
    /// One tool with its parameters
    Describe {
        /// Its name or one of its aliases
        name: String,
    },
}

/// `forge demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave the project and the journal where they are, and say where
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `forge completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: CompletionShell,
}

/// Shells that completions are made for.
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
