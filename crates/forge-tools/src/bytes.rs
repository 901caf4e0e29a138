//! Detection of binary files, and text that preserves bytes which are not UTF-8.

/// Number of bytes at the start of a file that determine its kind.
const SNIFF_BYTES: usize = 8192;

/// Signatures of common binary formats.
const FILE_SIGNATURES: [(&[u8], &str); 22] = [
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"\0\0\x01\0", "an icon"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x7fELF", "an ELF program or library"),
    (b"MZ", "a Windows program"),
    (b"\xcf\xfa\xed\xfe", "a macOS program"),
    (b"\0asm", "a WebAssembly module"),
    (b"\xca\xfe\xba\xbe", "a Java class"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"RIFF", "a RIFF file (WAV, WebP, AVI)"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 file"),
    (b"wOF2", "a font"),
];

/// Returns the kind of a file that is not text, judged by its first bytes.
pub(crate) fn binary_kind(start: &[u8]) -> Option<&'static str> {
    let start = &start[..start.len().min(SNIFF_BYTES)];
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Some("UTF-16 text; `iconv -f UTF-16 -t UTF-8` makes it readable");
    }
    // Only with control characters that text does not contain, so that a text beginning with "BM" remains a text.
    let odd = start.iter().any(|b| matches!(b, 0..=6 | 14..=26 | 28..=31));
    if !odd && !start.starts_with(b"%PDF-") {
        return None;
    }
    let known = FILE_SIGNATURES.iter().find(|(signature, _)| start.starts_with(signature));
    match known {
        Some((_, kind)) => Some(kind),
        None if start.get(257..262) == Some(b"ustar") => Some("a tar archive"),
        None if start.contains(&0) => Some("of unknown kind"),
        // Text with a few control characters, such as terminal recordings.
        None => None,
    }
}

/// Base of the characters in plane 16 that represent the bytes 0x80 to 0xFF where these are not UTF-8.
const BYTE_BASE: u32 = 0x10_FE00;

/// Returns the bytes as text in which every byte that is not UTF-8 has its own character; `None` if the file itself
/// contains such characters.
pub(crate) fn decode_lossless(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        if chunk.valid().chars().any(|c| byte_of_char(c).is_some()) {
            return None;
        }
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|&byte| char::from_u32(BYTE_BASE + u32::from(byte))));
    }
    Some(text)
}

/// Returns the bytes from which [`decode_lossless`] made the text.
pub(crate) fn encode_lossless(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte_of_char(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Returns decoded text for display to the model.
pub(crate) fn display_decoded(text: &str) -> String {
    text.chars().map(|c| if byte_of_char(c).is_some() { '\u{fffd}' } else { c }).collect()
}

fn byte_of_char(c: char) -> Option<u8> {
    u32::from(c).checked_sub(BYTE_BASE).and_then(|byte| u8::try_from(byte).ok()).filter(|&byte| byte >= 0x80)
}

/// Formats a size in bytes for people.
pub(crate) fn format_size(bytes: u64) -> String {
    let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    match units.into_iter().find(|&(unit, _)| bytes >= unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_are_told_by_first_bytes() {
        assert_eq!(binary_kind(b"\x89PNG\r\n\x1a\n\0\0\0"), Some("a PNG image"));
        assert_eq!(binary_kind(b"\x7fELF\x02\x01\x01\0"), Some("an ELF program or library"));
        assert_eq!(binary_kind(b"x\0y"), Some("of unknown kind"));
        assert_eq!(binary_kind(b"BM is a text\n"), None);
        assert_eq!(binary_kind("plain ü\n".as_bytes()), None);
        assert_eq!(binary_kind(b"latin \xfc\n"), None);
        assert_eq!(binary_kind(b"\x1b[1mbold\x1b[0m"), None);
        assert_eq!(binary_kind(b""), None);
        assert_eq!(format_size(1536), "1.5 kB");
        assert_eq!(format_size(12), "12 bytes");
    }

    proptest! {
        #[test]
        fn bytes_survive_as_text(bytes: Vec<u8>) {
            if let Some(text) = decode_lossless(&bytes) {
                prop_assert_eq!(encode_lossless(&text), bytes);
            }
        }
    }
}
