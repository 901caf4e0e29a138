//! Arguments of `models`, `route`, `routing`, `prices` and `budget`.

use super::ModelFlags;
use clap::{Args, Subcommand};
use std::path::PathBuf;

fn task_types() -> clap::builder::PossibleValuesParser {
    forge_types::TaskKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().into()
}

fn tier_names() -> clap::builder::PossibleValuesParser {
    forge_types::Tier::ALL.iter().map(|tier| tier.name()).collect::<Vec<_>>().into()
}

/// `forge models`
#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) action: Option<ModelsAction>,
    /// Query all providers again, ignoring answers of the last five minutes
    #[arg(long)]
    pub(crate) refresh: bool,
}

/// Actions of `forge models`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsAction {
    /// Test the connection to a provider; success ends its cooldown
    Test {
        /// Provider, or `provider/model`
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// `forge route`
#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    #[command(subcommand)]
    pub(crate) action: RouteAction,
}

/// Actions of `forge route`.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteAction {
    /// Show which model a task would use and why, stage by stage, without calling a model
    Explain(RouteExplainArgs),
}

/// `forge route explain`
#[derive(Debug, Args)]
pub(crate) struct RouteExplainArgs {
    /// Task, in plain language
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Repository with the configuration to use (default: current directory)
    #[arg(long, value_name = "PATH")]
    pub(crate) repo: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
    /// Type of work
    #[arg(long, value_name = "TYPE", default_value = "code", value_parser = task_types())]
    pub(crate) task_type: String,
    /// Repair attempt, counted from 1; from the second on, a stronger model is used
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) repair_attempt: u32,
    /// Random seed; the same seed gives the same choice
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// `forge routing`
#[derive(Debug, Args)]
pub(crate) struct RoutingArgs {
    #[command(subcommand)]
    pub(crate) action: Option<RoutingAction>,
}

/// Actions of `forge routing`.
#[derive(Debug, Subcommand)]
pub(crate) enum RoutingAction {
    /// Show all weights
    #[command(alias = "show")]
    List,
    /// Set a weight
    Set {
        #[command(flatten)]
        row: WeightRowArgs,
        /// Weight from 0.1 to 1; models without one count as 0.5
        #[arg(value_name = "WEIGHT")]
        weight: f64,
        /// Number of outcomes to count as recorded; weights apply from 5 outcomes of a task type on
        #[arg(long, value_name = "N")]
        outcomes: Option<u64>,
    },
    /// Remove a weight
    Delete {
        #[command(flatten)]
        row: WeightRowArgs,
    },
}

/// Key of a weight.
#[derive(Debug, Args)]
pub(crate) struct WeightRowArgs {
    /// Type of work
    #[arg(value_name = "TASK_TYPE", value_parser = task_types())]
    pub(crate) task_type: String,
    /// Difficulty
    #[arg(value_name = "TIER", value_parser = tier_names())]
    pub(crate) tier: String,
    /// Model
    #[arg(value_name = "PROVIDER/MODEL")]
    pub(crate) model: String,
}

/// `forge prices`
#[derive(Debug, Args)]
pub(crate) struct PricesArgs {
    #[command(subcommand)]
    pub(crate) action: Option<PricesAction>,
}

/// `forge budget`
#[derive(Debug, Args)]
pub(crate) struct BudgetArgs {
    /// Number of days to show
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) days: usize,
    #[command(subcommand)]
    pub(crate) action: Option<BudgetAction>,
}

/// Actions of `forge budget`.
#[derive(Debug, Subcommand)]
pub(crate) enum BudgetAction {
    /// Raise a run's budget, and resume the run if it is waiting for that
    Raise {
        /// Run id or unique prefix; `last` is the newest run
        #[arg(value_name = "ID")]
        id: String,
        /// New total limit in dollars, including the amount already spent
        #[arg(value_name = "USD")]
        usd: f64,
        /// Raise the daily limit for this run instead of the run's own limit
        #[arg(long)]
        day: bool,
        /// Do not resume the run
        #[arg(long)]
        no_resume: bool,
    },
}

/// Actions of `forge prices`.
#[derive(Debug, Subcommand)]
pub(crate) enum PricesAction {
    /// Show the price table in use
    Show {
        /// Only models with this text in their name
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Replace the price table from a file or URL; an invalid one is rejected
    Update {
        /// File, or an http:// or https:// URL
        #[arg(value_name = "FILE|URL")]
        from: String,
    },
}
