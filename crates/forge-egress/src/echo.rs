//! A key as a host may give it back: as it was sent, or written as texts are written into other texts.

/// Encoded forms shorter than this would be found in ordinary answers.
const SHORTEST_FORM: usize = 8;

/// The digits of base64 (RFC 4648, 4 and 5).
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The encoded forms of a key: in JSON and HTML, percent-encoded, in hex, in base64 at any place, and in UTF-16.
pub(super) fn forms(key: &str) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = Vec::new();
    let each = |write: &dyn Fn(char) -> String| key.chars().map(write).collect::<String>().into_bytes();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    for slash in [false, true] {
        let kept = |c: char| plain(c) || (slash && c == '/');
        let percent = |c: char, upper: bool| -> String {
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).bytes();
            bytes.map(|b| if upper { format!("%{b:02X}") } else { format!("%{b:02x}") }).collect()
        };
        for upper in [true, false] {
            forms.push(each(&|c| if kept(c) { c.to_string() } else { percent(c, upper) }));
        }
    }
    forms.push(each(&|c| match c {
        '"' | '\\' => format!("\\{c}"),
        '/' => "\\/".to_owned(),
        c => c.to_string(),
    }));
    forms.push(each(&|c| if matches!(c, '"' | '\\') { format!("\\{c}") } else { c.to_string() }));
    for upper in [true, false] {
        // As encoders write it that leave nothing to HTML, and as those that escape all but letters and digits.
        let escaped = |c: char| {
            if upper { format!("\\u{:04X}", u32::from(c)) } else { format!("\\u{:04x}", u32::from(c)) }
        };
        forms.push(each(&|c| if "<>&'+\"\\=/".contains(c) { escaped(c) } else { c.to_string() }));
        forms.push(each(&|c| if "<>&'".contains(c) { escaped(c) } else { c.to_string() }));
        let hex = |b: u8| if upper { format!("{b:02X}") } else { format!("{b:02x}") };
        forms.push(key.bytes().map(hex).collect::<String>().into_bytes());
    }
    forms.push(each(&|c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        c => c.to_string(),
    }));
    forms.push(key.encode_utf16().flat_map(u16::to_le_bytes).collect());
    forms.push(key.encode_utf16().flat_map(u16::to_be_bytes).collect());
    for digits in [STANDARD, URL_SAFE] {
        forms.extend((0..3).map(|before| in_base64(key.as_bytes(), before, digits)));
    }
    forms.retain(|form| form.len() >= SHORTEST_FORM && form != key.as_bytes());
    forms.sort();
    forms.dedup();
    forms
}

/// The digits that depend on the key alone where `before` bytes, modulo three, stand before it: six bits each.
fn in_base64(key: &[u8], before: usize, digits: &[u8; 64]) -> Vec<u8> {
    let bytes = [&vec![0; before][..], key].concat();
    let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let first = (before * 8).div_ceil(6);
    let digit = |at: usize| (at * 6..at * 6 + 6).fold(0, |value, at| value << 1 | usize::from(bit(at)));
    (first..bytes.len() * 8 / 6).map(|at| digits[digit(at)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_those_that_encoders_write() {
        let forms: Vec<String> =
            forms("sk-a+b/c=\"d").iter().map(|form| String::from_utf8_lossy(form).into_owned()).collect();
        for wanted in [
            "sk-a%2Bb%2Fc%3D%22d",
            "sk-a%2bb/c%3d%22d",
            "sk-a+b\\/c=\\\"d",
            "736b2d612b622f633d2264",
            "sk-a\\u002bb\\u002fc\\u003d\\u0022d",
            "s\0k\0-\0a\0+\0b\0/\0c\0=\0\"\0d\0",
            "sk-a+b/c=&quot;d",
        ] {
            assert!(forms.iter().any(|form| form == wanted), "{wanted}: {forms:?}");
        }
        // `printf 'user:sk-a+b/c=\"d' | base64` is dXNlcjpzay1hK2IvYz0iZA==
        assert!(forms.iter().any(|form| "dXNlcjpzay1hK2IvYz0iZA==".contains(form.as_str())));
        assert!(super::forms("abcd").is_empty() || super::forms("abcd").iter().all(|form| form.len() >= 8));
    }
}
