//! `forge prices`: shows and updates the known prices of models.

use super::models::format_price;
use crate::args::{PricesAction, PricesArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_runtime::{PriceRow, PriceTable, PriceUpdate};
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{format_count, pluralize, sanitize_text};
use forge_terminal::{StdoutFormat, Ui};
use std::path::Path;

/// Maximum number of changes listed.
const MAX_LISTED_CHANGES: usize = 20;

/// Shows the price table, or replaces it.
pub(crate) async fn prices(session: &Session, args: PricesArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_config(Path::new("."), &ConfigOverrides::default())?;
    let ui = &session.ui;
    match args.action.unwrap_or(PricesAction::Show { name: None }) {
        PricesAction::Show { name } => {
            let mut table = forge_runtime::price_table(&loaded);
            if let Some(name) = &name {
                table.models.retain(|row| format!("{}/{}", row.provider, row.model).contains(name.as_str()));
            }
            if ui.format == StdoutFormat::Json { ui.print_json(&table) } else { print_prices(ui, &table) }
        }
        PricesAction::Update { from } => {
            let update = forge_runtime::update_prices(&loaded, &from, &session.cwd).await?;
            if ui.format == StdoutFormat::Json {
                ui.print_json(&update)
            } else {
                print_price_changes(ui, &update)
            }
        }
    }
    Ok(CliExit::Done)
}

fn print_prices(ui: &Ui, table: &PriceTable) {
    if let Some(fault) = &table.fault {
        ui.print_warning(&format!("ignoring the fetched price table: {}", sanitize_text(fault)));
    }
    let head = [
        flexible_column("MODEL"),
        fixed_column("$/M IN"),
        fixed_column("$/M OUT"),
        fixed_column("$/M CACHED"),
        fixed_column("$/M CACHE WRITE"),
        fixed_column("WINDOW"),
    ];
    let cells = |row: &PriceRow| {
        vec![
            model_name(row),
            format_price(row.input),
            format_price(row.output),
            format_price(row.cached_input),
            format_price(row.cache_write),
            format_count(row.window),
        ]
    };
    ui.print_lines(table::render_table(
        &head,
        &table.models.iter().map(cells).collect::<Vec<_>>(),
        ui.out_width(),
    ));
    let place = table.file.as_ref().map_or_else(|| "built in".to_owned(), |file| file.display().to_string());
    ui.print_line(&format!("As of {} ({place}). Source: {}", table.as_of, sanitize_text(&table.source)));
    ui.print_line("Prices of models not listed are unknown.");
}

fn model_name(row: &PriceRow) -> String {
    format!("{}/{}", row.provider, row.model)
}

fn print_price_changes(ui: &Ui, update: &PriceUpdate) {
    ui.print_line(&format!("Now using prices of {} instead of those of {}.", update.as_of, update.before));
    for change in update.changed.iter().take(MAX_LISTED_CHANGES) {
        let (before, after) = (&change.before, &change.after);
        ui.print_line(&format!(
            "  {}: in {} -> {}, out {} -> {}",
            model_name(after),
            format_price(before.input),
            format_price(after.input),
            format_price(before.output),
            format_price(after.output)
        ));
    }
    for (names, what) in [(&update.added, "new"), (&update.removed, "removed")] {
        if !names.is_empty() {
            let some: Vec<_> = names.iter().take(MAX_LISTED_CHANGES).map(String::as_str).collect();
            let more = if names.len() > MAX_LISTED_CHANGES { ", …" } else { "" };
            ui.print_line(&format!(
                "  {} {what}: {}{more}",
                pluralize(names.len(), "model", "models"),
                some.join(", ")
            ));
        }
    }
    if update.changed.is_empty() && update.added.is_empty() && update.removed.is_empty() {
        ui.print_line("  No price changed.");
    }
    ui.print_line(&format!("Stored in {}. Existing runs keep their prices.", update.file.display()));
}
