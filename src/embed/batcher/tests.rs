//! The batcher with encoders that say what they were given, wait for a sign, or fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::queue::{Entry, Pass, Queue};
use super::request::Request;
use super::{Batcher, Cancellation, EmbedError, Encode, Lane, Urgency};
use crate::embed::InputKind;

/// A token at which the encoder panics, and one at which it fails.
const PANIC: u32 = 666;
const FAIL: u32 = 667;
/// A token at which the encoder waits for [`Fake::open`].
const WAIT: u32 = 668;

/// An encoder whose vectors are `[first token, tokens]`.
#[derive(Default)]
pub(super) struct Fake {
    passes: Mutex<Vec<Vec<Vec<u32>>>>,
    is_open: Mutex<bool>,
    opened: Condvar,
    runs_alone: bool,
}

impl Fake {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn passes(&self) -> Vec<Vec<Vec<u32>>> {
        self.passes.lock().unwrap().clone()
    }
}

impl Encode for Fake {
    fn encode(&self, sequences: &[&[u32]], _: usize) -> Result<Vec<Vec<f64>>, EmbedError> {
        self.passes.lock().unwrap().push(sequences.iter().map(|ids| ids.to_vec()).collect());
        let has = |token: u32| sequences.iter().any(|ids| ids.contains(&token));
        if has(WAIT) {
            let mut is_open = self.is_open.lock().unwrap();
            while !*is_open {
                is_open = self.opened.wait(is_open).unwrap();
            }
        }
        assert!(!has(PANIC), "a panic of the encoder");
        match has(FAIL) {
            true => Err(EmbedError::Compute { reason: "a failure of the encoder".into() }),
            false => Ok(sequences.iter().map(|ids| vec![f64::from(ids[0]), ids.len() as f64]).collect()),
        }
    }

    fn runs_alone(&self) -> bool {
        self.runs_alone
    }
}

pub(super) fn fake() -> (Arc<Fake>, Arc<dyn Encode>) {
    let fake = Arc::new(Fake::default());
    (fake.clone(), fake)
}

/// One that runs a pass at a time.
pub(super) fn fake_alone() -> Arc<dyn Encode> {
    Arc::new(Fake { runs_alone: true, ..Fake::default() })
}

/// `count` sequences of `len` tokens that begin with `first`.
pub(super) fn sequences(count: usize, len: usize, first: u32) -> Vec<Vec<u32>> {
    (0..count).map(|_| [vec![first], vec![0; len - 1]].concat()).collect()
}

pub(super) fn entries(encoder: &Arc<dyn Encode>, sequences: Vec<Vec<u32>>) -> Vec<Entry> {
    let request = Arc::new(Request::new(encoder.clone(), sequences.len()));
    let entry = |(index, ids)| Entry { request: request.clone(), ids, index, queued_at: std::time::Instant::now() };
    sequences.into_iter().enumerate().map(entry).collect()
}

/// First tokens of a pass's sequences.
pub(super) fn firsts(pass: &Pass) -> Vec<u32> {
    pass.entries.iter().map(|entry| entry.ids[0]).collect()
}

/// Waits until `is_so`.
#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came");
        thread::yield_now();
    }
}

fn waiting(batcher: &Batcher, lane: Lane) -> usize {
    batcher.shared.queue().waiting(lane)
}

#[test]
fn a_request_is_served_by_passes_within_the_budget_and_in_order() {
    let (fake, encoder) = fake();
    let batcher = Batcher::start(2).unwrap();
    let wanted: Vec<Vec<u32>> = (0..100).map(|n| vec![n; 1 + n as usize]).collect();
    let vectors = batcher.encode(&encoder, wanted.clone(), Urgency::Bulk).unwrap();
    let expected: Vec<Vec<f64>> = (0..100).map(|n| vec![f64::from(n), f64::from(n + 1)]).collect();
    assert_eq!(vectors, expected);
    let mut seen = 0;
    for pass in fake.passes() {
        let tokens: usize = pass.iter().map(Vec::len).sum();
        assert!(tokens <= super::MAX_PASS_TOKENS, "{tokens}");
        seen += pass.len();
    }
    assert_eq!(seen, 100);
    assert_eq!(batcher.encode(&encoder, vec![vec![7; 5_000]], Urgency::Bulk).unwrap(), [[7.0, 5_000.0]]);
    assert!(batcher.encode(&encoder, Vec::new(), Urgency::Bulk).unwrap().is_empty());
}

#[test]
fn requests_of_many_callers_are_mixed() {
    let (fake, encoder) = fake();
    let batcher = Batcher::start(1).unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| batcher.encode(&encoder, vec![vec![WAIT]], Urgency::Small).unwrap());
        until(|| fake.passes().len() == 1);
        let encode = |n: u32| batcher.encode(&encoder, vec![vec![n, n]], Urgency::Small).unwrap();
        let callers: Vec<_> = (0..8).map(|n| scope.spawn(move || encode(n))).collect();
        until(|| waiting(&batcher, Lane::Interactive) == 8);
        fake.open();
        for (n, caller) in callers.into_iter().enumerate() {
            assert_eq!(caller.join().unwrap(), [[n as f64, 2.0]]);
        }
        first.join().unwrap();
    });
    let passes = fake.passes();
    assert_eq!((passes.len(), passes[1].len()), (2, 8));
}

#[test]
fn a_query_does_not_wait_for_bulk_work() {
    let (fake, encoder) = fake();
    let batcher = Batcher::start(1).unwrap();
    thread::scope(|scope| {
        let bulk = scope.spawn(|| batcher.encode(&encoder, sequences(64, 100, WAIT), Urgency::Bulk).unwrap());
        until(|| fake.passes().len() == 1);
        // The one place is taken, and stays so until the encoder is let go.
        assert_eq!(batcher.encode(&encoder, vec![vec![1, 2]], Urgency::Small).unwrap(), [[1.0, 2.0]]);
        assert_eq!(batcher.encode(&encoder, vec![vec![3]], Urgency::Small).unwrap(), [[3.0, 1.0]]);
        assert!(waiting(&batcher, Lane::Bulk) > 0);
        fake.open();
        assert_eq!(bulk.join().unwrap().len(), 64);
    });
}

#[test]
fn one_requests_fault_is_not_the_others() {
    for bad in [PANIC, FAIL] {
        let (fake, encoder) = fake();
        let batcher = Batcher::start(1).unwrap();
        thread::scope(|scope| {
            let encode = |ids: Vec<u32>| batcher.encode(&encoder, vec![ids], Urgency::Small);
            let first = scope.spawn(move || encode(vec![WAIT]));
            until(|| fake.passes().len() == 1);
            let good = scope.spawn(move || encode(vec![1]));
            until(|| waiting(&batcher, Lane::Interactive) == 1);
            let faulty = scope.spawn(move || encode(vec![bad]));
            until(|| waiting(&batcher, Lane::Interactive) == 2);
            fake.open();
            assert_eq!(good.join().unwrap().unwrap(), [[1.0, 1.0]]);
            let error = faulty.join().unwrap().unwrap_err();
            assert!(matches!(&error, EmbedError::Compute { reason } if reason.contains("of the encoder")), "{error}");
            first.join().unwrap().unwrap();
        });
        assert_eq!(fake.passes().len(), 4);
        assert!(batcher.encode(&encoder, vec![vec![2]], Urgency::Bulk).is_ok());
    }
}

#[test]
fn what_nobody_waits_for_is_not_computed() {
    let (fake, encoder) = fake();
    let batcher = Batcher::start(1).unwrap();
    let cancellation = Cancellation::new();
    thread::scope(|scope| {
        let first = scope.spawn(|| batcher.encode(&encoder, vec![vec![WAIT]], Urgency::Bulk).unwrap());
        until(|| fake.passes().len() == 1);
        let gone = scope
            .spawn(|| cancellation.scope(|| batcher.encode(&encoder, sequences(20, 9, 13), Urgency::Bulk).map(drop)));
        let stays = scope.spawn(|| batcher.encode(&encoder, sequences(2, 9, 14), Urgency::Bulk).unwrap());
        until(|| waiting(&batcher, Lane::Bulk) == 22);
        drop(cancellation.cancel_on_drop());
        assert!(matches!(gone.join().unwrap(), Err(EmbedError::Cancelled)));
        assert_eq!(waiting(&batcher, Lane::Bulk), 2);
        fake.open();
        first.join().unwrap();
        assert_eq!(stays.join().unwrap().len(), 2);
    });
    assert!(fake.passes().iter().flatten().all(|ids| ids[0] != 13));
    let again = cancellation.scope(|| batcher.encode(&encoder, vec![vec![13]], Urgency::Bulk));
    assert!(matches!(again, Err(EmbedError::Cancelled)));
    assert!(batcher.encode(&encoder, vec![vec![15]], Urgency::Bulk).is_ok(), "outside the scope all is as before");
}

#[test]
fn scopes_nest() {
    let (outer, inner) = (Cancellation::new(), Cancellation::new());
    let current = || Cancellation::current().map(|current| current.is_cancelled());
    inner.cancel();
    assert_eq!(current(), None);
    outer.scope(|| {
        assert_eq!(current(), Some(false));
        let caught = std::panic::catch_unwind(|| inner.scope(|| assert_eq!(current(), Some(false))));
        assert!(caught.is_err(), "the inner one is cancelled");
        assert_eq!(current(), Some(false));
    });
    assert_eq!(current(), None);
}

#[test]
fn every_caller_is_answered_under_load() {
    let (fake, encoder) = fake();
    fake.open();
    let batcher = Batcher::start(3).unwrap();
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for caller in 0..16u32 {
            let (batcher, encoder, answered) = (&batcher, &encoder, &answered);
            scope.spawn(move || {
                for round in 0..100u32 {
                    let (count, urgency) = if caller % 4 == 0 { (40, Urgency::Bulk) } else { (1, Urgency::Small) };
                    let first = caller * 1_000 + round;
                    let vectors = batcher.encode(encoder, sequences(count, 20, first), urgency).unwrap();
                    assert_eq!(vectors, vec![vec![f64::from(first), 20.0]; count]);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), 1_600);
}

#[test]
fn a_single_query_is_one_whatever_its_length_and_the_rest_goes_by_size() {
    assert_eq!(Urgency::of(InputKind::Document, 3, 200), Urgency::Small);
    assert_eq!(Urgency::of(InputKind::Document, 3, 300), Urgency::Bulk);
    assert_eq!(Urgency::of(InputKind::Query, 1, 8_192), Urgency::Query);
    assert_eq!(Urgency::of(InputKind::Query, 2, 200), Urgency::Small);
    assert_eq!(Urgency::of(InputKind::Query, 200, 3_000), Urgency::Bulk);
}

#[test]
fn bulk_work_keeps_its_share() {
    let (_, encoder) = fake();
    let mut queue = Queue::new(1);
    let first = queue.submit(entries(&encoder, vec![vec![9]]), Urgency::Bulk, None).unwrap().unwrap();
    queue.submit(entries(&encoder, sequences(5, 512, 0)), Urgency::Bulk, None).unwrap();
    // The extra place takes one at once.
    let extra = queue.submit(entries(&encoder, sequences(100, 256, 1)), Urgency::Small, None).unwrap().unwrap();
    queue.finish(&first, Duration::from_millis(1));
    queue.finish(&extra, Duration::from_millis(1));
    let mut order = Vec::new();
    while let Some(pass) = queue.next() {
        order.push(pass.lane);
        queue.finish(&pass, Duration::from_millis(1));
    }
    let bulk: Vec<usize> = (0..order.len()).filter(|&at| order[at] == Lane::Bulk).collect();
    // 14 interactive passes of 256 tokens are seven times a bulk pass of 512.
    assert_eq!(bulk, [13, 28, 43, 58, 73]);
}

#[test]
fn interactive_work_has_one_place_more() {
    let (_, encoder) = fake();
    let mut queue = Queue::new(1);
    let submit =
        |queue: &mut Queue, urgency| queue.submit(entries(&encoder, sequences(1, 512, 1)), urgency, None).unwrap();
    let bulk = submit(&mut queue, Urgency::Bulk).expect("a place is free");
    let extra = submit(&mut queue, Urgency::Small).expect("the place beside it is free");
    assert!(submit(&mut queue, Urgency::Small).is_none());
    assert!(submit(&mut queue, Urgency::Bulk).is_none() && queue.next().is_none() && !queue.may_start());
    queue.finish(&bulk, Duration::from_millis(1));
    assert!(!queue.may_start(), "the only place is taken by an interactive pass now");
    queue.finish(&extra, Duration::from_millis(1));
    assert_eq!(queue.next().map(|pass| pass.lane), Some(Lane::Interactive));
}

#[test]
fn threads_without_work_help_the_last_pass() {
    let (_, encoder) = fake();
    let mut queue = Queue::new(4);
    let alone = queue.submit(entries(&encoder, sequences(1, 12, 1)), Urgency::Small, None).unwrap().unwrap();
    assert_eq!(alone.helpers, 3);
    assert!(
        queue
            .submit(entries(&encoder, sequences(2, 500, 2)), Urgency::Bulk, None)
            .unwrap()
            .is_some_and(|p| p.helpers == 0)
    );
    assert_eq!(queue.next().unwrap().helpers, 1, "nothing waits, and one place is free");
}

#[test]
fn few_tokens_are_shared_among_free_places() {
    let (_, encoder) = fake();
    let mut queue = Queue::new(4);
    let first = queue.submit(entries(&encoder, sequences(16, 16, 1)), Urgency::Bulk, None).unwrap().unwrap();
    let sizes: Vec<usize> = std::iter::from_fn(|| queue.next()).map(|pass| pass.entries.len()).collect();
    assert_eq!((first.entries.len(), sizes), (4, vec![4, 4, 4]));
    let mut queue = Queue::new(4);
    let first = queue.submit(entries(&encoder, sequences(3, 10, 1)), Urgency::Small, None).unwrap().unwrap();
    assert_eq!(first.entries.len(), 3, "too few tokens to be shared");
}

#[test]
fn a_full_lane_says_when_to_come_again_and_leaves_the_other_open() {
    let (_, encoder) = fake();
    let mut queue = Queue::new(2);
    // A measured speed: many passes of 2,000 tokens a second by both places.
    for urgency in [Urgency::Small, Urgency::Bulk].repeat(100) {
        let pass = queue.submit(entries(&encoder, vec![vec![0; 500]]), urgency, None).unwrap().unwrap();
        assert_eq!(pass.helpers, 1);
        queue.finish(&pass, Duration::from_millis(250));
    }
    // A request of any size is taken where nobody waits; two of its passes begin at once.
    let taken = queue.submit(entries(&encoder, sequences(2_200, 500, 1)), Urgency::Bulk, None).unwrap();
    assert!(taken.is_some() && queue.next().is_some());
    let error =
        queue.submit(entries(&encoder, sequences(1, 500, 1)), Urgency::Bulk, None).err().expect("the lane is full");
    let EmbedError::Overloaded { waiting_tokens, retry_after } = error else { panic!("{error}") };
    assert_eq!(waiting_tokens, 1_099_000);
    // 1,099,000 tokens at 2 x 1,000 a second would take nine minutes; nobody is sent away for that long.
    assert_eq!(retry_after, Duration::from_secs(120));
    assert!(queue.submit(entries(&encoder, sequences(1, 10, 2)), Urgency::Small, None).is_ok());
    let error = queue.submit(entries(&encoder, sequences(3_300, 10, 2)), Urgency::Small, None);
    assert!(error.is_ok(), "the lane was empty");
    let error = queue.submit(entries(&encoder, sequences(1, 10, 2)), Urgency::Small, None).err().unwrap();
    let EmbedError::Overloaded { retry_after, .. } = error else { panic!("{error}") };
    assert!((retry_after.as_secs_f64() - 33_000.0 / 2_000.0).abs() < 0.5, "{retry_after:?}");
}

#[test]
fn who_cannot_wait_so_long_is_refused_once_the_speed_is_known() {
    let (_, encoder) = fake();
    let mut queue = Queue::new(1);
    let submit =
        |queue: &mut Queue, patience| queue.submit(entries(&encoder, sequences(1, 500, 1)), Urgency::Bulk, patience);
    let short = Some(Duration::from_millis(900));
    let running = submit(&mut queue, None).unwrap().unwrap();
    assert!(submit(&mut queue, None).is_ok() && submit(&mut queue, short).is_ok(), "nothing is known yet");
    queue.finish(&running, Duration::from_millis(500));
    while let Some(pass) = queue.next() {
        queue.finish(&pass, Duration::from_millis(500));
    }
    // A measured speed: passes of 1,000 tokens a second.
    for _ in 0..50 {
        let pass = submit(&mut queue, short).unwrap().unwrap();
        queue.finish(&pass, Duration::from_millis(500));
    }
    let _running = submit(&mut queue, Some(Duration::ZERO)).unwrap().expect("where nobody waits, everybody may try");
    assert!(submit(&mut queue, short).is_ok());
    let error = submit(&mut queue, short).err().expect("a second is longer");
    assert!(matches!(error, EmbedError::Overloaded { waiting_tokens: 500, .. }), "{error}");
    assert!(submit(&mut queue, Some(Duration::from_millis(1_100))).is_ok());
    assert!(submit(&mut queue, None).is_ok(), "writes wait");
}

#[test]
fn slow_passes_of_few_tokens_say_nothing_of_full_ones() {
    let (_, encoder) = fake();
    let mut queue = Queue::new(1);
    let mut pass = |urgency, tokens, millis| {
        let pass = queue.submit(entries(&encoder, sequences(1, tokens, 1)), urgency, None).unwrap().unwrap();
        queue.finish(&pass, Duration::from_millis(millis));
    };
    // A full pass of 1,000 tokens a second, and beside each a query and a small one of its own lane of 250.
    for _ in 0..20 {
        pass(Urgency::Bulk, 500, 500);
        pass(Urgency::Small, 5, 20);
        pass(Urgency::Bulk, 5, 20);
    }
    let mut submit = |tokens: usize, seconds| {
        let patience = Some(Duration::from_secs(seconds));
        queue.submit(entries(&encoder, sequences(tokens / 500, 500, 1)), Urgency::Bulk, patience)
    };
    assert!(submit(20_000, 1).is_ok(), "where nobody waits, everybody may try");
    // One pass of 500 runs.
    assert!(submit(5_000, 26).is_ok());
    let error = submit(5_000, 26).err().expect("29,500 tokens take 30 seconds");
    let EmbedError::Overloaded { retry_after, .. } = error else { panic!("{error}") };
    assert!((retry_after.as_secs_f64() - 25.4).abs() < 0.5, "{retry_after:?}");
}

#[test]
fn a_pass_is_of_one_model_and_keeps_the_order() {
    let (_, one) = fake();
    let (_, other) = fake();
    let mut queue = Queue::new(1);
    let running = queue.submit(entries(&one, vec![vec![0]]), Urgency::Bulk, None).unwrap().unwrap();
    for n in 1..=6 {
        queue.submit(entries(if n % 2 == 1 { &one } else { &other }, vec![vec![n]]), Urgency::Bulk, None).unwrap();
    }
    queue.finish(&running, Duration::from_millis(1));
    let pass = queue.next().unwrap();
    assert_eq!(firsts(&pass), [1, 3, 5]);
    queue.finish(&pass, Duration::from_millis(1));
    assert_eq!(firsts(&queue.next().unwrap()), [2, 4, 6]);
    assert_eq!(queue.waiting(Lane::Bulk), 0);
}
