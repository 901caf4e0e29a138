//! Routing state shared by all runs: cooldowns, provider health and weights.

use crate::runs::to_sqlite_int;
use crate::write::WriteOp;
use crate::{SqliteStore, fault};
use async_trait::async_trait;
use forge_ports::journal::Error;
use forge_ports::routing::{CooldownStore, ProviderHealth, WeightStore};
use forge_types::{Cooldown, ErrorKind, TaskKind, Tier, Timestamp, WeightRow};
use rusqlite::{Connection, Row, params};

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

/// Reads all rows of a query. A row that can't be parsed is skipped, as these tables are only advice.
fn read_rows<T>(
    connection: &Connection,
    sql: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(Some(one)) => all.push(one),
            Ok(None) => tracing::warn!(sql, "skipping a row that can't be parsed"),
            Err(error) if fault::is_corrupt(&error) => return Err(error),
            Err(error) => tracing::warn!(%error, sql, "skipping a row that can't be read"),
        }
    }
    Ok(all)
}

fn time_from_row(row: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    row.get(at).map(Timestamp::from_micros)
}

fn cooldown_from_row(row: &Row<'_>) -> rusqlite::Result<Option<Cooldown>> {
    let reason: String = row.get(2)?;
    let Ok(reason) = serde_json::from_value::<ErrorKind>(reason.into()) else { return Ok(None) };
    Ok(Some(Cooldown {
        provider: row.get(0)?,
        failures: row.get(1)?,
        reason,
        message: row.get(3)?,
        since: time_from_row(row, 4)?,
        until: time_from_row(row, 5)?,
        credential: row.get(6)?,
    }))
}

fn health_from_row(row: &Row<'_>) -> rusqlite::Result<Option<ProviderHealth>> {
    Ok(Some(ProviderHealth {
        provider: row.get(0)?,
        ok: row.get(1)?,
        message: row.get(2)?,
        latency_ms: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
        at: time_from_row(row, 4)?,
        configuration: row.get(5)?,
    }))
}

fn weight_from_row(row: &Row<'_>) -> rusqlite::Result<Option<WeightRow>> {
    let (task_type, tier): (String, String) = (row.get(0)?, row.get(1)?);
    let (Ok(task_type), Ok(tier)) = (task_type.parse(), tier.parse()) else { return Ok(None) };
    let count = |at| row.get::<_, i64>(at).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(Some(WeightRow {
        task_type,
        tier,
        provider: row.get(2)?,
        model: row.get(3)?,
        weight: row.get(4)?,
        success_count: count(5)?,
        total_count: count(6)?,
        last_updated: time_from_row(row, 7)?,
    }))
}

impl SqliteStore {
    async fn write_routing(&self, advice: RoutingWrite) -> Result<u32, Error> {
        self.submit_write(WriteOp::UpdateRouting(Box::new(advice))).await
    }
}

#[async_trait]
impl CooldownStore for SqliteStore {
    async fn list_cooldowns(&self) -> Result<Vec<Cooldown>, Error> {
        self.query(|connection| {
            read_rows(connection, "SELECT * FROM cooldowns ORDER BY provider", cooldown_from_row)
        })
        .await
    }

    async fn set_cooldown(&self, cooldown: Cooldown) -> Result<(), Error> {
        self.write_routing(RoutingWrite::SetCooldown(cooldown)).await.map(drop)
    }

    async fn clear_cooldown(&self, provider: &str) -> Result<(), Error> {
        self.write_routing(RoutingWrite::ClearCooldown(provider.to_owned())).await.map(drop)
    }

    async fn list_health(&self) -> Result<Vec<ProviderHealth>, Error> {
        self.query(|connection| {
            read_rows(connection, "SELECT * FROM provider_health ORDER BY provider", health_from_row)
        })
        .await
    }

    async fn record_health(&self, health: ProviderHealth) -> Result<(), Error> {
        self.write_routing(RoutingWrite::RecordHealth(health)).await.map(drop)
    }
}

#[async_trait]
impl WeightStore for SqliteStore {
    async fn list_weights(&self) -> Result<Vec<WeightRow>, Error> {
        let sql = "SELECT * FROM routing_weights ORDER BY task_type, tier, provider, model";
        self.query(move |connection| read_rows(connection, sql, weight_from_row)).await
    }

    async fn set_weight(&self, row: WeightRow) -> Result<(), Error> {
        self.write_routing(RoutingWrite::SetWeight(row)).await.map(drop)
    }

    async fn delete_weight(
        &self,
        task_type: TaskKind,
        tier: Tier,
        provider: &str,
        model: &str,
    ) -> Result<bool, Error> {
        let (provider, model) = (provider.to_owned(), model.to_owned());
        self.write_routing(RoutingWrite::DeleteWeight { task_type, tier, provider, model })
            .await
            .map(|rows| rows > 0)
    }
}
