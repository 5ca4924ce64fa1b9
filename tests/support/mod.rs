//! What several test modules need.

pub mod histories;
pub mod model;
pub mod postgres;
#[cfg(unix)]
pub mod process;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pannier::types::{CollectionName, DocumentId, Metadata, NewDocument, Value};

pub fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

pub fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

/// A document of a vector, with one metadata field `group`.
pub fn document(id_text: &str, vector: &[f32], group: i64) -> NewDocument {
    let metadata: Metadata = BTreeMap::from([("group".to_owned(), Value::Int(group))]);
    let text = Some(format!("text of {id_text}"));
    NewDocument { id: id(id_text), text, metadata, vector: Some(vector.to_vec()), chunks: Vec::new() }
}

/// The size of a heavy suite: an environment variable, or a small default.
pub fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Waits until `look` says so, at most a minute.
pub fn comes_true(mut look: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !look() {
        if Instant::now() > deadline {
            return false;
        }
        // The thread that is waited for may need this core.
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Small, seeded, and good enough for test data (Steele, Lea & Flood 2014, SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Whole numbers from -3 to 3: sums of their products are exact in f32 whatever the order.
    pub fn whole_vector(&mut self, dim: usize) -> Vec<f32> {
        loop {
            let vector: Vec<f32> = (0..dim).map(|_| self.below(7) as f32 - 3.0).collect();
            if vector.iter().any(|x| *x != 0.0) {
                return vector;
            }
        }
    }
}
