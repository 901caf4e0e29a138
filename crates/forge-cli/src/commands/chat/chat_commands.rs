//! Commands within a conversation.

/// A parsed line of user input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChatLine {
    /// An empty line.
    Empty,
    /// A message for the model.
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
    /// An unknown command.
    Unknown(String),
}

/// Output of `!help`.
pub(super) const HELP_LINES: [&str; 8] = [
    "!help           show this help",
    "!clear          clear the conversation; facts are kept",
    "!facts          show the remembered facts",
    "!memory         show the location and size of the memory",
    "!model [NAME]   show or change the model (NAME or PROVIDER/NAME)",
    "!cost           show the cost of this conversation",
    "!exit           quit (also Ctrl-D); Ctrl-C cancels the current answer",
    "!!…             send a message that begins with an exclamation mark",
];

/// Parses a line.
pub(super) fn parse_chat_line(text: &str) -> ChatLine {
    let text = text.trim();
    if text.is_empty() {
        return ChatLine::Empty;
    }
    let Some(command) = text.strip_prefix('!') else { return ChatLine::Message(text.to_owned()) };
    if command.starts_with('!') {
        return ChatLine::Message(command.to_owned());
    }
    let mut words = command.split_whitespace();
    let (name, rest) = (words.next().unwrap_or_default(), words.next());
    match (name.to_ascii_lowercase().as_str(), rest) {
        ("help" | "h" | "?", None) => ChatLine::Help,
        ("clear", None) => ChatLine::Clear,
        ("facts", None) => ChatLine::Facts,
        ("memory", None) => ChatLine::Memory,
        ("cost", None) => ChatLine::Cost,
        ("model", name) => ChatLine::Model(name.map(str::to_owned)),
        ("exit" | "quit" | "q", None) => ChatLine::Exit,
        _ => ChatLine::Unknown(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_unless_it_begins_with_a_mark() {
        assert_eq!(parse_chat_line("  hi there \n"), ChatLine::Message("hi there".into()));
        assert_eq!(parse_chat_line(" \n"), ChatLine::Empty);
        assert_eq!(parse_chat_line("!HELP"), ChatLine::Help);
        assert_eq!(parse_chat_line("!model"), ChatLine::Model(None));
        assert_eq!(parse_chat_line("!model openai/gpt-4o"), ChatLine::Model(Some("openai/gpt-4o".into())));
        assert_eq!(parse_chat_line("!exit"), ChatLine::Exit);
        assert_eq!(parse_chat_line("!clear all"), ChatLine::Unknown("!clear all".into()));
        assert_eq!(parse_chat_line("!bogus"), ChatLine::Unknown("!bogus".into()));
        assert_eq!(parse_chat_line("!"), ChatLine::Unknown("!".into()));
        assert_eq!(parse_chat_line("!!important"), ChatLine::Message("!important".into()));
    }
}
