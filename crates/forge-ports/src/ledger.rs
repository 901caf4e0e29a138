//! The ledger of money that runs share. Changes are written with [`crate::journal::Batch::postings`].

use crate::journal::Error;
use async_trait::async_trait;
use forge_types::{EffectId, Money, RunId};

/// The balance of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Money spent.
    pub spent: Money,
    /// Money reserved for effects in flight.
    pub reserved: Money,
}

/// Read access to the ledger.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Returns the balance of an account; zero if nothing was ever booked on it.
    async fn balance(&self, account: &str) -> Result<Balance, Error>;

    /// Returns the reservations that a run still holds.
    async fn reservations(&self, run: RunId) -> Result<Vec<(EffectId, String, Money)>, Error>;

    /// Returns the runs that hold reservations on an account, each with its total.
    async fn holders(&self, account: &str) -> Result<Vec<(RunId, Money)>, Error>;

    /// Drops all reservations of a run on all accounts; settling one of them later books nothing. `fence` is the
    /// fencing number of the claim that is over, from [`crate::queue::Queue::idle_fence`]. Fails with
    /// [`Error::LeaseLost`] and releases nothing if the run has been claimed again since.
    async fn release_run(&self, run: RunId, fence: u64) -> Result<(), Error>;

    /// Returns the accounts with names that begin with `prefix`, sorted by name.
    async fn accounts(&self, prefix: &str) -> Result<Vec<(String, Balance)>, Error>;
}
