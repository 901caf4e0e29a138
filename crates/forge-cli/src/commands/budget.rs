//! `forge budget`: shows spending per day and per run, and raises a run's budget.

use super::resume;
use crate::args::{BudgetAction, BudgetArgs, LimitFlags, ResumeArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_runtime::{Delivery, Project};
use forge_terminal::table::{self, fixed_column};
use forge_terminal::{StdoutFormat, Ui};
use forge_types::{Money, RunId};
use serde_json::json;
use std::path::Path;

/// Shows spending, or raises a limit.
pub(crate) async fn budget(session: &Session, args: BudgetArgs) -> Result<CliExit, CliError> {
    let Some(BudgetAction::Raise { id, usd, day, no_resume }) = args.action else {
        return show_spending(session, args.days).await;
    };
    let amount = parse_dollars(usd)?;
    let project = Project::open(session.load_read_only()?)?;
    let run = project.forge().find_run(&id).await?;
    let (own, of_day) = if day { (None, Some(amount)) } else { (Some(amount), None) };
    let delivery = project.raise_ceilings(run, own, of_day).await?;
    drop(project);
    print_delivery(session, run, amount, &delivery, no_resume)?;
    if no_resume || matches!(delivery, Delivery::Sent { .. }) {
        return Ok(CliExit::Done);
    }
    let again = ResumeArgs {
        id: run.to_string(),
        limits: LimitFlags::default(),
        env: None,
        report_file: None,
        output_format: None,
    };
    resume::resume(session, again).await
}

fn print_delivery(
    session: &Session,
    run: RunId,
    amount: Money,
    delivery: &Delivery,
    stays: bool,
) -> Result<(), CliError> {
    let ui = &session.ui;
    let then = match delivery {
        Delivery::Sent { holder } => {
            format!("{holder}, where the run is active, uses the new limit from now on")
        }
        _ if stays => format!("resume it with `forge resume {run}`"),
        _ => "resuming".to_owned(),
    };
    if ui.format == StdoutFormat::Json && (stays || matches!(delivery, Delivery::Sent { .. })) {
        ui.print_json(&json!({ "run_id": run.to_string(), "ceiling_usd": amount.as_usd() }));
    } else {
        ui.print_note(&format!("run {run} may spend {amount}; {then}"));
    }
    Ok(())
}

fn parse_dollars(usd: f64) -> Result<Money, CliError> {
    if !usd.is_finite() || usd <= 0.0 {
        return Err(CliError::usage(format!("invalid limit {usd}: expected an amount in dollars above 0")));
    }
    Ok(Money::from_usd(usd))
}

async fn show_spending(session: &Session, days: usize) -> Result<CliExit, CliError> {
    let loaded = session.load_config(Path::new("."), &ConfigOverrides::default())?;
    let project = Project::open(loaded)?;
    let budget = project.budget(days).await?;
    let ceiling = project.config().settings.cost.max_per_day_usd.map(Money::from_usd);
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        let days = budget.days.iter().map(|day| {
            json!({ "day": day.day, "spent_usd": day.balance.spent.as_usd(), "reserved_usd": day.balance.reserved.as_usd() })
        });
        let runs = budget.runs.iter().map(|run| {
            json!({
                "run_id": run.run.to_string(),
                "status": run.status.name(),
                "waits_for_budget": run.waits,
                "spent_usd": run.balance.spent.as_usd(),
                "reserved_usd": run.balance.reserved.as_usd(),
            })
        });
        ui.print_json(&json!({
            "today": project.today(),
            "max_per_day_usd": ceiling.map(Money::as_usd),
            "days": days.collect::<Vec<_>>(),
            "runs": runs.collect::<Vec<_>>(),
        }));
        return Ok(CliExit::Done);
    }
    print_run_budget(ui, &budget, ceiling);
    Ok(CliExit::Done)
}

fn print_run_budget(ui: &Ui, budget: &forge_runtime::BudgetReport, ceiling: Option<Money>) {
    let limit = ceiling.map_or_else(
        || "no daily limit is set (cost.max_per_day_usd)".to_owned(),
        |ceiling| format!("daily limit of all runs: {ceiling}"),
    );
    if budget.days.is_empty() {
        ui.print_line(&format!("nothing spent yet; {limit}"));
    } else {
        let head = [fixed_column("DAY (UTC)"), fixed_column("SPENT"), fixed_column("RESERVED")];
        let cells = |day: &forge_runtime::DayBudget| {
            vec![day.day.clone(), day.balance.spent.to_string(), day.balance.reserved.to_string()]
        };
        ui.print_lines(table::render_table(
            &head,
            &budget.days.iter().map(cells).collect::<Vec<_>>(),
            ui.out_width(),
        ));
        ui.print_line(&limit);
    }
    if budget.runs.is_empty() {
        return;
    }
    let head = [fixed_column("RUN"), fixed_column("STATUS"), fixed_column("SPENT"), fixed_column("RESERVED")];
    let cells = |run: &forge_runtime::RunBudget| {
        let status = if run.waits { "waiting for budget".to_owned() } else { run.status.name().to_owned() };
        vec![run.run.to_string(), status, run.balance.spent.to_string(), run.balance.reserved.to_string()]
    };
    ui.print_line("");
    ui.print_lines(table::render_table(
        &head,
        &budget.runs.iter().map(cells).collect::<Vec<_>>(),
        ui.out_width(),
    ));
    if let Some(run) = budget.runs.iter().find(|run| run.waits) {
        ui.print_line(&format!("continue: forge budget raise {} USD", run.run));
    }
}
