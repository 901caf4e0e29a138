//! The ledger of money that runs share. It is written with [`crate::journal::Batch::postings`].

use crate::journal::Error;
use async_trait::async_trait;
use forge_types::{EffectId, Money, RunId};

/// Where an account stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Spent.
    pub spent: Money,
    /// Reserved for effects in flight.
    pub reserved: Money,
}

/// Reads the ledger.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Where an account stands; zero if nothing was ever booked on it.
    async fn balance(&self, account: &str) -> Result<Balance, Error>;

    /// The reservations that a run still holds.
    async fn reservations(&self, run: RunId) -> Result<Vec<(EffectId, String, Money)>, Error>;
}
