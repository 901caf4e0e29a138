//! Weights of models by kind of work, set by hand.

use crate::{Error, Project};
use forge_catalog::vendors::{VENDORS, vendor_names};
use forge_types::{ModelRoute, TaskKind, Tier, WeightRow};

/// The lowest weight: a model that failed often is still asked occasionally.
const MIN_WEIGHT: f64 = 0.1;
/// The highest weight.
const MAX_WEIGHT: f64 = 1.0;

impl Project {
    /// Returns all weights.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn list_weights(&self) -> Result<Vec<WeightRow>, Error> {
        Ok(self.parts().cooldowns.weight_store()?.list_weights().await?)
    }

    /// Sets a weight. `outcomes` is the number of outcomes recorded for it from now on; `None` keeps the
    /// number.
    ///
    /// # Errors
    /// If the weight is out of range, the model names no provider, or the store can't be written.
    pub async fn set_weight(
        &self,
        task_type: TaskKind,
        tier: Tier,
        model: &str,
        weight: f64,
        outcomes: Option<u64>,
    ) -> Result<WeightRow, Error> {
        if !(MIN_WEIGHT..=MAX_WEIGHT).contains(&weight) {
            let what = format!("the weight {weight} is not between {MIN_WEIGHT} and {MAX_WEIGHT}");
            return Err(Error::Invalid { what });
        }
        let ModelRoute { provider, model } = parse_full_route(model)?;
        let table = self.parts().cooldowns.weight_store()?;
        let same = |row: &WeightRow| {
            row.task_type == task_type && row.tier == tier && row.provider == provider && row.model == model
        };
        let before = table.list_weights().await?.into_iter().find(same);
        let total = outcomes.or_else(|| before.as_ref().map(|row| row.total_count)).unwrap_or(0);
        let successes = before.map_or(0, |row| row.success_count).min(total);
        let row = WeightRow {
            task_type,
            tier,
            provider,
            model,
            weight,
            success_count: successes,
            total_count: total,
            last_updated: self.parts().clock.now(),
        };
        table.set_weight(row.clone()).await?;
        Ok(row)
    }

    /// Removes a weight; returns whether it existed.
    ///
    /// # Errors
    /// If the model names no provider, or the store can't be written.
    pub async fn delete_weight(&self, task_type: TaskKind, tier: Tier, model: &str) -> Result<bool, Error> {
        let route = parse_full_route(model)?;
        let table = self.parts().cooldowns.weight_store()?;
        Ok(table.delete_weight(task_type, tier, &route.provider, &route.model).await?)
    }
}

/// Parses a model name that includes its provider.
fn parse_full_route(text: &str) -> Result<ModelRoute, Error> {
    let parts = text.split_once('/').filter(|(provider, model)| {
        !model.is_empty() && VENDORS.iter().any(|vendor| vendor.name == *provider)
    });
    let (provider, model) = parts.ok_or_else(|| {
        let known: Vec<_> = vendor_names().collect();
        let what = format!(
            "`{text}` is not of the form provider/model, such as openai/gpt-4o (providers: {})",
            known.join(", ")
        );
        Error::Invalid { what }
    })?;
    Ok(ModelRoute { provider: provider.to_owned(), model: model.to_owned() })
}
