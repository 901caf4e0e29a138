//! Walks of the workspace: listing, searching, finding.
//!
//! A walk follows many paths, so it would race with whatever changes the tree, and it reads names and contents that a
//! model made. So it runs where commands run: the same binary, started inside the box under another name, answers one
//! request in JSON. [`answer`] is that program; the backends start it and read its answer.

mod find;
mod list;
mod search;

use forge_ports::sandbox::{Entry, Error, Listing, Match, PathFault, SearchSpec};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The name (`argv[0]`) under which the binary is the walker.
pub const WALKER: &str = "forge-walk";
/// Largest answer in bytes that is read.
pub const LARGEST_ANSWER: usize = 64 << 20;

/// One question about the workspace. The walker's working directory is its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "walk", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the port's methods")]
pub enum Request {
    List { path: String, depth: u32, limit: usize },
    Search(SearchSpec),
    Find { glob: String, limit: usize },
}

/// The walker's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the port's answers")]
pub enum Answer {
    Entries { items: Vec<Entry>, more: bool },
    Matches { items: Vec<Match>, more: bool },
    Path { path: String, why: String, fault: Fault },
    Invalid { why: String },
}

/// [`PathFault`] as it is sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of the port's faults")]
pub enum Fault {
    NotFound,
    Escapes,
    NotDirectory,
    Denied,
    Other,
}

impl Answer {
    /// Takes the answer to a listing or a find.
    ///
    /// # Errors
    /// The walker's, in the port's words.
    pub fn entries(self) -> Result<Listing<Entry>, Error> {
        match self {
            Self::Entries { items, more } => Ok(Listing { items, more }),
            other => Err(other.error()),
        }
    }

    /// Takes the answer to a search.
    ///
    /// # Errors
    /// The walker's, in the port's words.
    pub fn matches(self) -> Result<Listing<Match>, Error> {
        match self {
            Self::Matches { items, more } => Ok(Listing { items, more }),
            other => Err(other.error()),
        }
    }

    fn error(self) -> Error {
        match self {
            Self::Path { path, why, fault } => {
                let kind = match fault {
                    Fault::NotFound => PathFault::NotFound,
                    Fault::Escapes => PathFault::Escapes,
                    Fault::NotDirectory => PathFault::NotDirectory,
                    Fault::Denied => PathFault::Denied,
                    Fault::Other => PathFault::Other,
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
pub fn parse(bytes: &[u8]) -> Result<Answer, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Died { why: format!("the walker in the box gave no answer: {error}") })
}

/// The walker: answers the request in its first argument on standard output and gives its exit code.
pub fn answer(argument: Option<&str>) -> i32 {
    let answer = match argument.map(serde_json::from_str::<Request>) {
        Some(Ok(request)) => walk(Path::new("."), &request),
        _ => Answer::Invalid { why: "the walker takes one request in JSON".to_owned() },
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = serde_json::to_writer(&mut out, &answer).is_ok() && out.flush().is_ok();
    i32::from(!written)
}

/// Answers a request about the tree below `root`.
pub fn walk(root: &Path, request: &Request) -> Answer {
    let result = match request {
        Request::List { path, depth, limit } => list::list(root, path, *depth, *limit),
        Request::Search(spec) => search::search(root, spec),
        Request::Find { glob, limit } => find::find(root, glob, *limit),
    };
    result.unwrap_or_else(|answer| answer)
}

/// Where a walk begins: inside the root, whatever symlinks say.
fn start(root: &Path, path: &str) -> Result<PathBuf, Answer> {
    let fault = |why: &str, fault| Answer::Path { path: path.to_owned(), why: why.to_owned(), fault };
    let below = if path.is_empty() { root.to_owned() } else { root.join(path) };
    let real = |path: &Path| std::fs::canonicalize(path);
    let (real_root, real_below) = match (real(root), real(&below)) {
        (Ok(root), Ok(below)) => (root, below),
        (_, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(fault("there is no such file or directory", Fault::NotFound));
        }
        (_, Err(error)) | (Err(error), _) => return Err(fault(&error.to_string(), Fault::Denied)),
    };
    if !real_below.starts_with(&real_root) {
        return Err(fault("it leads out of the workspace", Fault::Escapes));
    }
    Ok(below)
}

/// A walk over what is neither `.git` nor ignored, in order of paths, without following symlinks.
fn walker(start: &Path) -> ignore::WalkBuilder {
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
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// A glob as people write it: without a slash it means the name, wherever the file lies.
fn glob(pattern: &str) -> Result<globset::GlobMatcher, Answer> {
    let pattern = pattern.trim_start_matches("./").trim_start_matches("/workspace/");
    let whole = if pattern.contains('/') { pattern.to_owned() } else { format!("**/{pattern}") };
    globset::GlobBuilder::new(&whole)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| Answer::Invalid { why: format!("`{pattern}` is not a glob: {}", error.kind()) })
}
