//! The choice of a model with its reasons, and the cooldowns of providers.

use crate::{ErrorKind, ModelRoute, Money, Price, Timestamp, Usage};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// All values, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name used in the configuration, the store and on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = crate::IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().copied().find(|one| one.name() == text);
                found.ok_or_else(|| crate::IdError { what: $what, text: text.to_owned() })
            }
        }
    };
}

words! {
    /// The kind of work that a model is chosen for (ROUTE-2).
    TaskKind, "task type" {
        /// Planning.
        Plan = "plan",
        /// Writing code: the default for a run without a pipeline.
        Code = "code",
        /// Reviewing.
        Review = "review",
        /// Deploying.
        Deploy = "deploy",
        /// Verifying.
        Verify = "verify",
        /// Research.
        Research = "research",
        /// Conversation.
        Chat = "chat",
    }
}

impl TaskKind {
    /// Returns the agent for this kind of work, as named in `[agents.<name>]`.
    pub const fn agent(self) -> &'static str {
        match self {
            Self::Plan => "planner",
            Self::Code => "coder",
            Self::Review => "reviewer",
            Self::Deploy => "deployer",
            Self::Verify => "verifier",
            Self::Research => "researcher",
            Self::Chat => "chat",
        }
    }
}

words! {
    /// The estimated difficulty of a task (ROUTE-3).
    Tier, "tier" {
        /// A few lines.
        Simple = "simple",
        /// A task that is neither simple nor hard.
        Medium = "medium",
        /// Several parts, or a subject known to be hard.
        Hard = "hard",
    }
}

words! {
    /// A stage of the choice, in order of evaluation.
    RouteStage, "routing stage" {
        /// The user or configuration names the model.
        Pin = "pin",
        /// The task's complexity determines the candidates.
        Complexity = "complexity",
        /// Recorded outcomes select a candidate.
        Weights = "weights",
        /// Candidates that are unavailable are skipped.
        Availability = "availability",
        /// A failed repair escalates to a stronger model.
        Escalation = "escalation",
    }
}

/// The verdict of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageVerdict {
    /// The stage.
    pub stage: RouteStage,
    /// The choice after this stage; `None` if there is none yet.
    pub choice: Option<ModelRoute>,
    /// Whether the stage made or changed the choice.
    pub acted: bool,
    /// The reason, for display.
    pub reason: String,
}

/// A candidate that was not chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedCandidate {
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// The reason, for display.
    pub reason: String,
}

impl RejectedCandidate {
    /// Creates a rejected candidate with the reason.
    pub fn new(route: &ModelRoute, reason: impl Into<String>) -> Self {
        Self { provider: route.provider.clone(), model: route.model.clone(), reason: reason.into() }
    }
}

/// A choice of a model with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingChoice {
    /// The kind of work.
    pub task_type: TaskKind,
    /// The estimated difficulty of the task.
    pub tier: Tier,
    /// The chosen provider and model.
    pub chosen: ModelRoute,
    /// The last stage that changed the choice.
    pub stage: RouteStage,
    /// The reason of that stage.
    pub reason: String,
    /// The verdicts of all stages, in order.
    pub stages: Vec<StageVerdict>,
    /// All candidates that were not chosen.
    pub rejected: Vec<RejectedCandidate>,
}

/// The cooldown of a provider (PROV-9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// The provider.
    pub provider: String,
    /// Number of consecutive failures, from 1.
    pub failures: u32,
    /// Kind of the last failure.
    pub reason: ErrorKind,
    /// Message of the last failure, for display.
    pub message: String,
    /// Start of the cooldown.
    pub since: Timestamp,
    /// End of the cooldown.
    pub until: Timestamp,
    /// Identifies the rejected key without storing it: the cooldown does not apply to a different key.
    #[serde(default)]
    pub credential: String,
}

impl Cooldown {
    /// Returns whether the cooldown is active at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

/// A learned or manual weight of a model for a kind of work (ROUTE-2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightRow {
    /// The kind of work.
    pub task_type: TaskKind,
    /// The difficulty of the work.
    pub tier: Tier,
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// The weight from 0.1 to 1; a model without a row has 0.5.
    pub weight: f64,
    /// Successful outcomes.
    pub success_count: u64,
    /// All outcomes.
    pub total_count: u64,
    /// Time of the last change.
    pub last_updated: Timestamp,
}

impl WeightRow {
    /// Returns the row's provider and model.
    pub fn route(&self) -> ModelRoute {
        ModelRoute { provider: self.provider.clone(), model: self.model.clone() }
    }
}

/// The model used for cost comparisons (ROUTE-7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceModel {
    /// The model.
    pub route: ModelRoute,
    /// The model's price.
    pub price: Price,
}

/// Hypothetical cost of a run's tokens with the reference model. An estimate, because another model would have used
/// a different number of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Savings {
    /// The reference model as `provider/model`.
    pub reference: String,
    /// The reference model's cost for the same tokens, in dollars.
    pub reference_usd: f64,
    /// The reference cost minus the actual cost; negative if the reference is cheaper.
    pub saved_usd: f64,
}

impl ReferenceModel {
    /// Compares `paid`, the actual cost of `usage`, with the reference model's cost.
    pub fn savings(&self, usage: &Usage, paid: Money) -> Savings {
        let there = self.price.cost(usage);
        Savings {
            reference: self.route.to_string(),
            reference_usd: there.as_usd(),
            saved_usd: there.minus(paid).as_usd(),
        }
    }
}
