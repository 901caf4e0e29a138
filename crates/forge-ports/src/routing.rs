//! Shared state for the choice of models: cooldowns of providers, weights of models and recent health checks.
//!
//! All of it is advice for the next choice. Nothing here is needed to replay a run.

use crate::journal::Error;
use async_trait::async_trait;
use forge_types::{Cooldown, TaskKind, Tier, Timestamp, WeightRow};
use serde::{Deserialize, Serialize};

/// The result of a provider's last health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderHealth {
    /// The provider.
    pub provider: String,
    /// Whether the provider answered correctly.
    pub ok: bool,
    /// The provider's message, for people; never contains a key.
    pub message: String,
    /// Milliseconds until the answer.
    pub latency_ms: u64,
    /// Time of the check.
    pub at: Timestamp,
    /// A hash of the configuration that the result depends on (address, key); a changed configuration is checked again.
    pub configuration: String,
}

/// Cooldowns and health checks of providers.
#[async_trait]
pub trait CooldownStore: Send + Sync {
    /// Returns all cooldowns, including expired ones: their counts determine how long the next one lasts.
    async fn list_cooldowns(&self) -> Result<Vec<Cooldown>, Error>;

    /// Sets or replaces a provider's cooldown.
    async fn set_cooldown(&self, cooldown: Cooldown) -> Result<(), Error>;

    /// Removes a provider's cooldown after an answer.
    async fn clear_cooldown(&self, provider: &str) -> Result<(), Error>;

    /// Returns the last health check of each provider.
    async fn list_health(&self) -> Result<Vec<ProviderHealth>, Error>;

    /// Stores a provider's health check.
    async fn record_health(&self, health: ProviderHealth) -> Result<(), Error>;
}

/// Weights of models by kind of work (ROUTE-2).
#[async_trait]
pub trait WeightStore: Send + Sync {
    /// Returns all rows, ordered by kind, tier, provider and model.
    async fn list_weights(&self) -> Result<Vec<WeightRow>, Error>;

    /// Inserts a row, or replaces the one with the same kind, tier, provider and model.
    async fn set_weight(&self, row: WeightRow) -> Result<(), Error>;

    /// Removes a row; returns whether there was one.
    async fn delete_weight(
        &self,
        task_type: TaskKind,
        tier: Tier,
        provider: &str,
        model: &str,
    ) -> Result<bool, Error>;
}
