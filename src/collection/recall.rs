//! Recall as searches have it while the store runs: a few are answered again without the graph, in the background.
//!
//! The second answer reads the codes of every row, and of the best the vectors; where codes are bits, or there are
//! none, it is exact. So it reads nothing that searches would not, and what it misses of the exact answer is far below
//! what is measured. It costs at most a hundredth of one core: after one that took a second, the next comes a hundred
//! seconds later.

use std::collections::HashSet;
use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::index::{self, IndexError, IndexQuery, Neighbour, SegmentQuery, View};
use crate::storage::start_thread;
use crate::types::{DocumentId, Filter, Method, Metric, Quantization, Seq};

/// One search in so many is sampled where nobody says otherwise.
pub const DEFAULT_SAMPLED_ONE_IN: u32 = 1_000;
/// The pause after a sample, in times that it took.
const PAUSE_TIMES: u32 = 99;

/// What the samples of a collection have found so far.
#[derive(Debug, Default)]
pub struct RecallCounts {
    sampled_hits: AtomicU64,
    found_hits: AtomicU64,
}

/// Recall as it was sampled since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledRecall {
    /// Hits that the searches which were answered again should have had.
    pub sampled_hits: u64,
    /// Of them, those that they had.
    pub found_hits: u64,
}

impl SampledRecall {
    /// The share that was found; `None` where nothing was sampled yet.
    pub fn recall(&self) -> Option<f64> {
        (self.sampled_hits > 0).then(|| self.found_hits as f64 / self.sampled_hits as f64)
    }
}

impl RecallCounts {
    /// As it stands.
    pub fn read(&self) -> SampledRecall {
        // Found first: what is added meanwhile makes it no more than sampled.
        let found_hits = self.found_hits.load(Ordering::Acquire);
        SampledRecall { sampled_hits: self.sampled_hits.load(Ordering::Acquire), found_hits }
    }

    fn add(&self, sampled: u64, found: u64) {
        self.sampled_hits.fetch_add(sampled, Ordering::Release);
        self.found_hits.fetch_add(found, Ordering::Release);
    }
}

/// A search that was answered by a graph, to be answered again.
pub struct Sample {
    /// Where it looked.
    pub view: Arc<View>,
    /// f32, shape `[dim]`, as it was searched for.
    pub vector: Vec<f32>,
    /// How closeness is measured.
    pub metric: Metric,
    /// What walks of the collection read.
    pub quantization: Quantization,
    /// Neighbours that were asked for.
    pub top_k: usize,
    /// What had to hold for them.
    pub filter: Option<Filter>,
    /// How each segment was searched.
    pub segments: Vec<SegmentQuery>,
    /// What was found, with its closeness.
    pub found: Vec<(DocumentId, f32)>,
    /// The youngest change when the search began.
    pub seen: Seq,
    /// Where the outcome goes.
    pub counts: Arc<RecallCounts>,
}

/// Decides which searches are sampled, and hands them over. Never waits.
pub struct Sampler {
    one_in: Option<NonZeroU32>,
    searches: AtomicU64,
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// What the searches and the thread share.
#[derive(Default)]
struct Desk {
    /// Whether the thread waits for a sample.
    is_waiting: bool,
    sample: Option<Box<Sample>>,
    stopping: bool,
}

impl Sampler {
    /// Samples one search in `one_in`; none where it is 0.
    pub fn new(one_in: u32) -> Self {
        Self {
            one_in: NonZeroU32::new(one_in),
            searches: AtomicU64::new(0),
            desk: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Counts a search, and tells whether it is one to sample.
    pub fn wants(&self) -> bool {
        let Some(one_in) = self.one_in else { return false };
        let number = self.searches.fetch_add(1, Ordering::Relaxed);
        number.is_multiple_of(u64::from(one_in.get())) && self.desk().is_waiting
    }

    /// Takes a sample, unless the last one is still at hand.
    pub fn offer(&self, sample: Sample) {
        let mut desk = self.desk();
        if desk.is_waiting && desk.sample.is_none() {
            desk.sample = Some(Box::new(sample));
            self.changed.notify_all();
        }
    }

    /// The next sample; `None` when stopping.
    fn next(&self) -> Option<Box<Sample>> {
        let mut desk = self.desk();
        desk.is_waiting = true;
        let mut desk = self
            .changed
            .wait_while(desk, |desk| desk.sample.is_none() && !desk.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        desk.is_waiting = false;
        desk.sample.take().filter(|_| !desk.stopping)
    }

    fn pause(&self, time: Duration) {
        let waited = self.changed.wait_timeout_while(self.desk(), time, |desk| !desk.stopping);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn stop(&self) {
        self.desk().stopping = true;
        self.changed.notify_all();
    }

    fn desk(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running thread. Dropping it finishes the sample at hand and joins it.
pub struct RecallWorker {
    sampler: Arc<Sampler>,
    thread: Option<JoinHandle<()>>,
}

impl RecallWorker {
    /// Starts the thread, unless nothing is sampled.
    ///
    /// # Errors
    /// The system's, when it has no thread left.
    pub fn start(sampler: Arc<Sampler>) -> io::Result<Self> {
        let start = |_| {
            let sampler = sampler.clone();
            start_thread("pannier-recall", move || answer_again(&sampler))
        };
        let thread = sampler.one_in.map(start).transpose()?;
        Ok(Self { sampler, thread })
    }
}

impl Drop for RecallWorker {
    fn drop(&mut self) {
        self.sampler.stop();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that samples recall panicked");
        }
    }
}

fn answer_again(sampler: &Sampler) {
    while let Some(sample) = sampler.next() {
        let started = Instant::now();
        match sample.again() {
            Ok(again) => {
                let (sampled, found) = sample.judge(&again);
                sample.counts.add(sampled, found);
            }
            Err(error) => tracing::warn!(%error, "a search could not be answered again to sample its recall"),
        }
        // The view pins segments that may have been merged meanwhile.
        drop(sample);
        sampler.pause(started.elapsed() * PAUSE_TIMES);
    }
}

impl Sample {
    /// The nearest, without the graph, among what the search could see.
    fn again(&self) -> Result<Vec<(DocumentId, f32)>, IndexError> {
        let method = match self.quantization {
            Quantization::Int8 => Method::Scan,
            Quantization::Binary | Quantization::None => Method::Exact,
        };
        let without_graph = |segment: &SegmentQuery| match segment.method {
            Method::Skip => segment.clone(),
            _ => SegmentQuery { method, ..segment.clone() },
        };
        let segments: Vec<SegmentQuery> = self.segments.iter().map(without_graph).collect();
        let query = IndexQuery {
            vector: &self.vector,
            metric: self.metric,
            top_k: self.top_k,
            filter: self.filter.as_ref(),
            segments: &segments,
        };
        let mut seen = Vec::new();
        for Neighbour { score, id, place } in index::search(&self.view, &query)?.neighbours {
            // Written since: the search could not find it.
            if place.seq()? <= self.seen {
                seen.push((id, score));
            }
        }
        Ok(seen)
    }

    /// How many hits the search should have had, and how many of them it had. What died since is not held against it:
    /// the nearest of both answers together are what it should have found.
    fn judge(&self, again: &[(DocumentId, f32)]) -> (u64, u64) {
        let known: HashSet<&DocumentId> = self.found.iter().map(|(id, _)| id).collect();
        let missed = again.iter().filter(|(id, _)| !known.contains(id)).map(|(_, closeness)| (*closeness, false));
        let mut all: Vec<(f32, bool)> =
            self.found.iter().map(|(_, closeness)| (*closeness, true)).chain(missed).collect();
        // Of equally near ones those that were found come first: any of them is a right answer.
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        all.truncate(self.top_k);
        (all.len() as u64, all.iter().filter(|(_, found)| *found).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Memtable;

    fn ids(hits: &[(&str, f32)]) -> Vec<(DocumentId, f32)> {
        hits.iter().map(|(id, closeness)| (DocumentId::new(id).unwrap(), *closeness)).collect()
    }

    fn sample(found: &[(&str, f32)], top_k: usize) -> Sample {
        Sample {
            view: Arc::new(View::new(Memtable::new(10), Vec::new())),
            vector: vec![1.0],
            metric: Metric::Dot,
            quantization: Quantization::Int8,
            top_k,
            filter: None,
            segments: Vec::new(),
            found: ids(found),
            seen: Seq(5),
            counts: Arc::default(),
        }
    }

    #[test]
    fn hits_are_counted_that_should_have_been_found() {
        let judged = |found: &[_], again: &[_], top_k| sample(found, top_k).judge(&ids(again));
        assert_eq!(judged(&[("a", 3.0), ("b", 2.0)], &[("a", 3.0), ("b", 2.0)], 2), (2, 2));
        assert_eq!(judged(&[("a", 3.0), ("c", 1.0)], &[("a", 3.0), ("b", 2.0)], 2), (2, 1));
        assert_eq!(judged(&[("a", 3.0)], &[("a", 3.0), ("b", 2.0)], 2), (2, 1));
        assert_eq!(judged(&[("c", 2.0)], &[("b", 2.0)], 1), (1, 1), "as near as the right one");
        assert_eq!(judged(&[("a", 3.0), ("b", 2.0)], &[("b", 2.0), ("c", 1.0)], 2), (2, 2), "one died since");
        assert_eq!(judged(&[], &[], 2), (0, 0));
    }

    #[test]
    fn one_search_in_so_many_is_wanted_while_the_thread_waits() {
        let sampler = Sampler::new(3);
        assert!(!sampler.wants(), "nobody waits");
        sampler.desk().is_waiting = true;
        let wanted: Vec<bool> = (0..6).map(|_| sampler.wants()).collect();
        assert_eq!(wanted, [false, false, true, false, false, true]);
        assert!(!Sampler::new(0).wants());
        sampler.offer(sample(&[("a", 1.0)], 1));
        sampler.offer(sample(&[("b", 1.0)], 1));
        assert_eq!(sampler.next().unwrap().found, ids(&[("a", 1.0)]), "the second found the desk full");
        assert!(!sampler.wants() && !sampler.desk().is_waiting);
        sampler.stop();
        assert!(sampler.next().is_none());
    }

    #[test]
    fn counts_become_a_share() {
        let counts = RecallCounts::default();
        assert_eq!(counts.read().recall(), None);
        counts.add(10, 9);
        counts.add(10, 10);
        assert_eq!(counts.read(), SampledRecall { sampled_hits: 20, found_hits: 19 });
        assert_eq!(counts.read().recall(), Some(0.95));
    }
}
