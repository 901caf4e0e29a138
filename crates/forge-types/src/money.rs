//! Money in pico-dollars, because a token costs less than a micro-dollar.

use crate::Usage;
use serde::{Deserialize, Serialize};
use std::fmt;

const PICO_PER_DOLLAR: f64 = 1e12;

/// An amount in pico-dollars (10⁻¹² USD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(pub i64);

impl Money {
    /// Zero dollars.
    pub const ZERO: Self = Self(0);

    /// Converts an amount in dollars, rounded to the nearest pico-dollar, saturating.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a float-to-int cast saturates, which is what is wanted"
    )]
    pub fn from_usd(dollars: f64) -> Self {
        Self((dollars * PICO_PER_DOLLAR).round() as i64)
    }

    /// Returns the amount in dollars, for display and JSON.
    #[allow(clippy::cast_precision_loss, reason = "shown, never computed with")]
    pub fn as_usd(self) -> f64 {
        self.0 as f64 / PICO_PER_DOLLAR
    }

    /// Returns the sum, saturating.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns the difference, saturating.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.4}", self.as_usd())
    }
}

/// Prices of a model, in pico-dollars per token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Per uncached prompt token.
    pub input: i64,
    /// Per reply token.
    pub output: i64,
    /// Per prompt token read from the provider's cache.
    pub cached_input: i64,
    /// Per prompt token written to the provider's cache.
    pub cache_write: i64,
}

impl Price {
    /// The price of a model that is free (it runs on the user's own machine).
    pub const FREE: Self = Self { input: 0, output: 0, cached_input: 0, cache_write: 0 };

    /// Returns the cost of `usage`.
    pub fn cost(&self, usage: &Usage) -> Money {
        let part = |tokens: u64, price: i64| i64::try_from(tokens).unwrap_or(i64::MAX).saturating_mul(price);
        Money(
            part(usage.uncached_input(), self.input)
                .saturating_add(part(usage.cached, self.cached_input))
                .saturating_add(part(usage.cache_write, self.cache_write))
                .saturating_add(part(usage.output, self.output)),
        )
    }

    /// Returns the maximum cost of a call with this many prompt and reply tokens.
    pub fn worst_case(&self, input: u64, output: u64) -> Money {
        let dearest = self.input.max(self.cache_write);
        let tokens = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Money(
            tokens(input).saturating_mul(dearest).saturating_add(tokens(output).saturating_mul(self.output)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_counts_each_kind_of_token_once() {
        let price = Price { input: 3, output: 15, cached_input: 1, cache_write: 4 };
        let usage = Usage { input: 100, output: 10, cached: 60, cache_write: 20, known: true };
        assert_eq!(price.cost(&usage), Money(20 * 3 + 60 + 20 * 4 + 150));
        assert!(price.worst_case(100, 10) >= price.cost(&usage));
        assert_eq!(Money::from_usd(1.5).to_string(), "$1.5000");
    }
}
