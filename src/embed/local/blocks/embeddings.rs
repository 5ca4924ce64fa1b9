//! The first layer: vectors of tokens, with what is added to them, looked up and normalised.

use std::borrow::Cow;

use super::Norm;
use crate::embed::EmbedError;
use crate::embed::local::kernels::Rows;
use crate::embed::local::row_and_type;
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
    /// Its position's.
    ByPosition(Positions),
    /// One for all, shape `[hidden]`.
    Constant(Vec<f32>),
}

/// A vector for each position.
#[derive(Debug)]
pub(in crate::embed::local) struct Positions {
    /// Shape `[positions, hidden]`; row 0 belongs to a sequence's first token.
    table: Vec<f32>,
    /// Of encoders that do not count padding: its token, and the vector that it gets wherever it stands.
    padding: Option<(u32, Vec<f32>)>,
    /// Of encoders with types: what is added to tokens of the second of two texts, shape `[hidden]`.
    second: Option<Vec<f32>>,
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
    /// Position vectors of shape `[positions, hidden]`, each with `vector` added. With `padding`, a token, the first
    /// row is at `padding + 1`, and tokens of that kind do not count: they have row `padding`, as in RoBERTa.
    pub(in crate::embed::local) fn by_position(
        table: &[f32],
        padding: Option<usize>,
        vector: Option<&[f32]>,
        hidden: usize,
    ) -> Self {
        let mut table = table.to_vec();
        if let Some(vector) = vector {
            for row in table.chunks_exact_mut(hidden) {
                row.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
            }
        }
        let padding = padding.map(|token| {
            let used = table.split_off(((token + 1) * hidden).min(table.len()));
            let skipped = std::mem::replace(&mut table, used);
            (token as u32, skipped[token * hidden..].to_vec())
        });
        Added::ByPosition(Positions { table, padding, second: None })
    }

    /// Adds `vector`, shape `[hidden]`, to every token of the second of two texts.
    pub(in crate::embed::local) fn with_second(mut self, vector: Vec<f32>) -> Self {
        if let Added::ByPosition(positions) = &mut self {
            positions.second = Some(vector);
        }
        self
    }

    /// What is added to a token of this type beside its position's vector.
    fn of_type(&self, kind: u32) -> Option<&[f32]> {
        match self {
            Added::ByPosition(Positions { second, .. }) if kind > 0 => second.as_deref(),
            _ => None,
        }
    }
}

impl Positions {
    /// The vector of `token` after `before` counted ones, and whether it counts itself.
    fn of(&self, token: u32, before: usize, width: usize) -> (&[f32], bool) {
        match &self.padding {
            Some((padding, vector)) if *padding == token => (vector, false),
            _ => (&self.table[before * width..][..width], true),
        }
    }
}

impl Embeddings {
    /// Reads the table of token vectors, `name` of shape `[vocabulary, hidden]`. Called last: it gives the mapped
    /// weights back, but for this table.
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
        let owned = match weights.table(name, &shape)? {
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
            let mut position = 0;
            for &token in *sequence {
                let (token, kind) = row_and_type(token);
                let word = &words[token as usize * width..][..width];
                let added = match &self.added {
                    Added::ByPosition(positions) => {
                        let (vector, counts) = positions.of(token, position, width);
                        position += usize::from(counts);
                        vector
                    }
                    Added::Constant(vector) => vector,
                };
                for ((out, word), added) in out.row_mut(row).iter_mut().zip(word).zip(added) {
                    *out = word + added;
                }
                if let Some(vector) = self.added.of_type(kind) {
                    out.row_mut(row).iter_mut().zip(vector).for_each(|(out, x)| *out += x);
                }
                row += 1;
            }
        }
        self.norm.apply(out);
    }
}
