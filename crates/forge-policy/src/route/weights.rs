//! A choice by recorded outcomes (ROUTE-2).

use forge_types::{ModelRoute, TaskKind, Tier, WeightRow};

/// Minimum number of outcomes of a kind of work for a choice by weight.
pub const MIN_OUTCOMES: u64 = 5;
/// The weight of a model without a row.
pub const INITIAL_WEIGHT: f64 = 0.5;

/// The result of a choice by weight.
#[derive(Clone, Debug, PartialEq)]
pub enum WeightedDraw {
    /// Too few outcomes are recorded; this many are.
    TooFew(u64),
    /// There is only one candidate.
    Only,
    /// Chosen by weight.
    Weighted {
        /// The index of the candidate.
        at: usize,
        /// The weight of the candidate, and the sum of all weights.
        of: (f64, f64),
    },
    /// Chosen at random, to gather new outcomes.
    Explored {
        /// The index of the candidate.
        at: usize,
    },
}

/// Returns the number of outcomes recorded for a kind of work.
pub fn count_outcomes(rows: &[WeightRow], task_type: TaskKind) -> u64 {
    let of_type = rows.iter().filter(|row| row.task_type == task_type);
    of_type.fold(0, |sum, row| sum.saturating_add(row.total_count))
}

/// Returns the weight of a model for this work.
pub fn model_weight(rows: &[WeightRow], task_type: TaskKind, tier: Tier, route: &ModelRoute) -> f64 {
    let row = rows.iter().find(|row| {
        row.task_type == task_type
            && row.tier == tier
            && row.provider == route.provider
            && row.model == route.model
    });
    row.map_or(
        INITIAL_WEIGHT,
        |row| if row.weight.is_finite() { row.weight.max(0.0) } else { INITIAL_WEIGHT },
    )
}

/// Chooses among `candidates`. The same seed gives the same choice; a share `explore` of all seeds choose at random.
pub fn draw_candidate(
    rows: &[WeightRow],
    task_type: TaskKind,
    tier: Tier,
    candidates: &[ModelRoute],
    explore: f64,
    seed: u64,
) -> WeightedDraw {
    let known = count_outcomes(rows, task_type);
    if known < MIN_OUTCOMES {
        return WeightedDraw::TooFew(known);
    }
    if candidates.len() < 2 {
        return WeightedDraw::Only;
    }
    if unit_interval(seed) < explore {
        let places = u64::try_from(candidates.len()).unwrap_or(1);
        let at = usize::try_from(splitmix64_mix(seed.wrapping_add(1)) % places).unwrap_or(0);
        return WeightedDraw::Explored { at };
    }
    let weights: Vec<f64> =
        candidates.iter().map(|route| model_weight(rows, task_type, tier, route)).collect();
    let all: f64 = weights.iter().sum();
    let mut left = unit_interval(splitmix64_mix(seed.wrapping_add(2))) * all;
    for (at, weight) in weights.iter().enumerate() {
        if left < *weight {
            return WeightedDraw::Weighted { at, of: (*weight, all) };
        }
        left -= weight;
    }
    // All weights are zero, or the sum was rounded.
    WeightedDraw::Weighted { at: 0, of: (weights[0], all) }
}

/// Maps a seed to a number from 0 up to, but not including, 1.
#[allow(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
fn unit_interval(seed: u64) -> f64 {
    (splitmix64_mix(seed) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Applies the finaliser of `splitmix64`, a small generator that uses the previous output as the next seed.
pub(crate) const fn splitmix64_mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_types::Timestamp;

    fn route(model: &str) -> ModelRoute {
        ModelRoute { provider: "p".into(), model: model.into() }
    }

    fn row(model: &str, weight: f64, total: u64) -> WeightRow {
        WeightRow {
            task_type: TaskKind::Code,
            tier: Tier::Hard,
            provider: "p".into(),
            model: model.into(),
            weight,
            success_count: 0,
            total_count: total,
            last_updated: Timestamp::default(),
        }
    }

    fn share(rows: &[WeightRow], explore: f64, of: usize) -> f64 {
        let candidates = [route("a"), route("b")];
        let hits = (0..20_000_u64)
            .filter(|seed| {
                match draw_candidate(rows, TaskKind::Code, Tier::Hard, &candidates, explore, *seed) {
                    WeightedDraw::Weighted { at, .. } | WeightedDraw::Explored { at } => at == of,
                    WeightedDraw::TooFew(_) | WeightedDraw::Only => panic!("a choice was to come"),
                }
            })
            .count();
        f64::from(u32::try_from(hits).unwrap()) / 20_000.0
    }

    #[test]
    fn weights_are_shares_and_exploration_is_by_lot() {
        let rows = [row("a", 0.9, 3), row("b", 0.1, 2)];
        assert!((share(&rows, 0.0, 0) - 0.9).abs() < 0.02);
        assert!((share(&rows, 1.0, 0) - 0.5).abs() < 0.02);
        assert!((share(&rows, 0.05, 1) - (0.95 * 0.1 + 0.05 * 0.5)).abs() < 0.02);
        assert!(
            (share(&[row("a", 1.0, 5)], 0.0, 1) - INITIAL_WEIGHT / 1.5).abs() < 0.02,
            "no row: the start weight"
        );
    }

    #[test]
    fn few_outcomes_pass_on_and_the_same_seed_chooses_the_same() {
        let candidates = [route("a"), route("b")];
        let draw = |rows: &[WeightRow], seed| {
            draw_candidate(rows, TaskKind::Code, Tier::Hard, &candidates, 0.05, seed)
        };
        assert_eq!(draw(&[row("a", 1.0, 4)], 7), WeightedDraw::TooFew(4));
        let rows = [row("a", 0.0, 5), row("b", 0.0, 0)];
        for seed in 0..500 {
            assert_eq!(draw(&rows, seed), draw(&rows, seed));
        }
    }
}
