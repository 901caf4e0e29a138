//! Reads a shell line as far as a guard must: every simple command, wherever it stands.
//!
//! The grammar is that of POSIX sh with bash's additions. It is read in one pass with bounded depth. Where shells
//! disagree on how a text is read, the text counts as not readable: a guard that guessed could be led to see a
//! string where the shell sees a command.

mod compound;
mod expand;
mod parser;
mod word;

pub(super) use expand::ShellVars;

/// Nesting of substitutions, groups and compound commands that is still read.
const MAX_DEPTH: u32 = 40;

/// Why a line could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShellFault {
    /// It is not a complete line, or shells disagree on its meaning.
    Syntax(&'static str),
    /// It is nested too deeply.
    TooDeep,
}

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WordPiece {
    /// Text after quote removal.
    Text { text: String, quoted: bool },
    /// A plain `$NAME` or `${NAME}`.
    Param { name: String, quoted: bool },
    /// Anything else whose value only the shell knows.
    Opaque { quoted: bool },
}

/// A word of the line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// Its pieces in order.
    pub(super) pieces: Vec<WordPiece>,
    /// As it was written.
    pub(super) raw: String,
}

/// A redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// To or from a file or descriptor.
    File { writes: bool, target: Word },
    /// `<<< word`.
    String(Word),
    /// A here-document, by its number in [`Script::documents`].
    Document(usize),
}

/// A simple command: a program with its arguments, an assignment, or bare redirections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SimpleCommand {
    /// Assignments before the program.
    pub(super) assigns: Vec<(String, Word)>,
    /// Program and arguments.
    pub(super) words: Vec<Word>,
    /// Redirections.
    pub(super) redirects: Vec<Redirect>,
    /// Number of the pipeline it stands in, from 1; 0: it is not part of one.
    pub(super) pipeline: usize,
    /// Whether it runs in the background.
    pub(super) background: bool,
    /// The command whose output it reads.
    pub(super) stdin_from: Option<usize>,
    /// The innermost function in whose body it stands, by its number in [`Script::functions`].
    pub(super) function: Option<usize>,
}

/// All that a line holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShellScript {
    /// Every simple command, those of substitutions before the command they stand in.
    pub(super) commands: Vec<SimpleCommand>,
    /// Names of the functions that it defines.
    pub(super) functions: Vec<String>,
    /// Those that are certainly defined, by number, with the number of the first command after each begins: it stands
    /// in the line itself and not in a group, a condition or another shell.
    pub(super) defined: Vec<(usize, usize)>,
    /// Bodies of here-documents.
    pub(super) documents: Vec<Word>,
    /// Variables that loops set.
    pub(super) loop_variables: Vec<String>,
    /// What stands in `((…))`: arithmetic to bash, a list of commands to a plain `sh`.
    pub(super) brackets: Vec<String>,
    /// Whether something stands in it that evaluates the *values* of variables (arithmetic, `${x@P}`, `[[`).
    pub(super) evaluates: bool,
    /// Whether a quoted text holds a substitution that such an evaluation would run.
    pub(super) hides: bool,
}

/// Reads a line.
pub(super) fn parse_line(line: &str) -> Result<ShellScript, ShellFault> {
    parser::ShellParser::new(line, 0).parse_script()
}
