//! `forge prices`: what models cost, as far as that is known here.

use super::models::short;
use crate::args::{Prices, PricesAction};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::table::{self, fixed, flexible};
use crate::ui::text::{clean, count, plural};
use crate::ui::{Format, Ui};
use forge_runtime::{PriceRow, PriceTable, PriceUpdate};
use std::path::Path;

/// Rows of a list of changes that are shown.
const SHOWN: usize = 20;

/// Shows the table, or puts another one in its place.
pub(crate) async fn prices(session: &Session, args: Prices) -> Result<Exit, CliError> {
    let loaded = session.load(Path::new("."), &Overlay::default())?;
    let ui = &session.ui;
    match args.action.unwrap_or(PricesAction::Show { name: None }) {
        PricesAction::Show { name } => {
            let mut table = forge_runtime::price_table(&loaded);
            if let Some(name) = &name {
                table.models.retain(|row| format!("{}/{}", row.provider, row.model).contains(name.as_str()));
            }
            if ui.format == Format::Json { ui.json(&table) } else { show(ui, &table) }
        }
        PricesAction::Update { from } => {
            let update = forge_runtime::update_prices(&loaded, &from, &session.cwd).await?;
            if ui.format == Format::Json { ui.json(&update) } else { changed(ui, &update) }
        }
    }
    Ok(Exit::Done)
}

fn show(ui: &Ui, table: &PriceTable) {
    if let Some(fault) = &table.fault {
        ui.warn(&format!("the fetched table is not used: {}", clean(fault)));
    }
    let head = [
        flexible("MODEL"),
        fixed("$/M IN"),
        fixed("$/M OUT"),
        fixed("$/M CACHED"),
        fixed("$/M CACHE WRITE"),
        fixed("WINDOW"),
    ];
    let cells = |row: &PriceRow| {
        vec![
            name(row),
            short(row.input),
            short(row.output),
            short(row.cached_input),
            short(row.cache_write),
            count(row.window),
        ]
    };
    ui.lines(&table::lines(&head, &table.models.iter().map(cells).collect::<Vec<_>>(), ui.out_width()));
    let place = table.file.as_ref().map_or_else(|| "built in".to_owned(), |file| file.display().to_string());
    ui.line(&format!("As of {} ({place}). Source: {}", table.as_of, clean(&table.source)));
    ui.line("A model that is not here, and no longer name of one that is, has an unknown price.");
}

fn name(row: &PriceRow) -> String {
    format!("{}/{}", row.provider, row.model)
}

fn changed(ui: &Ui, update: &PriceUpdate) {
    ui.line(&format!("Prices of {} are used now, in place of those of {}.", update.as_of, update.before));
    for change in update.changed.iter().take(SHOWN) {
        let (before, after) = (&change.before, &change.after);
        ui.line(&format!(
            "  {}: in {} -> {}, out {} -> {}",
            name(after),
            short(before.input),
            short(after.input),
            short(before.output),
            short(after.output)
        ));
    }
    for (names, what) in [(&update.added, "new"), (&update.removed, "gone")] {
        if !names.is_empty() {
            let some: Vec<_> = names.iter().take(SHOWN).map(String::as_str).collect();
            let more = if names.len() > SHOWN { ", …" } else { "" };
            ui.line(&format!(
                "  {} {what}: {}{more}",
                plural(names.len(), "model", "models"),
                some.join(", ")
            ));
        }
    }
    if update.changed.is_empty() && update.added.is_empty() && update.removed.is_empty() {
        ui.line("  No price changed.");
    }
    ui.line(&format!("Kept in {}. Runs that exist keep the prices they began with.", update.file.display()));
}
