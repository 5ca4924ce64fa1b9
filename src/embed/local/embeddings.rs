//! The first layer: vectors of tokens, positions and types, looked up and added.

use std::borrow::Cow;

use super::super::EmbedError;
use super::super::settings::Architecture;
use super::bert::Norm;
use super::kernels::Rows;
use super::weights::{MappedTensor, Weights};

const WORDS: &str = "embeddings.word_embeddings.weight";

/// The tables of the first layer.
#[derive(Debug)]
pub(super) struct Embeddings {
    words: Words,
    /// Position vectors with the vector of type 0 added, shape `[max_positions, hidden]`.
    positions: Vec<f32>,
    pub(super) norm: Norm,
}

/// The table of token vectors, shape `[vocab_size, hidden]`: more than half of a small model's weights, of which a text
/// touches a few rows.
#[derive(Debug)]
enum Words {
    /// Read where it lies, so that only the pages in use take memory.
    Mapped(MappedTensor),
    /// For files that store it otherwise than as aligned f32.
    Owned(Vec<f32>),
}

impl Embeddings {
    /// Reads the tables; called last, it gives the mapped weights back.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Storage`].
    pub(super) fn load(weights: Weights, architecture: &Architecture) -> Result<Self, EmbedError> {
        let hidden = architecture.hidden_size;
        let shape = [architecture.max_positions, hidden];
        let mut positions = weights.tensor("embeddings.position_embeddings.weight", &shape)?.into_owned();
        let shape = [architecture.type_vocab_size, hidden];
        let types = weights.tensor("embeddings.token_type_embeddings.weight", &shape)?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(types.iter()).for_each(|(sum, x)| *sum += x);
        }
        drop(types);
        let norm = Norm::load(&weights, "embeddings.LayerNorm", hidden)?;
        let shape = [architecture.vocab_size, hidden];
        let owned = match weights.tensor(WORDS, &shape)? {
            Cow::Borrowed(_) => None,
            Cow::Owned(values) => Some(values),
        };
        let words = match owned {
            Some(values) => Words::Owned(values),
            None => Words::Mapped(weights.into_mapped(WORDS, &shape)?),
        };
        Ok(Self { words, positions, norm })
    }

    /// Writes one row a token: the token's vector plus its position's. Tokens and lengths are within the tables.
    pub(super) fn look_up(&self, sequences: &[&[u32]], out: &mut Rows) {
        let words = match &self.words {
            Words::Mapped(tensor) => tensor.values(),
            Words::Owned(values) => values,
        };
        let width = out.width();
        out.set_count(sequences.iter().map(|sequence| sequence.len()).sum());
        let mut row = 0;
        for sequence in sequences {
            for (&token, position) in sequence.iter().zip(self.positions.chunks_exact(width)) {
                let word = &words[token as usize * width..][..width];
                for ((out, word), position) in out.row_mut(row).iter_mut().zip(word).zip(position) {
                    *out = word + position;
                }
                row += 1;
            }
        }
    }
}
