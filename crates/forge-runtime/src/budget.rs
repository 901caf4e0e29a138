//! Where the money is: what a day and a run have spent and hold, and raising what they may.

use crate::Error;
use crate::forge::{Delivery, Forge};
use forge_ports::journal::RunQuery;
use forge_ports::ledger::Balance;
use forge_types::{Money, RunCommand, RunId, RunLimits, RunStatus, WaitingFor};

/// Money of today and of the runs that count.
#[derive(Clone, Debug)]
pub struct BudgetReport {
    /// Days with any spending, newest first, at most so many as were asked for.
    pub days: Vec<DayBudget>,
    /// Runs that hold money or wait for more, newest first.
    pub runs: Vec<RunBudget>,
}

/// One day.
#[derive(Clone, Debug)]
pub struct DayBudget {
    /// The day in UTC, such as `2026-11-21`.
    pub day: String,
    /// What was spent on it and is reserved.
    pub balance: Balance,
}

/// One run.
#[derive(Clone, Debug)]
pub struct RunBudget {
    /// The run.
    pub run: RunId,
    /// Its status.
    pub status: RunStatus,
    /// Whether it waits for a budget.
    pub waits: bool,
    /// What it spent and holds.
    pub balance: Balance,
}

/// How the accounts of days are called, and those of runs.
const DAY_ACCOUNT_PREFIX: &str = "day:";
const RUN_ACCOUNT_PREFIX: &str = "run:";

impl Forge {
    /// What the last `days` days spent, and which runs hold money or wait for it.
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
        for row in self.list_runs(RunQuery::default()).await? {
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

    /// Today, as accounts call it.
    pub fn today(&self) -> String {
        self.parts().clock.now().utc_day()
    }

    /// Raises what a run may spend: its own ceiling, or the one of the day for this run. Whoever works on the run goes by it
    /// from now on; if nobody does, it counts when the run is resumed.
    ///
    /// # Errors
    /// [`Error::Invalid`] if that is no more than the run may spend now, [`Error::WrongState`] if it has ended.
    pub async fn raise_ceilings(
        &self,
        run: RunId,
        own: Option<Money>,
        day: Option<Money>,
    ) -> Result<Delivery, Error> {
        let shown = self.run_details(run).await?;
        let plan = shown.plan.as_ref();
        let had = shown.state.limits.or(plan.map(|plan| plan.limits)).unwrap_or_default();
        let mut limits: RunLimits = had;
        if let Some(own) = own {
            check_raise(own, had.max_cost, "this run")?;
            limits.max_cost = own;
        }
        if let Some(day) = day {
            let now = had.day_cost.or(plan.and_then(|plan| plan.day_ceiling));
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
        format!("{who} may spend {had} already: name more than that (the whole ceiling, not what is added)");
    Err(Error::Invalid { what })
}
