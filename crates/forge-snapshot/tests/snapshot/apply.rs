//! Applying.
