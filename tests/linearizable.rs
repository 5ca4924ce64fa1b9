//! Single documents over HTTP are registers: there is one order of all writes and reads that fits what every client saw
//! and when, also across kills of the server.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::process::ServerProcess;
use crate::support::{Random, number_from};

const CLIENTS: u64 = 6;
const KEYS: u64 = 4;
/// Operations of a round that must have an answer.
const LEAST_ANSWERED: u64 = 20;

/// What a register holds; `None` where there is no document.
type Held = Option<u64>;

/// Something a client did to one key.
#[derive(Clone, Debug)]
struct Operation {
    key: u64,
    action: Action,
    began: Instant,
    /// `None` where no answer came: it may have taken effect, or may still.
    ended: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Write(Held),
    Read(Held),
}

/// Whether some order of the operations fits their times and what was read.
///
/// Wing & Gong 1993 in the form of Lowe 2017: a configuration is what the register holds and which operations under way
/// have taken effect; each end of an operation keeps the configurations in which it has.
fn is_linearizable(operations: &[Operation]) -> bool {
    let mut events: Vec<(Instant, bool, usize)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        events.push((operation.began, false, number));
        events.extend(operation.ended.map(|ended| (ended, true, number)));
    }
    events.sort();
    let mut under_way = BTreeSet::new();
    let mut configurations: HashSet<(Held, BTreeSet<usize>)> = HashSet::from([(None, BTreeSet::new())]);
    for (_, is_end, number) in events {
        if !is_end {
            under_way.insert(number);
            continue;
        }
        let mut reached = HashSet::new();
        let mut waiting: Vec<_> = configurations.into_iter().collect();
        while let Some(configuration) = waiting.pop() {
            if !reached.insert(configuration.clone()) {
                continue;
            }
            let (held, done) = configuration;
            for &next in under_way.difference(&done) {
                let held = match operations[next].action {
                    Action::Write(value) => value,
                    Action::Read(value) if value == held => held,
                    Action::Read(_) => continue,
                };
                let mut done = done.clone();
                done.insert(next);
                waiting.push((held, done));
            }
        }
        under_way.remove(&number);
        let ended = |(held, mut done): (Held, BTreeSet<usize>)| done.remove(&number).then_some((held, done));
        configurations = reached.into_iter().filter_map(ended).collect();
        if configurations.is_empty() {
            return false;
        }
    }
    true
}

/// Sends requests until `until`, or until the server is gone.
fn act(url: &str, seed: u64, until: Instant) -> Vec<Operation> {
    let agent = ureq::AgentBuilder::new().timeout(Duration::from_secs(20)).build();
    let mut random = Random(seed);
    let mut done = Vec::new();
    let documents = format!("{url}/v1/collections/registers/documents");
    while Instant::now() < until {
        let key = random.below(KEYS);
        let id = format!("k{key}");
        let version = random.next() >> 16;
        let began = Instant::now();
        let (action, answer) = match random.below(5) {
            0 => (Action::Write(None), agent.post(&format!("{documents}/delete")).send_json(json!({"ids": [id]}))),
            1 | 2 => {
                let document = json!({"id": id, "vector": [1, 2, 3], "metadata": {"version": version}});
                let answer = agent.post(&documents).send_json(json!({"documents": [document]}));
                (Action::Write(Some(version)), answer)
            }
            _ => (Action::Read(None), agent.get(&format!("{documents}/{id}")).call()),
        };
        let is_read = matches!(action, Action::Read(_));
        let (action, ended) = match answer {
            Ok(answer) if is_read => {
                let found: Value = answer.into_json().unwrap();
                (Action::Read(found["metadata"]["version"].as_u64()), Some(Instant::now()))
            }
            Ok(_) => (action, Some(Instant::now())),
            Err(ureq::Error::Status(404, _)) if is_read => (action, Some(Instant::now())),
            Err(ureq::Error::Status(status, answer)) => panic!("{status} {}", answer.into_string().unwrap_or_default()),
            // A read that nobody answered says nothing.
            Err(ureq::Error::Transport(_)) if is_read => return done,
            Err(ureq::Error::Transport(_)) => (action, None),
        };
        let is_last = ended.is_none();
        done.push(Operation { key, action, began, ended });
        if is_last {
            return done;
        }
    }
    done
}

#[test]
fn single_documents_are_linearizable_over_http_and_kills() {
    let directory = tempfile::tempdir().unwrap();
    let rounds = number_from("PANNIER_TEST_LINEAR_ROUNDS", 3);
    let round_ms = number_from("PANNIER_TEST_LINEAR_MS", 500);
    let mut server = ServerProcess::start(directory.path());
    let create = format!("{}/v1/collections/registers", server.url);
    ureq::put(&create).send_json(json!({"dim": 3})).unwrap();
    let mut operations = Vec::new();
    for round in 0..rounds {
        let until = Instant::now() + Duration::from_millis(round_ms);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let url = server.url.clone();
                // Half of the rounds end with a kill while the clients write.
                let grace = Duration::from_millis(if round % 2 == 0 { 0 } else { 400 });
                std::thread::spawn(move || act(&url, round << 8 | client, until + grace))
            })
            .collect();
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        if round % 2 == 1 {
            server.kill();
            server = ServerProcess::start(directory.path());
        }
        operations.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
    }
    // Of a server that answers nothing everything would be true.
    let answered = operations.iter().filter(|operation| operation.ended.is_some()).count() as u64;
    let found = operations.iter().filter(|operation| matches!(operation.action, Action::Read(Some(_)))).count();
    assert!(answered >= LEAST_ANSWERED * rounds && found > 0, "{answered} answers in {rounds} rounds, {found} finds");
    for key in 0..KEYS {
        let of_key: Vec<_> = operations.iter().filter(|operation| operation.key == key).cloned().collect();
        assert!(is_linearizable(&of_key), "no order fits what was seen of k{key}: {of_key:?}");
    }
    println!("{} operations on {KEYS} keys are linearizable", operations.len());
}

#[test]
fn the_checker_refuses_what_no_register_does() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let operation = |action, began, ended: u64| Operation { key: 0, action, began: at(began), ended: Some(at(ended)) };
    let write = |value, began, ended| operation(Action::Write(value), began, ended);
    let read = |value, began, ended| operation(Action::Read(value), began, ended);
    assert!(is_linearizable(&[write(Some(1), 0, 10), read(Some(1), 5, 8), read(Some(1), 20, 21)]));
    assert!(is_linearizable(&[write(Some(1), 0, 10), write(Some(2), 1, 9), read(Some(1), 20, 21)]));
    assert!(!is_linearizable(&[write(Some(1), 0, 10), read(None, 20, 21)]), "a lost write");
    assert!(!is_linearizable(&[write(Some(1), 0, 1), write(None, 2, 3), read(Some(1), 4, 5)]), "a risen document");
    assert!(!is_linearizable(&[write(Some(1), 0, 30), read(Some(1), 5, 8), read(None, 10, 12)]), "seen, then unseen");
    let lost = Operation { ended: None, ..write(Some(7), 0, 0) };
    assert!(is_linearizable(&[lost.clone(), read(None, 5, 6), read(Some(7), 7, 8)]));
    assert!(is_linearizable(&[lost, read(None, 5, 6)]));
}
