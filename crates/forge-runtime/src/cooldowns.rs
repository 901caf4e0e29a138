//! Providers that are left alone, as all runs of all processes on one data folder see them.
//!
//! What happens to a provider is decided in `forge_policy::cooldown`; here it is remembered. Losing any of it costs
//! a call or two and nothing else, so a table that can't be written is a warning.

use forge_policy::cooldown;
use forge_ports::journal;
use forge_ports::routing::{CooldownStore, ProviderHealth, WeightStore};
use forge_types::{Cooldown, Digest, ErrorInfo, ErrorKind, Timestamp, WeightRow};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What other processes wrote is seen after this many milliseconds at the latest.
const REFRESH_INTERVAL_MS: u64 = 1_000;

/// Remembers who was given up, and until when.
#[derive(Default)]
pub struct CooldownCache {
    table: Option<Arc<dyn CooldownStore>>,
    weights: Option<Arc<dyn WeightStore>>,
    /// What stands for the key of each provider here.
    credentials: BTreeMap<String, String>,
    cached: Mutex<CachedCooldowns>,
}

#[derive(Default)]
struct CachedCooldowns {
    rows: BTreeMap<String, Cooldown>,
    read: Option<Timestamp>,
}

impl CooldownCache {
    /// What this process alone remembers.
    pub fn process_local() -> Self {
        Self::default()
    }

    /// What all processes share through `table`; `keys` are those of this process by provider.
    pub(crate) fn shared<'a>(
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
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credential_for(&self, provider: &str) -> &str {
        self.credentials.get(provider).map_or("", String::as_str)
    }

    /// Those that concern this process, ended ones included, as they are or were a moment ago.
    pub(crate) async fn current_cooldowns(&self, now: Timestamp) -> Vec<Cooldown> {
        self.refresh(now).await;
        self.lock_cache().rows.values().filter(|row| self.applies_here(row)).cloned().collect()
    }

    /// A key that was refused or has no money says nothing about another key.
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
            Err(error) => tracing::warn!(%error, "who is to be left alone can't be read"),
        }
    }

    /// A provider was given up for `error`.
    pub(crate) async fn record_failure(&self, provider: &str, error: &ErrorInfo, now: Timestamp) {
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
            tracing::warn!(%error, provider, "that it is to be left alone can't be written");
        }
    }

    /// A provider answered: its failures are forgotten.
    pub(crate) async fn record_answer(&self, provider: &str, now: Timestamp) {
        self.refresh(now).await;
        if self.lock_cache().rows.remove(provider).is_none() {
            return;
        }
        if let Some(table) = &self.table
            && let Err(error) = table.clear_cooldown(provider).await
        {
            tracing::warn!(%error, provider, "that it answers again can't be written");
        }
    }

    /// What was last seen of each provider.
    pub(crate) async fn list_health(&self) -> Vec<ProviderHealth> {
        let Some(table) = &self.table else { return Vec::new() };
        table.list_health().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what was last seen of providers can't be read");
            Vec::new()
        })
    }

    /// Keeps what was just seen of a provider.
    pub(crate) async fn record_health(&self, health: ProviderHealth) {
        if let Some(table) = &self.table
            && let Err(error) = table.record_health(health).await
        {
            tracing::warn!(%error, "what was seen of a provider can't be written");
        }
    }

    /// The recorded outcomes of models.
    pub(crate) async fn list_weights(&self) -> Vec<WeightRow> {
        let Some(table) = &self.weights else { return Vec::new() };
        table.list_weights().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the weights of models can't be read");
            Vec::new()
        })
    }

    /// The table of weights, for changing it by hand.
    pub(crate) fn weight_store(&self) -> Result<&Arc<dyn WeightStore>, journal::Error> {
        self.weights.as_ref().ok_or_else(|| journal::Error::NotFound { what: "table of weights".to_owned() })
    }
}

/// Half of a hash of a key: enough to see that it is another one, useless for everything else.
pub(crate) fn credential_fingerprint(provider: &str, key: &str) -> String {
    let text = format!("forge credential of {provider}\n{key}");
    Digest::of_bytes(text.as_bytes()).to_string().chars().take(16).collect()
}
