//! Recognition of private keys by the beginning of a file.

/// Number of bytes read to classify a file.
pub(crate) const HEAD_BYTES: usize = 1024;
/// Minimum size of a key file; a shorter key would not be worth protecting.
pub(crate) const MIN_KEY_BYTES: u64 = 32;
/// Maximum size of a key file. A file of certificates with a key has a few kilobytes.
pub(crate) const MAX_KEY_BYTES: u64 = 64 << 10;

/// Classification of a file by its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileHeadKind {
    /// A private key.
    Key,
    /// A file that may contain a key further on: certificates, attributes.
    ReadOn,
    /// Any other file.
    Other,
}

/// Classifies a file of `size` bytes by its first bytes.
pub(crate) fn classify_head(head: &[u8], size: u64) -> FileHeadKind {
    if is_der_key(head, size) || head.starts_with(b"openssh-key-v1\0") {
        return FileHeadKind::Key;
    }
    let text = normalize_text(head);
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    // Keys of age and OpenVPN begin with comments; files with a shebang are scripts.
    if text.starts_with(b"#!") {
        return FileHeadKind::Other;
    }
    let first = lines.by_ref().find(|line| !line.is_empty() && !line.starts_with(b"#"));
    first.map_or(FileHeadKind::Other, |line| classify_line(line, lines))
}

fn classify_line<'a>(line: &[u8], mut rest: impl Iterator<Item = &'a [u8]>) -> FileHeadKind {
    if let Some(secret) = parse_armor_label(line) {
        return if secret { FileHeadKind::Key } else { FileHeadKind::ReadOn };
    }
    let upper = line.to_ascii_uppercase();
    let begins = |word: &[u8]| upper.starts_with(word);
    if begins(b"PUTTY-USER-KEY-FILE-")
        || begins(b"AGE-SECRET-KEY-")
        || begins(b"== ED25519V1-SECRET")
        || begins(b"PRIVATE-KEY: (")
        || begins(b"RSA PRIVATE-KEY: (")
        || (begins(b"UNTRUSTED COMMENT:") && contains_bytes(&upper, b"SECRET KEY"))
    {
        return FileHeadKind::Key;
    }
    // A WireGuard configuration.
    if upper == b"[INTERFACE]" {
        let is_key = |line: &[u8]| line.to_ascii_uppercase().starts_with(b"PRIVATEKEY");
        return if rest.any(is_key) { FileHeadKind::Key } else { FileHeadKind::Other };
    }
    if [&b"BAG ATTRIBUTES"[..], b"KEY ATTRIBUTES", b"CERTIFICATE:"].iter().any(|word| begins(word)) {
        return FileHeadKind::ReadOn;
    }
    FileHeadKind::Other
}

/// Returns whether a file that [`classify_head`] marked [`FileHeadKind::ReadOn`] contains a private key.
pub(crate) fn contains_private_key(bytes: &[u8]) -> bool {
    normalize_text(bytes)
        .split(|byte| *byte == b'\n')
        .any(|line| parse_armor_label(line.trim_ascii()) == Some(true))
}

/// Returns whether an armor header line announces a secret, or `None` if the line is not such a header.
fn parse_armor_label(line: &[u8]) -> Option<bool> {
    let label = line.strip_prefix(b"-----BEGIN ").or_else(|| line.strip_prefix(b"---- BEGIN "))?;
    let label = label.to_ascii_uppercase();
    let secret = [&b"PRIVATE KEY"[..], b"SECRET KEY", b"OPENVPN STATIC KEY"];
    Some(secret.iter().any(|word| contains_bytes(&label, word)))
}

/// Returns the text without byte order mark and leading white space; of UTF-16, only the ASCII characters.
fn normalize_text(bytes: &[u8]) -> Vec<u8> {
    let narrow = |skip: usize| bytes[2..].iter().skip(skip).step_by(2).copied().collect::<Vec<u8>>();
    let text = match bytes {
        [0xff, 0xfe, ..] => narrow(0),
        [0xfe, 0xff, ..] => narrow(1),
        _ => bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).to_vec(),
    };
    text.trim_ascii_start().to_vec()
}

fn contains_bytes(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Returns whether a file is a private key in DER: PKCS#1, SEC 1, PKCS#8 or its encrypted form. Its outer length must
/// match the size of the file.
fn is_der_key(head: &[u8], size: u64) -> bool {
    let Some((0x30, length, body)) = read_der_element(head) else { return false };
    if head.len() as u64 - body.len() as u64 + length != size {
        return false;
    }
    let Some((tag, length, inner)) = read_der_element(body) else { return false };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    match tag {
        // A version, followed by the number, the curve's key or the algorithm.
        0x02 if length == 1 => {
            let key: &[u8] = match inner.first() {
                Some(0) => &[0x02, 0x30],
                Some(1) => &[0x04, 0x30],
                _ => return false,
            };
            inner.get(1).is_some_and(|next| key.contains(next))
        }
        // PKCS#5 and PKCS#12 schemes for encrypted keys.
        0x30 => {
            const ENCRYPTION_SCHEMES: [&[u8]; 2] = [
                &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05],
                &[0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01],
            ];
            ENCRYPTION_SCHEMES.iter().any(|scheme| inner.starts_with(scheme))
        }
        _ => false,
    }
}

/// Returns the tag and length of the first DER element, and the bytes after them.
fn read_der_element(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *first < 0x80 {
        return Some((*tag, u64::from(*first), rest));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) || rest.len() < count {
        return None;
    }
    let length = rest[..count].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    Some((*tag, length, &rest[count..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_key(bytes: &[u8]) -> bool {
        match classify_head(&bytes[..bytes.len().min(HEAD_BYTES)], bytes.len() as u64) {
            FileHeadKind::Key => true,
            FileHeadKind::ReadOn => contains_private_key(bytes),
            FileHeadKind::Other => false,
        }
    }

    #[test]
    fn keys_are_known_by_their_beginning() {
        let begin = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        for label in [
            "PRIVATE KEY",
            "RSA PRIVATE KEY",
            "EC PRIVATE KEY",
            "DSA PRIVATE KEY",
            "OPENSSH PRIVATE KEY",
            "ENCRYPTED PRIVATE KEY",
            "PGP PRIVATE KEY BLOCK",
            "TSS2 PRIVATE KEY",
            "OpenVPN Static key V1",
        ] {
            assert!(is_key(begin(label).as_bytes()), "{label}");
            assert!(is_key(format!("\n \t\r\n{}", begin(label)).as_bytes()), "{label} after white space");
            assert!(
                is_key(format!("\u{feff}{}", begin(label).replace('\n', "\r\n")).as_bytes()),
                "{label}, BOM"
            );
            let wide: Vec<u8> = begin(label).encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert!(is_key(&[&[0xff, 0xfe][..], &wide].concat()), "{label} in UTF-16");
            let bundle = format!("{}{}", begin("CERTIFICATE").repeat(40), begin(label));
            assert!(is_key(bundle.as_bytes()), "{label} after certificates");
        }
        for text in [
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
            "AGE-SECRET-KEY-1QQQQ",
            "# created: 2024-01-01\n# public key: age1x\nAGE-SECRET-KEY-1QQQQ\n",
            "#\n# 2048 bit OpenVPN static key\n#\n-----BEGIN OpenVPN Static key V1-----\n",
            "untrusted comment: minisign encrypted secret key\nRWRT",
            "Bag Attributes\n  friendlyName: x\nKey Attributes: <No Attributes>\n-----BEGIN PRIVATE KEY-----\n",
            "[Interface]\nAddress = 10.0.0.1/24\nPrivateKey = AAAA\n",
            "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n",
            "Private-Key: (2048 bit, 2 primes)\nmodulus:\n",
        ] {
            assert!(is_key(text.as_bytes()), "{text}");
        }
        for text in [
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n",
            "# How to\n\n    -----BEGIN PRIVATE\n",
            "const KEY: &str = \"-----BEGIN PRIVATE KEY-----\";\n",
            "Text about keys\n-----BEGIN PRIVATE KEY-----\n",
            "#!/bin/sh\n-----BEGIN PRIVATE KEY-----\n",
            "untrusted comment: minisign public key\nRWQ\n",
            "[Interface]\nwidth = 3\n",
            "",
        ] {
            assert!(!is_key(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn keys_in_der_are_known_by_their_structure() {
        let wrap = |body: &[u8]| {
            let mut bytes = vec![0x30, 0x82];
            bytes.extend_from_slice(&u16::try_from(body.len() + 600).unwrap().to_be_bytes());
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len() + 600, 7);
            bytes
        };
        for body in [
            &[0x02, 0x01, 0x00, 0x02, 0x82, 0x01, 0x01, 0x00][..],
            &[0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a],
            &[0x02, 0x01, 0x01, 0x04, 0x20, 0x55],
            &[0x30, 0x40, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d],
        ] {
            assert!(is_key(&wrap(body)), "{body:x?}");
            assert!(!is_key(&[wrap(body), vec![0]].concat()), "one byte more than its length says");
        }
        // A certificate.
        assert!(!is_key(&wrap(&[0x30, 0x82, 0x01, 0x00, 0xa0, 0x03, 0x02, 0x01, 0x02])));
        assert!(!is_key(&[0x30, 0x80, 0x02]) && !is_key(&[0x30]) && !is_key(&[0x30, 0x85, 1, 1, 1, 1, 1]));
    }
}
