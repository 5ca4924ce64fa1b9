//! How far a source was read: what is kept between two runs, as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::SourceError;

const VERSION: u64 = 1;
/// Most rows at the cursor that are remembered by key and hash, the last that were read; rows before them are read and
/// written once more.
const MAX_REMEMBERED: usize = 100_000;
/// Most bytes of them, as JSON: far below those of a request.
const MAX_REMEMBERED_BYTES: usize = 8 << 20;

/// How far a source was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Which source that is: place, table or query, columns.
    pub source: String,
    /// Into what it was read: store, timeline, collection, and what the options make of rows. `None` in a state that an
    /// earlier version kept.
    pub history: Option<String>,
    /// The greatest value of the cursor column that was read, as the database writes it.
    pub cursor: Option<String>,
    /// The rows that the next run meets again: those at the cursor, and those within the overlap before it.
    pub boundary: Boundary,
    /// Runs that were finished.
    pub runs: u64,
    /// When the last one ended, RFC 3339.
    pub finished_at: Option<String>,
}

/// Rows near the cursor: key, and hash of what it was read as. A row whose hash is here was read already.
#[derive(Clone, Debug, Default)]
pub struct Boundary {
    /// Key to hash, and to the number under which it was remembered last.
    rows: BTreeMap<String, (u64, u64)>,
    /// Number to key.
    order: BTreeMap<u64, String>,
    next: u64,
    bytes: usize,
}

impl Boundary {
    /// Remembers a row. Where there is no room, those are forgotten that were remembered first.
    pub fn remember(&mut self, key: &str, hash: u64) {
        match self.rows.insert(key.to_owned(), (hash, self.next)) {
            Some((_, number)) => _ = self.order.remove(&number),
            None => self.bytes += json_bytes(key),
        }
        self.order.insert(self.next, key.to_owned());
        self.next += 1;
        while self.rows.len() > MAX_REMEMBERED || self.bytes > MAX_REMEMBERED_BYTES {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.rows.remove(&oldest);
            self.bytes -= json_bytes(&oldest);
        }
    }

    /// Whether a row was read with this very content.
    pub fn knows(&self, key: &str, hash: u64) -> bool {
        self.rows.get(key).is_some_and(|(known, _)| *known == hash)
    }

    /// How many rows are remembered.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn hashes(&self) -> impl Iterator<Item = (&String, u64)> {
        self.rows.iter().map(|(key, (hash, _))| (key, *hash))
    }
}

/// In whichever order they were remembered.
impl PartialEq for Boundary {
    fn eq(&self, other: &Self) -> bool {
        self.hashes().eq(other.hashes())
    }
}

impl Eq for Boundary {}

/// Bytes that a row takes as JSON: its key, what is escaped in it, and its hash.
fn json_bytes(key: &str) -> usize {
    let escaped = |byte: u8| match byte {
        0..=0x1f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    key.bytes().map(escaped).sum::<usize>() + r#""":"0123456789abcdef","#.len()
}

impl SourceState {
    /// Nothing read yet.
    pub fn begin(source: &str, history: &str) -> Self {
        Self { source: source.to_owned(), history: Some(history.to_owned()), ..Self::default() }
    }

    /// Whether what was read is still there. A store that was restored and a collection that was made anew lack rows
    /// that lie before the cursor; a state that does not say into what it was read may be older than either.
    pub fn is_of(&self, history: &str) -> bool {
        self.history.as_deref() == Some(history)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let rows: BTreeMap<&String, String> =
            self.boundary.hashes().map(|(key, hash)| (key, format!("{hash:016x}"))).collect();
        json!({"version": VERSION, "source": self.source, "history": self.history, "cursor": self.cursor,
            "boundary": rows, "runs": self.runs, "finished_at": self.finished_at})
    }

    /// From JSON, for the same source.
    ///
    /// # Errors
    /// [`SourceError::Other`] where it is another source's, [`SourceError::State`] where it is of another shape.
    pub fn from_json(json: &Value, source: &str) -> Result<Self, SourceError> {
        let wrong = |reason: &str| SourceError::State { reason: reason.to_owned() };
        if json["version"].as_u64() != Some(VERSION) {
            return Err(wrong("it is of another version"));
        }
        let found = json["source"].as_str().ok_or_else(|| wrong("it names no source"))?;
        if found != source {
            return Err(SourceError::Other { found: found.to_owned(), asked: source.to_owned() });
        }
        let text = |key: &str| json[key].as_str().map(str::to_owned);
        let mut boundary = Boundary::default();
        for (key, hash) in json["boundary"].as_object().into_iter().flatten() {
            let hash = hash.as_str().and_then(|hash| u64::from_str_radix(hash, 16).ok());
            boundary.remember(key, hash.ok_or_else(|| wrong("a row's hash is none"))?);
        }
        Ok(Self {
            source: found.to_owned(),
            history: text("history"),
            cursor: text("cursor"),
            boundary,
            runs: json["runs"].as_u64().unwrap_or(0),
            finished_at: text("finished_at"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let begun = SourceState::begin("a", "store 1");
        let mut state = SourceState { cursor: Some("2024".into()), runs: 3, ..begun };
        state.boundary.remember("k", u64::MAX);
        let json: Value = serde_json::from_str(&state.to_json().to_string()).unwrap();
        assert_eq!(SourceState::from_json(&json, "a").unwrap(), state);
        assert!(state.boundary.knows("k", u64::MAX) && !state.boundary.knows("k", 1));
        assert!(matches!(SourceState::from_json(&json, "b"), Err(SourceError::Other { .. })));
        assert!(matches!(SourceState::from_json(&json!({}), "a"), Err(SourceError::State { .. })));
    }

    #[test]
    fn a_state_belongs_to_the_store_and_the_collection_that_it_was_read_into() {
        let state = SourceState::begin("a", "store 1 timeline 1");
        assert!(state.is_of("store 1 timeline 1") && !state.is_of("store 1 timeline 2"));
        // As versions before kept it.
        let old = json!({"version": 1, "source": "a", "cursor": "5", "boundary": {}, "runs": 1, "finished_at": null});
        let old = SourceState::from_json(&old, "a").unwrap();
        assert!(old.cursor.is_some() && !old.is_of("store 1 timeline 1"));
    }

    #[test]
    fn the_rows_that_were_read_last_are_remembered() {
        let mut boundary = Boundary::default();
        for row in 0..=MAX_REMEMBERED as u64 {
            boundary.remember(&row.to_string(), row);
        }
        assert!(!boundary.knows("0", 0) && boundary.knows("1", 1));
        assert!(boundary.knows(&MAX_REMEMBERED.to_string(), MAX_REMEMBERED as u64));
        // One that is met again is the last.
        boundary.remember("1", 7);
        boundary.remember("new", 8);
        assert!(boundary.knows("1", 7) && boundary.knows("new", 8) && !boundary.knows("2", 2));
    }

    #[test]
    fn what_is_remembered_of_long_keys_fits_a_request() {
        let mut state = SourceState::begin("a", "store 1");
        for row in 0..10_000 {
            state.boundary.remember(&format!("{row}{}", "\u{1}".repeat(500)), row);
        }
        let bytes = state.to_json().to_string().len();
        assert!(bytes > MAX_REMEMBERED_BYTES / 2 && bytes < MAX_REMEMBERED_BYTES + 1_000, "{bytes}");
        assert_eq!(SourceState::from_json(&state.to_json(), "a").unwrap(), state);
    }
}
