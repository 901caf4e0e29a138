//! Heartbeats: a lease that expires is renewed while work is done under it.

use forge_ports::Clock;
use forge_ports::journal;
use forge_ports::queue::Lease;
use std::future::Future;
use std::pin::pin;

/// Completes `work` and renews the lease meanwhile. A lost lease does not stop the work: the journal refuses what is
/// appended with it, and [`Lease::lost`] tells when.
pub async fn run_renewed<T>(lease: &dyn Lease, clock: &dyn Clock, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = renew_until_lost(lease, clock) => {}
    }
    work.await
}

/// Renews the lease at its interval. Returns when it is lost, and never for a lease that does not expire.
async fn renew_until_lost(lease: &dyn Lease, clock: &dyn Clock) {
    let Some(interval) = lease.renewal_interval() else { return std::future::pending().await };
    loop {
        clock.sleep_until(clock.now().after(interval)).await;
        match lease.renew().await {
            Ok(()) => {}
            Err(journal::Error::LeaseLost { .. }) => return,
            Err(error) => {
                tracing::warn!(run = %lease.run_id(), %error, "can't renew the lease; will retry");
            }
        }
    }
}
