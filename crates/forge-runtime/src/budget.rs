//! Budgets: the amounts that days and runs have spent and reserved, and raising their ceilings.

use crate::Error;
use crate::project::{Delivery, Project};
use forge_ports::journal::RunQuery;
use forge_ports::ledger::Balance;
use forge_types::{Money, RunCommand, RunId, RunLimits, RunStatus, WaitingFor};

/// Spending by day, and the runs that hold money.
#[derive(Clone, Debug)]
pub struct BudgetReport {
    /// Days with any spending, newest first, at most as many as requested.
    pub days: Vec<DayBudget>,
    /// Runs that hold money or wait for a larger budget, newest first.
    pub runs: Vec<RunBudget>,
}

/// The spending of one day.
#[derive(Clone, Debug)]
pub struct DayBudget {
    /// The day in UTC, such as `2026-11-21`.
    pub day: String,
    /// The amounts spent and reserved on that day.
    pub balance: Balance,
}

/// The spending of one run.
#[derive(Clone, Debug)]
pub struct RunBudget {
    /// The run.
    pub run: RunId,
    /// The run's status.
    pub status: RunStatus,
    /// Whether the run waits for a budget.
    pub waits: bool,
    /// The amounts that the run has spent and reserved.
    pub balance: Balance,
}

/// The prefixes of the accounts of days and of runs.
const DAY_ACCOUNT_PREFIX: &str = "day:";
const RUN_ACCOUNT_PREFIX: &str = "run:";

impl Project {
    /// Returns the spending of the last `days` days, and the runs that hold money or wait for it.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn budget(&self, days: usize) -> Result<BudgetReport, Error> {
        let ledger = &self.parts().ledger;
        let accounts = ledger.accounts(DAY_ACCOUNT_PREFIX).await?;
        let by_day = accounts.into_iter().rev().take(days).map(|(name, balance)| DayBudget {
            day: name.strip_prefix(DAY_ACCOUNT_PREFIX).unwrap_or(&name).to_owned(),
            balance,
        });
        let mut budget = BudgetReport { days: by_day.collect(), runs: Vec::new() };
        for row in self.forge().list_runs(RunQuery::default()).await? {
            if row.status.is_terminal() {
                continue;
            }
            let balance = ledger.balance(&format!("{RUN_ACCOUNT_PREFIX}{}", row.run)).await?;
            let waits = row.waiting_for == Some(WaitingFor::Budget);
            if waits || balance.reserved > Money::ZERO {
                budget.runs.push(RunBudget { run: row.run, status: row.status, waits, balance });
            }
        }
        Ok(budget)
    }

    /// Returns today's date in the form that account names use.
    pub fn today(&self) -> String {
        self.parts().clock.now().utc_day()
    }

    /// Raises a ceiling of a run: its own, or the day's ceiling for this run. A process that works on the run
    /// applies it at once; otherwise it takes effect when the run is resumed.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the amount is not higher than the present ceiling, [`Error::WrongState`] if the
    /// run has ended.
    pub async fn raise_ceilings(
        &self,
        run: RunId,
        own: Option<Money>,
        day: Option<Money>,
    ) -> Result<Delivery, Error> {
        let shown = self.forge().run_details(run).await?;
        let plan = shown.plan.as_ref();
        let had = shown.state.limits.or(plan.map(|plan| plan.shared.limits)).unwrap_or_default();
        let mut limits: RunLimits = had;
        if let Some(own) = own {
            check_raise(own, had.max_cost, "this run")?;
            limits.max_cost = own;
        }
        if let Some(day) = day {
            let now = had.day_cost.or(plan.and_then(|plan| plan.shared.day_ceiling));
            check_raise(day, now.unwrap_or_default(), "all runs of a day")?;
            limits.day_cost = Some(day);
        }
        self.send_command(run, RunCommand::Resume { limits: Some(limits) }).await
    }
}

fn check_raise(wanted: Money, had: Money, who: &str) -> Result<(), Error> {
    if wanted > had {
        return Ok(());
    }
    let what =
        format!("{who} may already spend {had}: give a higher amount (the new ceiling, not the increase)");
    Err(Error::Invalid { what })
}
