//! The ids that were written since the keyword index last looked.

use crate::types::{DocumentId, Seq};

/// More are not kept: the index then finds what it lacks in segments and memtables.
const MAX_WAITING: usize = 1 << 18;

/// What the index has still to read.
pub(super) struct Pending {
    /// In the order of the changes.
    waiting: Vec<(Seq, DocumentId)>,
    /// The youngest change of the collection.
    upto: Seq,
    /// Whether a document may have a text. While none has, changes are not noted.
    active: bool,
    /// Whether a change with a text was noted.
    saw_text: bool,
    /// Whether changes were left out of `waiting`.
    lost: bool,
}

impl Pending {
    pub(super) fn new(upto: Seq, active: bool) -> Self {
        Self { waiting: Vec::new(), upto, active, saw_text: false, lost: false }
    }

    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_work(&self) -> bool {
        self.active && (self.lost || !self.waiting.is_empty())
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    pub(super) fn upto(&self) -> Seq {
        self.upto
    }

    /// Takes the ids of one change in.
    pub(super) fn push(&mut self, seq: Seq, ids: Vec<DocumentId>, has_text: bool) {
        self.upto = seq;
        self.saw_text |= has_text;
        self.active |= has_text;
        if self.waiting.len() + ids.len() > MAX_WAITING {
            self.lose();
        } else if !self.lost {
            self.waiting.extend(ids.into_iter().map(|id| (seq, id)));
        }
    }

    /// Forgets what waits: it is to be found in segments and memtables.
    pub(super) fn lose(&mut self) {
        self.waiting = Vec::new();
        self.lost = true;
    }

    /// Begins anew: whoever calls this reads everything up to the returned change from segments and memtables.
    pub(super) fn restart(&mut self) -> Seq {
        self.waiting.clear();
        self.lost = false;
        self.upto
    }

    /// Forgets what the index has read already.
    pub(super) fn drop_up_to(&mut self, applied: Seq) {
        self.waiting.retain(|(seq, _)| *seq > applied);
    }

    /// Stops noting changes where no document has a text. Returns whether it did.
    pub(super) fn rest(&mut self) -> bool {
        if self.saw_text || self.lost {
            return false;
        }
        self.active = false;
        self.waiting = Vec::new();
        true
    }

    /// The oldest ids, at most `count`, and the change up to which they are complete.
    pub(super) fn take(&mut self, count: usize) -> (Vec<DocumentId>, Seq) {
        let rest = self.waiting.split_off(count.min(self.waiting.len()));
        let taken = std::mem::replace(&mut self.waiting, rest);
        let upto = match self.waiting.first() {
            Some((next, _)) => Seq(next.0 - 1),
            None => self.upto,
        };
        (taken.into_iter().map(|(_, id)| id).collect(), upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<DocumentId> {
        names.iter().map(|name| DocumentId::new(name).unwrap()).collect()
    }

    #[test]
    fn a_change_that_is_taken_in_part_does_not_count() {
        let mut pending = Pending::new(Seq(4), false);
        pending.push(Seq(5), ids(&["a"]), true);
        pending.push(Seq(6), ids(&["b", "c"]), true);
        assert_eq!(pending.take(2), (ids(&["a", "b"]), Seq(5)));
        pending.push(Seq(9), Vec::new(), false);
        assert_eq!(pending.take(2), (ids(&["c"]), Seq(9)));
        assert!(!pending.has_work());
    }

    #[test]
    fn too_much_is_lost_and_said_so() {
        let mut pending = Pending::new(Seq(0), true);
        let many: Vec<_> = (0..MAX_WAITING).map(|n| DocumentId::new(&n.to_string()).unwrap()).collect();
        pending.push(Seq(1), many, true);
        pending.push(Seq(2), ids(&["x"]), true);
        assert!(pending.is_lost() && pending.has_work() && pending.len() == 0);
        pending.push(Seq(3), ids(&["y"]), true);
        assert_eq!((pending.len(), pending.restart()), (0, Seq(3)));
        pending.push(Seq(4), ids(&["z"]), false);
        assert_eq!(pending.take(9), (ids(&["z"]), Seq(4)));
    }

    #[test]
    fn it_rests_only_where_no_text_was_seen() {
        let mut pending = Pending::new(Seq(0), true);
        pending.push(Seq(1), ids(&["a"]), false);
        assert!(pending.rest() && !pending.is_active() && !pending.has_work());
        pending.push(Seq(2), ids(&["b"]), true);
        assert!(pending.is_active() && pending.has_work() && !pending.rest());
        pending.drop_up_to(Seq(1));
        assert_eq!(pending.len(), 1);
        pending.drop_up_to(Seq(2));
        assert_eq!(pending.len(), 0);
    }
}
