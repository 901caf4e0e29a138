//! How much the tests that are random, kill processes or cover every position do: a sample, or all of it.

/// Whether the full counts are wanted: `FORGE_SOAK=1`, which `make soak` sets.
#[allow(clippy::disallowed_methods, reason = "how the runner of the tests tells them how much to do")]
pub fn is_soak() -> bool {
    std::env::var_os("FORGE_SOAK").is_some_and(|value| value == "1")
}

/// The count, or whatever else differs, for this run of the tests.
pub fn sample_or_all<T>(sample: T, all: T) -> T {
    if is_soak() { all } else { sample }
}
