//! The names by which a run of the executor `subprocess` calls its program.

/// The tool that represents the program of the executor `subprocess`.
pub const PROGRAM_TOOL: &str = "agent";
/// The parameter that holds the program's request.
pub const REQUEST_PARAMETER: &str = "request";
