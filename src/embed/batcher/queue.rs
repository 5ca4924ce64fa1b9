//! What waits to be embedded, and which of it makes the next pass: pure decisions, no waiting and no threads.
//!
//! Requests wait in one line for each model and rank. A pass is of one model and urgency. The best rank that waits
//! leads it, of equal ones the one that has waited longest, unless a lower rank is due its share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::EmbedError;
use super::request::Request;
use super::{Encode, Lane, Urgency, metrics};

/// Most tokens of a pass, but for a single longer sequence. At 512 the buffers still fit the neighbourhood of the
/// second-level cache, while the weights, read once a pass, cost little against the arithmetic.
pub const MAX_PASS_TOKENS: usize = 512;
/// Most tokens of a pass by lane. An interactive pass is what the next interactive request may have to wait for, so it
/// is shorter.
const PASS_TOKENS: [usize; 2] = [256, MAX_PASS_TOKENS];
/// Fewer tokens than this are not worth reading all weights once more: below it, work is not shared among places.
const MIN_PASS_TOKENS: usize = 32;
/// More urgent tokens that go before each waiting token of less urgency, which so gets an eighth.
const AHEAD_OF_ONE: usize = 7;
/// Places for interactive passes beside those of the compute threads.
const EXTRA_PLACES: usize = 1;
/// Most tokens that wait in a lane. An interactive caller does not wait for minutes; a bulk caller may.
const MAX_WAITING_TOKENS: [usize; 2] = [32_768, 1 << 20];
/// Most sequences that wait in a lane.
const MAX_WAITING_ENTRIES: usize = 32_768;
/// Speed of a place before the first pass, in tokens a second.
const FIRST_SPEED: f64 = 2_000.0;
/// What a pass leaves of the weight of those before it in the measured speed.
const SPEED_KEPT: f64 = 0.8;
/// Passes before the measured speed says how long others will take.
const PASSES_TO_MEASURE: usize = 8;
/// Bounds of what a refused caller is told to wait.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(120)];

const LANES: [Lane; 2] = [Lane::Interactive, Lane::Bulk];

/// In which order requests are served: by urgency, and of equal urgency those whose caller will go at a deadline before
/// those that wait for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    urgency: Urgency,
    is_patient: bool,
}

impl Rank {
    /// Every rank, in their order.
    const ALL: [Self; 6] = [
        Self { urgency: Urgency::Query, is_patient: false },
        Self { urgency: Urgency::Query, is_patient: true },
        Self { urgency: Urgency::Small, is_patient: false },
        Self { urgency: Urgency::Small, is_patient: true },
        Self { urgency: Urgency::Bulk, is_patient: false },
        Self { urgency: Urgency::Bulk, is_patient: true },
    ];

    fn index(self) -> usize {
        2 * self.urgency as usize + usize::from(self.is_patient)
    }

    fn lane(self) -> Lane {
        self.urgency.lane()
    }

    /// The other rank of its urgency.
    fn other(self) -> Self {
        Self { is_patient: !self.is_patient, ..self }
    }
}

/// One sequence of a request.
pub(super) struct Entry {
    pub request: Arc<Request>,
    pub ids: Vec<u32>,
    /// Its position in the request.
    pub index: usize,
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
    /// No line in it is empty.
    lines: Vec<Line>,
    running: [usize; 2],
    /// Of the encoders that run one pass at a time, those that run one now.
    alone: Vec<Arc<dyn Encode>>,
    /// What bulk work is owed, before which interactive work goes.
    bulk: Debt,
    /// What each rank is owed, before which those above it in its lane go.
    ranks: [Debt; Rank::ALL.len()],
    /// Of each lane: a pass of a few tokens is bound by reading the weights, and says nothing of full ones.
    speeds: [Speed; 2],
    closed: bool,
}

/// What waits of one model and rank, in order of arrival.
struct Line {
    rank: Rank,
    encoder: Arc<dyn Encode>,
    entries: VecDeque<Entry>,
    tokens: usize,
}

/// How much waits.
#[derive(Clone, Copy, Default)]
struct Load {
    texts: usize,
    tokens: usize,
}

/// Tokens that have gone before what waits and could have run, less [`AHEAD_OF_ONE`] for each of its own that has gone
/// meanwhile.
#[derive(Clone, Copy, Default)]
struct Debt(usize);

/// How what may be owed something stands when a pass is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Nothing of it waits.
    Absent,
    /// All of it waits for the end of a pass of its model, which runs one at a time: nothing else goes before it.
    Held,
    /// It could have run instead.
    Ready,
}

impl Debt {
    /// A pass is taken, with tokens `before` it and tokens `of` its own. What does not wait is owed nothing.
    fn settle(&mut self, standing: Standing, before: usize, of: usize) {
        let owed = match standing {
            Standing::Absent => 0,
            Standing::Held => self.0,
            Standing::Ready => self.0 + before,
        };
        self.0 = owed.saturating_sub(AHEAD_OF_ONE * of);
    }

    /// Whether it is owed a pass of this lane.
    fn is_due(self, lane: Lane) -> bool {
        self.0 >= AHEAD_OF_ONE * PASS_TOKENS[lane as usize]
    }
}

/// How fast the passes of a lane are, the newest above all.
#[derive(Clone, Copy)]
struct Speed {
    tokens: f64,
    /// Of one place: those of a pass count for each thread that had nothing else to do.
    seconds: f64,
    passes: usize,
}

impl Queue {
    /// A queue for `places` passes at once, and one more of interactive requests.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            lines: Vec::new(),
            running: [0; 2],
            alone: Vec::new(),
            bulk: Debt::default(),
            ranks: Default::default(),
            speeds: [Speed { tokens: FIRST_SPEED, seconds: 1.0, passes: 0 }; 2],
            closed: false,
        }
    }

    /// Queues the entries of one request, which is given up after `patience`. Where nobody waits before them and a
    /// place is free, returns their first pass, for the caller to run.
    ///
    /// # Errors
    /// [`EmbedError::Overloaded`], also where they would not be embedded within `patience`. What is served after them
    /// counts for nothing, and where nothing waits before them a request of any size is taken.
    pub(super) fn submit(
        &mut self,
        entries: Vec<Entry>,
        urgency: Urgency,
        patience: Option<Duration>,
    ) -> Result<Option<Pass>, EmbedError> {
        let Some(first) = entries.first() else { return Ok(None) };
        let (encoder, rank) = (first.request.encoder.clone(), Rank { urgency, is_patient: patience.is_none() });
        let lane = rank.lane();
        let tokens: usize = entries.iter().map(|entry| entry.ids.len()).sum();
        let before = self.load(|of| of.lane() == lane && of <= rank);
        let too_long = before.tokens + tokens > MAX_WAITING_TOKENS[lane as usize]
            || before.texts + entries.len() > MAX_WAITING_ENTRIES
            || patience.is_some_and(|patience| self.takes_longer(lane, before.tokens + tokens, patience));
        if too_long && before.texts > 0 {
            metrics::refused(lane, entries.len());
            let retry_after = self.retry_after(lane, before.tokens);
            return Err(EmbedError::Overloaded { waiting_tokens: before.tokens, retry_after });
        }
        let stands = self.line(rank, &encoder);
        let at = stands.unwrap_or_else(|| {
            self.lines.push(Line { rank, encoder, entries: VecDeque::new(), tokens: 0 });
            self.lines.len() - 1
        });
        self.lines[at].entries.extend(entries);
        self.lines[at].tokens += tokens;
        let is_next = stands.is_none() && self.leader() == Some(at);
        let pass = if is_next { self.next() } else { None };
        self.report(lane);
        Ok(pass)
    }

    /// Whether a pass could start now.
    pub(super) fn may_start(&self) -> bool {
        self.leader().is_some()
    }

    /// Takes the next pass and counts it as running; `None` where nothing waits that could run, or no place is free.
    pub(super) fn next(&mut self) -> Option<Pass> {
        while let Some(leader) = self.leader() {
            let encoder = self.lines[leader].encoder.clone();
            let mut pass = self.take(leader);
            self.report(pass.lane);
            // Every entry that was looked at may have been given up meanwhile.
            if pass.entries.is_empty() {
                continue;
            }
            self.running[pass.lane as usize] += 1;
            if encoder.runs_alone() {
                self.alone.push(encoder);
            }
            if !self.lines.iter().any(|line| self.can_run(line)) {
                pass.helpers = self.places.saturating_sub(self.running.iter().sum());
            }
            return Some(pass);
        }
        None
    }

    /// A pass has ended; its place is free.
    pub(super) fn finish(&mut self, pass: &Pass, took: Duration) {
        self.running[pass.lane as usize] -= 1;
        if let Some(first) = pass.entries.first() {
            self.alone.retain(|encoder| !Arc::ptr_eq(encoder, &first.request.encoder));
        }
        let speed = &mut self.speeds[pass.lane as usize];
        speed.tokens = SPEED_KEPT * speed.tokens + pass.tokens as f64;
        speed.seconds = SPEED_KEPT * speed.seconds + took.as_secs_f64().max(1e-6) * (1 + pass.helpers) as f64;
        speed.passes += 1;
    }

    /// Drops what a request still has waiting.
    pub(super) fn forget(&mut self, request: &Arc<Request>) {
        for line in &mut self.lines {
            let before = line.entries.len();
            line.entries.retain(|entry| !Arc::ptr_eq(&entry.request, request));
            line.tokens = line.entries.iter().map(|entry| entry.ids.len()).sum();
            metrics::dropped(line.rank.lane(), before - line.entries.len());
        }
        self.lines.retain(|line| !line.entries.is_empty());
        for lane in LANES {
            self.report(lane);
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
        self.load(|rank| rank.lane() == lane).texts
    }

    /// What waits in the ranks that are `wanted`.
    fn load(&self, wanted: impl Fn(Rank) -> bool) -> Load {
        let lines = self.lines.iter().filter(|line| wanted(line.rank));
        lines.fold(Load::default(), |load, line| Load {
            texts: load.texts + line.entries.len(),
            tokens: load.tokens + line.tokens,
        })
    }

    fn report(&self, lane: Lane) {
        let Load { texts, tokens } = self.load(|rank| rank.lane() == lane);
        metrics::waiting(lane, texts, tokens);
    }

    fn line(&self, rank: Rank, encoder: &Arc<dyn Encode>) -> Option<usize> {
        self.lines.iter().position(|line| line.rank == rank && Arc::ptr_eq(&line.encoder, encoder))
    }

    /// The line whose first entry leads the next pass.
    fn leader(&self) -> Option<usize> {
        let first = |lane: Lane| {
            let lines = self.lines.iter().enumerate();
            let lines = lines.filter(|(_, line)| line.rank.lane() == lane && self.can_run(line));
            let order = |line: &Line| {
                let is_due = self.ranks[line.rank.index()].is_due(lane);
                (!is_due, line.rank, line.entries.front().map(|entry| entry.queued_at))
            };
            lines.filter(|_| self.has_place(lane)).min_by_key(|(_, line)| order(line)).map(|(at, _)| at)
        };
        match (first(Lane::Interactive), first(Lane::Bulk)) {
            (Some(_), Some(bulk)) if self.bulk.is_due(Lane::Bulk) => Some(bulk),
            (interactive, bulk) => interactive.or(bulk),
        }
    }

    /// Whether a pass of this line may begin where a place is free.
    fn can_run(&self, line: &Line) -> bool {
        !self.alone.iter().any(|encoder| Arc::ptr_eq(encoder, &line.encoder))
    }

    fn has_place(&self, lane: Lane) -> bool {
        let running: usize = self.running.iter().sum();
        let extra = lane == Lane::Interactive && self.running[Lane::Interactive as usize] < EXTRA_PLACES;
        running < self.places || extra
    }

    /// Takes entries from the front of a line, as many as the budget holds and at least one; what is left of the budget
    /// goes to the other rank of this model and urgency. A lane with few tokens is shared among the free places.
    fn take(&mut self, leader: usize) -> Pass {
        let Line { rank, encoder, .. } = &self.lines[leader];
        let (rank, encoder) = (*rank, encoder.clone());
        let lane = rank.lane();
        let free = match encoder.runs_alone() {
            // Shares would only wait for each other.
            true => 1,
            false => self.places.saturating_sub(self.running.iter().sum()).max(1),
        };
        let waiting = self.load(|rank| rank.lane() == lane).tokens;
        let budget = waiting.div_ceil(free).clamp(MIN_PASS_TOKENS, PASS_TOKENS[lane as usize]);
        let mut pass = Pass { lane, entries: Vec::new(), tokens: 0, helpers: 0 };
        let mut taken = [0; Rank::ALL.len()];
        for rank in [rank, rank.other()] {
            let Some(at) = self.line(rank, &encoder) else { continue };
            let line = &mut self.lines[at];
            let mut dropped = 0;
            while let Some(entry) = line.entries.pop_front() {
                let tokens = entry.ids.len();
                if !entry.request.is_wanted() {
                    line.tokens -= tokens;
                    dropped += 1;
                    continue;
                }
                if !pass.entries.is_empty() && pass.tokens + tokens > budget {
                    line.entries.push_front(entry);
                    break;
                }
                line.tokens -= tokens;
                taken[rank.index()] += tokens;
                pass.tokens += tokens;
                pass.entries.push(entry);
            }
            metrics::dropped(lane, dropped);
        }
        self.lines.retain(|line| !line.entries.is_empty());
        self.settle(lane, &taken);
        pass
    }

    /// Counts the tokens of a pass, by rank, for those that it went before.
    fn settle(&mut self, lane: Lane, taken: &[usize; Rank::ALL.len()]) {
        let mut standings = [Standing::Absent; Rank::ALL.len()];
        for line in &self.lines {
            let standing = if self.can_run(line) { Standing::Ready } else { Standing::Held };
            let of_rank = &mut standings[line.rank.index()];
            *of_rank = standing.max(*of_rank);
        }
        let bulk = Rank::ALL.into_iter().filter(|rank| rank.lane() == Lane::Bulk);
        let bulk = bulk.map(|rank| standings[rank.index()]).max().unwrap_or(Standing::Absent);
        let tokens: usize = taken.iter().sum();
        let (before, of) = if lane == Lane::Interactive { (tokens, 0) } else { (0, tokens) };
        self.bulk.settle(bulk, before, of);
        let mut before = 0;
        for rank in Rank::ALL.into_iter().filter(|rank| rank.lane() == lane) {
            let of = taken[rank.index()];
            self.ranks[rank.index()].settle(standings[rank.index()], before, of);
            before += of;
        }
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

    /// How long it takes to work off so many tokens that wait in a lane.
    fn retry_after(&self, lane: Lane, tokens: usize) -> Duration {
        let seconds = self.seconds_of(lane, tokens);
        Duration::from_secs_f64(seconds.clamp(RETRY_AFTER[0].as_secs_f64(), RETRY_AFTER[1].as_secs_f64()))
    }
}
