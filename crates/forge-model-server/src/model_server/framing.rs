//! How a reply's bytes are cut into network pieces: at whole events, every byte, at primes, inside characters.

use serde::{Deserialize, Serialize};

/// Where the byte stream is split. Each piece becomes one HTTP chunk, so clients see exactly these borders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chunker {
    /// One event, one piece.
    #[default]
    Events,
    /// Pieces of this many bytes (at least one).
    Bytes(usize),
    /// Pieces of these sizes, round and round.
    Sizes(Vec<usize>),
    /// Splits inside every multi-byte character, inside every `data:` and `event:` and inside every line end.
    Hostile,
    /// Everything in one piece.
    Whole,
}

impl Chunker {
    /// Sizes that share no factor with anything: 1, 2, 3, 5, 7, 11, 13.
    pub fn prime_sizes() -> Self {
        Self::Sizes(vec![1, 2, 3, 5, 7, 11, 13])
    }

    /// The ends of the pieces within `bytes`; the last is always `bytes.len()`.
    pub(super) fn cut_points(&self, bytes: &[u8], event_ends: &[usize]) -> Vec<usize> {
        let mut cuts = match self {
            Self::Events => event_ends.to_vec(),
            Self::Bytes(size) => stride_cuts(bytes.len(), &[*size]),
            Self::Sizes(sizes) => stride_cuts(bytes.len(), sizes),
            Self::Hostile => hostile_cuts(bytes),
            Self::Whole => Vec::new(),
        };
        cuts.retain(|&cut| cut > 0 && cut < bytes.len());
        cuts.push(bytes.len());
        cuts.dedup();
        cuts
    }
}

fn stride_cuts(len: usize, sizes: &[usize]) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut at = 0;
    for size in sizes.iter().cycle() {
        at += (*size).max(1);
        if at >= len {
            break;
        }
        cuts.push(at);
    }
    cuts
}

fn hostile_cuts(bytes: &[u8]) -> Vec<usize> {
    let mut cuts = Vec::new();
    for at in 1..bytes.len() {
        let inside_character = bytes[at] & 0b1100_0000 == 0b1000_0000;
        let inside_line_end = bytes[at - 1] == b'\r' || (bytes[at - 1] == b'\n' && bytes[at] == b'\n');
        let inside_field = bytes[..at].ends_with(b"da") || bytes[..at].ends_with(b"eve");
        if inside_character || inside_line_end || inside_field {
            cuts.push(at);
        }
    }
    cuts
}

/// Line ends of an event stream. SSE allows all three; NDJSON the first two (the third is sent as the first).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineEnd {
    /// `\n`
    #[default]
    Lf,
    /// `\r\n`
    CrLf,
    /// `\r`
    Cr,
}

/// The whole of how a reply is put on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplyFraming {
    /// Where the bytes are split.
    pub chunker: Chunker,
    /// How lines end.
    pub line_end: LineEnd,
    /// Whether comments (SSE), pings (Anthropic) or empty lines (NDJSON) stand between events.
    pub keep_alive: StreamKeepAlive,
    /// Characters of text in one delta; 0 means about twelve.
    pub piece_chars: usize,
}

/// Whether keep-alive material stands between the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKeepAlive {
    /// None.
    #[default]
    Silent,
    /// Before every event.
    Chatty,
}

impl ReplyFraming {
    /// Splits at the given places, everything else plain.
    pub fn with_chunker(chunker: Chunker) -> Self {
        Self { chunker, ..Self::default() }
    }

    /// The text in pieces of `piece_chars` characters.
    pub(super) fn text_pieces(&self, text: &str) -> Vec<String> {
        let size = if self.piece_chars == 0 { 12 } else { self.piece_chars };
        let characters: Vec<char> = text.chars().collect();
        characters.chunks(size).map(|piece| piece.iter().collect()).collect()
    }
}
