//! Retries of failed model calls at the same provider (PROV-4).

use forge_types::{EffectId, ErrorInfo, ErrorKind, RetryRule, RunId, Timestamp};
use std::time::Duration;

/// The decision about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Retry, not before this time.
    TryAt(Timestamp),
    /// The provider asks for a wait that is too long to keep a process for.
    AskedToWait(Timestamp),
    /// All tries, or the whole waiting time, are used up.
    UsedUp,
    /// The same request would fail again at every provider: do not retry.
    Abort,
}

/// Maximum number of tries when replies violate the wire format.
const MAX_MALFORMED_TRIES: u32 = 2;

/// Decides after the `failures`-th failure of one turn at one provider, with calls that waited `delayed_ms` so far.
///
/// The delay doubles from `rule.base_ms` to `rule.cap_ms`, plus up to a quarter of it. That addition is drawn from
/// `seed`, so that a replay decides the same. A `Retry-After` replaces the delay; one above the cap is not waited for
/// here. All delays of a turn together stay below `rule.max_wait_ms`.
pub fn decide_retry(
    rule: &RetryRule,
    failures: u32,
    delayed_ms: u64,
    error: &ErrorInfo,
    seed: u64,
    now: Timestamp,
) -> RetryDecision {
    if !error.retryable {
        return RetryDecision::Abort;
    }
    let at = |millis: u64| now.after(Duration::from_millis(millis));
    if let Some(after) = error.retry_after_ms.filter(|after| *after > rule.cap_ms) {
        return RetryDecision::AskedToWait(at(after));
    }
    let tries = if error.kind == ErrorKind::MalformedResponse {
        rule.tries.min(MAX_MALFORMED_TRIES)
    } else {
        rule.tries
    };
    if failures >= tries {
        return RetryDecision::UsedUp;
    }
    let delay = error.retry_after_ms.unwrap_or_else(|| backoff_ms(rule, failures, seed));
    if delayed_ms.saturating_add(delay) > rule.max_wait_ms {
        return RetryDecision::UsedUp;
    }
    RetryDecision::TryAt(at(delay))
}

fn backoff_ms(rule: &RetryRule, failures: u32, seed: u64) -> u64 {
    let doubled = rule.base_ms.saturating_mul(1_u64 << failures.saturating_sub(1).min(20));
    let delay = doubled.min(rule.cap_ms);
    delay + delay / 4 * (seed % 1_000) / 1_000
}

/// Returns a pseudorandom number derived from its arguments (FNV-1a over their text, then the finaliser of
/// `splitmix64`).
pub fn stable_seed(run: RunId, effect: EffectId, attempt: u32) -> u64 {
    let text = format!("{run}/{effect}/{attempt}");
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_micros(0);

    fn delay(failures: u32, error: &ErrorInfo, seed: u64) -> String {
        match decide_retry(&RetryRule::default(), failures, 0, error, seed, NOW) {
            RetryDecision::TryAt(at) => format!("try {}", at.millis_since(NOW)),
            RetryDecision::AskedToWait(at) => format!("wait {}", at.millis_since(NOW)),
            RetryDecision::UsedUp => "used up".into(),
            RetryDecision::Abort => "abort".into(),
        }
    }

    #[test]
    fn delays_double_up_to_the_cap_and_end() {
        let error = ErrorInfo::retryable(ErrorKind::Overloaded, "529", None);
        let all: Vec<_> = (1..=5).map(|n| delay(n, &error, 0)).collect();
        assert_eq!(all, ["try 2000", "try 4000", "try 8000", "try 16000", "used up"]);
        let rule = RetryRule { tries: 99, ..RetryRule::default() };
        assert_eq!(
            decide_retry(&rule, 60, 0, &error, 0, NOW),
            RetryDecision::TryAt(Timestamp::from_micros(30_000_000))
        );
    }

    #[test]
    fn the_random_part_stays_below_a_quarter() {
        let error = ErrorInfo::retryable(ErrorKind::Timeout, "slow", None);
        for seed in 0..5_000 {
            let RetryDecision::TryAt(at) = decide_retry(&RetryRule::default(), 1, 0, &error, seed, NOW)
            else {
                panic!()
            };
            assert!((2_000..2_500).contains(&at.millis_since(NOW)));
        }
    }

    #[test]
    fn retry_after_is_honoured_up_to_the_cap_and_not_beyond() {
        let after = |s| ErrorInfo::retryable(ErrorKind::RateLimit, "429", Some(Duration::from_secs(s)));
        assert_eq!(delay(1, &after(0), 7), "try 0");
        assert_eq!(delay(1, &after(7), 7), "try 7000");
        assert_eq!(delay(1, &after(3600), 7), "wait 3600000");
    }

    #[test]
    fn some_faults_are_never_or_once_tried_again() {
        assert_eq!(delay(1, &ErrorInfo::fatal(ErrorKind::Auth, "401"), 0), "abort");
        let garbage = ErrorInfo::retryable(ErrorKind::MalformedResponse, "not JSON", None);
        assert_eq!(delay(1, &garbage, 0), "try 2000");
        assert_eq!(delay(2, &garbage, 0), "used up");
    }

    proptest! {
        #[test]
        fn all_delays_of_a_call_together_are_bounded(
            tries in 1_u32..12, base_ms in 1_u64..30_000, max_wait_ms in 0_u64..400_000, seed: u64,
            asked in proptest::collection::vec(proptest::option::of(0_u64..60_000), 12),
        ) {
            let rule = RetryRule { tries, base_ms, max_wait_ms, ..RetryRule::default() };
            let (mut now, mut delayed, mut failures) = (NOW, 0, 0);
            for after in asked {
                failures += 1;
                let after = after.map(Duration::from_millis);
                let error = ErrorInfo::retryable(ErrorKind::RateLimit, "429", after);
                let RetryDecision::TryAt(at) = decide_retry(&rule, failures, delayed, &error, seed, now) else { break };
                prop_assert!(at.millis_since(now) <= rule.cap_ms * 5 / 4);
                delayed += at.millis_since(now);
                now = at;
            }
            prop_assert!(delayed <= max_wait_ms);
            prop_assert!(failures <= tries);
        }
    }

    #[test]
    fn seeds_differ_by_each_part() {
        let run = RunId::from_u128(1);
        let seeds = [
            stable_seed(run, EffectId(1), 1),
            stable_seed(run, EffectId(1), 2),
            stable_seed(run, EffectId(2), 1),
            stable_seed(RunId::from_u128(2), EffectId(1), 1),
        ];
        let distinct: std::collections::BTreeSet<_> = seeds.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(stable_seed(run, EffectId(1), 1), seeds[0]);
    }
}
