//! Cooldowns of providers that failed (PROV-9).

use forge_types::{Cooldown, ErrorInfo, ErrorKind, Timestamp};
use std::time::Duration;

const MINUTE_SECS: u64 = 60;
const HOUR_SECS: u64 = 60 * MINUTE_SECS;
const DAY_SECS: u64 = 24 * HOUR_SECS;

/// Returns whether a failure of this kind predicts the outcome of further calls to the provider.
pub const fn triggers_cooldown(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Auth
            | ErrorKind::Billing
            | ErrorKind::RateLimit
            | ErrorKind::Timeout
            | ErrorKind::Overloaded
            | ErrorKind::Format
            | ErrorKind::MalformedResponse
            | ErrorKind::Unavailable
            | ErrorKind::Unknown
    )
}

/// Returns the seconds of the `failures`-th cooldown in a row: 1 min × 5^(n-1) up to an hour; for unpaid bills 5 h ×
/// 2^(n-1) up to a day; a day for a refused key.
pub const fn cooldown_seconds(kind: ErrorKind, failures: u32) -> u64 {
    let step = failures.saturating_sub(1);
    let (base, factor, cap) = match kind {
        ErrorKind::Auth => return DAY_SECS,
        ErrorKind::Billing => (5 * HOUR_SECS, 2_u64, DAY_SECS),
        _ => (MINUTE_SECS, 5, HOUR_SECS),
    };
    let grown = base.saturating_mul(factor.saturating_pow(step));
    if grown < cap { grown } else { cap }
}

/// Returns the cooldown of a provider that failed at `now`.
///
/// A failure during an active cooldown is not counted again: several runs that fail at the same time count as one. A
/// `Retry-After` that is longer than the cooldown replaces it, up to a day.
pub fn next_cooldown(
    before: Option<&Cooldown>,
    provider: &str,
    error: &ErrorInfo,
    credential: &str,
    now: Timestamp,
) -> Cooldown {
    let same = before.filter(|cooldown| cooldown.credential == credential);
    let failures = match same {
        Some(cooldown) if cooldown.is_active(now) => cooldown.failures,
        Some(cooldown) => cooldown.failures.saturating_add(1),
        None => 1,
    };
    let own = cooldown_seconds(error.kind, failures);
    let asked = error.retry_after_ms.map_or(0, |millis| millis.div_ceil(1_000)).min(DAY_SECS);
    let until = now.after(Duration::from_secs(own.max(asked)));
    Cooldown {
        provider: provider.to_owned(),
        failures,
        reason: error.kind,
        message: error.message.clone(),
        since: now,
        until: same.map_or(until, |cooldown| cooldown.until.max(until)),
        credential: credential.to_owned(),
    }
}

/// Returns the provider's cooldown that is active at `now`.
pub fn active_cooldown<'a>(cooling: &'a [Cooldown], provider: &str, now: Timestamp) -> Option<&'a Cooldown> {
    cooling.iter().find(|cooldown| cooldown.provider == provider && cooldown.is_active(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000_000);

    #[test]
    fn cooldowns_grow_as_the_specification_says() {
        let grows = |kind| (1..=4).map(|n| cooldown_seconds(kind, n)).collect::<Vec<_>>();
        assert_eq!(grows(ErrorKind::RateLimit), [60, 300, 1_500, 3_600]);
        assert_eq!(grows(ErrorKind::Billing), [18_000, 36_000, 72_000, 86_400]);
        assert_eq!(grows(ErrorKind::Auth), [86_400; 4]);
        assert_eq!(cooldown_seconds(ErrorKind::Timeout, u32::MAX), 3_600);
    }

    #[test]
    fn runs_that_fail_together_count_once_and_another_key_begins_anew() {
        let error = ErrorInfo::retryable(ErrorKind::Overloaded, "529", None);
        let first = next_cooldown(None, "p", &error, "k", NOW);
        assert_eq!((first.failures, first.until.millis_since(NOW)), (1, 60_000));
        let together = next_cooldown(Some(&first), "p", &error, "k", NOW.after(Duration::from_secs(1)));
        assert_eq!(together.failures, 1);
        let later = NOW.after(Duration::from_secs(61));
        let second = next_cooldown(Some(&together), "p", &error, "k", later);
        assert_eq!((second.failures, second.until.millis_since(later)), (2, 300_000));
        assert_eq!(next_cooldown(Some(&second), "p", &error, "other", later).failures, 1);
    }

    proptest! {
        #[test]
        fn no_cooldown_is_longer_than_a_day_and_a_long_retry_after_is_kept(
            failures in 0_u32..2_000, asked in proptest::option::of(0_u64..u64::MAX / 2), kind in 0_usize..3,
        ) {
            let kind = [ErrorKind::Auth, ErrorKind::Billing, ErrorKind::RateLimit][kind];
            let after = asked.map(std::time::Duration::from_millis);
            let error = ErrorInfo::retryable(kind, String::new(), after);
            let before = Cooldown {
                provider: "p".into(), failures, reason: kind, message: String::new(), since: NOW, until: NOW,
                credential: String::new(),
            };
            let got = next_cooldown(Some(&before), "p", &error, "", NOW).until.millis_since(NOW);
            prop_assert!(got <= DAY_SECS * 1_000);
            prop_assert!(got >= asked.unwrap_or(0).min(DAY_SECS * 1_000));
            prop_assert!(got >= 60_000);
        }
    }
}
