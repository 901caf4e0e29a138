//! The repository keeps its own rules, and every rule finds what it is made to find.

mod promises;
mod repository;
mod rules_file;
mod samples;
