//! The tables of the routing state that all runs share, and the statements that change them.

use crate::runs::to_sqlite_int;
use forge_ports::routing::ProviderHealth;
use forge_types::{Cooldown, TaskKind, Tier, WeightRow};
use rusqlite::{Connection, params};

/// The tables; the migration from version 1 to version 2.
pub(crate) const TABLES_SQL: &str = r"
CREATE TABLE cooldowns (
  provider TEXT PRIMARY KEY,
  failures INTEGER NOT NULL,
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER NOT NULL,
  credential TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE provider_health (
  provider TEXT PRIMARY KEY,
  ok INTEGER NOT NULL,
  message TEXT NOT NULL,
  latency_ms INTEGER NOT NULL,
  at INTEGER NOT NULL,
  configuration TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE routing_weights (
  task_type TEXT NOT NULL,
  tier TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  weight REAL NOT NULL,
  success_count INTEGER NOT NULL,
  total_count INTEGER NOT NULL,
  last_updated INTEGER NOT NULL,
  PRIMARY KEY (task_type, tier, provider, model)
) WITHOUT ROWID;
";

/// A change to one of these tables.
#[derive(Debug)]
pub(crate) enum RoutingWrite {
    SetCooldown(Cooldown),
    ClearCooldown(String),
    RecordHealth(ProviderHealth),
    SetWeight(WeightRow),
    DeleteWeight { task_type: TaskKind, tier: Tier, provider: String, model: String },
}

impl RoutingWrite {
    /// Applies the change; returns the number of rows changed.
    pub(crate) fn apply(&self, connection: &Connection) -> rusqlite::Result<u32> {
        let changed = match self {
            Self::SetCooldown(cooldown) => connection
                .prepare_cached("REPLACE INTO cooldowns VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![
                    cooldown.provider,
                    cooldown.failures,
                    cooldown.reason.name(),
                    cooldown.message,
                    cooldown.since.as_micros(),
                    cooldown.until.as_micros(),
                    cooldown.credential,
                ])?,
            Self::ClearCooldown(provider) => connection
                .prepare_cached("DELETE FROM cooldowns WHERE provider = ?1")?
                .execute(params![provider])?,
            Self::RecordHealth(health) => connection
                .prepare_cached("REPLACE INTO provider_health VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![
                    health.provider,
                    health.ok,
                    health.message,
                    to_sqlite_int(health.latency_ms),
                    health.at.as_micros(),
                    health.configuration,
                ])?,
            Self::SetWeight(row) => connection
                .prepare_cached("REPLACE INTO routing_weights VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
                .execute(params![
                    row.task_type.name(),
                    row.tier.name(),
                    row.provider,
                    row.model,
                    row.weight,
                    to_sqlite_int(row.success_count),
                    to_sqlite_int(row.total_count),
                    row.last_updated.as_micros(),
                ])?,
            Self::DeleteWeight { task_type, tier, provider, model } => connection
                .prepare_cached(
                    "DELETE FROM routing_weights \
                     WHERE task_type = ?1 AND tier = ?2 AND provider = ?3 AND model = ?4",
                )?
                .execute(params![task_type.name(), tier.name(), provider, model])?,
        };
        Ok(u32::try_from(changed).unwrap_or(u32::MAX))
    }
}
