//! A parser for shell lines that finds every simple command, wherever it occurs.
//!
//! The grammar is that of POSIX sh with bash's additions, parsed in one pass with bounded depth. Text that shells read
//! differently counts as unreadable: a guard that guesses could be led to see a string where the shell sees a command.

mod compound;
mod expand;
mod parser;
mod word;

pub(super) use expand::ShellVars;

/// Maximum nesting of substitutions, groups and compound commands.
const MAX_DEPTH: u32 = 40;

/// The reason why a line is unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShellFault {
    /// The line is incomplete, or shells disagree on its meaning.
    Syntax(&'static str),
    /// The line is nested too deeply.
    TooDeep,
}

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WordPiece {
    /// Text after quote removal.
    Text { text: String, quoted: bool },
    /// A plain `$NAME` or `${NAME}`.
    Param { name: String, quoted: bool },
    /// Any other part with a value that only the shell knows.
    Opaque { quoted: bool },
}

/// A word of the line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// The pieces, in order.
    pub(super) pieces: Vec<WordPiece>,
    /// The word as written.
    pub(super) raw: String,
}

/// A redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// To or from a file or descriptor.
    File { writes: bool, target: Word },
    /// `<<< word`.
    String(Word),
    /// A here-document, by its index in [`ShellScript::documents`].
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
    /// Number of the command's pipeline, from 1; 0 if it is not part of one.
    pub(super) pipeline: usize,
    /// Whether the command runs in the background.
    pub(super) background: bool,
    /// The command that writes to its standard input through a pipe.
    pub(super) stdin_from: Option<usize>,
    /// The innermost function that contains the command, by its index in [`ShellScript::functions`].
    pub(super) function: Option<usize>,
}

/// The contents of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShellScript {
    /// All simple commands; those of a substitution precede the command that contains it.
    pub(super) commands: Vec<SimpleCommand>,
    /// Names of the functions that the line defines.
    pub(super) functions: Vec<String>,
    /// Functions that are certainly defined, by index, with the number of the first command after the definition: it is
    /// in the line itself and not in a group, a condition or another shell.
    pub(super) defined: Vec<(usize, usize)>,
    /// Bodies of here-documents.
    pub(super) documents: Vec<Word>,
    /// Variables that loops set.
    pub(super) loop_variables: Vec<String>,
    /// Contents of `((…))`: arithmetic to bash, a list of commands to a plain `sh`.
    pub(super) brackets: Vec<String>,
    /// Whether the line evaluates the *values* of variables (arithmetic, `${x@P}`, `[[`).
    pub(super) evaluates: bool,
    /// Whether a quoted text contains a substitution that such an evaluation would run.
    pub(super) hides: bool,
}

/// Parses a line.
pub(super) fn parse_line(line: &str) -> Result<ShellScript, ShellFault> {
    parser::ShellParser::new(line, 0).parse_script()
}
