//! Extraction of an answer's text from JSON that is still streaming, for live display.

/// Takes a router's reply in pieces and returns the text of a `chat` in pieces. Other replies return nothing; they are
/// shown when complete.
#[derive(Clone, Debug, Default)]
pub struct ContentStream {
    head: String,
    escape: String,
    stage: StreamStage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamStage {
    /// Before the content.
    #[default]
    Before,
    /// Within the content.
    Inside,
    /// After the content, or in a reply without content to show.
    Over,
}

/// Maximum size of the object's start, in bytes; a longer one is something else.
const MAX_HEAD_BYTES: usize = 300;

impl ContentStream {
    /// Takes another piece of the reply and returns the new text of the answer.
    pub fn push(&mut self, piece: &str) -> String {
        let mut out = String::new();
        for c in piece.chars() {
            match self.stage {
                StreamStage::Before => self.scan_head(c),
                StreamStage::Inside => self.scan_content(c, &mut out),
                StreamStage::Over => break,
            }
        }
        out
    }

    fn scan_head(&mut self, c: char) {
        self.head.push(c);
        let head = self.head.trim_start();
        if !head.is_empty() && !head.starts_with('{') || head.len() > MAX_HEAD_BYTES {
            self.stage = StreamStage::Over;
            return;
        }
        if c != '"' {
            return;
        }
        let Some((front, rest)) = head.split_once("\"content\"") else { return };
        let begun = rest.trim_start().strip_prefix(':').is_some_and(|value| value.trim() == "\"");
        if begun {
            let chat = front.split_once("\"tool\"").is_some_and(|(_, tool)| tool.contains("\"chat\""));
            self.stage = if chat { StreamStage::Inside } else { StreamStage::Over };
        }
    }

    fn scan_content(&mut self, c: char, out: &mut String) {
        if !self.escape.is_empty() {
            self.escape.push(c);
            let pending = self.escape.starts_with("\\u") && self.escape.len() < 6;
            // The second half of a character that UTF-16 encodes in two.
            let code = u32::from_str_radix(self.escape.get(2..6).unwrap_or_default(), 16);
            let half = matches!(code, Ok(0xd800..=0xdbff)) && self.escape.len() < 12;
            if !pending && !half {
                let text = format!("\"{}\"", std::mem::take(&mut self.escape));
                out.push_str(&serde_json::from_str::<String>(&text).unwrap_or_default());
            }
            return;
        }
        match c {
            '\\' => self.escape.push(c),
            '"' => self.stage = StreamStage::Over,
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ContentStream;
    use proptest::prelude::*;

    fn streamed(text: &str) -> String {
        let mut stream = ContentStream::default();
        text.chars().map(|c| stream.push(&c.to_string())).collect()
    }

    #[test]
    fn only_the_words_of_an_answer_are_shown() {
        assert_eq!(
            streamed(r#"{"tool": "chat", "content": "a \"b\"\n\u00e4\ud83d\ude00 c"}"#),
            "a \"b\"\nä😀 c"
        );
        assert_eq!(streamed(r#"{"tool":"code","content":"print(1)"}"#), "");
        assert_eq!(streamed("just words, \"chat\" \"content\": \"x\""), "");
        assert_eq!(streamed(r#"<think>{"tool":"chat","content":"x"}"#), "");
    }

    proptest! {
        #[test]
        fn what_is_streamed_is_what_is_parsed(text in "\\PC{0,60}", cut in 1_usize..9) {
            let json = super::super::format_answer(&text);
            let mut stream = ContentStream::default();
            let letters: Vec<char> = json.chars().collect();
            let shown: String = letters.chunks(cut).map(|piece| stream.push(&piece.iter().collect::<String>())).collect();
            prop_assert_eq!(shown, text);
        }

        #[test]
        fn nothing_makes_it_panic(text in "[{}\"\\\\:a-z u0-9d]{0,80}") {
            streamed(&text);
        }
    }
}
