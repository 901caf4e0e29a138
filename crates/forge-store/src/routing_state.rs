//! Routing state shared by all runs: cooldowns, provider health and weights.

use crate::routing_tables::RoutingWrite;
use crate::write::WriteOp;
use crate::{SqliteStore, fault};
use async_trait::async_trait;
use forge_ports::journal::Error;
use forge_ports::routing::{CooldownStore, ProviderHealth, WeightStore};
use forge_types::{Cooldown, ErrorKind, TaskKind, Tier, Timestamp, WeightRow};
use rusqlite::{Connection, Row};

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
