//! Power cuts at every point of recorded histories: whatever the disk kept, every acknowledged request is there whole,
//! no deleted document is back, and the store goes on.
//!
//! `PANNIER_TEST_POWER_STATES` is the number of states; docs/operations/durability.md has the figures of the large run.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use super::check::{allowed, check};
use super::disk::{Contents, Disk};
use super::random::Random;
use super::workload::{self, Run, options};
use crate::Database;
use crate::storage::fault::{Event, History};

const DEFAULT_STATES: usize = 1_000;
/// Checking waits for disks and threads more than it computes.
const WORKERS: usize = 12;
/// States taken after each event of a history.
const STATES_PER_EVENT: usize = 3;

/// A state to be checked, and how far each client had got.
struct Job {
    run: Arc<Run>,
    contents: Contents,
    acknowledged: Vec<usize>,
    seed: u64,
    event: usize,
}

#[test]
fn every_state_that_a_power_cut_may_leave_holds_what_was_acknowledged() {
    let wanted = std::env::var("PANNIER_TEST_POWER_STATES").map_or(DEFAULT_STATES, |n| n.parse().unwrap());
    let first_seed = std::env::var("PANNIER_TEST_SEED").map_or(1, |n| n.parse().unwrap());
    let (sender, jobs) = sync_channel(2 * WORKERS);
    let (jobs, failure, twice) = (Mutex::new(jobs), Mutex::new(None), AtomicUsize::new(0));
    let mut made = 0;
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(&jobs, &failure, &twice));
        }
        let mut seen = HashSet::new();
        for seed in first_seed.. {
            made += cut_everywhere(seed, wanted - made, &mut seen, &|job| sender.send(job).is_ok());
            if made >= wanted || failure.lock().unwrap().is_some() {
                break;
            }
        }
        drop(sender);
    });
    let failure: Option<String> = failure.into_inner().unwrap();
    assert!(failure.is_none(), "{}", failure.unwrap());
    println!("{made} states, all different; power was cut again while recovering from {}", twice.into_inner());
    assert!(made >= wanted);
}

/// Runs one workload and sends states of it until there are `most`. Returns how many were sent.
fn cut_everywhere(seed: u64, most: usize, seen: &mut HashSet<u64>, send: &dyn Fn(Job) -> bool) -> usize {
    let root = fast_directory();
    let run = Arc::new(workload::run(root.path(), seed));
    let mut disk = Disk::new(root.path(), &Contents::default());
    let mut random = Random(seed);
    let mut acknowledged = vec![0; run.clients.len()];
    let mut sent = 0;
    for (event, happened) in run.events.iter().enumerate() {
        disk.apply(happened);
        if let Event::Mark { number } = happened {
            acknowledged[(number >> 32) as usize] = *number as u32 as usize;
        }
        for _ in 0..STATES_PER_EVENT {
            let contents = without_index(disk.cut(&mut random), &mut random);
            let mut hasher = DefaultHasher::new();
            (seed, &contents, &acknowledged).hash(&mut hasher);
            if sent >= most || !seen.insert(hasher.finish()) {
                continue;
            }
            let job = Job { run: run.clone(), contents, acknowledged: acknowledged.clone(), seed, event };
            if !send(job) {
                return sent;
            }
            sent += 1;
        }
    }
    sent
}

/// sled's files do not pass our own layer. After a power cut the index is not trusted, whatever it holds.
fn without_index(mut contents: Contents, random: &mut Random) -> Contents {
    contents.files.retain(|path, _| !path.starts_with("meta.sled"));
    if random.chance(2) && contents.dirs.contains(Path::new("meta.sled")) {
        let rubbish = (0..random.below(400)).map(|_| random.next() as u8).collect::<Vec<_>>();
        contents.dirs.insert("meta.sled/db".into());
        contents.files.insert("meta.sled/db/db".into(), rubbish.clone());
        contents.files.insert("meta.sled/CHECK".into(), rubbish);
    }
    contents
}

fn work(jobs: &Mutex<Receiver<Job>>, failure: &Mutex<Option<String>>, twice: &AtomicUsize) {
    let root = fast_directory();
    let path = root.path().join("data");
    loop {
        let Ok(job) = jobs.lock().unwrap().recv() else { return };
        if failure.lock().unwrap().is_some() {
            continue;
        }
        let mut random = Random(job.seed << 32 ^ job.event as u64);
        let allowed = allowed(&job.run.clients, &job.acknowledged);
        let mut contents = job.contents.clone();
        let cut_again = random.chance(6);
        if cut_again {
            contents = cut_while_recovering(&path, &contents, &mut random);
            twice.fetch_add(1, Ordering::Relaxed);
        }
        contents.put(&path);
        let checked = check(&path, &job.run.clients, &allowed, random.chance(3));
        if let Err(reason) = checked {
            let files: Vec<_> = contents.files.iter().map(|(path, bytes)| (path, bytes.len())).collect();
            let Job { seed, event, .. } = job;
            let happened = &job.run.events[event.saturating_sub(6)..=event];
            let text = format!("seed {seed}, event {event}, again {cut_again}: {reason}\n{files:?}\n{happened:?}");
            failure.lock().unwrap().get_or_insert(text);
        }
    }
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
    without_index(disk.cut(random), random)
}

/// In memory, where there is such a place.
fn fast_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
