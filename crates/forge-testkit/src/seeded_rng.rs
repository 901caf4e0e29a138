//! Numbers that look random and are the same in each run of the tests.

/// A generator (xorshift64*, Marsaglia 2003 and Vigna 2016).
pub struct SeededRng(u64);

impl SeededRng {
    /// One whose numbers follow from `seed`, which is not 0.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Makes one for the `number`th of a row of cases: neighbours in the row have nothing in common (splitmix64).
    pub const fn of_case(number: u64) -> Self {
        let mut seed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        seed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        seed = (seed ^ (seed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((seed ^ (seed >> 31)) | 1)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    /// An index of something that has `count` of them.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("below a count")
    }

    /// Whether something happens that happens once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.index(all.len())]
    }
}
