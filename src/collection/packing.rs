//! Filters that are asked again and again: what they let through of a segment is packed in the background, within
//! bounded memory, and searched where it is.
//!
//! A filter is known by the rows that the field index found for it, which it remembers as long as the filter is in use
//! and the segment stands: once it forgets them, what was packed of them goes too.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::index::LiveSegment;
use crate::meta::RowBounds;
use crate::segment::PackedRows;
use crate::storage::start_thread;

/// Memory for packed rows where nobody says otherwise: those of some 30 filters that 10,000 rows of 384 components
/// pass.
pub const DEFAULT_PACKED_BYTES: usize = 16 << 20;
/// A filter is packed when it is asked so often: what packing costs comes back in some hundred searches, and a filter
/// that was asked so often is asked on.
const ASKED_OFTEN: u32 = 16;
/// Filters that may wait to be packed; what is asked beyond them is counted again.
const MAX_WAITING: usize = 256;
/// One filter may take the memory of all divided by this.
const LARGEST_PART_DIVISOR: usize = 4;
/// Filters tracked before those that the field index forgot are swept out.
const SWEEP_AT: usize = 1_024;

/// What is known of the filters asked lately, by the rows that pass.
pub struct Packing {
    max_bytes: usize,
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Default)]
struct Desk {
    /// By the address of the rows, which their `Weak` keeps from being used again.
    filters: HashMap<usize, Asked>,
    waiting: VecDeque<Order>,
    /// Memory of all that is packed.
    bytes: usize,
    clock: u64,
    /// Filters that may be known before the next look at which the index forgot.
    crowded: usize,
    stopping: bool,
}

/// A filter on one segment.
struct Asked {
    rows: Weak<RowBounds>,
    /// By the desk's clock.
    last: u64,
    state: State,
}

enum State {
    /// Asked so often.
    Counted(u32),
    /// Waits, or is being packed.
    Ordered,
    Packed(Arc<PackedRows>),
    /// Bits are not worth it.
    Unsuited,
}

/// Rows to pack.
struct Order {
    live: Arc<LiveSegment>,
    rows: Arc<RowBounds>,
}

impl Packing {
    /// Packs within `max_bytes` of memory; nothing where they are 0.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, desk: Mutex::default(), changed: Condvar::new() }
    }

    /// Counts a search among `rows` of a segment, which are all decided. Returns them packed, where they are.
    pub fn ask(&self, live: &Arc<LiveSegment>, rows: &Arc<RowBounds>) -> Option<Arc<PackedRows>> {
        let bytes = PackedRows::bytes_for(rows.certain_count(), live.segment.dim());
        if bytes > self.max_bytes / LARGEST_PART_DIVISOR || !live.segment.packs() {
            return None;
        }
        let mut desk = self.desk();
        let (waiting, asked) = (desk.waiting.len(), desk.asked(rows));
        match &mut asked.state {
            State::Packed(packed) => return Some(packed.clone()),
            State::Counted(times) if *times + 1 < ASKED_OFTEN => *times += 1,
            State::Counted(times) if waiting >= MAX_WAITING => *times = 0,
            State::Counted(_) => {
                asked.state = State::Ordered;
                desk.waiting.push_back(Order { live: live.clone(), rows: rows.clone() });
                self.changed.notify_all();
            }
            State::Ordered | State::Unsuited => {}
        }
        None
    }

    /// Memory that packed rows take; those of segments that are gone are given back first.
    pub fn bytes(&self) -> usize {
        let mut desk = self.desk();
        desk.forget_gone();
        desk.bytes
    }

    /// The next rows to pack; `None` when stopping.
    fn next(&self) -> Option<Order> {
        let waited = self.changed.wait_while(self.desk(), |desk| desk.waiting.is_empty() && !desk.stopping);
        let mut desk = waited.unwrap_or_else(PoisonError::into_inner);
        if desk.stopping { None } else { desk.waiting.pop_front() }
    }

    fn finish(&self, order: &Order, packed: Option<PackedRows>) {
        let mut desk = self.desk();
        let bytes = packed.as_ref().map_or(0, PackedRows::bytes);
        desk.bytes += bytes;
        desk.asked(&order.rows).state = packed.map_or(State::Unsuited, |packed| State::Packed(Arc::new(packed)));
        if desk.bytes > self.max_bytes {
            desk.shrink(self.max_bytes / 4 * 3);
        }
    }

    fn stop(&self) {
        self.desk().stopping = true;
        self.changed.notify_all();
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// What is known of a filter that is asked now.
    fn asked(&mut self, rows: &Arc<RowBounds>) -> &mut Asked {
        if self.filters.len() >= self.crowded.max(SWEEP_AT) {
            self.forget_gone();
            self.crowded = 2 * self.filters.len();
        }
        self.clock += 1;
        let new = || Asked { rows: Arc::downgrade(rows), last: 0, state: State::Counted(0) };
        let asked = self.filters.entry(Arc::as_ptr(rows).addr()).or_insert_with(new);
        asked.last = self.clock;
        asked
    }

    /// Gives back what was packed of rows that the index forgot.
    fn forget_gone(&mut self) {
        let mut freed = 0;
        self.filters.retain(|_, asked| {
            let stays = asked.rows.strong_count() > 0;
            freed += if stays { 0 } else { asked.state.bytes() };
            stays
        });
        self.bytes -= freed;
    }

    /// Gives back what was not asked for the longest, down to `bytes`.
    fn shrink(&mut self, bytes: usize) {
        self.forget_gone();
        let mut by_age: Vec<&mut Asked> = self.filters.values_mut().collect();
        by_age.sort_unstable_by_key(|asked| asked.last);
        for asked in by_age {
            if self.bytes <= bytes {
                break;
            }
            if matches!(asked.state, State::Packed(_)) {
                self.bytes -= asked.state.bytes();
                asked.state = State::Counted(0);
            }
        }
    }
}

impl State {
    fn bytes(&self) -> usize {
        match self {
            State::Packed(packed) => packed.bytes(),
            State::Counted(_) | State::Ordered | State::Unsuited => 0,
        }
    }
}

/// The running thread. Dropping it finishes the rows at hand and joins it.
pub struct PackWorker {
    packing: Arc<Packing>,
    thread: Option<JoinHandle<()>>,
}

impl PackWorker {
    /// Starts the thread, unless nothing is packed.
    ///
    /// # Errors
    /// The system's, when it has no thread left.
    pub fn start(packing: Arc<Packing>) -> io::Result<Self> {
        let start = || {
            let packing = packing.clone();
            start_thread("pannier-pack", move || pack(&packing))
        };
        let thread = (packing.max_bytes > 0).then(start).transpose()?;
        Ok(Self { packing, thread })
    }
}

impl Drop for PackWorker {
    fn drop(&mut self) {
        self.packing.stop();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that packs rows panicked");
        }
    }
}

fn pack(packing: &Packing) {
    while let Some(order) = packing.next() {
        let (started, rows) = (Instant::now(), order.rows.certain().iter().collect::<Vec<_>>());
        let packed = order.live.segment.pack(&rows).unwrap_or_else(|error| {
            tracing::warn!(%error, "what a filter lets through could not be packed");
            None
        });
        let (rows, is_packed, took) = (rows.len(), packed.is_some(), started.elapsed());
        tracing::debug!(segment = %order.live.id, rows, is_packed, ?took, "packed what a filter lets through");
        packing.finish(&order, packed);
    }
}
