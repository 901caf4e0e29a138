//! The queue of runs on one machine.
