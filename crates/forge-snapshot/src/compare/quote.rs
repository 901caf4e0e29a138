//! Paths in the headers of a unified diff, quoted as git does with `core.quotePath` (its default).

/// Quotes `prefix` and `path` like git: double quotes with C escapes if a byte requires it, otherwise unchanged.
pub(super) fn quote_path(prefix: &str, path: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\';
    let mut text = Vec::with_capacity(prefix.len() + path.len() + 2);
    if path.iter().all(plain) {
        text.extend_from_slice(prefix.as_bytes());
        text.extend_from_slice(path);
        return text;
    }
    text.push(b'"');
    text.extend_from_slice(prefix.as_bytes());
    for byte in path {
        match byte {
            0x07 => text.extend_from_slice(b"\\a"),
            0x08 => text.extend_from_slice(b"\\b"),
            b'\t' => text.extend_from_slice(b"\\t"),
            b'\n' => text.extend_from_slice(b"\\n"),
            0x0b => text.extend_from_slice(b"\\v"),
            0x0c => text.extend_from_slice(b"\\f"),
            b'\r' => text.extend_from_slice(b"\\r"),
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', *byte]),
            0x20..0x7f => text.push(*byte),
            _ => text.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
        }
    }
    text.push(b'"');
    text
}

#[cfg(test)]
mod tests {
    use super::quote_path;

    #[test]
    fn odd_bytes_are_escaped_and_plain_names_are_not() {
        assert_eq!(quote_path("a/", b"src/main.rs"), b"a/src/main.rs");
        assert_eq!(quote_path("a/", b"with space"), b"a/with space");
        assert_eq!(quote_path("b/", "grün\n\"".as_bytes()), br#""b/gr\303\274n\n\"""#);
        assert_eq!(quote_path("", b"\x01\\"), br#""\001\\""#);
    }
}
