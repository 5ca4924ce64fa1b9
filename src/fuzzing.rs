//! Entrances for fuzzers: each takes any bytes as a reader of files or requests would, and may do anything but panic.
//! It says whether they were sound as a whole, as every file of its corpus is.
//!
//! `fuzz/` has a target for each. The corpora there are also replayed, and mutated, by the tests below.

pub use crate::ingest::fuzz::template;
pub use crate::log::fuzz::log;
pub use crate::manifest::fuzz::manifest;
pub use crate::segment::fuzz::segment;
pub use crate::snapshot::archive::fuzz::snapshot;

#[cfg(feature = "server")]
pub use crate::embed::cache_fuzz::cache;
#[cfg(feature = "server")]
pub use crate::embed::fuzz::tokenizer;
#[cfg(feature = "server")]
pub use crate::http::fuzz::{body, cursor, definition, embeddings, filter};
#[cfg(feature = "server")]
pub use crate::source::fuzz::event;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Mutations of each file of a corpus; `PANNIER_TEST_FUZZ_RUNS` for more.
    const DEFAULT_RUNS: u64 = 400;

    /// The files of a corpus, without those that fuzzers add: they name them by a hash.
    fn corpus(target: &str) -> Vec<PathBuf> {
        let directory = Path::new("fuzz/corpus").join(target);
        let is_named = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.len() != 40 || !name.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(is_named).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", directory.display());
        files
    }

    /// SplitMix64 (Steele, Lea & Flood 2014).
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Flips, overwrites, removes, doubles and splices, as fuzzers do.
    fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut u64) {
        for _ in 0..1 + next(random) % 4 {
            let len = bytes.len().max(1) as u64;
            let (at, span) = ((next(random) % len) as usize, (next(random) % 16) as usize);
            let end = bytes.len().min(at + span);
            match next(random) % 7 {
                _ if bytes.is_empty() => bytes.push(next(random) as u8),
                0 => bytes[at] ^= 1 << (next(random) % 8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'\\'][(next(random) % 8) as usize],
                2 => _ = bytes.drain(at..end),
                3 => bytes.extend_from_within(at..end),
                4 => bytes.truncate(at),
                5 => bytes[at..end].fill(next(random) as u8),
                _ => {
                    let from = (next(random) % (other.len() as u64 + 1)) as usize;
                    bytes.splice(at..end, other[from..other.len().min(from + 32)].iter().copied());
                }
            }
        }
    }

    fn replay(target: &str, run: fn(&[u8]) -> bool) {
        let runs = std::env::var("PANNIER_TEST_FUZZ_RUNS").map_or(DEFAULT_RUNS, |n| n.parse().unwrap());
        let mut random = std::env::var("PANNIER_TEST_SEED").map_or(1, |n| n.parse().unwrap());
        let names = corpus(target);
        let files: Vec<_> = names.iter().map(|file| fs::read(file).unwrap()).collect();
        for (number, file) in files.iter().enumerate() {
            let name = names[number].display();
            assert!(run(file), "{name} is refused");
            let mut sound = 0;
            for _ in 0..runs {
                let mut bytes = file.clone();
                mutate(&mut bytes, &files[(number + 1) % files.len()], &mut random);
                sound += u64::from(run(&bytes));
            }
            println!("{name}: {sound} of {runs} mutations are sound");
        }
    }

    /// Names as Rust knows them: an entrance that is renamed is renamed here.
    macro_rules! names {
        ($($entrance:ident),*) => {{
            $(let _: fn(&[u8]) -> bool = super::$entrance;)*
            [$(stringify!($entrance)),*]
        }};
    }

    /// `fuzz/` needs crates that are not of this one, so it is compiled only where somebody fuzzes.
    #[test]
    fn every_entrance_has_a_target_that_calls_it() {
        #[cfg(feature = "server")]
        let entrances = names!(
            body, cache, cursor, definition, embeddings, event, filter, log, manifest, segment, snapshot, template,
            tokenizer
        );
        #[cfg(not(feature = "server"))]
        let entrances = names!(log, manifest, segment, snapshot, template);
        let manifest = fs::read_to_string("fuzz/Cargo.toml").unwrap();
        for entrance in &entrances {
            let target = fs::read_to_string(format!("fuzz/fuzz_targets/{entrance}.rs")).unwrap();
            assert!(target.contains(&format!("pannier::fuzzing::{entrance}(")), "{target}");
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{entrance}.rs\"")), "{entrance}");
        }
        let targets = fs::read_dir("fuzz/fuzz_targets").unwrap().count();
        assert!(cfg!(not(feature = "server")) || targets == entrances.len(), "{targets} targets, {entrances:?}");
    }

    #[test]
    fn no_bytes_of_a_file_panic_its_reader() {
        replay("log", super::log);
        replay("manifest", super::manifest);
        replay("segment", super::segment);
        replay("snapshot", super::snapshot);
    }

    #[test]
    fn no_template_panics() {
        replay("template", super::template);
    }

    #[cfg(feature = "server")]
    #[test]
    fn no_request_panics_its_reader() {
        replay("filter", super::filter);
        replay("body", super::body);
        replay("definition", super::definition);
        replay("embeddings", super::embeddings);
        replay("cursor", super::cursor);
        replay("tokenizer", super::tokenizer);
    }

    #[cfg(feature = "server")]
    #[test]
    fn no_cached_vector_and_no_event_panics_its_reader() {
        replay("cache", super::cache);
        replay("event", super::event);
    }
}
