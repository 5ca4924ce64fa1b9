//! A process is killed, the next one goes on from what it sees, and then the power is cut. What the first left without
//! a sync is there for the second, and must not be gone after the cut where the second went by it.

use std::path::Path;
use std::sync::Arc;

use super::check::{allowed, check, read, text};
use super::disk::{Contents, Disk};
use super::jobs::{check_all, fast_directory};
use super::power_loss::{sizes, with_rubbish, without_index};
use super::random::Random;
use super::workload::{self, Run, options};
use crate::Database;
use crate::storage::fault::{Event, History};

/// Requests of each client to the second process.
const REQUESTS: usize = 4;
/// States taken of one second process.
const CUTS: usize = 4;
/// Stands behind the opening of the second process, and what it told its clients.
const OPENED: u64 = u64::MAX;

/// The disk as the first process left it, and how far each client had got.
struct Kill {
    run: Arc<Run>,
    disk: Disk,
    acknowledged: Vec<usize>,
    seed: u64,
    event: usize,
}

#[test]
fn what_a_killed_process_left_unsynced_outlives_a_power_cut_once_the_next_one_went_by_it() {
    let (states, first_seed) = sizes();
    let wanted = states.div_ceil(2 * CUTS);
    let mut made = 0;
    let make = |send: &dyn Fn(Kill) -> bool| {
        for seed in first_seed.. {
            let before = made;
            made += kill_everywhere(seed, wanted - made, send);
            if made >= wanted || made == before {
                break;
            }
        }
    };
    check_all(make, start_again);
    println!("{made} processes were killed, and power was cut {CUTS} times in what followed on each");
    assert!(made >= wanted);
}

/// Runs one workload and sends the disk as it is after events of it, mostly those that change a name. Returns how many
/// were sent.
fn kill_everywhere(seed: u64, most: usize, send: &dyn Fn(Kill) -> bool) -> usize {
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
        let names = matches!(happened, Event::Rename { .. } | Event::CreateDir { .. } | Event::RemoveFile { .. });
        if sent < most && random.chance(if names { 2 } else { 30 }) {
            let (run, disk, acknowledged) = (run.clone(), disk.clone(), acknowledged.clone());
            if !send(Kill { run, disk, acknowledged, seed, event }) {
                return sent;
            }
            sent += 1;
        }
    }
    sent
}

/// Opens the store as the killed process left it, writes, and cuts the power at some points of that.
fn start_again(path: &Path, kill: Kill) -> Result<(), String> {
    let Kill { run, disk, acknowledged, seed, event } = kill;
    let mut random = Random(seed << 32 ^ event as u64);
    // sled's files do not pass our own layer: the index counts as lost.
    let mut disk = disk.moved_to(path).without("meta.sled");
    disk.live().put(path);
    let of_first = allowed(&run.clients, &acknowledged);
    let told = |reason: String| {
        let happened = &run.events[event.saturating_sub(6)..=event];
        format!("seed {seed}, killed after event {event}: {reason}\n{happened:?}")
    };
    let history = History::record(path);
    let database = Database::open_with(path, options()).map_err(|error| told(text(error)))?;
    let mut clients = Vec::new();
    for (client, allowed) in run.clients.iter().zip(&of_first) {
        let found = read(&database, &client.name).map_err(told)?;
        if !allowed.iter().any(|allowed| allowed.as_deref() == found.as_ref()) {
            return Err(told(format!("{} is {found:?}, allowed are {allowed:?}", client.name)));
        }
        clients.push(client.going_on(found, random.next()));
    }
    history.mark(OPENED);
    workload::send(&database, &history, &mut clients, REQUESTS);
    database.close();
    let events = history.events();
    drop(history);
    let mut cuts: Vec<_> = (0..CUTS).map(|_| random.below(events.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut applied, mut is_open, mut acknowledged) = (0, false, vec![0; clients.len()]);
    for cut in cuts {
        for happened in &events[applied..cut] {
            disk.apply(happened);
            match happened {
                Event::Mark { number: OPENED } => is_open = true,
                Event::Mark { number } => acknowledged[(number >> 32) as usize] = *number as u32 as usize,
                _ => {}
            }
        }
        applied = cut;
        let contents = with_rubbish(without_index(disk.cut(&mut random)), &mut random);
        contents.put(path);
        let allowed = if is_open { allowed(&clients, &acknowledged) } else { of_first.clone() };
        check(path, &clients, &allowed, random.chance(3)).map_err(|reason| {
            let files: Vec<_> = contents.files.iter().map(|(path, bytes)| (path, bytes.len())).collect();
            let happened = &events[cut.saturating_sub(6)..cut];
            told(format!("cut after event {cut} of the next process: {reason}\n{files:?}\n{happened:?}"))
        })?;
    }
    Ok(())
}
