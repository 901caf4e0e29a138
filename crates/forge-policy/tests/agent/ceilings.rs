//! Whatever a run has spent and whatever a provider counts, what is reserved for a call covers it and passes no ceiling.

use crate::plan;
use forge_policy::budget::{self, BudgetRefusal};
use forge_types::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reservation_covers_the_call_and_fits_below_the_ceiling(
        prices in (0_i64..50_000_000, 0_i64..90_000_000, 0_i64..50_000_000),
        ceiling in 1_i64..5_000_000_000_000,
        spent in 0_i64..5_000_000_000_000,
        measured in proptest::option::of((0_u64..90_000, 0_u64..400_000)),
        texts in proptest::collection::vec("\\PC{0,200}", 1..8),
        // How much of what is possible the provider counts in the end, in thousandths.
        used in (0_u64..=1_000, 0_u64..=1_000, 0_u64..=1_000),
    ) {
        let mut plan = plan();
        plan.shared.limits.max_tokens = u64::MAX / 4;
        plan.shared.limits.max_cost = Money(ceiling);
        let price = Price { input: prices.0, output: prices.1, cached_input: prices.0 / 10, cache_write: prices.2 };
        plan.agent_mut().expect("an agent").first.facts.price = Some(price);
        let mut state = RunState::new(RunId::from_u128(1));
        state.cost = Money(spent);
        for text in &texts {
            state.message_bytes += text.len() as u64;
            state.messages.push(std::sync::Arc::new(Message::user(text.as_str())));
        }
        state.last_measured_prompt = measured.map(|(tokens, bytes)| (tokens, bytes.min(state.message_bytes)));
        match budget::call_allowance(&state, plan.agent().expect("an agent"), 0) {
            Ok(allowance) => {
                let reserved = allowance.reserve.expect("the price is known");
                prop_assert!(state.cost.plus(reserved) <= Money(ceiling), "{reserved:?}");
                let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
                // What a tokenizer of bytes makes of it at most, unless it was measured.
                let most = state.last_measured_prompt.map_or(bytes + plan.agent().expect("an agent").agent.system.len() as u64, |(tokens, had)| tokens + bytes - had);
                let input = most * used.0 / 1_000;
                let cached = input * used.1 / 1_000;
                let usage = Usage {
                    input,
                    cached,
                    cache_write: (input - cached) * used.2 / 1_000,
                    output: allowance.output * used.2 / 1_000,
                    known: true,
                };
                prop_assert!(price.cost(&usage) <= reserved, "{usage:?} of {allowance:?}");
            }
            Err(BudgetRefusal::Limit(kind, _)) => prop_assert_eq!(kind, LimitKind::Cost),
            Err(BudgetRefusal::Error(error)) => prop_assert_eq!(error.kind, ErrorKind::ContextOverflow),
        }
    }
}
