//! Cooldowns of providers, shared by all runs of all processes on a data directory.
//!
//! `forge_policy::cooldown` decides about cooldowns; this module stores them. Losing one costs no more than a
//! call or two, so a failure to write the table is only a warning.

use forge_policy::cooldown;
use forge_ports::journal;
use forge_ports::routing::{CooldownStore, ProviderHealth, WeightStore};
use forge_types::{Cooldown, Digest, ErrorInfo, ErrorKind, Timestamp, WeightRow};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The age in milliseconds at which cached cooldowns are read again.
const REFRESH_INTERVAL_MS: u64 = 1_000;

/// A cache of the providers in cooldown.
#[derive(Default)]
pub struct CooldownCache {
    table: Option<Arc<dyn CooldownStore>>,
    weights: Option<Arc<dyn WeightStore>>,
    /// The fingerprint of each provider's credential in this process.
    credentials: BTreeMap<String, String>,
    cached: Mutex<CachedCooldowns>,
}

#[derive(Default)]
struct CachedCooldowns {
    rows: BTreeMap<String, Cooldown>,
    read: Option<Timestamp>,
}

impl CooldownCache {
    /// Creates a cache that is not shared with other processes.
    pub fn process_local() -> Self {
        Self::default()
    }

    /// Creates a cache that all processes share through `table`; `keys` are this process's credentials by
    /// provider.
    pub fn shared<'a>(
        table: Arc<impl CooldownStore + WeightStore + 'static>,
        keys: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let credentials = keys
            .into_iter()
            .map(|(name, key)| (name.to_owned(), credential_fingerprint(name, key)))
            .collect();
        let weights: Arc<dyn WeightStore> = table.clone();
        Self { table: Some(table), weights: Some(weights), credentials, cached: Mutex::default() }
    }

    fn lock_cache(&self) -> MutexGuard<'_, CachedCooldowns> {
        self.cached.lock()
    }

    fn credential_for(&self, provider: &str) -> &str {
        self.credentials.get(provider).map_or("", String::as_str)
    }

    /// Returns the cooldowns that apply to this process, expired ones included, at most a moment old.
    pub async fn current_cooldowns(&self, now: Timestamp) -> Vec<Cooldown> {
        self.refresh(now).await;
        self.lock_cache().rows.values().filter(|row| self.applies_here(row)).cloned().collect()
    }

    /// Returns whether a cooldown applies here: a rejected or unpaid key says nothing about another key.
    fn applies_here(&self, row: &Cooldown) -> bool {
        !matches!(row.reason, ErrorKind::Auth | ErrorKind::Billing)
            || row.credential == self.credential_for(&row.provider)
    }

    async fn refresh(&self, now: Timestamp) {
        let Some(table) = &self.table else { return };
        if self
            .lock_cache()
            .read
            .is_some_and(|read| now.millis_since(read) < REFRESH_INTERVAL_MS && read <= now)
        {
            return;
        }
        match table.list_cooldowns().await {
            Ok(rows) => {
                let mut known = self.lock_cache();
                known.rows = rows.into_iter().map(|row| (row.provider.clone(), row)).collect();
                known.read = Some(now);
            }
            Err(error) => tracing::warn!(%error, "can't read the cooldowns of providers"),
        }
    }

    /// Records that a provider was given up because of `error`.
    pub async fn record_failure(&self, provider: &str, error: &ErrorInfo, now: Timestamp) {
        if !cooldown::triggers_cooldown(error.kind) {
            return;
        }
        self.refresh(now).await;
        let row = {
            let mut known = self.lock_cache();
            let before = known.rows.get(provider);
            let row = cooldown::next_cooldown(before, provider, error, self.credential_for(provider), now);
            known.rows.insert(provider.to_owned(), row.clone());
            row
        };
        if let Some(table) = &self.table
            && let Err(error) = table.set_cooldown(row).await
        {
            tracing::warn!(%error, provider, "can't save the provider's cooldown");
        }
    }

    /// Records that a provider answered, which clears its failures.
    pub async fn record_answer(&self, provider: &str, now: Timestamp) {
        self.refresh(now).await;
        if self.lock_cache().rows.remove(provider).is_none() {
            return;
        }
        if let Some(table) = &self.table
            && let Err(error) = table.clear_cooldown(provider).await
        {
            tracing::warn!(%error, provider, "can't clear the provider's cooldown");
        }
    }

    /// Returns the last known health of each provider.
    pub async fn list_health(&self) -> Vec<ProviderHealth> {
        let Some(table) = &self.table else { return Vec::new() };
        table.list_health().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "can't read the health of providers");
            Vec::new()
        })
    }

    /// Stores the health of a provider.
    pub async fn record_health(&self, health: ProviderHealth) {
        if let Some(table) = &self.table
            && let Err(error) = table.record_health(health).await
        {
            tracing::warn!(%error, "can't save the health of a provider");
        }
    }

    /// Returns the recorded outcomes of models.
    pub async fn list_weights(&self) -> Vec<WeightRow> {
        let Some(table) = &self.weights else { return Vec::new() };
        table.list_weights().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "can't read the weights of models");
            Vec::new()
        })
    }

    /// Returns the table of weights, for manual changes.
    pub fn weight_store(&self) -> Result<&Arc<dyn WeightStore>, journal::Error> {
        self.weights.as_ref().ok_or_else(|| journal::Error::NotFound { what: "table of weights".to_owned() })
    }
}

/// Returns half of a hash of a key: enough to recognize another key, useless for anything else.
pub fn credential_fingerprint(provider: &str, key: &str) -> String {
    let text = format!("forge credential of {provider}\n{key}");
    Digest::of_bytes(text.as_bytes()).to_string().chars().take(16).collect()
}
