//! Alerts for budgets that are nearly or fully used.

use super::{BudgetChanged, BudgetKind, BudgetLevel};
use forge_types::{LimitKind, RunLimits, RunState, Timestamp};
use serde::{Deserialize, Serialize};

/// The alerts reported so far, so that each level of each budget is reported once per limit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct BudgetWatch {
    said: Vec<(BudgetKind, BudgetLevel, u64)>,
}

impl BudgetWatch {
    /// Returns new alerts for the budgets of a run in `state` at `at`.
    pub(super) fn check_budgets(
        &mut self,
        state: &RunState,
        limits: &RunLimits,
        alert_percent: u8,
        at: Timestamp,
    ) -> Vec<BudgetChanged> {
        let mut new = Vec::new();
        for budget in [BudgetKind::Tokens, BudgetKind::Cost, BudgetKind::Commands, BudgetKind::Time] {
            let (used, limit) = used_and_limit(budget, state, limits, at);
            if limit == 0 {
                continue;
            }
            let nearly = u128::from(used) * 100 >= u128::from(limit) * u128::from(alert_percent);
            if used >= limit {
                self.report_level(budget, BudgetLevel::Exceeded, used, limit, &mut new);
            } else if nearly {
                self.report_level(budget, BudgetLevel::Alert, used, limit, &mut new);
            }
        }
        new
    }

    /// Returns the alert for the limit that ended the run, which a reservation may have reached before the money was
    /// spent.
    pub(super) fn ended_by(
        &mut self,
        kind: LimitKind,
        state: &RunState,
        limits: &RunLimits,
        at: Timestamp,
    ) -> Vec<BudgetChanged> {
        let budget = match kind {
            LimitKind::Tokens => BudgetKind::Tokens,
            LimitKind::Cost => BudgetKind::Cost,
            LimitKind::WallClock => BudgetKind::Time,
            LimitKind::Iterations | LimitKind::Steps => return Vec::new(),
        };
        let (used, limit) = used_and_limit(budget, state, limits, at);
        let mut new = Vec::new();
        self.report_level(budget, BudgetLevel::Exceeded, used, limit, &mut new);
        new
    }

    fn report_level(
        &mut self,
        budget: BudgetKind,
        level: BudgetLevel,
        used: u64,
        limit: u64,
        new: &mut Vec<BudgetChanged>,
    ) {
        // After "exceeded", nothing more is reported for the same limit.
        let known = self
            .said
            .iter()
            .any(|&(b, l, at)| b == budget && at == limit && (l == level || l == BudgetLevel::Exceeded));
        if !known {
            self.said.push((budget, level, limit));
            let (used, limit) = (display_amount(budget, used), display_amount(budget, limit));
            new.push(BudgetChanged { budget, used, limit, level });
        }
    }
}

/// Returns the used and the allowed amount in the budget's smallest unit.
fn used_and_limit(budget: BudgetKind, state: &RunState, limits: &RunLimits, at: Timestamp) -> (u64, u64) {
    let pico = |money: forge_types::Money| u64::try_from(money.0).unwrap_or(0);
    match budget {
        BudgetKind::Tokens => (state.usage.counted(), limits.max_tokens),
        BudgetKind::Cost => (pico(state.cost), pico(limits.max_cost)),
        BudgetKind::Commands => (state.tools.shell_commands.into(), limits.max_shell_commands.into()),
        BudgetKind::Time => (state.worked_ms(at), limits.max_duration_ms),
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown, never computed with")]
fn display_amount(budget: BudgetKind, amount: u64) -> f64 {
    match budget {
        BudgetKind::Cost => forge_types::Money(i64::try_from(amount).unwrap_or(i64::MAX)).as_usd(),
        _ => amount as f64,
    }
}
