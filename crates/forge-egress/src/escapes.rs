//! Decoding of nested escapes of URLs, JSON, C and HTML.

/// Number of escape layers that are decoded: a text can be percent-encoded in JSON in HTML.
const LAYERS: usize = 3;
/// Maximum number of digits in an HTML character reference, including leading zeros.
const MAX_DIGITS: usize = 8;

/// HTML names of ASCII characters.
const NAMES: [(&str, char); 38] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("Tab", '\t'),
    ("NewLine", '\n'),
    ("nbsp", ' '),
    ("excl", '!'),
    ("num", '#'),
    ("dollar", '$'),
    ("percnt", '%'),
    ("lpar", '('),
    ("rpar", ')'),
    ("ast", '*'),
    ("midast", '*'),
    ("plus", '+'),
    ("comma", ','),
    ("period", '.'),
    ("sol", '/'),
    ("colon", ':'),
    ("semi", ';'),
    ("equals", '='),
    ("quest", '?'),
    ("commat", '@'),
    ("lsqb", '['),
    ("lbrack", '['),
    ("bsol", '\\'),
    ("rsqb", ']'),
    ("rbrack", ']'),
    ("Hat", '^'),
    ("lowbar", '_'),
    ("grave", '`'),
    ("lcub", '{'),
    ("verbar", '|'),
    ("vert", '|'),
    ("rcub", '}'),
    ("hyphen", '-'),
];

/// Returns whether an escape can start with this byte, in any layer.
pub(super) const fn begins(byte: u8) -> bool {
    matches!(byte, b'\\' | b'%' | b'&')
}

/// All readings of the text at one position.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// Codes of characters or bytes, each with the end of its encoding.
    pub(super) found: Vec<(u32, usize)>,
    /// Whether a longer text could have further readings.
    pub(super) cut: bool,
}

/// A text to be decoded.
#[derive(Clone, Copy)]
pub(super) struct Text<'a>(pub(super) &'a [u8]);

impl Text<'_> {
    /// Returns all readings at a position, through any number of layers.
    pub(super) fn read(self, at: usize) -> Signs {
        self.within(at, LAYERS)
    }

    fn within(self, at: usize, layers: usize) -> Signs {
        let Some(&byte) = self.0.get(at) else { return Signs { found: Vec::new(), cut: true } };
        if layers == 0 || !begins(byte) {
            return Signs { found: vec![(byte.into(), at + 1)], cut: false };
        }
        let mut signs = self.within(at, layers - 1);
        for (code, end) in signs.found.clone() {
            let mut reader = Reader { text: self, layers: layers - 1, signs: &mut signs };
            match char::from_u32(code) {
                Some('\\') => reader.backslash(end),
                Some('%') => reader.percent(end),
                Some('&') => reader.entity(end),
                _ => {}
            }
        }
        signs.found.sort_unstable();
        signs.found.dedup();
        signs
    }
}

/// A reader for one escape.
struct Reader<'a> {
    text: Text<'a>,
    /// Number of layers in which the escape's own characters may be encoded.
    layers: usize,
    signs: &'a mut Signs,
}

impl Reader<'_> {
    fn next(&mut self, at: usize) -> Vec<(u32, usize)> {
        let next = self.text.within(at, self.layers);
        self.signs.cut |= next.cut;
        next.found
    }

    /// Returns the ends of all encodings of a character at a position.
    fn is(&mut self, at: usize, wanted: char) -> Vec<usize> {
        self.next(at).into_iter().filter(|(code, _)| *code == u32::from(wanted)).map(|(_, end)| end).collect()
    }

    /// Returns the numbers of `least` to `most` digits at a position, with their ends.
    fn numbers(&mut self, at: usize, radix: u32, least: usize, most: usize) -> Vec<(u32, usize)> {
        let (mut begun, mut found) = (vec![(0_u32, at)], Vec::new());
        for count in 1..=most {
            let mut longer = Vec::new();
            for (number, at) in begun {
                for (code, end) in self.next(at) {
                    let digit = char::from_u32(code).and_then(|c| c.to_digit(radix));
                    let number = digit.and_then(|digit| number.checked_mul(radix)?.checked_add(digit));
                    longer.extend(number.map(|number| (number, end)));
                }
            }
            longer.sort_unstable();
            longer.dedup();
            if count >= least {
                found.extend_from_slice(&longer);
            }
            begun = longer;
        }
        found
    }

    fn add_numbers(&mut self, at: usize, radix: u32, least: usize, most: usize) {
        let numbers = self.numbers(at, radix, least, most);
        self.signs.found.extend(numbers);
    }

    /// Reads an escape of JSON, JavaScript, C or a shell after its backslash.
    fn backslash(&mut self, at: usize) {
        for (code, end) in self.next(at) {
            match char::from_u32(code) {
                Some('u') => {
                    self.add_numbers(end, 16, 4, 4);
                    for open in self.is(end, '{') {
                        self.closed(open, 16, '}');
                    }
                }
                Some('U') => self.add_numbers(end, 16, 8, 8),
                Some('x') => self.add_numbers(end, 16, 2, 2),
                Some('0'..='7') => self.add_numbers(at, 8, 1, 3),
                Some('n') => self.signs.found.push(('\n'.into(), end)),
                Some('r') => self.signs.found.push(('\r'.into(), end)),
                Some('t') => self.signs.found.push(('\t'.into(), end)),
                Some(c) if c.is_ascii_punctuation() || c == ' ' => self.signs.found.push((code, end)),
                _ => {}
            }
        }
    }

    fn percent(&mut self, at: usize) {
        self.add_numbers(at, 16, 2, 2);
        for end in self.is(at, 'u') {
            self.add_numbers(end, 16, 4, 4);
        }
    }

    /// Returns a character of an HTML reference after the `&`. Only percent-encoding is decoded: with all layers, the
    /// time for a text of nothing but ampersands would grow with each of them.
    fn decode_percent(&mut self, at: usize) -> Option<(u8, usize)> {
        let Some(&byte) = self.text.0.get(at) else {
            self.signs.cut = true;
            return None;
        };
        if byte != b'%' {
            return Some((byte, at + 1));
        }
        let digit = |at: usize| self.text.0.get(at).map(|&byte| char::from(byte).to_digit(16));
        match (digit(at + 1), digit(at + 2)) {
            (Some(Some(high)), Some(Some(low))) => Some((u8::try_from(high * 16 + low).ok()?, at + 3)),
            (None, _) | (Some(Some(_)), None) => {
                self.signs.cut = true;
                None
            }
            _ => None,
        }
    }

    /// Reads an HTML character reference after the `&`.
    fn entity(&mut self, at: usize) {
        match self.decode_percent(at) {
            Some((b'#', at)) => match self.decode_percent(at) {
                Some((b'x' | b'X', at)) => self.character(at, 16),
                _ => self.character(at, 10),
            },
            Some((first, _)) if first.is_ascii_alphabetic() => self.decode_named_reference(at),
            _ => {}
        }
    }

    /// Reads a numeric character reference, with or without the semicolon because HTML parsers accept both.
    fn character(&mut self, mut at: usize, radix: u32) {
        let mut number = 0_u32;
        for _ in 0..MAX_DIGITS {
            let Some((byte, end)) = self.decode_percent(at) else { return };
            let digit = char::from(byte).to_digit(radix);
            let Some(next) = digit.and_then(|digit| number.checked_mul(radix)?.checked_add(digit)) else {
                return;
            };
            (number, at) = (next, end);
            self.signs.found.push((number, at));
            if let Some((b';', end)) = self.decode_percent(at) {
                self.signs.found.push((number, end));
            }
        }
    }

    fn decode_named_reference(&mut self, mut at: usize) {
        let mut name = String::new();
        while let Some((byte, end)) = self.decode_percent(at) {
            at = end;
            if byte == b';' {
                let known = NAMES.iter().find(|(known, _)| *known == name);
                return self.signs.found.extend(known.map(|(_, c)| (u32::from(*c), at)));
            }
            name.push(char::from(byte));
            if !NAMES.iter().any(|(known, _)| known.starts_with(&name)) {
                return;
            }
        }
    }

    /// Reads numbers followed by a closing character.
    fn closed(&mut self, at: usize, radix: u32, close: char) {
        for (number, end) in self.numbers(at, radix, 1, MAX_DIGITS) {
            let closed = self.is(end, close);
            self.signs.found.extend(closed.into_iter().map(|end| (number, end)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reads(text: &str, wanted: char) -> bool {
        Text(text.as_bytes()).read(0).found.contains(&(wanted.into(), text.len()))
    }

    #[test]
    fn escapes_are_read_in_every_layer() {
        for text in [
            "s",
            "%73",
            "%u0073",
            "\\u0073",
            "\\U00000073",
            "\\u{73}",
            "\\x73",
            "\\163",
            "&#115;",
            "&#x73;",
            "&#X0073;",
            "&#115",
            "%2573",
            "%252573",
            "\\\\u0073",
            "\\\\\\\\u0073",
            "&amp;#115;",
            "&#x25;&#x37;&#x33;",
            "%26%23115%3B",
            "\\u0026#115;",
            "%5Cu0073",
            "&bsol;x73",
        ] {
            assert!(reads(text, 's'), "{text}");
            for end in 1..text.len() {
                assert!(Text(&text.as_bytes()[..end]).read(0).cut, "{text} up to {end}");
            }
        }
        for (text, wanted) in [("\\/", '/'), ("&sol;", '/'), ("&plus;", '+'), ("\\\"", '"'), ("\\ ", ' ')] {
            assert!(reads(text, wanted), "{text}");
        }
        for text in ["%7", "%7g", "&#;", "\\u007", "\\y73", "&s;", "%%73"] {
            let found = Text(format!("{text}~").as_bytes()).read(0).found;
            assert!(!found.iter().any(|(code, _)| *code == u32::from('s')), "{text}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_takes_long_or_panics(text in "[%&#\\\\u0x7;5{}amp]{0,60}") {
            for at in 0..=text.len() {
                let signs = Text(text.as_bytes()).read(at);
                prop_assert!(signs.found.len() < 200, "{}", signs.found.len());
                prop_assert!(signs.found.iter().all(|(_, end)| *end > at && *end <= text.len()));
            }
        }
    }
}
