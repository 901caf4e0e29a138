//! `forge models`: lists all providers, or tests one.

use crate::args::{ModelsAction, ModelsArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_runtime::{Freshness, PerMillion, Project, ProviderRow};
use forge_terminal::StdoutFormat;
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{format_count, format_duration, one_line, sanitize_text};
use std::path::Path;

/// Lists the providers, or tests one.
pub(crate) async fn models(session: &Session, args: ModelsArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_with_keys(Path::new("."), &ConfigOverrides::default())?;
    let project = Project::open(loaded)?;
    let ui = &session.ui;
    if let Some(ModelsAction::Test { name }) = args.action {
        let test = project.test_model(&name).await?;
        if ui.format == StdoutFormat::Json {
            ui.print_json(&test);
        } else {
            let mark = if test.success { ui.out.green("ok  ") } else { ui.out.red("FAIL") };
            ui.print_line(&format!("{mark}  {} ({} ms)", sanitize_text(&test.message), test.latency_ms));
        }
        return Ok(if test.success { CliExit::Done } else { CliExit::Failed });
    }
    let freshness = if args.refresh { Freshness::New } else { Freshness::Cached };
    let glance = project.provider_overview(freshness).await?;
    if ui.format == StdoutFormat::Json {
        ui.print_json(&glance);
        return Ok(CliExit::Done);
    }
    let head = [
        fixed_column("PROVIDER"),
        flexible_column("KEY"),
        fixed_column("ANSWERS"),
        flexible_column("DEFAULT MODEL"),
        fixed_column("WINDOW"),
        fixed_column("$/M IN"),
        fixed_column("$/M OUT"),
        fixed_column("COOLDOWN"),
    ];
    let rows: Vec<_> = glance.providers.iter().map(provider_cells).collect();
    ui.print_lines(table::render_table(&head, &rows, ui.out_width()));
    for row in
        glance.providers.iter().filter(|row| row.reachable == Some(false) && (row.has_key || row.needs_key))
    {
        ui.print_line(&format!("{}: {}", row.provider, sanitize_text(&row.message)));
    }
    for row in &glance.providers {
        if let Some(rest) = &row.cooldown {
            ui.print_line(&format!(
                "{} is in cooldown until {} ({}; a successful `forge models test {}` ends it): {}",
                row.provider,
                rest.until,
                rest.reason,
                row.provider,
                sanitize_text(&rest.message)
            ));
        }
    }
    match (&glance.first, &glance.fault) {
        (Some(first), _) => {
            ui.print_line(&format!("Default model here: {first}"));
            if !glance.then.is_empty() {
                ui.print_line(&format!("Fallbacks: {}", glance.then.join(", then ")));
            }
        }
        (None, fault) => {
            ui.print_line(&sanitize_text(fault.as_deref().unwrap_or("No model is available here.")))
        }
    }
    ui.print_line(&format!("Prices as of {}.", glance.prices_as_of));
    Ok(CliExit::Done)
}

fn provider_cells(row: &ProviderRow) -> Vec<String> {
    let key = match (&row.key_from, row.needs_key) {
        (Some(from), _) => from.clone(),
        (None, true) => "none".to_owned(),
        (None, false) => "not needed".to_owned(),
    };
    let answers = match (row.reachable, row.latency_ms) {
        (Some(true), Some(ms)) => format!("yes, {ms} ms"),
        (Some(true), None) => "yes".to_owned(),
        (Some(false), _) => "no".to_owned(),
        (None, _) => "-".to_owned(),
    };
    let price = |pick: fn(&PerMillion) -> f64| {
        row.price.as_ref().map_or_else(|| "unknown".to_owned(), |p| format_price(pick(p)))
    };
    vec![
        row.provider.clone(),
        key,
        answers,
        row.default_model.as_deref().map_or_else(|| "none".to_owned(), one_line),
        row.window.map_or_else(|| "unknown".to_owned(), format_count),
        price(|p| p.input),
        price(|p| p.output),
        row.cooldown
            .as_ref()
            .map_or_else(String::new, |rest| format_duration(rest.remaining_seconds * 1_000)),
    ]
}

/// Formats dollars per million tokens, without trailing zeros.
pub(super) fn format_price(dollars: f64) -> String {
    if dollars == 0.0 { "free".to_owned() } else { format!("{dollars}") }
}
