//! What can be typed about models: `models`, `route`, `routing`, `prices`.

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
    /// Ask everybody anew instead of showing answers of the last five minutes
    #[arg(long)]
    pub(crate) refresh: bool,
}

/// What to do with them.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsAction {
    /// Test the connection to a provider; one that answers is no longer left alone
    Test {
        /// A provider, or `provider/model`
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

/// What to do about the choice of a model.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteAction {
    /// Say which model a task would be given to, and what each stage of the choice says; asks nobody
    Explain(RouteExplainArgs),
}

/// `forge route explain`
#[derive(Debug, Args)]
pub(crate) struct RouteExplainArgs {
    /// The task, in your words
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// The repository whose configuration counts, the current folder if it is left out
    #[arg(long, value_name = "PATH")]
    pub(crate) repo: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelFlags,
    /// What kind of work it is
    #[arg(long, value_name = "TYPE", default_value = "code", value_parser = task_types())]
    pub(crate) task_type: String,
    /// Which repair it is for, counted from 1; the second one and later ask a stronger model
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) repair_attempt: u32,
    /// What chance is drawn from; the same number gives the same choice
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// `forge routing`
#[derive(Debug, Args)]
pub(crate) struct RoutingArgs {
    #[command(subcommand)]
    pub(crate) action: Option<RoutingAction>,
}

/// What to do with the weights.
#[derive(Debug, Subcommand)]
pub(crate) enum RoutingAction {
    /// Show all weights
    #[command(alias = "show")]
    List,
    /// Set a weight by hand
    Set {
        #[command(flatten)]
        row: WeightRowArgs,
        /// From 0.1 to 1; a model without a weight counts as 0.5
        #[arg(value_name = "WEIGHT")]
        weight: f64,
        /// How many outcomes count as recorded; from 5 of its task type on, weights choose
        #[arg(long, value_name = "N")]
        outcomes: Option<u64>,
    },
    /// Remove a weight
    Delete {
        #[command(flatten)]
        row: WeightRowArgs,
    },
}

/// A row of the weights.
#[derive(Debug, Args)]
pub(crate) struct WeightRowArgs {
    /// What kind of work
    #[arg(value_name = "TASK_TYPE", value_parser = task_types())]
    pub(crate) task_type: String,
    /// How hard
    #[arg(value_name = "TIER", value_parser = tier_names())]
    pub(crate) tier: String,
    /// Which model
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
    /// So many days are shown
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) days: usize,
    #[command(subcommand)]
    pub(crate) action: Option<BudgetAction>,
}

/// What to do about money.
#[derive(Debug, Subcommand)]
pub(crate) enum BudgetAction {
    /// Raise what a run may spend, and go on with it if it waits for that
    Raise {
        /// The run's id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
        /// The whole ceiling in dollars, what is spent already included
        #[arg(value_name = "USD")]
        usd: f64,
        /// Raise the ceiling of the day, for this run, and not its own
        #[arg(long)]
        day: bool,
        /// Raise it only: `forge resume` goes on
        #[arg(long)]
        no_resume: bool,
    },
}

/// What to do with the price table.
#[derive(Debug, Subcommand)]
pub(crate) enum PricesAction {
    /// Show the table that is used
    Show {
        /// Only models whose name holds this
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Use another table, from a file or an address; the old one stays if anything in it is wrong
    Update {
        /// A file, or an http:// or https:// address
        #[arg(value_name = "FILE|URL")]
        from: String,
    },
}
