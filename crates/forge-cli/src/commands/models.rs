//! `forge models`: all providers at a glance, and whether one of them answers.

use crate::args::{Models, ModelsAction};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use crate::ui::table::{self, fixed, flexible};
use crate::ui::text::{clean, count, duration, one_line};
use forge_runtime::{Forge, Freshness, PerMillion, ProviderRow};
use std::path::Path;

/// Shows the providers, or tests one.
pub(crate) async fn models(session: &Session, args: Models) -> Result<Exit, CliError> {
    let loaded = session.load_with_keys(Path::new("."), &Overlay::default())?;
    let forge = Forge::open(&loaded)?;
    let ui = &session.ui;
    if let Some(ModelsAction::Test { name }) = args.action {
        let test = forge.test_model(&loaded, &name).await?;
        if ui.format == Format::Json {
            ui.json(&test);
        } else {
            let mark = if test.success { ui.out.green("ok  ") } else { ui.out.red("FAIL") };
            ui.line(&format!("{mark}  {} ({} ms)", clean(&test.message), test.latency_ms));
        }
        return Ok(if test.success { Exit::Done } else { Exit::Failed });
    }
    let freshness = if args.refresh { Freshness::New } else { Freshness::Cached };
    let glance = forge.glance(&loaded, freshness).await?;
    if ui.format == Format::Json {
        ui.json(&glance);
        return Ok(Exit::Done);
    }
    let head = [
        fixed("PROVIDER"),
        flexible("KEY"),
        fixed("ANSWERS"),
        flexible("DEFAULT MODEL"),
        fixed("WINDOW"),
        fixed("$/M IN"),
        fixed("$/M OUT"),
        fixed("LEFT ALONE"),
    ];
    let rows: Vec<_> = glance.providers.iter().map(cells).collect();
    ui.lines(&table::lines(&head, &rows, ui.out_width()));
    for row in
        glance.providers.iter().filter(|row| row.reachable == Some(false) && (row.has_key || row.needs_key))
    {
        ui.line(&format!("{}: {}", row.provider, clean(&row.message)));
    }
    for row in &glance.providers {
        if let Some(rest) = &row.cooldown {
            ui.line(&format!(
                "{} is left alone until {} ({}; `forge models test {}` ends that if it answers): {}",
                row.provider,
                rest.until,
                rest.reason,
                row.provider,
                clean(&rest.message)
            ));
        }
    }
    match (&glance.first, &glance.fault) {
        (Some(first), _) => {
            ui.line(&format!("A run here asks {first}."));
            if !glance.then.is_empty() {
                ui.line(&format!("If it can't be had: {}.", glance.then.join(", then ")));
            }
        }
        (None, fault) => ui.line(&clean(fault.as_deref().unwrap_or("Nobody can be asked here."))),
    }
    ui.line(&format!("Prices as of {}.", glance.prices_as_of));
    Ok(Exit::Done)
}

fn cells(row: &ProviderRow) -> Vec<String> {
    let key = match (&row.key_from, row.needs_key) {
        (Some(from), _) => from.clone(),
        (None, true) => "none".to_owned(),
        (None, false) => "not needed".to_owned(),
    };
    let answers = match (row.reachable, row.latency_ms) {
        (Some(true), Some(ms)) => format!("yes, {ms} ms"),
        (Some(true), None) => "yes".to_owned(),
        (Some(false), _) => "no".to_owned(),
        (None, _) => "not asked".to_owned(),
    };
    let price = |pick: fn(&PerMillion) -> f64| {
        row.price.as_ref().map_or_else(|| "unknown".to_owned(), |p| short(pick(p)))
    };
    vec![
        row.provider.clone(),
        key,
        answers,
        row.default_model.as_deref().map_or_else(|| "none".to_owned(), one_line),
        row.window.map_or_else(|| "unknown".to_owned(), count),
        price(|p| p.input),
        price(|p| p.output),
        row.cooldown.as_ref().map_or_else(String::new, |rest| duration(rest.remaining_seconds * 1_000)),
    ]
}

/// Dollars per million tokens, without zeros that say nothing.
pub(super) fn short(dollars: f64) -> String {
    if dollars == 0.0 { "free".to_owned() } else { format!("{dollars}") }
}
