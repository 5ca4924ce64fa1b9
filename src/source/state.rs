//! How far a source was read: what is kept between two runs, as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::SourceError;

const VERSION: u64 = 1;
/// Most rows at the cursor that are remembered by key and hash; beyond them rows are read and written once more.
const MAX_REMEMBERED: usize = 100_000;

/// How far a source was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Which source that is: place, table or query, columns.
    pub source: String,
    /// Into what it was read: store, timeline, collection. `None` in a state that an earlier version kept.
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boundary {
    rows: BTreeMap<String, u64>,
}

impl Boundary {
    /// Remembers a row, if there is room.
    pub fn remember(&mut self, key: &str, hash: u64) {
        if self.rows.len() < MAX_REMEMBERED || self.rows.contains_key(key) {
            self.rows.insert(key.to_owned(), hash);
        }
    }

    /// Whether a row was read with this very content.
    pub fn knows(&self, key: &str, hash: u64) -> bool {
        self.rows.get(key) == Some(&hash)
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
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
            self.boundary.rows.iter().map(|(key, hash)| (key, format!("{hash:016x}"))).collect();
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
}
