//! What is known of which rows pass: those that certainly do, and those that may.

use std::sync::OnceLock;

use crate::types::{Ordinal, RowSet};

/// Rows between two bounds: every row of `certain` passes, and no row outside `possible`.
#[derive(Clone, Debug)]
pub struct RowBounds {
    certain: RowSet,
    /// `None`: as `certain`.
    possible: Option<RowSet>,
    /// Rows of `certain`, once somebody asked: bounds are remembered, and every search asks.
    count: OnceLock<u32>,
    /// See [`Self::list`]; once somebody asked, for the same reason.
    list: OnceLock<Box<[Ordinal]>>,
}

/// Rows for each one that a list holds at most: it takes no more memory than the set then.
const ROWS_PER_LISTED: u32 = u32::BITS;

impl RowBounds {
    /// These rows and no others.
    pub fn exact(certain: RowSet) -> Self {
        Self::new(certain, None)
    }

    fn new(certain: RowSet, possible: Option<RowSet>) -> Self {
        Self { certain, possible, count: OnceLock::new(), list: OnceLock::new() }
    }

    /// `certain` for sure, and perhaps `open` too.
    pub fn between(certain: RowSet, open: RowSet) -> Self {
        let mut possible = open;
        possible.unite(&certain);
        let possible = (possible != certain).then_some(possible);
        Self::new(certain, possible)
    }

    /// Nothing is known of any row.
    pub fn unknown(rows: u32) -> Self {
        Self::between(RowSet::empty(rows), RowSet::full(rows))
    }

    /// Rows that pass for sure.
    pub fn certain(&self) -> &RowSet {
        &self.certain
    }

    /// How many rows pass for sure.
    pub fn certain_count(&self) -> u32 {
        *self.count.get_or_init(|| self.certain.count())
    }

    /// Rows that may pass, the certain ones included.
    pub fn possible(&self) -> &RowSet {
        self.possible.as_ref().unwrap_or(&self.certain)
    }

    /// The rows that pass, ascending, where every row is decided and few pass: read faster than from the set, where the
    /// way to the next row is a branch that no processor foresees.
    pub fn list(&self) -> Option<&[Ordinal]> {
        self.has_list().then(|| &**self.list.get_or_init(|| self.certain.iter().collect()))
    }

    fn has_list(&self) -> bool {
        self.is_exact() && self.certain_count() <= self.certain.rows() / ROWS_PER_LISTED
    }

    /// Whether every row is decided.
    pub fn is_exact(&self) -> bool {
        self.possible.is_none()
    }

    /// The rows that are not decided.
    pub fn undecided(&self) -> RowSet {
        let mut open = self.possible().clone();
        open.subtract(&self.certain);
        open
    }

    /// Memory that it takes, with the list that somebody may ask for.
    pub fn bytes(&self) -> usize {
        let listed = if self.has_list() { size_of::<Ordinal>() * self.certain_count() as usize } else { 0 };
        self.certain.bytes() + self.possible.as_ref().map_or(0, RowSet::bytes) + listed
    }

    /// What passes both.
    pub fn and(mut self, other: &Self) -> Self {
        let mut possible = self.possible().clone();
        possible.intersect(other.possible());
        self.certain.intersect(&other.certain);
        let possible = (possible != self.certain).then_some(possible);
        Self::new(self.certain, possible)
    }

    /// What passes one of them.
    pub fn or(mut self, other: &Self) -> Self {
        let mut possible = self.possible().clone();
        possible.unite(other.possible());
        self.certain.unite(&other.certain);
        let possible = (possible != self.certain).then_some(possible);
        Self::new(self.certain, possible)
    }

    /// What does not pass it.
    pub fn not(self) -> Self {
        match self.possible {
            None => Self::exact(self.certain.complement()),
            Some(possible) => Self::new(possible.complement(), Some(self.certain.complement())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(members: &[u32]) -> RowSet {
        let mut set = RowSet::empty(5);
        members.iter().for_each(|&row| set.insert(row));
        set
    }

    fn read(bounds: &RowBounds) -> (Vec<u32>, Vec<u32>) {
        (bounds.certain().iter().collect(), bounds.possible().iter().collect())
    }

    #[test]
    fn bounds_follow_three_valued_logic() {
        let a = RowBounds::between(set(&[0, 1]), set(&[1, 2]));
        let b = RowBounds::exact(set(&[1, 2, 3]));
        assert_eq!(read(&a), (vec![0, 1], vec![0, 1, 2]));
        assert_eq!(read(&a.clone().and(&b)), (vec![1], vec![1, 2]));
        assert_eq!(read(&a.clone().or(&b)), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
        assert!(a.clone().or(&b).is_exact());
        assert_eq!(read(&a.clone().not()), (vec![3, 4], vec![2, 3, 4]));
        assert_eq!(read(&b.clone().not()), (vec![0, 4], vec![0, 4]));
        assert_eq!((a.certain_count(), a.clone().not().certain_count(), a.clone().or(&b).certain_count()), (2, 2, 4));
        assert_eq!(a.undecided().iter().collect::<Vec<_>>(), [2]);
        assert_eq!(read(&RowBounds::unknown(5)), (vec![], vec![0, 1, 2, 3, 4]));
        assert!(RowBounds::between(set(&[1]), set(&[1])).is_exact());
    }

    #[test]
    fn few_decided_rows_are_listed() {
        let of = |rows: u32, every: usize| {
            let mut set = RowSet::empty(rows);
            (0..rows).step_by(every).for_each(|row| set.insert(row));
            set
        };
        let (few, many) = (RowBounds::exact(of(6_400, 40)), RowBounds::exact(of(6_400, 30)));
        let bytes = few.bytes();
        assert_eq!(few.list(), Some((0..160).map(|n| 40 * n).collect::<Vec<_>>().as_slice()));
        assert_eq!((many.list(), RowBounds::between(of(6_400, 400), of(6_400, 40)).list()), (None, None));
        assert_eq!((few.bytes(), few.bytes() - many.bytes()), (bytes, 4 * 160));
        assert_eq!(RowBounds::exact(RowSet::empty(0)).list(), Some([].as_slice()));
        assert_eq!(few.and(&many).list().map(<[_]>::len), Some(54), "of 120 rows one");
    }
}
