//! Which model is asked and why, and which providers are left alone for a while.

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
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in configuration, the store and on the wire.
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
    /// What kind of work a model is chosen for (ROUTE-2).
    TaskKind, "task type" {
        /// Planning.
        Plan = "plan",
        /// Writing code: what a run without a pipeline does.
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
    /// The agent that does such work, as `[agents.<name>]` calls it.
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
    /// How hard a task is taken to be (ROUTE-3).
    Tier, "tier" {
        /// A few lines.
        Simple = "simple",
        /// Neither of the others.
        Medium = "medium",
        /// Several parts, or a subject that is known to be hard.
        Hard = "hard",
    }
}

words! {
    /// A stage of the choice, in the order in which they are asked.
    RouteStage, "stage of routing" {
        /// Somebody named the model.
        Pin = "pin",
        /// The task's complexity gives the candidates.
        Complexity = "complexity",
        /// Recorded outcomes choose among them.
        Weights = "weights",
        /// Those that can't be asked now are passed over.
        Availability = "availability",
        /// A repair that failed asks a stronger model.
        Escalation = "escalation",
    }
}

/// What one stage said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageVerdict {
    /// The stage.
    pub stage: RouteStage,
    /// The choice after it; `None` while there is none.
    pub choice: Option<ModelRoute>,
    /// Whether it changed the choice or made it.
    pub acted: bool,
    /// Why, in words for a person.
    pub reason: String,
}

/// A candidate that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedCandidate {
    /// Its provider.
    pub provider: String,
    /// Its model.
    pub model: String,
    /// Why, in words for a person.
    pub reason: String,
}

impl RejectedCandidate {
    /// A candidate with the reason against it.
    pub fn new(route: &ModelRoute, reason: impl Into<String>) -> Self {
        Self { provider: route.provider.clone(), model: route.model.clone(), reason: reason.into() }
    }
}

/// A choice with all its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingChoice {
    /// What kind of work it is for.
    pub task_type: TaskKind,
    /// How hard the task is taken to be.
    pub tier: Tier,
    /// Whom to ask.
    pub chosen: ModelRoute,
    /// The last stage that changed the choice.
    pub stage: RouteStage,
    /// Why that stage did.
    pub reason: String,
    /// What each stage said, in order.
    pub stages: Vec<StageVerdict>,
    /// Everybody who was not taken.
    pub rejected: Vec<RejectedCandidate>,
}

/// A provider that is left alone until a time (PROV-9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// The provider.
    pub provider: String,
    /// How often it was given up in a row, from 1.
    pub failures: u32,
    /// Why, the last time.
    pub reason: ErrorKind,
    /// What it said, for people.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Tells one key from another without holding it: a refused key says nothing about the next one.
    #[serde(default)]
    pub credential: String,
}

impl Cooldown {
    /// Whether the provider is left alone at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

/// A learned or hand-set weight of a model for a kind of work (ROUTE-2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightRow {
    /// The kind of work.
    pub task_type: TaskKind,
    /// How hard it is.
    pub tier: Tier,
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// From 0.1 to 1; a model without a row counts as 0.5.
    pub weight: f64,
    /// Outcomes that were a success.
    pub success_count: u64,
    /// All outcomes.
    pub total_count: u64,
    /// When it last changed.
    pub last_updated: Timestamp,
}

impl WeightRow {
    /// Its model.
    pub fn route(&self) -> ModelRoute {
        ModelRoute { provider: self.provider.clone(), model: self.model.clone() }
    }
}

/// The model that costs are compared with (ROUTE-7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceModel {
    /// The model.
    pub route: ModelRoute,
    /// What it charges.
    pub price: Price,
}

/// What the tokens of a run would have cost elsewhere: an estimate, since another model would have used others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Savings {
    /// The model compared with, as `provider/model`.
    pub reference: String,
    /// What it would have charged for the same tokens, in dollars.
    pub reference_usd: f64,
    /// That minus what was paid; negative if the reference is cheaper.
    pub saved_usd: f64,
}

impl ReferenceModel {
    /// What `usage`, which cost `paid`, would have cost here.
    pub fn savings(&self, usage: &Usage, paid: Money) -> Savings {
        let there = self.price.cost(usage);
        Savings {
            reference: self.route.to_string(),
            reference_usd: there.as_usd(),
            saved_usd: there.minus(paid).as_usd(),
        }
    }
}
