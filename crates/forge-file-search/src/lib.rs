//! Walks of the workspace: listing, searching, finding.
//!
//! A walk follows many paths, so it would race with whatever changes the tree, and it reads names and contents that a
//! model made. So it runs where commands run: the same binary, started inside the box under another name, answers one
//! request in JSON. [`answer`] is that program; the backends start it and read its answer.

mod find;
mod list;
mod search;

use forge_ports::sandbox::{BoundedList, Error, PathErrorKind, SearchMatch, SearchSpec, WorkspaceEntry};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The name (`argv[0]`) under which the binary is the walker.
pub const SEARCH_HELPER: &str = "forge-walk";
/// Largest answer in bytes that is read.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// One question about the workspace. The walker's working directory is its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "walk", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the port's methods")]
pub enum SearchRequest {
    List { path: String, depth: u32, limit: usize },
    Search(SearchSpec),
    Find { glob: String, limit: usize },
}

/// The walker's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the port's answers")]
pub enum SearchResponse {
    Entries { items: Vec<WorkspaceEntry>, more: bool },
    Matches { items: Vec<SearchMatch>, more: bool },
    Path { path: String, why: String, fault: SearchPathFault },
    Invalid { why: String },
}

/// [`PathFault`] as it is sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of the port's faults")]
pub enum SearchPathFault {
    NotFound,
    Escapes,
    NotDirectory,
    Denied,
    Other,
}

impl SearchResponse {
    /// Takes the answer to a listing or a find.
    ///
    /// # Errors
    /// The walker's, in the port's words.
    pub fn into_entries(self) -> Result<BoundedList<WorkspaceEntry>, Error> {
        match self {
            Self::Entries { items, more } => Ok(BoundedList { items, more }),
            other => Err(other.into_error()),
        }
    }

    /// Takes the answer to a search.
    ///
    /// # Errors
    /// The walker's, in the port's words.
    pub fn into_matches(self) -> Result<BoundedList<SearchMatch>, Error> {
        match self {
            Self::Matches { items, more } => Ok(BoundedList { items, more }),
            other => Err(other.into_error()),
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::Path { path, why, fault } => {
                let kind = match fault {
                    SearchPathFault::NotFound => PathErrorKind::NotFound,
                    SearchPathFault::Escapes => PathErrorKind::Escapes,
                    SearchPathFault::NotDirectory => PathErrorKind::NotDirectory,
                    SearchPathFault::Denied => PathErrorKind::Denied,
                    SearchPathFault::Other => PathErrorKind::Other,
                };
                Error::Path { path, why, kind }
            }
            Self::Invalid { why } => Error::Invalid { why },
            Self::Entries { .. } | Self::Matches { .. } => {
                Error::Invalid { why: "the walker answered another question".to_owned() }
            }
        }
    }
}

/// Reads an answer from what the walker wrote.
pub fn parse_response(bytes: &[u8]) -> Result<SearchResponse, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Died { why: format!("the walker in the box gave no answer: {error}") })
}

/// The walker: answers the request in its first argument on standard output and gives its exit code.
pub fn run_search_helper(argument: Option<&str>) -> i32 {
    let answer = match argument.map(serde_json::from_str::<SearchRequest>) {
        Some(Ok(request)) => handle_request(Path::new("."), &request),
        _ => SearchResponse::Invalid { why: "the walker takes one request in JSON".to_owned() },
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = serde_json::to_writer(&mut out, &answer).is_ok() && out.flush().is_ok();
    i32::from(!written)
}

/// Answers a request about the tree below `root`.
pub fn handle_request(root: &Path, request: &SearchRequest) -> SearchResponse {
    let result = match request {
        SearchRequest::List { path, depth, limit } => list::list_entries(root, path, *depth, *limit),
        SearchRequest::Search(spec) => search::search_files(root, spec),
        SearchRequest::Find { glob, limit } => find::find_files(root, glob, *limit),
    };
    result.unwrap_or_else(|answer| answer)
}

/// Where a walk begins: inside the root, whatever symlinks say.
fn resolve_start(root: &Path, path: &str) -> Result<PathBuf, SearchResponse> {
    let fault = |why: &str, fault| SearchResponse::Path { path: path.to_owned(), why: why.to_owned(), fault };
    let below = if path.is_empty() { root.to_owned() } else { root.join(path) };
    let real = |path: &Path| std::fs::canonicalize(path);
    let (real_root, real_below) = match (real(root), real(&below)) {
        (Ok(root), Ok(below)) => (root, below),
        (_, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(fault("there is no such file or directory", SearchPathFault::NotFound));
        }
        (_, Err(error)) | (Err(error), _) => return Err(fault(&error.to_string(), SearchPathFault::Denied)),
    };
    if !real_below.starts_with(&real_root) {
        return Err(fault("it leads out of the workspace", SearchPathFault::Escapes));
    }
    Ok(below)
}

/// A walk over what is neither `.git` nor ignored, in order of paths, without following symlinks.
fn walk_builder(start: &Path) -> ignore::WalkBuilder {
    let mut builder = ignore::WalkBuilder::new(start);
    builder
        .hidden(false)
        .parents(false)
        .git_global(false)
        .require_git(false)
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .sort_by_file_path(Path::cmp);
    builder
}

/// The path below the root as text.
fn display_path(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// A glob as people write it: without a slash it means the name, wherever the file lies.
fn compile_glob(pattern: &str) -> Result<globset::GlobMatcher, SearchResponse> {
    let pattern = pattern.trim_start_matches("./").trim_start_matches("/workspace/");
    let whole = if pattern.contains('/') { pattern.to_owned() } else { format!("**/{pattern}") };
    globset::GlobBuilder::new(&whole)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| SearchResponse::Invalid {
            why: format!("`{pattern}` is not a glob: {}", error.kind()),
        })
}
