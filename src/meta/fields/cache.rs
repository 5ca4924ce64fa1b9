//! What conditions of recent filters passed, within bounded memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::RowBounds;
use crate::types::{CollectionId, SegmentId};

/// Memory for remembered sets: those of 600 conditions over 100,000 rows.
const MAX_BYTES: usize = 16 << 20;

/// A condition on a segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub collection: CollectionId,
    pub segment: SegmentId,
    /// Path and condition, or a filter of several.
    pub condition: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Key, (Arc<RowBounds>, u64)>,
    bytes: usize,
    clock: u64,
}

/// The most recently used answers.
pub struct Cache {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { inner: Mutex::default(), max_bytes: MAX_BYTES }
    }
}

impl Cache {
    pub fn get(&self, key: &Key) -> Option<Arc<RowBounds>> {
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        let (bounds, used) = inner.entries.get_mut(key)?;
        *used = now;
        Some(bounds.clone())
    }

    pub fn put(&self, key: Key, bounds: Arc<RowBounds>) {
        let mut inner = self.lock();
        inner.clock += 1;
        let now = inner.clock;
        inner.bytes += cost(&key, &bounds);
        if let Some((old, _)) = inner.entries.insert(key.clone(), (bounds, now)) {
            inner.bytes -= cost(&key, &old);
        }
        if inner.bytes > self.max_bytes {
            inner.shrink(self.max_bytes / 4 * 3);
        }
    }

    /// Forgets everything for which `gone` holds.
    pub fn forget(&self, gone: impl Fn(&Key) -> bool) {
        let mut inner = self.lock();
        let mut freed = 0;
        inner.entries.retain(|key, (bounds, _)| {
            let stays = !gone(key);
            freed += if stays { 0 } else { cost(key, bounds) };
            stays
        });
        inner.bytes -= freed;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Forgets the longest unused down to `bytes`: a quarter at once, so that it is rarely done.
    fn shrink(&mut self, bytes: usize) {
        let mut by_age: Vec<_> = self.entries.iter().map(|(key, (_, used))| (*used, key.clone())).collect();
        by_age.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_age {
            if self.bytes <= bytes {
                break;
            }
            if let Some((bounds, _)) = self.entries.remove(&key) {
                self.bytes -= cost(&key, &bounds);
            }
        }
    }
}

fn cost(key: &Key, bounds: &RowBounds) -> usize {
    size_of::<Key>() + 2 * key.condition.len() + bounds.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RowSet;

    fn key(segment: u64, condition: u8) -> Key {
        Key { collection: CollectionId(1), segment: SegmentId(segment), condition: vec![condition] }
    }

    fn bounds() -> Arc<RowBounds> {
        Arc::new(RowBounds::exact(RowSet::empty(64 * 100)))
    }

    #[test]
    fn the_longest_unused_make_room() {
        let one = cost(&key(1, 0), &bounds());
        let cache = Cache { max_bytes: 4 * one, ..Cache::default() };
        (0..4).for_each(|n| cache.put(key(1, n), bounds()));
        assert!(cache.get(&key(1, 0)).is_some());
        cache.put(key(1, 4), bounds());
        let kept: Vec<_> = (0..5).filter(|&n| cache.get(&key(1, n)).is_some()).collect();
        assert_eq!(kept, [0, 3, 4]);
        assert_eq!(cache.lock().bytes, 3 * one);
    }

    #[test]
    fn what_is_put_again_counts_once_and_what_is_forgotten_not() {
        let cache = Cache::default();
        cache.put(key(1, 0), bounds());
        cache.put(key(1, 0), bounds());
        cache.put(key(2, 0), bounds());
        cache.forget(|key| key.segment == SegmentId(1));
        assert!(cache.get(&key(1, 0)).is_none() && cache.get(&key(2, 0)).is_some());
        assert_eq!(cache.lock().bytes, cost(&key(2, 0), &bounds()));
    }
}
