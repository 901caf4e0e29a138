//! What runs share about the choice of models: who is left alone, what weighs how much, who answered lately.
//!
//! All of it is advice for the next choice. Nothing here is needed to replay a run.

use crate::journal::Error;
use async_trait::async_trait;
use forge_types::{Cooldown, TaskKind, Tier, Timestamp, WeightRow};
use serde::{Deserialize, Serialize};

/// How a provider answered when it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderHealth {
    /// The provider.
    pub provider: String,
    /// Whether it answered as it should.
    pub ok: bool,
    /// What it said, for people; never holds a key.
    pub message: String,
    /// Milliseconds until its answer.
    pub latency_ms: u64,
    /// When it was looked at.
    pub at: Timestamp,
    /// What of the configuration the answer depends on (address, key), as a hash: another configuration asks anew.
    pub configuration: String,
}

/// Cooldowns of providers and what was last seen of them.
#[async_trait]
pub trait CooldownStore: Send + Sync {
    /// All cooldowns, ended ones included: their counts say how long the next one lasts.
    async fn list_cooldowns(&self) -> Result<Vec<Cooldown>, Error>;

    /// Puts a provider's cooldown in the place of the one it had.
    async fn set_cooldown(&self, cooldown: Cooldown) -> Result<(), Error>;

    /// Forgets a provider's cooldown: it answered.
    async fn clear_cooldown(&self, provider: &str) -> Result<(), Error>;

    /// What was last seen of each provider.
    async fn list_health(&self) -> Result<Vec<ProviderHealth>, Error>;

    /// Keeps what was just seen of a provider.
    async fn record_health(&self, health: ProviderHealth) -> Result<(), Error>;
}

/// Weights of models by kind of work (ROUTE-2).
#[async_trait]
pub trait WeightStore: Send + Sync {
    /// All rows, in the order of kind, tier, provider, model.
    async fn list_weights(&self) -> Result<Vec<WeightRow>, Error>;

    /// Puts a row in the place of the one with the same kind, tier, provider and model.
    async fn set_weight(&self, row: WeightRow) -> Result<(), Error>;

    /// Removes a row; whether there was one.
    async fn delete_weight(
        &self,
        task_type: TaskKind,
        tier: Tier,
        provider: &str,
        model: &str,
    ) -> Result<bool, Error>;
}
