//! Programs that run another program given as their arguments.

use super::shell::Word;

/// The argument syntax of a wrapper.
#[derive(Debug)]
pub(super) struct Wrapper {
    name: &'static str,
    /// One-letter options without a value.
    flags: &'static str,
    /// One-letter options with a value.
    values: &'static str,
    /// Long options without a value.
    long_flags: &'static [&'static str],
    /// Long options with a value.
    long_values: &'static [&'static str],
    /// Arguments before the program.
    positionals: usize,
    /// Whether assignments may precede the program.
    pub(super) assigns: bool,
    /// Whether the wrapper needs no permission of its own.
    pub(super) transparent: bool,
}

const DEFAULT_WRAPPER: Wrapper = Wrapper {
    name: "",
    flags: "",
    values: "",
    long_flags: &[],
    long_values: &[],
    positionals: 0,
    assigns: false,
    transparent: true,
};

const WRAPPERS: &[Wrapper] = &[
    Wrapper {
        name: "env",
        flags: "i0v",
        values: "uC",
        long_flags: &["ignore-environment", "null", "debug"],
        long_values: &["unset", "chdir"],
        assigns: true,
        ..DEFAULT_WRAPPER
    },
    Wrapper {
        name: "timeout",
        flags: "v",
        values: "ks",
        long_flags: &["foreground", "preserve-status", "verbose"],
        long_values: &["kill-after", "signal"],
        positionals: 1,
        ..DEFAULT_WRAPPER
    },
    Wrapper {
        name: "xargs",
        flags: "0rtpxo",
        values: "nIPLdasE",
        long_flags: &["null", "no-run-if-empty", "verbose", "interactive", "exit", "open-tty"],
        long_values: &["max-args", "max-procs", "delimiter", "arg-file", "max-lines", "max-chars"],
        ..DEFAULT_WRAPPER
    },
    Wrapper { name: "nohup", ..DEFAULT_WRAPPER },
    Wrapper { name: "time", flags: "pvaq", values: "fo", ..DEFAULT_WRAPPER },
    Wrapper {
        name: "nice",
        flags: "0123456789",
        values: "n",
        long_values: &["adjustment"],
        ..DEFAULT_WRAPPER
    },
    Wrapper { name: "ionice", flags: "t", values: "cn", ..DEFAULT_WRAPPER },
    Wrapper { name: "setsid", flags: "cfw", long_flags: &["ctty", "fork", "wait"], ..DEFAULT_WRAPPER },
    Wrapper { name: "stdbuf", values: "ioe", long_values: &["input", "output", "error"], ..DEFAULT_WRAPPER },
    Wrapper { name: "exec", flags: "cl", values: "a", ..DEFAULT_WRAPPER },
    Wrapper { name: "command", flags: "p", ..DEFAULT_WRAPPER },
    Wrapper { name: "builtin", ..DEFAULT_WRAPPER },
    Wrapper {
        name: "sudo",
        flags: "bEHnPSkA",
        values: "ugpCTRDhUrt",
        assigns: true,
        transparent: false,
        ..DEFAULT_WRAPPER
    },
    Wrapper { name: "doas", flags: "nL", values: "uC", transparent: false, ..DEFAULT_WRAPPER },
    Wrapper { name: "busybox", transparent: false, ..DEFAULT_WRAPPER },
    Wrapper { name: "toybox", transparent: false, ..DEFAULT_WRAPPER },
    Wrapper { name: "chroot", positionals: 1, transparent: false, ..DEFAULT_WRAPPER },
];

/// Returns the wrapper with this name.
pub(super) fn find_wrapper(name: &str) -> Option<&'static Wrapper> {
    WRAPPERS.iter().find(|wrapper| wrapper.name == name)
}

/// The position of the inner program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InnerProgram {
    /// At this index of the words.
    At(usize),
    /// There is no inner program.
    Absent,
    /// The position is unknown.
    Unknown,
}

enum WrapperOption {
    /// An option that takes this many words.
    Option(usize),
    NotAnOption,
    Unknown,
}

impl Wrapper {
    /// Locates the inner program among `words`, which begin with this wrapper.
    pub(super) fn locate_inner(&self, words: &[Word]) -> InnerProgram {
        let mut at = 1;
        let mut options = true;
        let mut positionals = self.positionals;
        while let Some(word) = words.get(at) {
            let fixed = word.fixed_text();
            let text = fixed.as_deref().or_else(|| word.raw.split(['$', '`']).next()).unwrap_or_default();
            let assignment = self.assigns && text.contains('=') && !text.starts_with('-');
            if !word.is_one_field() && !assignment {
                return InnerProgram::Unknown;
            }
            if options && text == "--" {
                options = false;
                at += 1;
            } else if options && text.starts_with('-') {
                if fixed.is_none() {
                    return InnerProgram::Unknown;
                }
                match self.classify_option(text) {
                    WrapperOption::Option(words) => at += words,
                    WrapperOption::NotAnOption => options = false,
                    WrapperOption::Unknown => return InnerProgram::Unknown,
                }
            } else if assignment {
                options = false;
                at += 1;
            } else if positionals > 0 {
                positionals -= 1;
                options = false;
                at += 1;
            } else {
                return InnerProgram::At(at);
            }
        }
        InnerProgram::Absent
    }

    fn classify_option(&self, text: &str) -> WrapperOption {
        if let Some(long) = text.strip_prefix("--") {
            let (name, given) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
            return if self.long_values.contains(&name) {
                WrapperOption::Option(if given { 1 } else { 2 })
            } else if self.long_flags.contains(&name) && !given {
                WrapperOption::Option(1)
            } else {
                WrapperOption::Unknown
            };
        }
        let letters = &text[1..];
        if letters.is_empty() {
            return if self.name == "env" { WrapperOption::Option(1) } else { WrapperOption::NotAnOption };
        }
        for (i, letter) in letters.char_indices() {
            if self.values.contains(letter) {
                let last = i + letter.len_utf8() == letters.len();
                return WrapperOption::Option(if last { 2 } else { 1 });
            }
            if !self.flags.contains(letter) {
                return WrapperOption::Unknown;
            }
        }
        WrapperOption::Option(1)
    }
}
