//! Searching file contents with the crates of ripgrep.

use super::{SearchResponse, compile_glob, display_path, resolve_start, walk_builder};
use forge_ports::sandbox::{SearchMatch, SearchSpec};
use grep_regex::RegexMatcherBuilder;
use grep_searcher::sinks::Lossy;
use grep_searcher::{BinaryDetection, SearcherBuilder};
use std::path::Path;

/// Maximum number of characters kept of a matching line.
const MAX_LINE_CHARS: usize = 500;

pub(super) fn search_files(root: &Path, spec: &SearchSpec) -> Result<SearchResponse, SearchResponse> {
    let matcher = RegexMatcherBuilder::new()
        .line_terminator(Some(b'\n'))
        .size_limit(10 << 20)
        .build(&spec.pattern)
        .map_err(|error| SearchResponse::Invalid {
            why: format!("`{}` is not a regular expression: {error}", spec.pattern),
        })?;
    let glob = spec.glob.as_deref().map(compile_glob).transpose()?;
    let begin = resolve_start(root, &spec.path)?;
    let mut searcher =
        SearcherBuilder::new().binary_detection(BinaryDetection::quit(0)).line_number(true).build();
    let mut items = Vec::new();
    let (mut files, mut more) = (0, false);
    for entry in walk_builder(&begin).build().flatten() {
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let path = display_path(root, entry.path());
        if glob.as_ref().is_some_and(|glob| !glob.is_match(&path)) {
            continue;
        }
        let before = items.len();
        let sink = Lossy(|line, text| {
            if items.len() == spec.max_matches || files == spec.max_files {
                more = true;
                return Ok(false);
            }
            let text = text.trim_end_matches(['\n', '\r']).chars().take(MAX_LINE_CHARS).collect();
            items.push(SearchMatch { path: path.clone(), line, text });
            Ok(true)
        });
        // An unreadable file has no matches.
        let _ = searcher.search_path(&matcher, entry.path(), sink);
        files += usize::from(items.len() > before);
        if more {
            break;
        }
    }
    Ok(SearchResponse::Matches { items, more })
}
