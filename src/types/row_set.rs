//! A set of rows of one segment: a bit a row, since a walk asks for single rows and a filter combines whole sets.

use super::Ordinal;

const WORD: u32 = u64::BITS;

/// Which of the rows `0..rows`.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let start = (first / WORD) as usize;
        let rest = self.words.get(start..).unwrap_or_default();
        let word_of = move |(at, &word): (usize, &u64)| {
            let word = if at == 0 { word & (u64::MAX << (first % WORD)) } else { word };
            (word != 0).then_some(((start + at) as u32 * WORD, word))
        };
        let mut words = rest.iter().enumerate().filter_map(word_of);
        let (mut base, mut word) = (0, 0u64);
        std::iter::from_fn(move || {
            if word == 0 {
                (base, word) = words.next()?;
            }
            let bit = word.trailing_zeros();
            word &= word - 1;
            Some(base + bit)
        })
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
