//! The same documents written over and over to a real server: file descriptors, memory and disk stay where they are.
//!
//! `PANNIER_TEST_SOAK_SECONDS` is the duration; the slope of memory is judged where it is long enough to have one, the
//! rest always.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::process::ServerProcess;
use crate::support::{Random, number_from};

const DOCUMENTS: u64 = 2_000;
const DIM: u64 = 64;
const LONG_SECONDS: u64 = 120;

/// A moment of the server.
struct Sample {
    minutes: f64,
    resident_mib: f64,
    descriptors: usize,
    segment_bytes: u64,
}

fn sample(server: u32, data: &Path, began: Instant) -> Sample {
    let status = fs::read_to_string(format!("/proc/{server}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    Sample {
        minutes: began.elapsed().as_secs_f64() / 60.0,
        resident_mib: kib / 1024.0,
        descriptors: fs::read_dir(format!("/proc/{server}/fd")).unwrap().count(),
        segment_bytes: bytes_below(&data.join("segments")),
    }
}

/// What a merge removes while we look counts as nothing.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let entries = entries.filter_map(Result::ok);
    entries.map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}

/// Least squares.
fn slope(samples: &[Sample]) -> f64 {
    let n = samples.len() as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|s| s.minutes), mean(|s| s.resident_mib));
    let above: f64 = samples.iter().map(|s| (s.minutes - x) * (s.resident_mib - y)).sum();
    above / samples.iter().map(|s| (s.minutes - x).powi(2)).sum::<f64>()
}

#[test]
fn writing_the_same_documents_over_and_over_leaks_nothing() {
    let seconds = number_from("PANNIER_TEST_SOAK_SECONDS", 8);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = ServerProcess::start(&data);
    let url = format!("{}/v1/collections/soak", server.url);
    let agent = ureq::AgentBuilder::new().timeout(Duration::from_secs(60)).build();
    agent.put(&url).send_json(json!({"dim": DIM})).unwrap();
    let (began, mut random) = (Instant::now(), Random(1));
    let (mut samples, mut written) = (Vec::new(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let first = written % DOCUMENTS;
        let documents: Vec<_> = (first..first + 50)
            .map(|n| {
                let vector: Vec<_> = (0..DIM).map(|_| random.below(2_001) as i64 - 1_000).collect();
                json!({"id": format!("d{n}"), "vector": vector, "metadata": {"round": written / DOCUMENTS}})
            })
            .collect();
        agent.post(&format!("{url}/documents")).send_json(json!({"documents": documents})).unwrap();
        let search = json!({"vector": vec![1; DIM as usize], "top_k": 10});
        agent.post(&format!("{url}/search")).send_json(search).unwrap();
        written += 50;
        if written % DOCUMENTS == 0 || samples.is_empty() {
            samples.push(sample(server.id(), &data, began));
        }
    }
    let rewrites = written / DOCUMENTS;
    let last = samples.last().unwrap();
    let settled = &samples[samples.len() / 3..];
    let (least, most) = (settled.iter().map(|s| s.descriptors).min(), settled.iter().map(|s| s.descriptors).max());
    let segments = settled.iter().map(|s| s.segment_bytes).max().unwrap();
    // A document's f32 vector and int8 code, and its share of ids, metadata and graph.
    let live = DOCUMENTS * (5 * DIM + 300);
    println!(
        "{rewrites} rewrites in {seconds} s: {} MiB resident, {:.3} MiB a minute, {least:?} to {most:?} descriptors, \
         {segments} bytes of segments at most for about {live} live",
        last.resident_mib,
        slope(settled)
    );
    assert!(most.unwrap() - least.unwrap() < 40, "{least:?} to {most:?} descriptors");
    if rewrites >= 10 {
        assert!(segments <= 2 * live, "{segments} bytes after {rewrites} rewrites of {live}");
    }
    if seconds >= LONG_SECONDS {
        assert!(rewrites >= 10, "{rewrites} rewrites in {seconds} s");
        assert!(slope(settled) < 1.0, "{} MiB a minute", slope(settled));
    }
}
