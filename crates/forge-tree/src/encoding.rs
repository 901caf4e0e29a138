//! Encoding of numbers and byte strings in Forge's files: LEB128, zigzag for signed numbers, length-prefixed bytes.

/// A writer of the encoding.
pub struct ByteWriter(pub Vec<u8>);

impl ByteWriter {
    /// Writes a byte.
    pub fn write_byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Writes an unsigned number.
    pub fn write_varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    /// Writes a signed number.
    pub fn write_signed(&mut self, n: i64) {
        self.write_varint(((n << 1) ^ (n >> 63)).cast_unsigned());
    }

    /// Writes bytes after their number.
    pub fn write_blob(&mut self, bytes: &[u8]) {
        self.write_varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// A reader of the encoding; returns `None` if the bytes end early or are invalid.
pub struct ByteReader<'a>(pub &'a [u8]);

impl<'a> ByteReader<'a> {
    /// Reads a byte.
    pub fn read_byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Reads `n` bytes.
    pub fn read_bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads an unsigned number.
    pub fn read_varint(&mut self) -> Option<u64> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.read_byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            n |= part << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    /// Reads an unsigned number of at most 32 bits.
    pub fn read_varint32(&mut self) -> Option<u32> {
        u32::try_from(self.read_varint()?).ok()
    }

    /// Reads a signed number.
    pub fn read_signed(&mut self) -> Option<i64> {
        let n = self.read_varint()?;
        Some((n >> 1).cast_signed() ^ -((n & 1).cast_signed()))
    }

    /// Reads bytes after their number.
    pub fn read_blob(&mut self) -> Option<&'a [u8]> {
        let n = self.read_varint()?;
        self.read_bytes(usize::try_from(n).ok()?)
    }

    /// Reads a count of items of at least `least` bytes each, limited by the remaining bytes.
    pub fn read_count(&mut self, least: usize) -> Option<usize> {
        let n = usize::try_from(self.read_varint()?).ok()?;
        (n <= self.0.len() / least).then_some(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive(n in any::<u64>(), s in any::<i64>(), bytes in proptest::collection::vec(any::<u8>(), 0..9)) {
            let mut out = ByteWriter(Vec::new());
            out.write_varint(n);
            out.write_signed(s);
            out.write_blob(&bytes);
            let mut input = ByteReader(&out.0);
            prop_assert_eq!(input.read_varint(), Some(n));
            prop_assert_eq!(input.read_signed(), Some(s));
            prop_assert_eq!(input.read_blob(), Some(bytes.as_slice()));
            prop_assert_eq!(input.read_byte(), None);
        }
    }
}
