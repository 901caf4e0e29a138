//! Listing, searching and finding files in the workspace.
//!
//! A walk follows many paths, so it would race with changes to the tree, and it reads names and contents written by a
//! model. It therefore runs inside the sandbox: the same binary, started there under another name, answers one request
//! in JSON. The backends start [`run_search_helper`] and parse its response.

mod find;
mod list;
mod search;

use forge_ports::sandbox::{BoundedList, Error, PathErrorKind, SearchMatch, SearchSpec, WorkspaceEntry};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Name (`argv[0]`) under which the binary acts as the search helper.
pub const SEARCH_HELPER: &str = "forge-walk";
/// Maximum size of a response, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// A request about the workspace, which is the helper's working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "walk", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the port's methods")]
pub enum SearchRequest {
    List { path: String, depth: u32, limit: usize },
    Search(SearchSpec),
    Find { glob: String, limit: usize },
}

/// A response of the helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the port's answers")]
pub enum SearchResponse {
    Entries { items: Vec<WorkspaceEntry>, more: bool },
    Matches { items: Vec<SearchMatch>, more: bool },
    Path { path: String, why: String, fault: SearchPathFault },
    Invalid { why: String },
}

/// Serialized form of [`PathErrorKind`].
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
    /// Returns the entries found by a listing or a find.
    ///
    /// # Errors
    /// Returns the helper's error as an error of the port.
    pub fn into_entries(self) -> Result<BoundedList<WorkspaceEntry>, Error> {
        match self {
            Self::Entries { items, more } => Ok(BoundedList { items, more }),
            other => Err(other.into_error()),
        }
    }

    /// Returns the matches found by a search.
    ///
    /// # Errors
    /// Returns the helper's error as an error of the port.
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

/// Parses the output of the helper.
pub fn parse_response(bytes: &[u8]) -> Result<SearchResponse, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Died { why: format!("the walker in the box gave no answer: {error}") })
}

/// Runs the helper: answers the request in the first argument on standard output and returns the exit code.
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

/// Resolves the start of a walk. Fails if it is outside the root, also through symlinks.
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

/// Returns a walk over all files except `.git` and ignored ones, in path order, without following symlinks.
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

/// Returns the path relative to the root, as text.
fn display_path(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// Compiles a glob. A pattern without a slash matches file names in any directory.
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
