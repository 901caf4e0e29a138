//! The behaviour of each server towards connections that stay open.

use std::sync::atomic::{AtomicBool, Ordering};

/// Reuse of a connection that an earlier request left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionReuse {
    /// The request may use an open connection.
    Pooled,
    /// The request gets a new connection.
    Fresh,
}

/// A record of how a provider treats connections that stay open.
///
/// llama.cpp's server promises to keep a connection and then closes it under the next request. The server has not
/// processed such a request (RFC 9112, 9.3.1), so it is sent again over a new connection within the same attempt. All
/// later requests to that server use new connections.
#[derive(Debug, Default)]
pub(crate) struct ReuseTracker {
    /// Whether a request has left a connection open.
    any: AtomicBool,
    /// Whether an open connection broke under a request.
    broken: AtomicBool,
}

impl ReuseTracker {
    pub(crate) fn reuse_policy(&self) -> ConnectionReuse {
        if self.broken.load(Ordering::Relaxed) { ConnectionReuse::Fresh } else { ConnectionReuse::Pooled }
    }

    /// Returns whether a request may use a connection that an earlier one left open.
    pub(crate) fn may_reuse(&self) -> bool {
        self.reuse_policy() == ConnectionReuse::Pooled && self.any.load(Ordering::Relaxed)
    }

    /// Records whether a request left a connection open.
    pub(crate) fn record_open(&self, open: bool) {
        self.any.fetch_or(open, Ordering::Relaxed);
    }

    /// Records that an open connection broke under a request.
    pub(crate) fn record_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}
