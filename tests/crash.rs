//! A real server, killed under load, again and again: every acknowledged write is there, no deleted one returns.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::process::ServerProcess;
use crate::support::{Random, number_from};

/// Kill and restart so often; `PANNIER_TEST_CYCLES` for more.
const CYCLES: u64 = 12;
/// A server lives at most so long; `PANNIER_TEST_CYCLE_MS`.
const CYCLE_MS: u64 = 450;
/// Clients, each with ids of its own, so that each knows the order of its writes.
const CLIENTS: u64 = 6;
const IDS_PER_CLIENT: u64 = 60;

/// What may stand at an id: the state last acknowledged, and the one asked for since, if its answer never came.
#[derive(Clone, Debug, Default)]
struct Expected {
    acknowledged: Option<u64>,
    in_flight: Option<Option<u64>>,
}

type Ledger = BTreeMap<String, Expected>;

fn agent() -> ureq::Agent {
    ureq::AgentBuilder::new().timeout(Duration::from_secs(20)).build()
}

fn documents(ids: &[String], version: u64) -> Value {
    let document = |id: &String| {
        let vector: Vec<f64> = (0..8).map(|n| ((version * 31 + n * 7) % 17) as f64 + 1.0).collect();
        json!({"id": id, "text": "crash test", "metadata": {"version": version}, "vector": vector})
    };
    json!({"documents": ids.iter().map(document).collect::<Vec<_>>()})
}

/// Writes until the server dies; records what was acknowledged. Returns the number of acknowledged requests.
fn write_until_killed(url: &str, client: u64, seed: u64, ledger: &mut Ledger) -> u64 {
    let agent = agent();
    let mut random = Random(seed);
    for acknowledged in 0.. {
        let count = 1 + random.below(12);
        let mut ids: Vec<_> = (0..count).map(|_| format!("c{client}-{}", random.below(IDS_PER_CLIENT))).collect();
        ids.sort();
        ids.dedup();
        let version = random.next() >> 16;
        let delete = random.below(4) == 0;
        let state = if delete { None } else { Some(version) };
        for id in &ids {
            ledger.entry(id.clone()).or_default().in_flight = Some(state);
        }
        let documents_url = format!("{url}/v1/collections/crash/documents");
        let answer = if delete {
            agent.post(&format!("{documents_url}/delete")).send_json(json!({"ids": ids}))
        } else {
            agent.post(&documents_url).send_json(documents(&ids, version))
        };
        match answer {
            Ok(_) => {
                for id in &ids {
                    ledger.insert(id.clone(), Expected { acknowledged: state, in_flight: None });
                }
            }
            Err(ureq::Error::Status(code, response)) => {
                panic!("the server refused a good write: {code} {}", response.into_string().unwrap_or_default())
            }
            Err(ureq::Error::Transport(_)) => return acknowledged,
        }
    }
    unreachable!("the loop ends when the server dies")
}

/// What the server holds, by id.
fn read_all(url: &str) -> BTreeMap<String, u64> {
    let agent = agent();
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let url = format!("{url}/v1/collections/crash/documents?limit=100{cursor}");
        let page: Value = agent.get(&url).call().unwrap().into_json().unwrap();
        for document in page["documents"].as_array().unwrap() {
            let id = document["id"].as_str().unwrap().to_owned();
            assert!(found.insert(id, document["metadata"]["version"].as_u64().unwrap()).is_none(), "listed twice");
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Holds the ledger against the server, and settles what was in flight by what is there.
fn check(url: &str, ledger: &mut Ledger, cycle: u64) {
    let found = read_all(url);
    for (id, expected) in ledger.iter_mut() {
        let there = found.get(id).copied();
        let allowed = there == expected.acknowledged || Some(there) == expected.in_flight;
        assert!(allowed, "cycle {cycle}: {id} is {there:?}, expected {expected:?}");
        *expected = Expected { acknowledged: there, in_flight: None };
    }
    assert!(found.keys().all(|id| ledger.contains_key(id)), "a document that nobody wrote");
    let search = json!({"vector": [1, 2, 3, 4, 5, 6, 7, 8], "top_k": 1000, "exact": true});
    let url = format!("{url}/v1/collections/crash/search");
    let hits: Value = agent().post(&url).send_json(search).unwrap().into_json().unwrap();
    let hits: Vec<_> = hits["hits"].as_array().unwrap().iter().map(|h| h["id"].as_str().unwrap().to_owned()).collect();
    let mut twice = hits.clone();
    twice.sort();
    let twice: Vec<_> = twice.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(twice.is_empty(), "cycle {cycle}: found twice: {twice:?}");
    let risen: Vec<_> = hits.iter().filter(|id| !found.contains_key(*id)).collect();
    assert!(risen.is_empty(), "cycle {cycle}: found, but not listed: {risen:?}");
    assert_eq!(hits.len(), found.len(), "cycle {cycle}: a search sees what a listing sees");
}

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut random = Random(0x5eed);
    let mut ledgers: Vec<Ledger> = (0..CLIENTS).map(|_| Ledger::new()).collect();
    let mut acknowledged = 0;
    let (cycles, cycle_ms) =
        (number_from("PANNIER_TEST_CYCLES", CYCLES), number_from("PANNIER_TEST_CYCLE_MS", CYCLE_MS));
    let mut server = ServerProcess::start(&data);
    let create = json!({"dim": 8});
    agent().put(&format!("{}/v1/collections/crash", server.url)).send_json(create).unwrap();
    for cycle in 0..cycles {
        let url = server.url.clone();
        let clients: Vec<_> = ledgers
            .drain(..)
            .enumerate()
            .map(|(client, mut ledger)| {
                let (url, seed) = (url.clone(), random.next());
                std::thread::spawn(move || {
                    let count = write_until_killed(&url, client as u64, seed, &mut ledger);
                    (ledger, count)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50 + random.below(cycle_ms - 49)));
        server.kill();
        for client in clients {
            let (ledger, count) = client.join().unwrap();
            ledgers.push(ledger);
            acknowledged += count;
        }
        let restarted = Instant::now();
        server = ServerProcess::start(&data);
        let mut all: Ledger = ledgers.iter().flatten().map(|(id, e)| (id.clone(), e.clone())).collect();
        check(&server.url, &mut all, cycle);
        for (client, ledger) in ledgers.iter_mut().enumerate() {
            let prefix = format!("c{client}-");
            *ledger =
                all.iter().filter(|(id, _)| id.starts_with(&prefix)).map(|(i, e)| (i.clone(), e.clone())).collect();
        }
        println!("cycle {cycle}: {acknowledged} acknowledged so far, restart and check {:?}", restarted.elapsed());
    }
    server.kill();
    assert!(acknowledged > cycles, "{acknowledged} acknowledgements prove nothing");
}
