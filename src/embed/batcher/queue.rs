//! What waits to be embedded, and which of it makes the next pass: pure decisions, no waiting and no threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::EmbedError;
use super::request::Request;
use super::{Lane, metrics};

/// Most tokens of a pass, but for a single longer sequence. At 512 the buffers still fit the neighbourhood of the
/// second-level cache, while the weights, read once a pass, cost little against the arithmetic.
pub const MAX_PASS_TOKENS: usize = 512;
/// Most tokens of a pass by lane. An interactive pass is what the next interactive request may have to wait for, so it
/// is shorter.
const PASS_TOKENS: [usize; 2] = [256, MAX_PASS_TOKENS];
/// Fewer tokens than this are not worth reading all weights once more: below it, work is not shared among places.
const MIN_PASS_TOKENS: usize = 32;
/// Interactive passes for one bulk pass of as many tokens, where both are waiting.
const INTERACTIVE_SHARE: usize = 7;
/// Places for interactive passes beside those of the compute threads.
const EXTRA_PLACES: usize = 1;
/// Most tokens that wait in a lane. An interactive caller does not wait for minutes; a bulk caller may.
const MAX_WAITING_TOKENS: [usize; 2] = [32_768, 1 << 20];
/// Most sequences that wait in a lane.
const MAX_WAITING_ENTRIES: usize = 32_768;
/// Entries of other models that are passed over when a pass is put together.
const MAX_PASSED_OVER: usize = 256;
/// Speed of a place before the first pass, in tokens a second.
const FIRST_SPEED: f64 = 2_000.0;
/// What a pass leaves of the weight of those before it in the measured speed.
const SPEED_KEPT: f64 = 0.8;
/// Passes before the measured speed says how long others will take.
const PASSES_TO_MEASURE: usize = 8;
/// Bounds of what a refused caller is told to wait.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(120)];

const LANES: [Lane; 2] = [Lane::Interactive, Lane::Bulk];

/// One sequence of a request.
pub(super) struct Entry {
    pub request: Arc<Request>,
    pub ids: Vec<u32>,
    /// Its position in the request.
    pub index: usize,
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "it is there for a metric"))]
    pub queued_at: Instant,
}

/// Entries of one model that are encoded together.
pub(super) struct Pass {
    pub lane: Lane,
    pub entries: Vec<Entry>,
    pub tokens: usize,
    /// Threads beside its own that have nothing else to do.
    pub helpers: usize,
}

/// What waits, and how many passes run.
pub(super) struct Queue {
    places: usize,
    lanes: [Waiting; 2],
    running: [usize; 2],
    /// Interactive tokens that have gone before waiting bulk work since its last pass.
    overtaking_tokens: usize,
    /// Of each lane: a pass of a few tokens is bound by reading the weights, and says nothing of full ones.
    speeds: [Speed; 2],
    closed: bool,
}

/// How fast the passes of a lane are, the newest above all.
#[derive(Clone, Copy)]
struct Speed {
    tokens: f64,
    /// Of one place: those of a pass count for each thread that had nothing else to do.
    seconds: f64,
    passes: usize,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    tokens: usize,
}

impl Queue {
    /// A queue for `places` passes at once, and one more of interactive requests.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            lanes: Default::default(),
            running: [0; 2],
            overtaking_tokens: 0,
            speeds: [Speed { tokens: FIRST_SPEED, seconds: 1.0, passes: 0 }; 2],
            closed: false,
        }
    }

    /// Queues the entries of one request, which is given up after `patience`. Where nobody waits before them and a
    /// place is free, returns their first pass, for the caller to run.
    ///
    /// # Errors
    /// [`EmbedError::Overloaded`], also where they would not be embedded within `patience`. Where the lane is empty a
    /// request of any size is taken.
    pub(super) fn submit(
        &mut self,
        entries: Vec<Entry>,
        lane: Lane,
        patience: Option<Duration>,
    ) -> Result<Option<Pass>, EmbedError> {
        let tokens: usize = entries.iter().map(|entry| entry.ids.len()).sum();
        let waiting = &self.lanes[lane as usize];
        let is_first = waiting.entries.is_empty();
        let too_long = waiting.tokens + tokens > MAX_WAITING_TOKENS[lane as usize]
            || waiting.entries.len() + entries.len() > MAX_WAITING_ENTRIES
            || patience.is_some_and(|patience| self.takes_longer(lane, waiting.tokens + tokens, patience));
        if too_long && !is_first {
            metrics::refused(lane, entries.len());
            return Err(EmbedError::Overloaded { waiting_tokens: waiting.tokens, retry_after: self.retry_after(lane) });
        }
        let waiting = &mut self.lanes[lane as usize];
        waiting.entries.extend(entries);
        waiting.tokens += tokens;
        let pass = if is_first && self.startable() == Some(lane) { self.next() } else { None };
        metrics::waiting(lane, &self.lanes[lane as usize].entries, self.lanes[lane as usize].tokens);
        Ok(pass)
    }

    /// Whether a pass could start now.
    pub(super) fn may_start(&self) -> bool {
        self.startable().is_some()
    }

    /// Takes the next pass and counts it as running; `None` where nothing waits or no place is free.
    pub(super) fn next(&mut self) -> Option<Pass> {
        while let Some(lane) = self.startable() {
            let mut pass = self.take(lane);
            metrics::waiting(lane, &self.lanes[lane as usize].entries, self.lanes[lane as usize].tokens);
            // Every entry that was looked at may have been given up meanwhile.
            if pass.entries.is_empty() {
                continue;
            }
            self.running[lane as usize] += 1;
            if self.lanes.iter().all(|waiting| waiting.entries.is_empty()) {
                pass.helpers = self.places.saturating_sub(self.running.iter().sum());
            }
            match lane {
                Lane::Interactive if !self.lanes[Lane::Bulk as usize].entries.is_empty() => {
                    self.overtaking_tokens += pass.tokens;
                }
                Lane::Interactive => {}
                Lane::Bulk => self.overtaking_tokens = 0,
            }
            return Some(pass);
        }
        None
    }

    /// A pass has ended; its place is free.
    pub(super) fn finish(&mut self, pass: &Pass, took: Duration) {
        self.running[pass.lane as usize] -= 1;
        let speed = &mut self.speeds[pass.lane as usize];
        speed.tokens = SPEED_KEPT * speed.tokens + pass.tokens as f64;
        speed.seconds = SPEED_KEPT * speed.seconds + took.as_secs_f64().max(1e-6) * (1 + pass.helpers) as f64;
        speed.passes += 1;
    }

    /// Drops what a request still has waiting.
    pub(super) fn forget(&mut self, request: &Arc<Request>) {
        for lane in LANES {
            let waiting = &mut self.lanes[lane as usize];
            let before = waiting.entries.len();
            waiting.entries.retain(|entry| !Arc::ptr_eq(&entry.request, request));
            waiting.tokens = waiting.entries.iter().map(|entry| entry.ids.len()).sum();
            metrics::dropped(lane, before - waiting.entries.len());
            metrics::waiting(lane, &waiting.entries, waiting.tokens);
        }
    }

    /// No more passes: the workers end.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Entries that wait in a lane.
    #[cfg(test)]
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        self.lanes[lane as usize].entries.len()
    }

    /// The lane of the next pass.
    fn startable(&self) -> Option<Lane> {
        let waits = |lane: Lane| !self.lanes[lane as usize].entries.is_empty();
        let bulk = waits(Lane::Bulk) && self.has_place(Lane::Bulk);
        let interactive = waits(Lane::Interactive) && self.has_place(Lane::Interactive);
        let is_bulks_turn = self.overtaking_tokens >= INTERACTIVE_SHARE * PASS_TOKENS[Lane::Bulk as usize];
        match (interactive, bulk) {
            (true, true) if is_bulks_turn => Some(Lane::Bulk),
            (true, _) => Some(Lane::Interactive),
            (false, true) => Some(Lane::Bulk),
            (false, false) => None,
        }
    }

    fn has_place(&self, lane: Lane) -> bool {
        let running: usize = self.running.iter().sum();
        let extra = lane == Lane::Interactive && self.running[Lane::Interactive as usize] < EXTRA_PLACES;
        running < self.places || extra
    }

    /// Takes entries of one model from the front of a lane, as many as the budget holds and at least one. A lane with
    /// few tokens is shared among the free places.
    fn take(&mut self, lane: Lane) -> Pass {
        let free = self.places.saturating_sub(self.running.iter().sum()).max(1);
        let waiting = &mut self.lanes[lane as usize];
        let budget = waiting.tokens.div_ceil(free).clamp(MIN_PASS_TOKENS, PASS_TOKENS[lane as usize]);
        let mut pass = Pass { lane, entries: Vec::new(), tokens: 0, helpers: 0 };
        let mut passed_over = Vec::new();
        let mut dropped = 0;
        while let Some(entry) = waiting.entries.pop_front() {
            let tokens = entry.ids.len();
            if !entry.request.is_wanted() {
                waiting.tokens -= tokens;
                dropped += 1;
                continue;
            }
            let fits = match pass.entries.first() {
                None => true,
                Some(first) if !Arc::ptr_eq(&first.request.encoder, &entry.request.encoder) => {
                    passed_over.push(entry);
                    if passed_over.len() > MAX_PASSED_OVER {
                        break;
                    }
                    continue;
                }
                Some(_) => pass.tokens + tokens <= budget,
            };
            if !fits {
                waiting.entries.push_front(entry);
                break;
            }
            waiting.tokens -= tokens;
            pass.tokens += tokens;
            pass.entries.push(entry);
        }
        for entry in passed_over.into_iter().rev() {
            waiting.entries.push_front(entry);
        }
        metrics::dropped(lane, dropped);
        pass
    }

    /// Whether that many tokens are known to take longer; no other lane's work is counted.
    fn takes_longer(&self, lane: Lane, tokens: usize, patience: Duration) -> bool {
        self.speeds[lane as usize].passes >= PASSES_TO_MEASURE && self.seconds_of(lane, tokens) > patience.as_secs_f64()
    }

    /// Seconds that all places together take for tokens of a lane.
    fn seconds_of(&self, lane: Lane, tokens: usize) -> f64 {
        let Speed { tokens: measured, seconds, .. } = self.speeds[lane as usize];
        tokens as f64 * seconds / (measured * self.places as f64)
    }

    /// How long it takes to work off what waits in a lane.
    fn retry_after(&self, lane: Lane) -> Duration {
        let seconds = self.seconds_of(lane, self.lanes[lane as usize].tokens);
        Duration::from_secs_f64(seconds.clamp(RETRY_AFTER[0].as_secs_f64(), RETRY_AFTER[1].as_secs_f64()))
    }
}
