//! When a budget is nearly or wholly used.

use super::{Budget, BudgetChanged, BudgetLevel};
use crate::{LimitKind, Limits, RunState, Timestamp};
use serde::{Deserialize, Serialize};

/// Remembers what was said, so that each level of each budget is said once per limit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Watch {
    said: Vec<(Budget, BudgetLevel, u64)>,
}

impl Watch {
    /// What is new to say about the budgets of a run that stands at `state` at `at`.
    pub(super) fn look(
        &mut self,
        state: &RunState,
        limits: &Limits,
        alert_percent: u8,
        at: Timestamp,
    ) -> Vec<BudgetChanged> {
        let mut new = Vec::new();
        for budget in [Budget::Tokens, Budget::Cost, Budget::Commands, Budget::Time] {
            let (used, limit) = standing(budget, state, limits, at);
            if limit == 0 {
                continue;
            }
            let nearly = u128::from(used) * 100 >= u128::from(limit) * u128::from(alert_percent);
            if used >= limit {
                self.say(budget, BudgetLevel::Exceeded, used, limit, &mut new);
            } else if nearly {
                self.say(budget, BudgetLevel::Alert, used, limit, &mut new);
            }
        }
        new
    }

    /// The limit that ended the run, which a reservation may have reached before the money was spent.
    pub(super) fn ended_by(
        &mut self,
        kind: LimitKind,
        state: &RunState,
        limits: &Limits,
        at: Timestamp,
    ) -> Vec<BudgetChanged> {
        let budget = match kind {
            LimitKind::Tokens => Budget::Tokens,
            LimitKind::Cost => Budget::Cost,
            LimitKind::WallClock => Budget::Time,
            LimitKind::Iterations | LimitKind::Steps => return Vec::new(),
        };
        let (used, limit) = standing(budget, state, limits, at);
        let mut new = Vec::new();
        self.say(budget, BudgetLevel::Exceeded, used, limit, &mut new);
        new
    }

    fn say(
        &mut self,
        budget: Budget,
        level: BudgetLevel,
        used: u64,
        limit: u64,
        new: &mut Vec<BudgetChanged>,
    ) {
        // After "exceeded" nothing is to be said about the same limit any more.
        let known = self
            .said
            .iter()
            .any(|&(b, l, at)| b == budget && at == limit && (l == level || l == BudgetLevel::Exceeded));
        if !known {
            self.said.push((budget, level, limit));
            let (used, limit) = (shown(budget, used), shown(budget, limit));
            new.push(BudgetChanged { budget, used, limit, level });
        }
    }
}

/// Used and allowed, in the budget's smallest unit.
fn standing(budget: Budget, state: &RunState, limits: &Limits, at: Timestamp) -> (u64, u64) {
    let pico = |money: crate::Money| u64::try_from(money.0).unwrap_or(0);
    match budget {
        Budget::Tokens => (state.usage.counted(), limits.max_tokens),
        Budget::Cost => (pico(state.cost), pico(limits.max_cost)),
        Budget::Commands => (state.tools.shell_commands.into(), limits.max_shell_commands.into()),
        Budget::Time => (state.worked_ms(at), limits.max_duration_ms),
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown, never computed with")]
fn shown(budget: Budget, amount: u64) -> f64 {
    match budget {
        Budget::Cost => crate::Money(i64::try_from(amount).unwrap_or(i64::MAX)).as_usd(),
        _ => amount as f64,
    }
}
