//! Which slot of the cache's file a key may stand in: eight bytes a slot, in memory and at the front of the file.

use super::Key;

/// Slots of a set. A key may stand in any slot of two sets; its record goes where more of them are empty (Azar et al.,
/// Balanced Allocations, 1994), so that a file gets nearly full before anything is replaced.
pub(super) const WAYS: usize = 8;
/// Keeps the parts of one vector apart: an odd number, so that multiples of it are spread over all of u64.
const PART_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The tag of each slot: 0 where nothing was written, else a part of the key.
#[derive(Debug)]
pub(super) struct Table {
    tags: Vec<u64>,
}

impl Table {
    /// A table of empty slots; `None` where memory lacks room for it. `slots`: a multiple of [`WAYS`], at least one.
    pub(super) fn new(slots: usize) -> Option<Self> {
        let mut tags = Vec::new();
        tags.try_reserve_exact(slots).ok()?;
        tags.resize(slots, 0);
        Some(Self { tags })
    }

    /// Takes tags as they stand in the file, from slot `first` on; bytes beyond the last slot's are left. A wrong tag
    /// is harmless: records have the whole key and a checksum.
    pub(super) fn decode(&mut self, first: usize, bytes: &[u8]) {
        for (tag, bytes) in self.tags[first..].iter_mut().zip(bytes.chunks_exact(8)) {
            *tag = u64::from_le_bytes(bytes.try_into().expect("a chunk of eight"));
        }
    }

    /// The slots in which a part of a vector may stand.
    pub(super) fn find(&self, key: &Key, part: u16) -> Vec<usize> {
        let tag = tag(key, part);
        self.candidates(key, part).filter(|&slot| self.tags[slot] == tag).collect()
    }

    /// The slot to write a part of a vector to, and the tag it has from now on: its own where it stands already, else
    /// an empty one of the emptier set, else one of the sixteen that the key itself decides. Which one goes is thus as
    /// good as random: of a corpus larger than the cache, read over and over in one order, a share stays, where the
    /// least recently used would always be the next one needed.
    pub(super) fn claim(&mut self, key: &Key, part: u16) -> (usize, u64) {
        let tag = tag(key, part);
        let [first, second] = self.sets(key, part);
        let empty = |set: usize| self.tags[set * WAYS..(set + 1) * WAYS].iter().filter(|tag| **tag == 0).count();
        let emptier = if empty(first) >= empty(second) { first } else { second };
        let slot = self
            .find(key, part)
            .first()
            .copied()
            .or_else(|| (emptier * WAYS..(emptier + 1) * WAYS).find(|&slot| self.tags[slot] == 0))
            .unwrap_or_else(|| {
                let choice = usize::from(key.0[31]) % (2 * WAYS);
                if choice < WAYS { first * WAYS + choice } else { second * WAYS + choice - WAYS }
            });
        self.tags[slot] = tag;
        (slot, tag)
    }

    fn candidates(&self, key: &Key, part: u16) -> impl Iterator<Item = usize> {
        let slots = |set: usize| set * WAYS..(set + 1) * WAYS;
        let [first, second] = self.sets(key, part);
        slots(first).chain(slots(second))
    }

    fn sets(&self, key: &Key, part: u16) -> [usize; 2] {
        let sets = (self.tags.len() / WAYS) as u64;
        [8, 16].map(|at| (word(key, at).wrapping_add(u64::from(part).wrapping_mul(PART_STEP)) % sets) as usize)
    }
}

fn tag(key: &Key, part: u16) -> u64 {
    word(key, 0).wrapping_add(u64::from(part).wrapping_mul(PART_STEP)).max(1)
}

fn word(key: &Key, at: usize) -> u64 {
    u64::from_le_bytes(key.0[at..at + 8].try_into().expect("eight bytes of 32"))
}
