//! Who goes first in the queue, what those behind them keep, and models that run one pass at a time.

use std::sync::Arc;
use std::time::Duration;

use super::queue::{Pass, Queue};
use super::tests::{entries, fake, fake_alone, firsts, sequences};
use super::{EmbedError, Encode, Lane, Urgency};

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

/// Queues `count` sequences of `len` tokens that begin with `first`, as one request, behind what waits already.
#[track_caller]
fn wait(
    queue: &mut Queue,
    encoder: &Arc<dyn Encode>,
    [count, len, first]: [usize; 3],
    urgency: Urgency,
    patience: Option<Duration>,
) {
    let pass = queue.submit(entries(encoder, sequences(count, len, first as u32)), urgency, patience).unwrap();
    assert!(pass.is_none(), "it need not wait");
}

/// A queue of one place whose place, and that of interactive passes beside it, are taken.
fn busy(encoder: &Arc<dyn Encode>) -> (Queue, [Pass; 2]) {
    let mut queue = Queue::new(1);
    let passes = [Urgency::Bulk, Urgency::Small]
        .map(|urgency| queue.submit(entries(encoder, vec![vec![0]]), urgency, None).unwrap().expect("a place is free"));
    (queue, passes)
}

/// The passes that come when those that run have ended, each before the next one begins.
fn drain(queue: &mut Queue, running: [Pass; 2]) -> Vec<Pass> {
    running.iter().for_each(|pass| queue.finish(pass, MILLISECOND));
    let mut passes = Vec::new();
    while let Some(pass) = queue.next() {
        queue.finish(&pass, MILLISECOND);
        passes.push(pass);
    }
    passes
}

#[test]
fn a_query_goes_before_small_writes_and_alone() {
    let (_, encoder) = fake();
    let (mut queue, running) = busy(&encoder);
    wait(&mut queue, &encoder, [40, 250, 1], Urgency::Small, None);
    wait(&mut queue, &encoder, [1, 10, 2], Urgency::Small, MINUTE);
    wait(&mut queue, &encoder, [1, 10, 3], Urgency::Query, MINUTE);
    let passes = drain(&mut queue, running);
    assert_eq!(firsts(&passes[0]), [3]);
    // Who will go at a deadline is next, with nobody else who fits.
    assert_eq!(firsts(&passes[1]), [2]);
    assert!(passes[2..].iter().all(|pass| firsts(pass) == [1]) && passes.len() == 42);
}

#[test]
fn small_writes_keep_a_share_beside_queries() {
    let (_, encoder) = fake();
    let (mut queue, running) = busy(&encoder);
    wait(&mut queue, &encoder, [4, 256, 1], Urgency::Small, None);
    (0..60).for_each(|_| wait(&mut queue, &encoder, [1, 256, 2], Urgency::Query, MINUTE));
    let passes = drain(&mut queue, running);
    let writes: Vec<usize> = (0..passes.len()).filter(|&at| firsts(&passes[at]) == [1]).collect();
    assert_eq!(writes, [7, 15, 23, 31]);
}

#[test]
fn bulk_work_with_a_deadline_goes_before_writes_which_fill_what_is_left_and_keep_a_share() {
    let (_, encoder) = fake();
    let (mut queue, running) = busy(&encoder);
    wait(&mut queue, &encoder, [10, 100, 1], Urgency::Bulk, None);
    wait(&mut queue, &encoder, [4, 100, 2], Urgency::Bulk, MINUTE);
    assert_eq!(drain(&mut queue, running).iter().map(firsts).next(), Some(vec![2, 2, 2, 2, 1]));

    let (mut queue, running) = busy(&encoder);
    wait(&mut queue, &encoder, [3, 512, 1], Urgency::Bulk, None);
    wait(&mut queue, &encoder, [30, 512, 2], Urgency::Bulk, MINUTE);
    let passes = drain(&mut queue, running);
    let writes: Vec<usize> = (0..passes.len()).filter(|&at| firsts(&passes[at]) == [1]).collect();
    assert_eq!(writes, [7, 15, 23]);
}

#[test]
fn what_is_served_later_refuses_nobody() {
    let (_, encoder) = fake();
    let mut queue = Queue::new(1);
    let submit = |queue: &mut Queue, urgency, count, patience| {
        queue.submit(entries(&encoder, sequences(count, 500, 1)), urgency, patience)
    };
    // A measured speed: passes of 1,000 tokens a second.
    for urgency in [Urgency::Small, Urgency::Bulk].repeat(50) {
        let pass = submit(&mut queue, urgency, 1, None).unwrap().unwrap();
        queue.finish(&pass, Duration::from_millis(500));
    }
    let short = Some(Duration::from_millis(900));
    let _running = [Urgency::Bulk, Urgency::Small].map(|urgency| submit(&mut queue, urgency, 1, None).unwrap());
    for (urgency, before, count) in [(Urgency::Query, Urgency::Small, 66), (Urgency::Bulk, Urgency::Bulk, 2_098)] {
        submit(&mut queue, before, count, None).unwrap();
        assert!(submit(&mut queue, before, 1, None).is_err(), "the lane is full of writes");
        assert!(submit(&mut queue, urgency, 1, short).is_ok());
        let error = submit(&mut queue, urgency, 1, short).err().expect("a second is longer");
        let EmbedError::Overloaded { waiting_tokens, .. } = error else { panic!("{error}") };
        assert_eq!(waiting_tokens, 500);
    }
}

#[test]
fn of_a_model_that_runs_one_pass_at_a_time_one_runs_and_a_query_is_next() {
    let (alone, (_, other)) = (fake_alone(), fake());
    let mut queue = Queue::new(4);
    let submit = |queue: &mut Queue, encoder: &Arc<dyn Encode>, sequences, urgency| {
        queue.submit(entries(encoder, sequences), urgency, None).unwrap()
    };
    let first = submit(&mut queue, &alone, sequences(60, 16, 1), Urgency::Bulk).expect("a place is free");
    assert_eq!(first.entries.len(), 32, "shares would only wait for each other");
    assert!(!queue.may_start() && queue.next().is_none());
    assert!(submit(&mut queue, &alone, vec![vec![2]], Urgency::Query).is_none());
    // The places are others'.
    let others = submit(&mut queue, &other, sequences(3, 512, 3), Urgency::Bulk).expect("a place is free");
    assert_eq!((others.lane, queue.next().map(|pass| firsts(&pass))), (Lane::Bulk, Some(vec![3])));
    let query = submit(&mut queue, &other, vec![vec![4]], Urgency::Query);
    assert_eq!(query.map(|pass| firsts(&pass)), Some(vec![4]));
    queue.finish(&first, MILLISECOND);
    let query = queue.next().expect("it runs none now");
    assert_eq!(firsts(&query), [2]);
    queue.finish(&query, MILLISECOND);
    let left: Vec<Vec<u32>> = std::iter::from_fn(|| queue.next()).map(|pass| firsts(&pass)).collect();
    assert_eq!(left, [vec![1; 28]]);
}

#[test]
fn what_waits_for_a_pass_of_its_model_is_owed_nothing_by_others() {
    for places in [1, 2] {
        let (alone, (_, other)) = (fake_alone(), fake());
        let mut queue = Queue::new(places);
        let submit = |queue: &mut Queue, encoder: &Arc<dyn Encode>, sequences, urgency| {
            queue.submit(entries(encoder, sequences), urgency, None).unwrap()
        };
        let mut running = submit(&mut queue, &alone, sequences(8, 512, 1), Urgency::Bulk).expect("a place is free");
        for _ in 0..6 {
            assert!(submit(&mut queue, &alone, vec![vec![2]], Urgency::Small).is_none());
            // Seven times the tokens of a bulk pass, and more.
            for _ in 0..16 {
                let pass = submit(&mut queue, &other, sequences(1, 256, 3), Urgency::Query).expect("a place is free");
                queue.finish(&pass, MILLISECOND);
            }
            assert!(submit(&mut queue, &alone, vec![vec![4]], Urgency::Query).is_none());
            queue.finish(&running, MILLISECOND);
            for first in [4, 2] {
                let pass = queue.next().expect("it runs none now");
                assert_eq!(firsts(&pass), [first], "{places} places");
                queue.finish(&pass, MILLISECOND);
            }
            running = queue.next().expect("bulk work waits");
            assert_eq!(firsts(&running), [1]);
        }
    }
}
