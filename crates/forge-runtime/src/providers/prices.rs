//! The table of models and prices: the built-in one, or a newer one that the user fetched.

use crate::Error;
use forge_catalog::Catalog;
use forge_config::{ResolvedConfig, trust};
use forge_types::ModelFacts;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The fetched table, in the data directory.
const TABLE_FILE: &str = "prices.json";

/// Loads the table in use: the fetched one if it is readable, otherwise the built-in one.
pub(crate) fn load_catalog(loaded: &ResolvedConfig) -> Arc<Catalog> {
    let (catalog, fault) = read_catalog(&table_path(&loaded.dirs.data));
    if let Some(fault) = fault {
        tracing::warn!(%fault, "the fetched price table can't be used; replace it by a new one");
    }
    catalog
}

/// The most bytes of a price table; the built-in one has some dozens of kilobytes.
const MAX_TABLE_BYTES: u64 = 16 << 20;

fn table_path(data: &Path) -> PathBuf {
    data.join(TABLE_FILE)
}

fn read_catalog(path: &Path) -> (Arc<Catalog>, Option<String>) {
    let builtin = || Arc::clone(Catalog::builtin());
    match forge_files::read_text(path, MAX_TABLE_BYTES) {
        Ok(text) => match Catalog::parse(&text) {
            Ok(catalog) => (Arc::new(catalog), None),
            Err(error) => (builtin(), Some(format!("{}: {error}", path.display()))),
        },
        Err(error) if error.is_absent() => (builtin(), None),
        Err(error) => (builtin(), Some(format!("{}: {}", path.display(), error.reason()))),
    }
}

/// A model's row, in dollars per million tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriceRow {
    /// The provider.
    pub provider: String,
    /// The model, or the beginning of its name; `*` means every model of the provider.
    pub model: String,
    /// The price of prompt tokens.
    pub input: f64,
    /// The price of reply tokens.
    pub output: f64,
    /// The price of prompt tokens read from the provider's cache.
    pub cached_input: f64,
    /// The price of prompt tokens written to the cache.
    pub cache_write: f64,
    /// The context window in tokens.
    pub window: u64,
}

/// The price table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriceTable {
    /// The day on which the prices were looked up.
    pub as_of: String,
    /// The source of the prices.
    pub source: String,
    /// The file of the table; absent for the built-in one.
    pub file: Option<PathBuf>,
    /// The reason that a fetched table is not used.
    pub fault: Option<String>,
    /// The rows of the table.
    pub models: Vec<PriceRow>,
}

/// The differences between an old and a new price table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriceUpdate {
    /// The day of the new table.
    pub as_of: String,
    /// The source of the new table.
    pub source: String,
    /// The file of the new table.
    pub file: PathBuf,
    /// The day of the old table.
    pub before: String,
    /// Added rows, as `provider/model`.
    pub added: Vec<String>,
    /// Removed rows.
    pub removed: Vec<String>,
    /// Changed rows.
    pub changed: Vec<PriceChange>,
}

/// A row that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriceChange {
    /// The row in the old table.
    pub before: PriceRow,
    /// The row in the new table.
    pub after: PriceRow,
}

/// Returns the table in use.
pub fn price_table(loaded: &ResolvedConfig) -> PriceTable {
    let path = table_path(&loaded.dirs.data);
    let (catalog, fault) = read_catalog(&path);
    PriceTable {
        as_of: catalog.as_of.clone(),
        source: catalog.source.clone(),
        file: path.exists().then_some(path).filter(|_| fault.is_none()),
        fault,
        models: rows(&catalog),
    }
}

/// Replaces the table in use by the one at `from`, a file or a URL.
///
/// # Errors
/// If the table can't be fetched or read, or is invalid; the old one then stays in use.
pub async fn update_prices(loaded: &ResolvedConfig, from: &str, folder: &Path) -> Result<PriceUpdate, Error> {
    let invalid = |what: String| Error::Invalid { what };
    let text = if from.contains("://") {
        let got = forge_models::fetch_table(from).await;
        got.map_err(|why| {
            invalid(format!("the price table at {from} can't be fetched: {why}. Nothing was changed"))
        })?
    } else {
        let file = folder.join(from);
        if trust::is_unaccepted(&loaded.dirs, &loaded.repo, folder, &file) {
            let what = format!(
                "the price table {} is in a repository, and prices decide when a budget stops a run: review it and \
                 accept it, or copy it out of the repository. Nothing was changed",
                file.display()
            );
            return Err(Error::Untrusted { file: file.display().to_string(), what });
        }
        forge_files::read_text(&file, MAX_TABLE_BYTES).map_err(|error| {
            let why = error.reason();
            invalid(format!("the price table {} can't be read: {why}. Nothing was changed", file.display()))
        })?
    };
    let new = Catalog::parse(&text)
        .map_err(|error| invalid(format!("{from} is invalid: {error}. The old table stays in use")))?;
    let path = table_path(&loaded.dirs.data);
    let (old, _) = read_catalog(&path);
    write_table(&path, &text)?;
    Ok(compare_catalogs(&old, &new, path))
}

/// Writes a text atomically and durably.
fn write_table(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    let written = (|| {
        std::fs::create_dir_all(folder)?;
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        draft.write_all(text.as_bytes())?;
        draft.as_file().sync_all()?;
        draft.persist(path).map_err(|error| error.error)?;
        forge_files::sync_directory(folder)
    })();
    written.map_err(|error| Error::Output { path: path.display().to_string(), why: error.to_string() })
}

fn rows(catalog: &Catalog) -> Vec<PriceRow> {
    let row = |provider: &str, model: &str| {
        let ModelFacts { price, window, .. } = catalog.model_facts(provider, model);
        let price = price.unwrap_or_default();
        PriceRow {
            provider: provider.to_owned(),
            model: model.to_owned(),
            input: per_million(price.input),
            output: per_million(price.output),
            cached_input: per_million(price.cached_input),
            cache_write: per_million(price.cache_write),
            window,
        }
    };
    catalog.list_models().map(|(provider, model, _)| row(provider, model)).collect()
}

/// Converts pico-dollars per token to dollars per million tokens.
#[allow(clippy::cast_precision_loss, reason = "shown, never computed with")]
pub(crate) fn per_million(per_token: i64) -> f64 {
    per_token as f64 / 1e6
}

fn compare_catalogs(old: &Catalog, new: &Catalog, file: PathBuf) -> PriceUpdate {
    let named = |catalog: &Catalog| -> BTreeMap<String, PriceRow> {
        rows(catalog).into_iter().map(|row| (format!("{}/{}", row.provider, row.model), row)).collect()
    };
    let (before, after) = (named(old), named(new));
    let only = |one: &BTreeMap<String, PriceRow>, other: &BTreeMap<String, PriceRow>| {
        one.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
    };
    let changed = after.iter().filter_map(|(name, row)| {
        let old = before.get(name)?;
        (old != row).then(|| PriceChange { before: old.clone(), after: row.clone() })
    });
    PriceUpdate {
        as_of: new.as_of.clone(),
        source: new.source.clone(),
        file,
        before: old.as_of.clone(),
        added: only(&after, &before),
        removed: only(&before, &after),
        changed: changed.collect(),
    }
}
