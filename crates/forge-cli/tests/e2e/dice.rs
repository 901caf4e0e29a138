//! Numbers that look random and are the same in each run of the tests.

/// A generator (xorshift64*, Marsaglia 2003 and Vigna 2016).
pub(crate) struct Dice(u64);

impl Dice {
    /// One whose numbers follow from `seed`, which is not 0.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    /// An index of something that has `count` of them.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("below a count")
    }
}
