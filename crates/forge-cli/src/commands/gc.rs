//! `forge gc`: removes old snapshots.

use crate::args::GcArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::request::push_setting;
use crate::session::{ConfigOverrides, Session};
use forge_runtime::{GcLimits, Project};
use forge_terminal::StdoutFormat;
use forge_terminal::text::pluralize;
use serde_json::json;
use std::path::Path;

/// Removes the snapshots beyond the limits.
pub(crate) async fn gc(session: &Session, args: GcArgs) -> Result<CliExit, CliError> {
    let mut overlay = ConfigOverrides::default();
    let days = args.older_than.map(|days| days.trim_end_matches('d').to_owned());
    push_setting(&mut overlay.flags, "workspace.snapshot_limit", args.max_size);
    push_setting(&mut overlay.flags, "workspace.snapshot_days", days);
    let loaded = session.load_config(Path::new("."), &overlay)?;
    let limits = GcLimits {
        bytes: loaded.settings.workspace.snapshot_limit,
        days: loaded.settings.workspace.snapshot_days,
    };
    let freed = Project::open(loaded)?.gc(limits, args.dry_run).await?;
    let bytes: u64 = freed.iter().map(|freed| freed.bytes).sum();
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        let runs: Vec<_> = freed
            .iter()
            .map(|f| json!({ "run_id": f.run, "bytes": f.bytes, "last_written": f.at }))
            .collect();
        ui.print_json(&json!({ "dry_run": args.dry_run, "bytes": bytes, "runs": runs }));
        return Ok(CliExit::Done);
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for one in &freed {
        ui.print_line(&format!(
            "{verb} the snapshots of run {} ({}, last written {})",
            one.run,
            format_size(one.bytes),
            one.at
        ));
    }
    ui.print_line(&format!(
        "{verb} the snapshots of {}, {}",
        pluralize(freed.len(), "run", "runs"),
        format_size(bytes)
    ));
    Ok(CliExit::Done)
}

/// Formats a number of bytes with a fitting unit.
pub(crate) fn format_size(bytes: u64) -> String {
    const SIZE_UNIT_NAMES: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for larger in SIZE_UNIT_NAMES {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::format_size;

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        assert_eq!(
            [format_size(0), format_size(999), format_size(1_500), format_size(2_000_000_000)],
            ["0 bytes", "999 bytes", "1.5 kB", "2.0 GB"]
        );
    }
}
