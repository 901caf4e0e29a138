//! The `*** Begin Patch` form.
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
//! *** End of File             the hunk stands at the end
//! *** End Patch
//! ```

use super::{Action, End, Fault, FilePatch, Hunk, Line, Ranges, Sign, anchor, hunk_line, next_texts, quoted};

const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";
const END_OF_FILE: &str = "*** End of File";

/// A line that only this form has.
pub(super) fn opens(line: &str) -> bool {
    line.trim_end() == BEGIN || Section::read(line).is_some()
}

/// The head of a file's part.
enum Section<'a> {
    Add(&'a str),
    Update(&'a str),
    Delete(&'a str),
}

impl<'a> Section<'a> {
    fn read(line: &'a str) -> Option<Self> {
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

/// Reads the lines of a patch of this form. What stands around `*** Begin Patch` and `*** End Patch` is not read.
pub(super) fn parse(lines: &[&str]) -> Result<Vec<FilePatch>, Fault> {
    let begin = lines.iter().position(|line| line.trim_end() == BEGIN);
    let at = begin.map_or(0, |at| at + 1);
    let mut reader = Reader { lines, at, closed: begin.is_none(), next: next_texts(lines) };
    let mut files = Vec::new();
    while let Some(line) = reader.peek() {
        if line.trim_end() == END {
            reader.closed = true;
            break;
        }
        let at = reader.at;
        reader.at += 1;
        match Section::read(line) {
            Some(section) if section.path().is_empty() => {
                return Err(Fault::at(at, format!("{} names no file", quoted(line))));
            }
            Some(section) => files.push(reader.section(&section)?),
            None if line.trim().is_empty() || files.is_empty() && begin.is_none() => {}
            None => {
                let why = "`*** Add File: `, `*** Update File: `, `*** Delete File: ` or `*** End Patch` is expected, not";
                return Err(Fault::at(at, format!("{why} {}", quoted(line))));
            }
        }
    }
    if !reader.closed {
        return Err(Fault(format!(
            "the patch does not end with `{END}`: it may be cut off. Nothing was applied"
        )));
    }
    Ok(files)
}

struct Reader<'a> {
    lines: &'a [&'a str],
    at: usize,
    closed: bool,
    /// Where the next line is that is not blank.
    next: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.at).copied()
    }

    /// Whether the part of a file ends here.
    fn ends(line: &str) -> bool {
        line.trim_end() == END || Section::read(line).is_some()
    }

    fn section(&mut self, section: &Section<'_>) -> Result<FilePatch, Fault> {
        match section {
            Section::Add(path) => {
                let action = Action::Add { path: (*path).to_owned() };
                Ok(FilePatch { action, hunks: self.added()?, mode: None })
            }
            Section::Delete(path) => {
                let action = Action::Delete { path: (*path).to_owned() };
                Ok(FilePatch { action, hunks: Vec::new(), mode: None })
            }
            Section::Update(path) => {
                let moved = self.peek().and_then(|line| line.strip_prefix("*** Move to:"));
                self.at += usize::from(moved.is_some());
                let head = self.at;
                let hunks = self.hunks()?;
                if hunks.is_empty() && moved.is_none() {
                    return Err(Fault::at(head - 1, format!("nothing is to change in `{path}`")));
                }
                let to = moved.map_or(*path, str::trim).to_owned();
                Ok(FilePatch { action: Action::Update { from: (*path).to_owned(), to }, hunks, mode: None })
            }
        }
    }

    fn added(&mut self) -> Result<Vec<Hunk>, Fault> {
        let mut lines = Vec::new();
        while let Some(line) = self.peek().filter(|line| !Self::ends(line)) {
            match line.strip_prefix('+') {
                Some(text) => {
                    lines.push(Line { sign: Sign::Add, text: text.to_owned(), end: End::Newline });
                }
                None if line.trim_end() == END_OF_FILE || line.trim().is_empty() && self.only_blank() => {}
                None => {
                    let why = format!("each line of a new file begins with `+`, not {}", quoted(line));
                    return Err(Fault::at(self.at, why));
                }
            }
            self.at += 1;
        }
        Ok(if lines.is_empty() { Vec::new() } else { vec![Hunk { lines, ..Hunk::default() }] })
    }

    /// Whether only blank lines stand before the end of the part.
    fn only_blank(&self) -> bool {
        self.lines.get(self.next[self.at]).is_none_or(|line| Self::ends(line))
    }

    fn hunks(&mut self) -> Result<Vec<Hunk>, Fault> {
        let mut hunks = Vec::new();
        let mut hunk = Hunk::default();
        while let Some(line) = self.peek().filter(|line| !Self::ends(line)) {
            if line.starts_with("@@") {
                if !hunk.lines.is_empty() {
                    hunks.push(std::mem::take(&mut hunk));
                }
                match Ranges::read(line) {
                    Some(ranges) => hunk.at = Some(ranges.at()),
                    None => hunk.anchors.extend(anchor(line)),
                }
            } else if line.trim_end() == END_OF_FILE {
                hunk.at_end = true;
                if !hunk.lines.is_empty() {
                    hunks.push(std::mem::take(&mut hunk));
                }
            } else if line.starts_with('\\') {
                if let Some(last) = hunk.lines.last_mut() {
                    last.end = End::Nothing;
                }
            } else if line.is_empty() && self.only_blank() {
                // An empty line before the next part belongs to nobody.
            } else if let Some(line) = hunk_line(line) {
                hunk.lines.push(line);
            } else {
                let why = "a line of a hunk begins with a space, `+` or `-`, not as";
                return Err(Fault::at(self.at, format!("{why} {}", quoted(line))));
            }
            self.at += 1;
        }
        if !hunk.lines.is_empty() {
            hunks.push(hunk);
        }
        // A hunk that only shows lines changes nothing.
        hunks.retain(|hunk| hunk.lines.iter().any(|line| line.sign != Sign::Keep));
        Ok(hunks)
    }
}
