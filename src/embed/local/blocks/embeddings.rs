//! The first layer: vectors of tokens, with what is added to them, looked up and normalised.

use std::borrow::Cow;

use super::Norm;
use crate::embed::EmbedError;
use crate::embed::local::kernels::Rows;
use crate::embed::local::weights::{MappedTensor, Weights};

/// The first layer.
#[derive(Debug)]
pub(in crate::embed::local) struct Embeddings {
    words: Words,
    added: Added,
    norm: Norm,
}

/// What is added to the vector of a token.
#[derive(Debug)]
pub(in crate::embed::local) enum Added {
    /// Its position's, shape `[positions, hidden]`; row 0 belongs to a sequence's first token.
    ByPosition(Vec<f32>),
    /// One for all, shape `[hidden]`.
    Constant(Vec<f32>),
}

/// The table of token vectors, shape `[vocabulary, hidden]`: more than half of a small model's weights, of which a text
/// touches a few rows.
#[derive(Debug)]
enum Words {
    /// Read where it lies, so that only the pages in use take memory.
    Mapped(MappedTensor),
    /// For files that store it otherwise than as aligned f32.
    Owned(Vec<f32>),
}

impl Added {
    /// Position vectors of shape `[positions, hidden]`, of which the first `skip` rows belong to no token, each with
    /// `vector` added.
    pub(in crate::embed::local) fn by_position(
        table: &[f32],
        skip: usize,
        vector: Option<&[f32]>,
        hidden: usize,
    ) -> Self {
        let mut table = table.get(skip * hidden..).unwrap_or_default().to_vec();
        if let Some(vector) = vector {
            for row in table.chunks_exact_mut(hidden) {
                row.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
            }
        }
        Added::ByPosition(table)
    }
}

impl Embeddings {
    /// Reads the table of token vectors, `name` of shape `[vocabulary, hidden]`. Called last: it gives the mapped weights
    /// back, but for this table.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Storage`].
    pub(in crate::embed::local) fn load(
        weights: Weights,
        name: &str,
        shape: [usize; 2],
        added: Added,
        norm: Norm,
    ) -> Result<Self, EmbedError> {
        let owned = match weights.tensor(name, &shape)? {
            Cow::Borrowed(_) => None,
            Cow::Owned(values) => Some(values),
        };
        let words = match owned {
            Some(values) => Words::Owned(values),
            None => Words::Mapped(weights.into_mapped(name, &shape)?),
        };
        Ok(Self { words, added, norm })
    }

    /// Writes one normalised row a token. Tokens and lengths are within the tables.
    pub(in crate::embed::local) fn look_up(&self, sequences: &[&[u32]], out: &mut Rows) {
        let words = match &self.words {
            Words::Mapped(tensor) => tensor.values(),
            Words::Owned(values) => values,
        };
        let width = out.width();
        out.set_count(sequences.iter().map(|sequence| sequence.len()).sum());
        let mut row = 0;
        for sequence in sequences {
            for (position, &token) in sequence.iter().enumerate() {
                let word = &words[token as usize * width..][..width];
                let added = match &self.added {
                    Added::ByPosition(table) => &table[position * width..][..width],
                    Added::Constant(vector) => vector,
                };
                for ((out, word), added) in out.row_mut(row).iter_mut().zip(word).zip(added) {
                    *out = word + added;
                }
                row += 1;
            }
        }
        self.norm.apply(out);
    }
}
