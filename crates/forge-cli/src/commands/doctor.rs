//! `forge doctor`: checks the requirements of runs and suggests fixes.

use crate::error::CliError;
use crate::exit::CliExit;
use crate::hints::remedy_text;
use crate::session::{ConfigOverrides, Session};
use forge_runtime::{CheckState, DoctorCheck};
use forge_terminal::text::{sanitize_text, wrap_words};
use forge_terminal::{StdoutFormat, Ui};
use std::path::Path;

/// Runs all checks and prints the results. Exits with 1 if a run can't start here.
pub(crate) async fn doctor(session: &Session) -> Result<CliExit, CliError> {
    // An invalid configuration is the first finding, and no other check works without a valid one.
    let mut loaded = session.load_config(Path::new("."), &ConfigOverrides::default())?;
    // Open the stores that need no prompt; their problems are among the findings.
    let _ = forge_runtime::secret_stores::unlock_silently(&mut loaded);
    let mut checks = forge_runtime::run_doctor(&loaded).await;
    for check in &mut checks {
        check.remedy = check.remedy.take().or_else(|| check.next_step.as_ref().map(remedy_text));
    }
    let ready = checks.iter().all(|check| check.state != CheckState::Fail);
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        ui.print_json(&serde_json::json!({"ready": ready, "checks": checks}));
    } else {
        checks.iter().for_each(|check| print_check(ui, check));
        let failed = checks.iter().filter(|check| check.state == CheckState::Fail);
        let failed: Vec<_> = failed.map(|check| check.name.to_string()).collect();
        let end = if ready { "Ready.".to_owned() } else { format!("Not ready: {}", failed.join(", ")) };
        ui.print_line(&ui.out.bold(&end));
    }
    Ok(if ready { CliExit::Done } else { CliExit::Failed })
}

fn print_check(ui: &Ui, check: &DoctorCheck) {
    let mark = match check.state {
        CheckState::Ok => ui.out.green("ok  "),
        CheckState::Warn => ui.out.yellow("warn"),
        CheckState::Fail => ui.out.red("FAIL"),
    };
    let width = ui.out_width().saturating_sub(6).clamp(40, 120);
    let text = format!("{}: {}", check.name, sanitize_text(&check.detail));
    for (n, line) in wrap_words(&text, width).iter().enumerate() {
        let head = if n == 0 { mark.as_str() } else { "    " };
        ui.print_line(&format!("{head}  {line}"));
    }
    // Not wrapped, so that a command in it can be copied.
    if let Some(remedy) = &check.remedy {
        ui.print_line(&format!("      -> {}", sanitize_text(remedy)));
    }
}
