//! Whose segments are merged next: collections take turns of one merge each, so that one which is written to without a
//! pause holds up no other.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::types::CollectionId;

/// After a failure the next attempt waits this long, and after each further one twice as long as before it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// No attempt waits longer: on a disk that stays full each may write until there is no room.
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// What of a collection is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// What is due.
    Due,
    /// Everything, into one segment.
    Whole,
}

/// How a turn ended.
pub enum Ended {
    /// Segments were merged; more may be due.
    Merged,
    /// There was nothing to merge.
    Nothing,
    /// Nothing has changed.
    Failed {
        /// The error and its causes.
        reason: String,
        /// Whether another attempt may go better.
        again: bool,
    },
}

/// The collections that wait for a merge.
#[derive(Default)]
pub struct Turns {
    due: VecDeque<CollectionId>,
    whole: VecDeque<CollectionId>,
    /// Whose turn it is.
    merging: Option<(CollectionId, Scope)>,
    /// The last attempts that failed, until one succeeds.
    failed: HashMap<(CollectionId, Scope), Failure>,
    failures: u64,
}

#[derive(Default)]
struct Failure {
    /// Which it was of all.
    number: u64,
    reason: String,
    /// How long the next attempt waits.
    pause: Duration,
    /// When the collection is to ask again by itself.
    retry: Option<Instant>,
}

impl Turns {
    /// Puts a collection at the end, unless it waits already. Those to be merged whole come before all others: somebody
    /// waits for them.
    pub fn ask(&mut self, id: CollectionId, scope: Scope) {
        let queue = match scope {
            Scope::Due => &mut self.due,
            Scope::Whole => &mut self.whole,
        };
        if !queue.contains(&id) {
            queue.push_back(id);
        }
    }

    /// As [`Turns::ask`] for what is due, except where that failed and waits to be tried again: whoever only notes that
    /// a merge may be due has nothing to say of why the last one failed.
    pub fn suggest(&mut self, id: CollectionId) {
        let failure = self.failed.get(&(id, Scope::Due));
        if failure.is_none_or(|failure| failure.retry.is_none()) {
            self.ask(id, Scope::Due);
        }
    }

    /// Whether a collection waits, or has its turn.
    pub fn has(&self, id: CollectionId, scope: Scope) -> bool {
        let queue = match scope {
            Scope::Due => &self.due,
            Scope::Whole => &self.whole,
        };
        queue.contains(&id) || self.merging == Some((id, scope))
    }

    /// Begins the next turn.
    pub fn begin(&mut self, now: Instant) -> Option<(CollectionId, Scope)> {
        let mut again = Vec::new();
        for ((id, _), failure) in &mut self.failed {
            if failure.retry.take_if(|at| *at <= now).is_some() {
                again.push(*id);
            }
        }
        again.into_iter().for_each(|id| self.ask(id, Scope::Due));
        let whole = self.whole.pop_front().map(|id| (id, Scope::Whole));
        self.merging = whole.or_else(|| self.due.pop_front().map(|id| (id, Scope::Due)));
        self.merging
    }

    /// Ends the turn. A collection that may have more to merge joins the end of the queue in the same step, so that
    /// nobody who waits for it sees it idle.
    pub fn end(&mut self, now: Instant, ended: Ended) {
        let Some(turn) = self.merging.take() else { return };
        let (reason, again) = match ended {
            Ended::Failed { reason, again } => (reason, again),
            Ended::Merged | Ended::Nothing => {
                self.failed.remove(&turn);
                if matches!(ended, Ended::Merged) {
                    self.ask(turn.0, Scope::Due);
                }
                return;
            }
        };
        self.failures += 1;
        let number = self.failures;
        let failure = self.failed.entry(turn).or_default();
        let pause = (2 * failure.pause).clamp(FIRST_PAUSE, MAX_PAUSE);
        *failure = Failure { number, reason, pause, retry: again.then_some(now + pause) };
    }

    /// When a collection asks again by itself, the earliest.
    pub fn next_retry(&self) -> Option<Instant> {
        self.failed.values().filter_map(|failure| failure.retry).min()
    }

    /// Failures so far.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Why a collection's last attempt failed, where that came after so many failures of any.
    pub fn failure_after(&self, id: CollectionId, scope: Scope, failures: u64) -> Option<&str> {
        self.failed.get(&(id, scope)).filter(|failure| failure.number > failures).map(|failure| failure.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CollectionId = CollectionId(1);
    const B: CollectionId = CollectionId(2);

    fn refused() -> Ended {
        Ended::Failed { reason: "full".into(), again: true }
    }

    #[test]
    fn a_collection_that_always_has_a_merge_due_lets_the_others_have_their_turns() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.ask(A, Scope::Due);
        assert_eq!(turns.begin(now), Some((A, Scope::Due)));
        turns.ask(B, Scope::Due);
        // A memtable was sealed meanwhile.
        turns.ask(A, Scope::Due);
        turns.end(now, Ended::Merged);
        assert!(turns.has(A, Scope::Due), "more may be due");
        assert_eq!(turns.begin(now), Some((B, Scope::Due)));
        turns.end(now, Ended::Merged);
        assert_eq!(turns.begin(now), Some((A, Scope::Due)));
        turns.end(now, Ended::Nothing);
        assert_eq!(turns.begin(now), Some((B, Scope::Due)));
        turns.end(now, Ended::Nothing);
        assert_eq!(turns.begin(now), None);
    }

    #[test]
    fn what_is_to_be_merged_whole_comes_first_and_has_one_turn() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.ask(A, Scope::Due);
        turns.ask(B, Scope::Whole);
        assert_eq!(turns.begin(now), Some((B, Scope::Whole)));
        turns.end(now, Ended::Merged);
        assert!(!turns.has(B, Scope::Whole) && turns.has(B, Scope::Due));
        assert_eq!(turns.begin(now), Some((A, Scope::Due)));
        turns.end(now, Ended::Nothing);
        assert_eq!(turns.begin(now), Some((B, Scope::Due)));
        turns.end(now, Ended::Nothing);
        assert_eq!(turns.begin(now), None);
    }

    #[test]
    fn what_failed_is_tried_again_ever_later_and_holds_up_nobody() {
        let (mut turns, mut now) = (Turns::default(), Instant::now());
        turns.ask(A, Scope::Whole);
        turns.ask(B, Scope::Due);
        turns.begin(now);
        turns.end(now, refused());
        assert_eq!(turns.failure_after(A, Scope::Whole, 0), Some("full"));
        assert_eq!((turns.failure_after(A, Scope::Whole, 1), turns.failure_after(B, Scope::Due, 0)), (None, None));
        assert!(!turns.has(A, Scope::Whole) && !turns.has(A, Scope::Due));
        assert_eq!(turns.begin(now), Some((B, Scope::Due)));
        turns.end(now, Ended::Nothing);
        for pause in [FIRST_PAUSE, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE] {
            assert_eq!((turns.begin(now), turns.next_retry()), (None, Some(now + pause)));
            now += pause;
            assert_eq!(turns.begin(now), Some((A, Scope::Due)));
            turns.end(now, refused());
        }
        now += MAX_PAUSE;
        turns.begin(now);
        turns.end(now, Ended::Merged);
        assert_eq!((turns.begin(now), turns.next_retry()), (Some((A, Scope::Due)), None));
        turns.end(now, refused());
        assert_eq!(turns.next_retry(), Some(now + FIRST_PAUSE), "as after the first failure");
    }

    #[test]
    fn what_failed_waits_though_more_is_sealed_and_not_where_somebody_asks() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.suggest(A);
        assert_eq!(turns.begin(now), Some((A, Scope::Due)));
        turns.end(now, refused());
        turns.suggest(A);
        turns.suggest(B);
        assert_eq!(turns.begin(now), Some((B, Scope::Due)));
        turns.end(now, Ended::Nothing);
        assert_eq!(turns.begin(now), None);
        turns.ask(A, Scope::Due);
        assert_eq!(turns.begin(now), Some((A, Scope::Due)));
        turns.end(now, Ended::Merged);
        turns.begin(now);
        turns.end(now, Ended::Nothing);
        turns.suggest(A);
        assert_eq!(turns.begin(now), Some((A, Scope::Due)), "it went well since");
    }

    #[test]
    fn what_another_attempt_cannot_mend_is_left() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.ask(A, Scope::Due);
        turns.begin(now);
        turns.end(now, Ended::Failed { reason: "sync".into(), again: false });
        assert_eq!((turns.begin(now + MAX_PAUSE), turns.next_retry()), (None, None));
    }
}
