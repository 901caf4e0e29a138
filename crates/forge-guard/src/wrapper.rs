//! Programs that run another program given as their arguments.

use super::shell::Word;

/// How the arguments of such a program are read.
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
    /// Whether assignments may stand before the program.
    pub(super) assigns: bool,
    /// Whether it needs no permission of its own.
    pub(super) transparent: bool,
}

const PLAIN: Wrapper = Wrapper {
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
        ..PLAIN
    },
    Wrapper {
        name: "timeout",
        flags: "v",
        values: "ks",
        long_flags: &["foreground", "preserve-status", "verbose"],
        long_values: &["kill-after", "signal"],
        positionals: 1,
        ..PLAIN
    },
    Wrapper {
        name: "xargs",
        flags: "0rtpxo",
        values: "nIPLdasE",
        long_flags: &["null", "no-run-if-empty", "verbose", "interactive", "exit", "open-tty"],
        long_values: &["max-args", "max-procs", "delimiter", "arg-file", "max-lines", "max-chars"],
        ..PLAIN
    },
    Wrapper { name: "nohup", ..PLAIN },
    Wrapper { name: "time", flags: "pvaq", values: "fo", ..PLAIN },
    Wrapper { name: "nice", flags: "0123456789", values: "n", long_values: &["adjustment"], ..PLAIN },
    Wrapper { name: "ionice", flags: "t", values: "cn", ..PLAIN },
    Wrapper { name: "setsid", flags: "cfw", long_flags: &["ctty", "fork", "wait"], ..PLAIN },
    Wrapper { name: "stdbuf", values: "ioe", long_values: &["input", "output", "error"], ..PLAIN },
    Wrapper { name: "exec", flags: "cl", values: "a", ..PLAIN },
    Wrapper { name: "command", flags: "p", ..PLAIN },
    Wrapper { name: "builtin", ..PLAIN },
    Wrapper {
        name: "sudo",
        flags: "bEHnPSkA",
        values: "ugpCTRDhUrt",
        assigns: true,
        transparent: false,
        ..PLAIN
    },
    Wrapper { name: "doas", flags: "nL", values: "uC", transparent: false, ..PLAIN },
    Wrapper { name: "busybox", transparent: false, ..PLAIN },
    Wrapper { name: "toybox", transparent: false, ..PLAIN },
    Wrapper { name: "chroot", positionals: 1, transparent: false, ..PLAIN },
];

/// The program of this name, if it runs another one.
pub(super) fn find(name: &str) -> Option<&'static Wrapper> {
    WRAPPERS.iter().find(|wrapper| wrapper.name == name)
}

/// Where the inner program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inner {
    /// At this position of the words.
    At(usize),
    /// There is none.
    Absent,
    /// It can't be told.
    Unknown,
}

enum Next {
    /// An option of so many words.
    Option(usize),
    NotAnOption,
    Unknown,
}

impl Wrapper {
    /// Where the inner program stands among `words`, of which the first is this program.
    pub(super) fn inner(&self, words: &[Word]) -> Inner {
        let mut at = 1;
        let mut options = true;
        let mut positionals = self.positionals;
        while let Some(word) = words.get(at) {
            let fixed = word.fixed();
            let text = fixed.as_deref().or_else(|| word.raw.split(['$', '`']).next()).unwrap_or_default();
            let assignment = self.assigns && text.contains('=') && !text.starts_with('-');
            if !word.is_one_field() && !assignment {
                return Inner::Unknown;
            }
            if options && text == "--" {
                options = false;
                at += 1;
            } else if options && text.starts_with('-') {
                if fixed.is_none() {
                    return Inner::Unknown;
                }
                match self.option(text) {
                    Next::Option(words) => at += words,
                    Next::NotAnOption => options = false,
                    Next::Unknown => return Inner::Unknown,
                }
            } else if assignment {
                options = false;
                at += 1;
            } else if positionals > 0 {
                positionals -= 1;
                options = false;
                at += 1;
            } else {
                return Inner::At(at);
            }
        }
        Inner::Absent
    }

    fn option(&self, text: &str) -> Next {
        if let Some(long) = text.strip_prefix("--") {
            let (name, given) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
            return if self.long_values.contains(&name) {
                Next::Option(if given { 1 } else { 2 })
            } else if self.long_flags.contains(&name) && !given {
                Next::Option(1)
            } else {
                Next::Unknown
            };
        }
        let letters = &text[1..];
        if letters.is_empty() {
            return if self.name == "env" { Next::Option(1) } else { Next::NotAnOption };
        }
        for (i, letter) in letters.char_indices() {
            if self.values.contains(letter) {
                let last = i + letter.len_utf8() == letters.len();
                return Next::Option(if last { 2 } else { 1 });
            }
            if !self.flags.contains(letter) {
                return Next::Unknown;
            }
        }
        Next::Option(1)
    }
}
