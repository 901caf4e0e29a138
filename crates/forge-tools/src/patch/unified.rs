//! Parsing of unified diffs, as written by `diff -u` and git (POSIX `diff -u`; git's documentation of `diff --git`
//! headers).
//!
//! Line numbers and counts of models are often wrong: a hunk ends where its lines end, and the counts decide only
//! ambiguous cases.

use super::{
    FileAction, FilePatch, Hunk, HunkRanges, LineSign, PatchError, PatchLineEnd, hunk_line, next_texts,
    parse_anchor, quote_line,
};

/// Parses the lines of a patch. Text before the first header is ignored.
pub(super) fn parse_unified(lines: &[&str]) -> Result<Vec<FilePatch>, PatchError> {
    let mut reader = UnifiedReader { lines, at: 0, next: next_texts(lines) };
    let mut files = Vec::new();
    while let Some(line) = reader.peek() {
        if let Some(names) = line.strip_prefix("diff --git ") {
            files.push(reader.read_git_file(names)?);
        } else if reader.at_names() {
            let start = reader.at;
            let names = reader.read_names();
            files.push(reader.read_plain_file(start, names)?);
        } else if line.starts_with("@@ -") {
            let why = "a hunk without a file. Put `--- a/path` and `+++ b/path` in front of it";
            return Err(PatchError::at_line(reader.at, why));
        } else if !files.is_empty() && !may_stand_between(line) {
            let why = "a line of a hunk begins with a space, `+` or `-`, not as";
            return Err(PatchError::at_line(reader.at, format!("{why} {}", quote_line(line))));
        } else if line == "-- " && !files.is_empty() {
            // The signature of a mail: nothing follows.
            break;
        } else {
            reader.at += 1;
        }
    }
    Ok(files)
}

/// Returns whether a line may occur between two files.
fn may_stand_between(line: &str) -> bool {
    let line = line.trim_end();
    let known = ["diff ", "Index: ", "====", "Only in ", "```", "From ", "Subject: ", "Date: ", "EOF", "-- "];
    line.is_empty() || line == "--" || known.iter().any(|known| line.starts_with(known))
}

/// The contents of the lines between `diff --git` and the first hunk.
#[derive(Default)]
struct GitFileHeader {
    old: Option<String>,
    new: Option<String>,
    copy: bool,
    added: bool,
    deleted: bool,
    mode: Option<u32>,
    kind: Option<String>,
}

struct UnifiedReader<'a> {
    lines: &'a [&'a str],
    at: usize,
    /// For each line, the next line that is not blank.
    next: Vec<usize>,
}

impl<'a> UnifiedReader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.at).copied()
    }

    fn line_at(&self, at: usize) -> &'a str {
        self.lines.get(at).copied().unwrap_or_default()
    }

    /// Returns whether `---` and `+++` come next.
    fn at_names(&self) -> bool {
        self.line_at(self.at).starts_with("--- ") && self.line_at(self.at + 1).starts_with("+++ ")
    }

    /// Reads the names after `---` and `+++`; `None` is `/dev/null`.
    fn read_names(&mut self) -> (Option<String>, Option<String>) {
        let name = |line: &str| Some(header_name(&line[4..])).filter(|name| name != "/dev/null");
        let names = (name(self.line_at(self.at)), name(self.line_at(self.at + 1)));
        self.at += 2;
        names
    }

    fn read_plain_file(
        &mut self,
        start: usize,
        names: (Option<String>, Option<String>),
    ) -> Result<FilePatch, PatchError> {
        let action = match strip_prefixes(names) {
            (None, None) => return Err(PatchError::at_line(start, "both sides are `/dev/null`")),
            (None, Some(path)) => FileAction::Add { path },
            (Some(path), None) => FileAction::Delete { path },
            // `diff -u x.orig x` compares with a backup of the old file.
            (Some(old), Some(new)) if old == format!("{new}.orig") => {
                FileAction::Update { from: new.clone(), to: new }
            }
            (Some(from), Some(to)) => FileAction::Update { from, to },
        };
        let hunks = self.read_hunks()?;
        if hunks.is_empty() {
            return Err(PatchError::at_line(start, "no hunk (`@@ … @@`) follows the names of the file"));
        }
        Ok(FilePatch { action, hunks, mode: None })
    }

    fn read_git_file(&mut self, names: &str) -> Result<FilePatch, PatchError> {
        let start = self.at;
        self.at += 1;
        let mut head = GitFileHeader::default();
        while let Some(line) = self.peek() {
            if self.at_names() {
                let (old, new) = strip_prefixes(self.read_names());
                head.added |= old.is_none();
                head.deleted |= new.is_none();
                head.old = head.old.or(old);
                head.new = head.new.or(new);
                break;
            }
            if !head.parse_header_line(line) {
                break;
            }
            if line.starts_with("GIT binary patch") || line.starts_with("Binary files ") {
                return Err(PatchError::at_line(
                    self.at,
                    "a binary file can't be patched. Make it with run_shell",
                ));
            }
            self.at += 1;
        }
        if let Some(kind) = &head.kind {
            return Err(PatchError::at_line(
                start,
                format!("{kind} can't be made or changed by a patch. Use run_shell"),
            ));
        }
        if head.old.is_none() && head.new.is_none() {
            let (old, new) =
                split_names(names).ok_or_else(|| PatchError::at_line(start, "the names are ambiguous"))?;
            (head.old, head.new) = strip_prefixes((Some(old), Some(new)));
        }
        let hunks = self.read_hunks()?;
        let action = head.to_action().ok_or_else(|| PatchError::at_line(start, "no file is named"))?;
        let still = matches!(&action, FileAction::Update { from, to } if from == to);
        if still && hunks.is_empty() && head.mode.is_none() {
            return Err(PatchError::at_line(start, "nothing changes here: no hunk (`@@ … @@`) follows"));
        }
        Ok(FilePatch { action, hunks, mode: head.mode })
    }

    fn read_hunks(&mut self) -> Result<Vec<Hunk>, PatchError> {
        let mut hunks = Vec::new();
        loop {
            // Anchors without numbers may be stacked.
            let mut hunk = Hunk::default();
            let mut counts = None;
            let mut heads = 0;
            while let Some(line) = self.peek().filter(|line| line.starts_with("@@")) {
                match HunkRanges::parse(line) {
                    Some(ranges) => {
                        hunk.at = Some(ranges.at());
                        counts = Some((ranges.old_count, ranges.new_count));
                    }
                    None => hunk.anchors.extend(parse_anchor(line)),
                }
                heads += 1;
                self.at += 1;
                if counts.is_some() {
                    break;
                }
            }
            if heads == 0 {
                return Ok(hunks);
            }
            let start = self.at;
            self.read_hunk_body(&mut hunk, counts)?;
            if hunk.lines.is_empty() {
                return Err(PatchError::at_line(start - 1, "a hunk without lines"));
            }
            if hunk.lines.iter().any(|line| line.sign != LineSign::Context) {
                hunks.push(hunk);
            }
        }
    }

    fn read_hunk_body(&mut self, hunk: &mut Hunk, counts: Option<(usize, usize)>) -> Result<(), PatchError> {
        let (mut old, mut new) = counts.unwrap_or_default();
        let start = self.at;
        while let Some(line) = self.peek() {
            if line.starts_with('\\') {
                if let Some(last) = hunk.lines.last_mut() {
                    last.end = PatchLineEnd::Nothing;
                }
                self.at += 1;
                continue;
            }
            let counted = old > 0 || new > 0;
            if self.ends_hunk(line, counted, (old, new)) {
                break;
            }
            let Some(read) = hunk_line(line) else {
                // A line missing by the counts is more likely a forgotten prefix than the end of the hunk.
                if counted && !may_stand_between(line) {
                    let why = "a line of a hunk begins with a space, `+` or `-`, not as";
                    return Err(PatchError::at_line(self.at, format!("{why} {}", quote_line(line))));
                }
                break;
            };
            let short = match read.sign {
                LineSign::Context => old == 0 || new == 0,
                LineSign::Remove => old == 0,
                LineSign::Add => new == 0,
            };
            hunk.miscounted |= short && counts.is_some();
            old = old.saturating_sub(usize::from(read.sign != LineSign::Add));
            new = new.saturating_sub(usize::from(read.sign != LineSign::Remove));
            hunk.lines.push(read);
            self.at += 1;
        }
        hunk.miscounted |= old > 0 || new > 0;
        // Blank lines after a hunk that its counts don't include are separators.
        if counts.is_none() || hunk.miscounted {
            let first =
                self.lines[start..self.at].iter().rposition(|line| !line.is_empty()).map_or(0, |at| at + 1);
            let blank = (self.at - start - first).min(hunk.lines.len());
            hunk.lines.truncate(hunk.lines.len() - blank);
        }
        Ok(())
    }

    /// Returns whether a hunk ends before this line, with `left` old and new lines still missing by its counts.
    fn ends_hunk(&self, line: &str, counted: bool, left: (usize, usize)) -> bool {
        if line.starts_with("@@") || line.starts_with("diff --git ") {
            return true;
        }
        if self.at_names() {
            // A removed line `-- x` and an added line `++ y` look the same; then the counts decide.
            let hunk_follows = self.line_at(self.at + 2).starts_with("@@");
            return if counted { hunk_follows && left != (1, 1) } else { hunk_follows };
        }
        if counted {
            return false;
        }
        // Blank lines and the signature of a mail belong to no hunk.
        line.is_empty() && self.nothing_follows() || line == "-- " && self.lines.len() - self.at <= 3
    }

    /// Returns whether the next line that is not blank is not part of a hunk.
    fn nothing_follows(&self) -> bool {
        let next = self.lines.get(self.next[self.at]);
        next.is_none_or(|line| hunk_line(line).is_none() || line.starts_with("--- "))
    }
}

impl GitFileHeader {
    /// Parses an extended header line of git; returns `false` if it is none.
    fn parse_header_line(&mut self, line: &str) -> bool {
        let after = |prefix: &str| line.strip_prefix(prefix);
        if let Some(path) = after("rename from ") {
            self.old = Some(header_name(path));
        } else if let Some(path) = after("rename to ").or_else(|| after("copy to ")) {
            self.new = Some(header_name(path));
        } else if let Some(path) = after("copy from ") {
            (self.old, self.copy) = (Some(header_name(path)), true);
        } else if let Some(mode) = after("new file mode ") {
            self.added = true;
            self.set_mode(mode);
        } else if let Some(mode) = after("deleted file mode ") {
            self.deleted = true;
            self.set_mode(mode);
            self.mode = None;
        } else if let Some(mode) = after("new mode ") {
            self.set_mode(mode);
        } else {
            let others =
                ["old mode ", "similarity ", "dissimilarity ", "index ", "GIT binary patch", "Binary files "];
            return others.iter().any(|other| line.starts_with(other));
        }
        true
    }

    fn set_mode(&mut self, mode: &str) {
        match mode.trim() {
            "120000" => self.kind = Some("a symlink".to_owned()),
            "160000" => self.kind = Some("a submodule".to_owned()),
            mode => self.mode = mode.strip_prefix("100").and_then(|bits| u32::from_str_radix(bits, 8).ok()),
        }
    }

    fn to_action(&self) -> Option<FileAction> {
        let (old, new) = (self.old.clone(), self.new.clone());
        Some(match () {
            () if self.added => FileAction::Add { path: new.or(old)? },
            () if self.deleted => FileAction::Delete { path: old.or(new)? },
            () if self.copy => FileAction::Copy { from: old?, to: new? },
            () => {
                let (old, new) = (old.clone().or_else(|| new.clone())?, new.or(old)?);
                FileAction::Update { from: old, to: new }
            }
        })
    }
}

/// Parses a name in a header: quoted as in C, or up to a tab, which a time may follow.
fn header_name(text: &str) -> String {
    let text = text.trim_end_matches('\r');
    match text.strip_prefix('"') {
        Some(quoted) => unquote_name(quoted).0,
        None => text.split('\t').next().unwrap_or_default().trim_end().to_owned(),
    }
}

/// Removes the quotation marks of a name, given the text after the first one; also returns the text after the last.
fn unquote_name(text: &str) -> (String, &str) {
    let mut bytes = Vec::new();
    let mut chars = text.char_indices().peekable();
    let mut rest = "";
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                rest = &text[at + 1..];
                break;
            }
            '\\' => {
                let Some((_, escaped)) = chars.next() else { break };
                let byte = match escaped {
                    'n' => b'\n',
                    't' => b'\t',
                    'r' => b'\r',
                    'a' => 7,
                    'b' => 8,
                    'f' => 12,
                    'v' => 11,
                    '0'..='7' => {
                        let mut value = escaped.to_digit(8).unwrap_or_default();
                        for _ in 0..2 {
                            let Some((_, digit)) = chars.next_if(|(_, c)| c.is_digit(8)) else { break };
                            value = value * 8 + digit.to_digit(8).unwrap_or_default();
                        }
                        // Three octal digits may exceed a byte.
                        u8::try_from(value).unwrap_or(b'?')
                    }
                    other => {
                        bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                        continue;
                    }
                };
                bytes.push(byte);
            }
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    (String::from_utf8_lossy(&bytes).into_owned(), rest)
}

/// Removes the prefixes added by git (`a/` and `b/`, or those of `diff.mnemonicPrefix`).
fn strip_prefixes(names: (Option<String>, Option<String>)) -> (Option<String>, Option<String>) {
    const PREFIX_PAIRS: [(&str, &str); 7] =
        [("a/", "b/"), ("b/", "a/"), ("i/", "w/"), ("c/", "i/"), ("c/", "w/"), ("o/", "w/"), ("1/", "2/")];
    for (first, second) in PREFIX_PAIRS {
        let without = |name: &Option<String>, prefix: &str| match name {
            None => Some(None),
            Some(name) => name.strip_prefix(prefix).map(|rest| Some(rest.to_owned())),
        };
        if let (Some(old), Some(new)) = (without(&names.0, first), without(&names.1, second)) {
            let told = old.is_some() && new.is_some() || first == "a/";
            if told {
                return (old, new);
            }
        }
    }
    names
}

/// Splits the two names after `diff --git`. Unquoted names may contain spaces, so both must be equal except for their
/// prefix.
fn split_names(names: &str) -> Option<(String, String)> {
    let names = names.trim_end_matches('\r');
    if let Some(quoted) = names.strip_prefix('"') {
        let (old, rest) = unquote_name(quoted);
        return Some((old, header_name(rest.trim_start())));
    }
    let same = |(at, _): (usize, &str)| {
        let (old, new) = (&names[..at], &names[at + 1..]);
        let tail = |name: &str| name.split_once('/').map(|(_, tail)| tail.to_owned());
        let equal = old == new || tail(old).is_some() && tail(old) == tail(new);
        equal.then(|| (old.to_owned(), new.to_owned()))
    };
    names.match_indices(' ').find_map(same).or_else(|| {
        let (old, new) = names.split_once(' ')?;
        Some((old.to_owned(), header_name(new)))
    })
}
