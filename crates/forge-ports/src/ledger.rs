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

    /// The runs that hold reservations on an account, with what they hold.
    async fn holders(&self, account: &str) -> Result<Vec<(RunId, Money)>, Error>;

    /// Drops all reservations of a run on all accounts. Only for whoever holds the run, so that nobody else is about to
    /// settle them; settling one of them later books nothing.
    async fn release_run(&self, run: RunId) -> Result<(), Error>;

    /// Accounts whose name begins with `prefix`, by name.
    async fn accounts(&self, prefix: &str) -> Result<Vec<(String, Balance)>, Error>;
}
