//! The workspace of a run: a private copy-on-write view of its repositories, and its snapshots.
