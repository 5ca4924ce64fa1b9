//! A set of rows of one segment: a bit a row, since a walk asks for single rows and a filter combines whole sets.

use super::Ordinal;

const WORD: u32 = u64::BITS;

/// Which of the rows `0..rows`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    rows: u32,
    /// Bits beyond the rows are zero.
    words: Vec<u64>,
}

impl RowSet {
    /// None of `rows` rows.
    pub fn empty(rows: u32) -> Self {
        Self { rows, words: vec![0; rows.div_ceil(WORD) as usize] }
    }

    /// All of `rows` rows.
    pub fn full(rows: u32) -> Self {
        Self::empty(rows).complement()
    }

    /// Those of `rows` rows for which `is_in` holds.
    pub fn of(rows: u32, is_in: impl Fn(Ordinal) -> bool) -> Self {
        let word = |first: u32| {
            let bits = (first..rows.min(first + WORD)).map(|row| u64::from(is_in(row)) << (row - first));
            bits.fold(0, |word, bit| word | bit)
        };
        Self { rows, words: (0..rows).step_by(WORD as usize).map(word).collect() }
    }

    /// Rows that the set is about, in it or not.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + 8 * self.words.len()
    }

    /// Whether a row is in it; rows beyond the last are not.
    #[inline]
    pub fn contains(&self, row: Ordinal) -> bool {
        self.words.get((row / WORD) as usize).is_some_and(|word| word & (1 << (row % WORD)) != 0)
    }

    /// Adds a row; one beyond the last is left out.
    #[inline]
    pub fn insert(&mut self, row: Ordinal) {
        if row < self.rows {
            self.words[(row / WORD) as usize] |= 1 << (row % WORD);
        }
    }

    /// Takes a row out and returns whether it was in it.
    #[inline]
    pub fn take(&mut self, row: Ordinal) -> bool {
        let Some(word) = self.words.get_mut((row / WORD) as usize) else { return false };
        let bit = 1 << (row % WORD);
        let was_in = *word & bit != 0;
        *word &= !bit;
        was_in
    }

    /// Takes out the rows whose bit is set in `words`, as [`Self::words`] has them.
    pub fn take_out(&mut self, words: impl Iterator<Item = u64>) {
        self.words.iter_mut().zip(words).for_each(|(own, other)| *own &= !other);
    }

    /// Becomes a copy of `other`, in the memory that it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.rows = other.rows;
        self.words.clone_from(&other.words);
    }

    /// A bit a row, those of a word from its lowest on; bits beyond the rows are zero.
    #[inline]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Adds the rows from `start` to before `end`.
    pub fn insert_range(&mut self, start: Ordinal, end: Ordinal) {
        (start..end.min(self.rows)).for_each(|row| self.insert(row));
    }

    /// Rows in it.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether no row is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Keeps the rows that are in `other` too.
    pub fn intersect(&mut self, other: &Self) {
        self.zip(other, |own, other| own & other);
    }

    /// Adds the rows of `other`.
    pub fn unite(&mut self, other: &Self) {
        self.zip(other, |own, other| own | other);
    }

    /// Takes out the rows of `other`.
    pub fn subtract(&mut self, other: &Self) {
        self.zip(other, |own, other| own & !other);
    }

    /// The rows that are not in it.
    pub fn complement(mut self) -> Self {
        self.words.iter_mut().for_each(|word| *word = !*word);
        if let Some(last) = self.words.last_mut()
            && !self.rows.is_multiple_of(WORD)
        {
            *last &= (1 << (self.rows % WORD)) - 1;
        }
        self
    }

    fn zip(&mut self, other: &Self, combine: impl Fn(u64, u64) -> u64) {
        assert_eq!(self.rows, other.rows, "sets of one segment have its rows");
        self.words.iter_mut().zip(&other.words).for_each(|(own, other)| *own = combine(*own, *other));
    }

    /// The rows in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Ordinal> + '_ {
        self.iter_from(0)
    }

    /// The rows in it that are `first` or above, ascending.
    pub fn iter_from(&self, first: Ordinal) -> impl Iterator<Item = Ordinal> + '_ {
        let at = (first / WORD) as usize;
        let word = self.words.get(at).map_or(0, |word| word & (u64::MAX << (first % WORD)));
        Members { words: &self.words, at, word }
    }

    /// Up to `count` rows of it, spread over all its rows, ascending and each once.
    pub fn spread(&self, count: u32) -> impl Iterator<Item = Ordinal> + '_ {
        let words = self.words.len() as u64;
        let mut next = 0;
        (0..u64::from(count)).filter_map(move |part| {
            let from = (part * words / u64::from(count)).max(next);
            let at = (from..words).find(|&at| self.words[at as usize] != 0)?;
            next = at + 1;
            Some(at as u32 * WORD + self.words[at as usize].trailing_zeros())
        })
    }
}

/// The rows of a set, ascending.
struct Members<'a> {
    words: &'a [u64],
    at: usize,
    /// What is left of the word there.
    word: u64,
}

/// Words without a row that are passed over at once.
const STRIDE: usize = 8;

impl Members<'_> {
    /// Goes on to the next word that has a row.
    #[inline]
    fn next_word(&mut self) -> Option<()> {
        let rest = self.words.get(self.at + 1..)?;
        let is_empty = |words: &&[u64; STRIDE]| words.iter().fold(0, |all, word| all | word) == 0;
        let empty = STRIDE * rest.as_chunks().0.iter().take_while(is_empty).count();
        let found = empty + rest[empty..].iter().position(|&word| word != 0)?;
        (self.at, self.word) = (self.at + 1 + found, rest[found]);
        Some(())
    }
}

impl Iterator for Members<'_> {
    type Item = Ordinal;

    #[inline]
    fn next(&mut self) -> Option<Ordinal> {
        if self.word == 0 {
            self.next_word()?;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.at as u32 * WORD + bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: u32, members: &[u32]) -> RowSet {
        let mut set = RowSet::empty(rows);
        members.iter().for_each(|&row| set.insert(row));
        set
    }

    #[test]
    fn members_come_back_in_order() {
        let set = set(130, &[129, 0, 64, 63, 130, 4_000]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(set.iter_from(64).collect::<Vec<_>>(), [64, 129]);
        assert_eq!(set.iter_from(65).collect::<Vec<_>>(), [129]);
        assert_eq!(set.iter_from(1_000).count(), 0);
        assert_eq!((set.count(), set.contains(63), set.contains(62), set.contains(9_999)), (4, true, false, false));
    }

    #[test]
    fn long_gaps_are_passed_over() {
        for gap in [1, 7, 8, 9, 15, 16, 17, 40] {
            let rows = [3, 64 * gap + 5, 64 * gap + 6, 64 * (2 * gap + 1) + 63];
            let set = set(64 * 200, &rows);
            assert_eq!(set.iter().collect::<Vec<_>>(), rows, "{gap} words");
            assert_eq!(set.iter_from(rows[1] + 1).collect::<Vec<_>>(), rows[2..], "{gap} words");
        }
    }

    #[test]
    fn sets_of_any_density_come_back_whole() {
        let mut state = 3u64;
        for kept_of_64 in [0, 1, 7, 32, 60, 64] {
            let mut is_in = |_: Ordinal| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 58) < kept_of_64
            };
            let rows: Vec<Ordinal> = (0..5_000).filter(|&row| is_in(row)).collect();
            let set = set(5_000, &rows);
            assert_eq!(set.iter().collect::<Vec<_>>(), rows);
            for first in [1, 63, 64, 511, 512, 513, 4_999] {
                let rest: Vec<_> = rows.iter().copied().filter(|&row| row >= first).collect();
                assert_eq!(set.iter_from(first).collect::<Vec<_>>(), rest, "{kept_of_64} of 64 from {first}");
            }
        }
    }

    #[test]
    fn rows_are_taken_once() {
        let mut taken_from = set(130, &[0, 64, 129]);
        assert!(taken_from.take(64) && !taken_from.take(64) && !taken_from.take(1) && !taken_from.take(4_000));
        assert_eq!(taken_from, set(130, &[0, 129]));
        assert_eq!(taken_from.words(), [1, 0, 2]);
        taken_from.take_out([1, 0, 1].into_iter());
        assert_eq!(taken_from, set(130, &[129]));
        taken_from.copy_from(&set(65, &[64]));
        assert_eq!(taken_from, set(65, &[64]));
        assert_eq!(RowSet::of(130, |row| row % 65 == 64), set(130, &[64, 129]));
        assert_eq!(RowSet::of(64, |_| true), RowSet::full(64));
    }

    #[test]
    fn sets_combine() {
        let (a, b) = (set(70, &[1, 2, 69]), set(70, &[2, 3, 69]));
        let with = |combine: fn(&mut RowSet, &RowSet)| {
            let mut result = a.clone();
            combine(&mut result, &b);
            result.iter().collect::<Vec<_>>()
        };
        assert_eq!(with(RowSet::intersect), [2, 69]);
        assert_eq!(with(RowSet::unite), [1, 2, 3, 69]);
        assert_eq!(with(RowSet::subtract), [1]);
        assert_eq!(a.clone().complement().count(), 67);
        assert_eq!(RowSet::full(64).count(), 64);
        assert_eq!(RowSet::full(0), RowSet::empty(0));
        assert!(RowSet::empty(5).is_empty() && !RowSet::full(5).is_empty());
    }

    #[test]
    fn ranges_end_with_the_rows() {
        let mut set = RowSet::empty(70);
        set.insert_range(60, 100);
        assert_eq!(set.iter().collect::<Vec<_>>(), (60..70).collect::<Vec<_>>());
    }

    #[test]
    fn a_spread_is_of_members_and_wide() {
        let all = RowSet::full(6_400);
        let spread: Vec<_> = all.spread(10).collect();
        assert_eq!(spread, (0..10).map(|part| part * 640).collect::<Vec<_>>());
        let few = set(6_400, &[5, 6_399]);
        assert_eq!(few.spread(10).collect::<Vec<_>>(), [5, 6_399]);
        assert_eq!(RowSet::empty(100).spread(3).count(), 0);
    }
}
