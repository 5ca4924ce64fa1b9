//! `MIGRATIONS`: which steps were begun, applied and undone, and when. docs/formats/migrations.md.

use std::fmt::Write;

use crate::storage::{DataPaths, crc32c, publish, read_file};

use super::MigrateError;

/// Its name in a data directory. A directory without it, or with an empty one, was never migrated.
pub const JOURNAL_FILE: &str = "MIGRATIONS";

const FIRST_LINE: &str = "pannier migrations 1";

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was begun; whether it got to its end is not known.
    Begun,
    /// It was done and checked.
    Applied,
}

/// One step in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) name: String,
    /// Of the step as the program had it.
    pub(super) checksum: String,
    pub(super) outcome: Outcome,
    /// When it was begun, in milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
    /// How long it took; 0 until it is applied.
    pub(super) took_ms: u64,
}

/// The journal, in order of steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) entries: Vec<Entry>,
}

impl Journal {
    pub(super) fn read(paths: &DataPaths) -> Result<Self, MigrateError> {
        let path = paths.root().join(JOURNAL_FILE);
        let bytes = read_file(&path)?.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        Self::decode(&bytes).map_err(|reason| MigrateError::Journal { path, reason: reason.to_owned() })
    }

    pub(super) fn write(&self, paths: &DataPaths) -> Result<(), MigrateError> {
        Ok(publish(&paths.root().join(JOURNAL_FILE), &self.encode())?)
    }

    pub(super) fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// Puts an entry in the place of the step's older one.
    pub(super) fn set(&mut self, entry: Entry) {
        self.remove(entry.id);
        self.entries.push(entry);
        self.entries.sort_by_key(|entry| entry.id);
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.entries.retain(|entry| entry.id != id);
    }

    fn encode(&self) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\n");
        for Entry { id, name, checksum, outcome, at_ms, took_ms } in &self.entries {
            let outcome = match outcome {
                Outcome::Begun => "begun",
                Outcome::Applied => "applied",
            };
            let written = writeln!(text, "{id:03} {name} {checksum} {outcome} {at_ms} {took_ms}");
            written.expect("a string takes any text");
        }
        let crc = crc32c(text.as_bytes());
        text.push_str(&format!("end {crc:08x}\n"));
        text.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let at = text.rfind("end ").ok_or("its last line is missing")?;
        let (body, end) = text.split_at(at);
        if end != format!("end {:08x}\n", crc32c(body.as_bytes())) {
            return Err("its checksum does not fit");
        }
        let mut lines = body.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err("it does not begin as a journal of this version does");
        }
        let entries = lines.map(parse).collect::<Option<Vec<_>>>().ok_or("a line is not what it should be")?;
        let journal = Self { entries };
        match journal.encode() == bytes {
            true => Ok(journal),
            false => Err("a line is not what it should be"),
        }
    }
}

fn parse(line: &str) -> Option<Entry> {
    let [id, name, checksum, outcome, at_ms, took_ms] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
    let outcome = match outcome {
        "begun" => Outcome::Begun,
        "applied" => Outcome::Applied,
        _ => return None,
    };
    let (name, checksum) = (name.to_owned(), checksum.to_owned());
    Some(Entry {
        id: id.parse().ok()?,
        name,
        checksum,
        outcome,
        at_ms: at_ms.parse().ok()?,
        took_ms: took_ms.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Journal {
        let entry = |id, outcome| Entry {
            id,
            name: format!("step_{id}"),
            checksum: "0123456789abcdef".into(),
            outcome,
            at_ms: 1_700_000_000_000,
            took_ms: 12,
        };
        Journal { entries: vec![entry(1, Outcome::Applied), entry(2, Outcome::Begun)] }
    }

    #[test]
    fn the_file_is_this_text() {
        let text = String::from_utf8(sample().encode()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "pannier migrations 1");
        assert_eq!(lines[1], "001 step_1 0123456789abcdef applied 1700000000000 12");
        assert_eq!(lines[2], "002 step_2 0123456789abcdef begun 1700000000000 12");
        assert_eq!(Journal::decode(text.as_bytes()), Ok(sample()));
    }

    #[test]
    fn every_truncation_and_bit_flip_is_an_error() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            assert!(Journal::decode(&bytes[..len]).is_err(), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Journal::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_directory_without_one_was_never_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        assert_eq!(Journal::read(&paths).unwrap(), Journal::default());
        sample().write(&paths).unwrap();
        assert_eq!(Journal::read(&paths).unwrap(), sample());
        std::fs::write(dir.path().join(JOURNAL_FILE), "").unwrap();
        assert_eq!(Journal::read(&paths).unwrap(), Journal::default());
        std::fs::write(dir.path().join(JOURNAL_FILE), "x").unwrap();
        assert!(matches!(Journal::read(&paths), Err(MigrateError::Journal { .. })));
    }
}
