//! The probes of a backend, and the verdict on it.
