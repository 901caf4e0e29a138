//! Escalation to a stronger model after a failed repair (ROUTE-5).

use forge_types::{ModelRoute, Price};

/// The first repair attempt that escalates.
pub const FIRST_ESCALATED_ATTEMPT: u32 = 2;

/// An escalation step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscalationStep {
    /// The model.
    pub route: ModelRoute,
    /// The price; `None` if unknown.
    pub price: Option<Price>,
    /// The reason why the model is unavailable, such as a missing key.
    pub missing: Option<String>,
}

/// The result of an escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EscalationOutcome {
    /// Too early to escalate.
    NotYet,
    /// Escalate to this step.
    To(usize),
    /// There is no higher step.
    Top,
    /// The current model is not on the ladder and its price is unknown, so no step is known to be higher.
    PriceUnknown,
}

/// Returns the step for the `attempt`-th repair by `current`: one step up for each attempt from the second on, skipping
/// unavailable steps. A model outside the ladder escalates to the first step with a higher price.
pub fn escalate_route(
    ladder: &[EscalationStep],
    current: &ModelRoute,
    price: Option<Price>,
    attempt: u32,
) -> EscalationOutcome {
    if attempt < FIRST_ESCALATED_ATTEMPT {
        return EscalationOutcome::NotYet;
    }
    let ups = usize::try_from(attempt - FIRST_ESCALATED_ATTEMPT).unwrap_or(usize::MAX);
    let usable = |from: usize| {
        let above = ladder.iter().enumerate().skip(from);
        above.filter(|(_, rung)| rung.missing.is_none()).map(|(at, _)| at).collect::<Vec<_>>()
    };
    let above = match ladder.iter().position(|rung| rung.route == *current) {
        Some(at) => usable(at + 1),
        None => {
            let Some(price) = price else { return EscalationOutcome::PriceUnknown };
            let dearer = |at: &usize| ladder[*at].price.is_some_and(|rung| rung.input > price.input);
            let all = usable(0);
            let Some(first) = all.iter().copied().find(dearer) else { return EscalationOutcome::Top };
            all.into_iter().filter(|at| *at >= first).collect()
        }
    };
    match above.get(ups).or(above.last()) {
        Some(at) => EscalationOutcome::To(*at),
        None => EscalationOutcome::Top,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(without_key: &[usize]) -> Vec<EscalationStep> {
        let rungs = [
            ("openai", "gpt-4o-mini", 150_000),
            ("openai", "gpt-4o", 2_500_000),
            ("anthropic", "sonnet", 3_000_000),
        ];
        rungs
            .into_iter()
            .enumerate()
            .map(|(at, (provider, model, input))| EscalationStep {
                route: ModelRoute { provider: provider.into(), model: model.into() },
                price: Some(price(input)),
                missing: without_key.contains(&at).then(|| "no key".to_owned()),
            })
            .collect()
    }

    const fn price(input: i64) -> Price {
        Price { input, output: 0, cached_input: 0, cache_write: 0 }
    }

    #[test]
    fn each_repair_from_the_second_on_goes_one_rung_up() {
        let all = ladder(&[]);
        let at = |current: usize, attempt| escalate_route(&all, &all[current].route, None, attempt);
        assert_eq!((at(0, 0), at(0, 1)), (EscalationOutcome::NotYet, EscalationOutcome::NotYet));
        assert_eq!(
            (at(0, 2), at(0, 3), at(0, 4)),
            (EscalationOutcome::To(1), EscalationOutcome::To(2), EscalationOutcome::To(2))
        );
        assert_eq!(at(2, 2), EscalationOutcome::Top);
        let gap = ladder(&[1]);
        assert_eq!(escalate_route(&gap, &gap[0].route, None, 2), EscalationOutcome::To(2));
        let top = ladder(&[2]);
        assert_eq!(escalate_route(&top, &top[1].route, None, 2), EscalationOutcome::Top);
    }

    #[test]
    fn a_model_outside_goes_to_the_first_that_charges_more() {
        let all = ladder(&[]);
        let other = ModelRoute { provider: "x".into(), model: "y".into() };
        assert_eq!(escalate_route(&all, &other, Some(price(0)), 2), EscalationOutcome::To(0));
        assert_eq!(escalate_route(&all, &other, Some(price(150_000)), 2), EscalationOutcome::To(1));
        assert_eq!(escalate_route(&all, &other, Some(price(9_000_000)), 2), EscalationOutcome::Top);
        assert_eq!(escalate_route(&all, &other, None, 2), EscalationOutcome::PriceUnknown);
    }
}
