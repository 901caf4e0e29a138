//! The commands that stand in a conversation.

/// What a line of the user is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing.
    Empty,
    /// Something for the model.
    Message(String),
    /// `!help`
    Help,
    /// `!clear`
    Clear,
    /// `!facts`
    Facts,
    /// `!memory`
    Memory,
    /// `!cost`
    Cost,
    /// `!model`, with or without a name
    Model(Option<String>),
    /// `!exit`
    Exit,
    /// A command that there is not.
    Unknown(String),
}

/// What `!help` says.
pub(super) const HELP: [&str; 8] = [
    "!help           these lines",
    "!clear          forget what was said; facts stay",
    "!facts          what is remembered for good",
    "!memory         where the memory lies and what it holds",
    "!model [NAME]   the model, or another one from now on (NAME or PROVIDER/NAME)",
    "!cost           what this conversation has cost",
    "!exit           end (so does Ctrl-D); Ctrl-C cancels the answer that is being made",
    "!!…             a message that begins with an exclamation mark",
];

/// Reads a line.
pub(super) fn read(text: &str) -> Line {
    let text = text.trim();
    if text.is_empty() {
        return Line::Empty;
    }
    let Some(command) = text.strip_prefix('!') else { return Line::Message(text.to_owned()) };
    if command.starts_with('!') {
        return Line::Message(command.to_owned());
    }
    let mut words = command.split_whitespace();
    let (name, rest) = (words.next().unwrap_or_default(), words.next());
    match (name.to_ascii_lowercase().as_str(), rest) {
        ("help" | "h" | "?", None) => Line::Help,
        ("clear", None) => Line::Clear,
        ("facts", None) => Line::Facts,
        ("memory", None) => Line::Memory,
        ("cost", None) => Line::Cost,
        ("model", name) => Line::Model(name.map(str::to_owned)),
        ("exit" | "quit" | "q", None) => Line::Exit,
        _ => Line::Unknown(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_unless_it_begins_with_a_mark() {
        assert_eq!(read("  hi there \n"), Line::Message("hi there".into()));
        assert_eq!(read(" \n"), Line::Empty);
        assert_eq!(read("!HELP"), Line::Help);
        assert_eq!(read("!model"), Line::Model(None));
        assert_eq!(read("!model openai/gpt-4o"), Line::Model(Some("openai/gpt-4o".into())));
        assert_eq!(read("!exit"), Line::Exit);
        assert_eq!(read("!clear all"), Line::Unknown("!clear all".into()));
        assert_eq!(read("!bogus"), Line::Unknown("!bogus".into()));
        assert_eq!(read("!"), Line::Unknown("!".into()));
        assert_eq!(read("!!important"), Line::Message("!important".into()));
    }
}
