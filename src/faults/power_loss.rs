//! Power cuts at every point of recorded histories: whatever the disk kept, every acknowledged request is there whole,
//! no deleted document is back, and the store goes on.
//!
//! `PANNIER_TEST_POWER_STATES` is the number of states; docs/operations/durability.md has the figures of the large run.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::check::{allowed, check};
use super::disk::{Contents, Disk};
use super::jobs::{check_all, fast_directory};
use super::random::Random;
use super::workload::{self, Run, options};
use crate::Database;
use crate::storage::fault::{Event, History};

const DEFAULT_STATES: usize = 1_000;
/// Most states taken of one history, spread over all of its events: a run plays many histories.
const STATES_PER_HISTORY: usize = 100;
/// Most cuts after one event.
const CUTS_PER_EVENT: usize = 3;

/// A state to be checked, and how far each client had got.
struct Job {
    run: Arc<Run>,
    contents: Contents,
    acknowledged: Vec<usize>,
    seed: u64,
    event: usize,
}

/// How many states are wanted, and the seed of the first history.
pub(super) fn sizes() -> (usize, u64) {
    let number = |name| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let states = number("PANNIER_TEST_POWER_STATES").map_or(DEFAULT_STATES, |n| n as usize);
    (states, number("PANNIER_TEST_SEED").unwrap_or(1))
}

#[test]
fn every_state_that_a_power_cut_may_leave_holds_what_was_acknowledged() {
    let (wanted, first_seed) = sizes();
    let (mut made, twice) = (0, AtomicUsize::new(0));
    let make = |send: &dyn Fn(Job) -> bool| {
        let mut seen = HashSet::new();
        for seed in first_seed.. {
            let before = made;
            made += cut_everywhere(seed, wanted - made, &mut seen, send);
            if made >= wanted || made == before {
                break;
            }
        }
    };
    check_all(make, |path, job| check_one(path, job, &twice));
    println!("{made} states, all different; power was cut again while recovering from {}", twice.into_inner());
    assert!(made >= wanted);
}

/// Runs one workload and sends states of it, of all parts of its history, until there are `most`. Returns how many were
/// sent.
fn cut_everywhere(seed: u64, most: usize, seen: &mut HashSet<u64>, send: &dyn Fn(Job) -> bool) -> usize {
    let root = fast_directory();
    let run = Arc::new(workload::run(root.path(), seed));
    let mut disk = Disk::new(root.path(), &Contents::default());
    let mut random = Random(seed);
    let mut acknowledged = vec![0; run.clients.len()];
    let (mut sent, most) = (0, most.min(STATES_PER_HISTORY));
    for (event, happened) in run.events.iter().enumerate() {
        disk.apply(happened);
        if let Event::Mark { number } = happened {
            acknowledged[(number >> 32) as usize] = *number as u32 as usize;
        }
        // One that was met before is made up for after a later event.
        let due = (event + 1) * most / run.events.len();
        for _ in 0..CUTS_PER_EVENT {
            if sent >= due {
                break;
            }
            let contents = without_index(disk.cut(&mut random));
            let mut hasher = DefaultHasher::new();
            (seed, &contents, &acknowledged).hash(&mut hasher);
            if !seen.insert(hasher.finish()) {
                continue;
            }
            let contents = with_rubbish(contents, &mut random);
            let job = Job { run: run.clone(), contents, acknowledged: acknowledged.clone(), seed, event };
            if !send(job) {
                return sent;
            }
            sent += 1;
        }
    }
    sent
}

/// sled's files do not pass our own layer.
pub(super) fn without_index(mut contents: Contents) -> Contents {
    contents.files.retain(|path, _| !path.starts_with("meta.sled"));
    contents
}

/// After a power cut the index is not trusted, whatever it holds.
pub(super) fn with_rubbish(mut contents: Contents, random: &mut Random) -> Contents {
    if random.chance(2) && contents.dirs.contains(Path::new("meta.sled")) {
        let rubbish = (0..random.below(400)).map(|_| random.next() as u8).collect::<Vec<_>>();
        contents.dirs.insert("meta.sled/db".into());
        contents.files.insert("meta.sled/db/db".into(), rubbish.clone());
        contents.files.insert("meta.sled/CHECK".into(), rubbish);
    }
    contents
}

fn check_one(path: &Path, job: Job, twice: &AtomicUsize) -> Result<(), String> {
    let mut random = Random(job.seed << 32 ^ job.event as u64);
    let allowed = allowed(&job.run.clients, &job.acknowledged);
    let mut contents = job.contents;
    let cut_again = random.chance(6);
    if cut_again {
        contents = cut_while_recovering(path, &contents, &mut random);
        twice.fetch_add(1, Ordering::Relaxed);
    }
    contents.put(path);
    check(path, &job.run.clients, &allowed, random.chance(3)).map_err(|reason| {
        let files: Vec<_> = contents.files.iter().map(|(path, bytes)| (path, bytes.len())).collect();
        let (seed, event) = (job.seed, job.event);
        let happened = &job.run.events[event.saturating_sub(6)..=event];
        format!("seed {seed}, event {event}, again {cut_again}: {reason}\n{files:?}\n{happened:?}")
    })
}

/// Opens a store on `contents`, and cuts the power at some point of that.
fn cut_while_recovering(path: &Path, contents: &Contents, random: &mut Random) -> Contents {
    contents.put(path);
    let history = History::record(path);
    // What cannot be opened is found out by the check that follows.
    drop(Database::open_with(path, options()));
    let events = history.events();
    drop(history);
    let mut disk = Disk::new(path, contents);
    events[..random.below(events.len() + 1)].iter().for_each(|event| disk.apply(event));
    with_rubbish(without_index(disk.cut(random)), random)
}
