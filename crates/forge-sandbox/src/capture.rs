//! Bounded capture of a command's output: its beginning and its end.

use forge_ports::sandbox::{CapturedOutput, omission_marker};
use std::collections::VecDeque;

/// A stream captured in bounded memory.
#[derive(Debug)]
pub(crate) struct OutputCapture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_limit: usize,
    tail_limit: usize,
    total: u64,
}

impl OutputCapture {
    /// Creates a capture of at most `limit` bytes: half from the beginning, the rest from the end.
    pub(crate) fn new(limit: usize) -> Self {
        let head_limit = limit / 2;
        Self { head: Vec::new(), tail: VecDeque::new(), head_limit, tail_limit: limit - head_limit, total: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.head_limit - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.tail_limit)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(self.tail_limit);
        self.tail.drain(..over.min(self.tail.len()));
        self.tail.extend(rest);
    }

    /// Returns the captured bytes; a line in between reports how many are missing.
    pub(crate) fn finish(self) -> CapturedOutput {
        let mut bytes = self.head;
        let missing = self.total - bytes.len() as u64 - self.tail.len() as u64;
        if missing > 0 {
            bytes.extend_from_slice(omission_marker(missing).as_bytes());
        }
        bytes.extend(self.tail);
        CapturedOutput { bytes, total: self.total, missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flood_keeps_its_beginning_and_its_end() {
        let mut capture = OutputCapture::new(10);
        for n in 0..1_000_u32 {
            capture.push(format!("{n:04}").as_bytes());
        }
        let kept = capture.finish();
        assert_eq!(kept.total, 4_000);
        assert_eq!(String::from_utf8_lossy(&kept.bytes), "00000\n[… 3990 bytes left out …]\n80999");
    }

    proptest! {
        #[test]
        fn what_fits_is_kept_as_it_is(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9)) {
            let whole: Vec<u8> = pieces.concat();
            let mut capture = OutputCapture::new(whole.len());
            pieces.iter().for_each(|piece| capture.push(piece));
            prop_assert_eq!(capture.finish().bytes, whole);
        }
    }
}
