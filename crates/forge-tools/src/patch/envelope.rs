//! Parsing of the `*** Begin Patch` format.
//!
//! ```text
//! *** Begin Patch
//! *** Add File: path          each line of the file with `+` in front
//! *** Delete File: path
//! *** Update File: path       then, if it moves, `*** Move to: path`, then hunks
//! @@ a line above the hunk    may be left out or repeated: class, then method
//!  stays
//! -goes
//! +comes
//! *** End of File             the hunk is at the end of the file
//! *** End Patch
//! ```

use super::{
    FileAction, FilePatch, Hunk, HunkLine, HunkRanges, LineSign, PatchError, PatchLineEnd, hunk_line,
    next_texts, parse_anchor, quote_line,
};

const BEGIN_PATCH: &str = "*** Begin Patch";
const END_PATCH: &str = "*** End Patch";
const END_OF_FILE: &str = "*** End of File";

/// Returns whether a line occurs only in this format.
pub(super) fn is_envelope_line(line: &str) -> bool {
    line.trim_end() == BEGIN_PATCH || SectionHead::parse(line).is_some()
}

/// The heading of a file's section.
enum SectionHead<'a> {
    Add(&'a str),
    Update(&'a str),
    Delete(&'a str),
}

impl<'a> SectionHead<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let rest = line.strip_prefix("*** ")?;
        let (word, path) = rest.split_once(" File:")?;
        let path = path.trim();
        match word {
            "Add" => Some(Self::Add(path)),
            "Update" => Some(Self::Update(path)),
            "Delete" => Some(Self::Delete(path)),
            _ => None,
        }
    }

    const fn path(&self) -> &'a str {
        match self {
            Self::Add(path) | Self::Update(path) | Self::Delete(path) => path,
        }
    }
}

/// Parses the lines of a patch in this format. Text around `*** Begin Patch` and `*** End Patch` is ignored.
pub(super) fn parse_envelope(lines: &[&str]) -> Result<Vec<FilePatch>, PatchError> {
    let begin = lines.iter().position(|line| line.trim_end() == BEGIN_PATCH);
    let at = begin.map_or(0, |at| at + 1);
    let mut reader = EnvelopeReader { lines, at, closed: begin.is_none(), next: next_texts(lines) };
    let mut files = Vec::new();
    while let Some(line) = reader.peek() {
        if line.trim_end() == END_PATCH {
            reader.closed = true;
            break;
        }
        let at = reader.at;
        reader.at += 1;
        match SectionHead::parse(line) {
            Some(section) if section.path().is_empty() => {
                return Err(PatchError::at_line(at, format!("{} names no file", quote_line(line))));
            }
            Some(section) => files.push(reader.read_section(&section)?),
            None if line.trim().is_empty() || files.is_empty() && begin.is_none() => {}
            None => {
                let why = "`*** Add File: `, `*** Update File: `, `*** Delete File: ` or `*** End Patch` is expected, not";
                return Err(PatchError::at_line(at, format!("{why} {}", quote_line(line))));
            }
        }
    }
    if !reader.closed {
        return Err(PatchError(format!(
            "the patch does not end with `{END_PATCH}`: it may be cut off. Nothing was applied"
        )));
    }
    Ok(files)
}

struct EnvelopeReader<'a> {
    lines: &'a [&'a str],
    at: usize,
    closed: bool,
    /// For each line, the next line that is not blank.
    next: Vec<usize>,
}

impl<'a> EnvelopeReader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.at).copied()
    }

    /// Returns whether a line ends the section of a file.
    fn ends_section(line: &str) -> bool {
        line.trim_end() == END_PATCH || SectionHead::parse(line).is_some()
    }

    fn read_section(&mut self, section: &SectionHead<'_>) -> Result<FilePatch, PatchError> {
        match section {
            SectionHead::Add(path) => {
                let action = FileAction::Add { path: (*path).to_owned() };
                Ok(FilePatch { action, hunks: self.read_added()?, mode: None })
            }
            SectionHead::Delete(path) => {
                let action = FileAction::Delete { path: (*path).to_owned() };
                Ok(FilePatch { action, hunks: Vec::new(), mode: None })
            }
            SectionHead::Update(path) => {
                let moved = self.peek().and_then(|line| line.strip_prefix("*** Move to:"));
                self.at += usize::from(moved.is_some());
                let head = self.at;
                let hunks = self.read_hunks()?;
                if hunks.is_empty() && moved.is_none() {
                    return Err(PatchError::at_line(head - 1, format!("nothing changes in `{path}`")));
                }
                let to = moved.map_or(*path, str::trim).to_owned();
                Ok(FilePatch {
                    action: FileAction::Update { from: (*path).to_owned(), to },
                    hunks,
                    mode: None,
                })
            }
        }
    }

    fn read_added(&mut self) -> Result<Vec<Hunk>, PatchError> {
        let mut lines = Vec::new();
        while let Some(line) = self.peek().filter(|line| !Self::ends_section(line)) {
            match line.strip_prefix('+') {
                Some(text) => {
                    lines.push(HunkLine {
                        sign: LineSign::Add,
                        text: text.to_owned(),
                        end: PatchLineEnd::Newline,
                    });
                }
                None if line.trim_end() == END_OF_FILE || line.trim().is_empty() && self.only_blank() => {}
                None => {
                    let why = format!("each line of a new file begins with `+`, not {}", quote_line(line));
                    return Err(PatchError::at_line(self.at, why));
                }
            }
            self.at += 1;
        }
        Ok(if lines.is_empty() { Vec::new() } else { vec![Hunk { lines, ..Hunk::default() }] })
    }

    /// Returns whether only blank lines remain in the section.
    fn only_blank(&self) -> bool {
        self.lines.get(self.next[self.at]).is_none_or(|line| Self::ends_section(line))
    }

    fn read_hunks(&mut self) -> Result<Vec<Hunk>, PatchError> {
        let mut hunks = Vec::new();
        let mut hunk = Hunk::default();
        while let Some(line) = self.peek().filter(|line| !Self::ends_section(line)) {
            if line.starts_with("@@") {
                if !hunk.lines.is_empty() {
                    hunks.push(std::mem::take(&mut hunk));
                }
                match HunkRanges::parse(line) {
                    Some(ranges) => hunk.at = Some(ranges.at()),
                    None => hunk.anchors.extend(parse_anchor(line)),
                }
            } else if line.trim_end() == END_OF_FILE {
                hunk.at_end = true;
                if !hunk.lines.is_empty() {
                    hunks.push(std::mem::take(&mut hunk));
                }
            } else if line.starts_with('\\') {
                if let Some(last) = hunk.lines.last_mut() {
                    last.end = PatchLineEnd::Nothing;
                }
            } else if line.is_empty() && self.only_blank() {
                // An empty line before the next section belongs to neither.
            } else if let Some(line) = hunk_line(line) {
                hunk.lines.push(line);
            } else {
                let why = "a line of a hunk begins with a space, `+` or `-`, not as";
                return Err(PatchError::at_line(self.at, format!("{why} {}", quote_line(line))));
            }
            self.at += 1;
        }
        if !hunk.lines.is_empty() {
            hunks.push(hunk);
        }
        // A hunk with context lines alone changes nothing.
        hunks.retain(|hunk| hunk.lines.iter().any(|line| line.sign != LineSign::Context));
        Ok(hunks)
    }
}
