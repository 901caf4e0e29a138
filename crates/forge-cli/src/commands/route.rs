//! `forge route explain` and `forge routing`: the choice of a model for a task.

use crate::args::{RouteAction, RouteArgs, RouteExplainArgs, RoutingAction, RoutingArgs, WeightRowArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::request;
use crate::session::{ConfigOverrides, Session};
use forge_runtime::{Choice, Project, RoutingJob};
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{sanitize_text, wrap_words};
use forge_terminal::{StdoutFormat, Ui};
use forge_types::{TaskKind, Tier, WeightRow};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Explains the choice of a model, stage by stage.
pub(crate) async fn route(session: &Session, args: RouteArgs) -> Result<CliExit, CliError> {
    let RouteAction::Explain(args) = args.action;
    let RouteExplainArgs { task, repo, model, task_type, repair_attempt, seed } = args;
    let mut overlay = ConfigOverrides::default();
    request::push_model_flags(&model, &mut overlay.flags);
    let loaded = session.load_with_keys(&repo.unwrap_or_else(|| PathBuf::from(".")), &overlay)?;
    let task_type = parse_word::<TaskKind>(&task_type)?;
    let job = RoutingJob { task_type, task, repair_attempt, seed };
    let ui = &session.ui;
    let project = Project::open(loaded)?;
    let choice = project.explain_route(&job).await.inspect_err(|_| {
        let (tier, why) = project.classify_by_text(&job.task);
        ui.print_note(&format!("by its text, the task is {tier} ({why}); no model can be chosen:"));
    })?;
    if ui.format == StdoutFormat::Json {
        let names = choice.targets.iter().map(|target| target.route.to_string());
        let routing = &choice.routing;
        ui.print_json(&json!({
            "provider": routing.chosen.provider,
            "model": routing.chosen.model,
            "task_type": routing.task_type,
            "tier": routing.tier,
            "stage": routing.stage,
            "reason": routing.reason,
            "stages": routing.stages,
            "rejected": routing.rejected,
            "order": names.collect::<Vec<_>>(),
        }));
    } else {
        print_choice(ui, &choice);
    }
    Ok(CliExit::Done)
}

fn print_choice(ui: &Ui, choice: &Choice) {
    let routing = &choice.routing;
    ui.print_line(&format!(
        "{}  ({} work, {}; chosen by {})",
        ui.out.bold(&routing.chosen.to_string()),
        routing.task_type,
        routing.tier,
        routing.stage
    ));
    let width = ui.out_width().saturating_sub(18).clamp(40, 110);
    for stage in &routing.stages {
        let mark = if stage.acted { "->" } else { "  " };
        let choice = stage.choice.as_ref().map_or_else(|| "no choice yet".to_owned(), ToString::to_string);
        let text = format!("{choice}: {}", sanitize_text(&stage.reason));
        for (n, line) in wrap_words(&text, width).iter().enumerate() {
            let head = if n == 0 { format!("{mark} {:<13}", stage.stage) } else { " ".repeat(16) };
            ui.print_line(&format!("{head} {line}"));
        }
    }
    if !routing.rejected.is_empty() {
        ui.print_line("Rejected:");
        for one in &routing.rejected {
            ui.print_line(&format!("   {}/{}: {}", one.provider, one.model, sanitize_text(&one.reason)));
        }
    }
    let then: Vec<_> = choice.targets.iter().skip(1).map(|target| target.route.to_string()).collect();
    if !then.is_empty() {
        ui.print_line(&format!("Fallbacks: {}", then.join(", then ")));
    }
}

/// Shows or changes the weights.
pub(crate) async fn routing(session: &Session, args: RoutingArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_with_keys(Path::new("."), &ConfigOverrides::default())?;
    let project = Project::open(loaded)?;
    let ui = &session.ui;
    match args.action.unwrap_or(RoutingAction::List) {
        RoutingAction::List => print_weights(ui, &project.list_weights().await?),
        RoutingAction::Set { row, weight, outcomes } => {
            let (task_type, tier, model) = parse_weight_row(&row)?;
            let row = project.set_weight(task_type, tier, model, weight, outcomes).await?;
            if ui.format == StdoutFormat::Json {
                ui.print_json(&row);
            } else {
                print_weights(ui, &[row]);
            }
        }
        RoutingAction::Delete { row } => {
            let (task_type, tier, model) = parse_weight_row(&row)?;
            if !project.delete_weight(task_type, tier, model).await? {
                return Err(CliError::failed(format!("{model} has no weight for {tier} {task_type}"))
                    .with_hint("list the weights with `forge routing list`"));
            }
            if ui.format == StdoutFormat::Json {
                ui.print_json(&json!({"deleted": true}));
            }
        }
    }
    Ok(CliExit::Done)
}

fn print_weights(ui: &Ui, rows: &[WeightRow]) {
    if ui.format == StdoutFormat::Json {
        ui.print_json(&rows);
        return;
    }
    if rows.is_empty() {
        ui.print_note(
            "There are no weights yet. Set one: forge routing set code hard openai/gpt-4o 0.9 --outcomes 5",
        );
        return;
    }
    let head = [
        fixed_column("TASK TYPE"),
        fixed_column("TIER"),
        flexible_column("MODEL"),
        fixed_column("WEIGHT"),
        fixed_column("SUCCESSES"),
        fixed_column("OUTCOMES"),
        fixed_column("CHANGED"),
    ];
    let cells = |row: &WeightRow| {
        vec![
            row.task_type.to_string(),
            row.tier.to_string(),
            row.route().to_string(),
            format!("{:.2}", row.weight),
            row.success_count.to_string(),
            row.total_count.to_string(),
            row.last_updated.to_string().chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect(),
        ]
    };
    ui.print_lines(table::render_table(&head, &rows.iter().map(cells).collect::<Vec<_>>(), ui.out_width()));
}

fn parse_weight_row(row: &WeightRowArgs) -> Result<(TaskKind, Tier, &str), CliError> {
    Ok((parse_word(&row.task_type)?, parse_word(&row.tier)?, row.model.as_str()))
}

/// Parses a word that the argument parser has already accepted.
fn parse_word<T: std::str::FromStr<Err = forge_types::IdError>>(text: &str) -> Result<T, CliError> {
    text.parse().map_err(|error: forge_types::IdError| CliError::usage(error.to_string()))
}
