//! Embedding through the cache: what is known is taken from it, the rest is computed and kept.

use super::{Key, Known, VectorCache};
use crate::embed::{EmbedError, Embeddings};

/// Embeds texts, of which only those that are not in `cache` reach `compute`, in their order. `dim`: numbers in a vector.
///
/// # Errors
/// What `compute` says, with positions among all of `texts`.
pub(in crate::embed) fn embed_through(
    cache: &VectorCache,
    key: impl Fn(&str) -> Key,
    dim: usize,
    texts: &[&str],
    compute: impl FnOnce(&[&str]) -> Result<Embeddings, EmbedError>,
) -> Result<Embeddings, EmbedError> {
    let keys: Vec<Key> = texts.iter().map(|text| key(text)).collect();
    let mut known: Vec<Option<Known>> = keys.iter().map(|key| cache.get(key, dim)).collect();
    let missing: Vec<usize> = (0..texts.len()).filter(|&index| known[index].is_none()).collect();
    let cached = texts.len() - missing.len();
    count(cached, missing.len());
    if !missing.is_empty() {
        let unknown: Vec<&str> = missing.iter().map(|&index| texts[index]).collect();
        let Embeddings { vectors, token_counts, truncated, .. } =
            compute(&unknown).map_err(|error| among_all(error, &missing))?;
        for (index, ((vector, tokens), truncated)) in
            missing.into_iter().zip(vectors.into_iter().zip(token_counts).zip(truncated))
        {
            let new = Known { vector, tokens, truncated };
            cache.put(&keys[index], &new);
            known[index] = Some(new);
        }
    }
    let mut all = Embeddings { cached, ..Embeddings::default() };
    for Known { vector, tokens, truncated } in known.into_iter().flatten() {
        all.vectors.push(vector);
        all.token_counts.push(tokens);
        all.truncated.push(truncated);
    }
    Ok(all)
}

/// An error about one of the missing texts, with its position among all.
fn among_all(mut error: EmbedError, missing: &[usize]) -> EmbedError {
    if let EmbedError::Token { index, .. } | EmbedError::NoTokens { index } | EmbedError::Vector { index, .. } =
        &mut error
    {
        *index = missing.get(*index).copied().unwrap_or(*index);
    }
    error
}

/// Counts texts that were known and texts that were not, where the build has a recorder.
#[cfg_attr(not(feature = "server"), expect(unused_variables, reason = "a build without a server records nothing"))]
fn count(hits: usize, misses: usize) {
    #[cfg(feature = "server")]
    {
        metrics::counter!(crate::telemetry::EMBEDDING_CACHE_HITS_TOTAL).increment(hits as u64);
        metrics::counter!(crate::telemetry::EMBEDDING_CACHE_MISSES_TOTAL).increment(misses as u64);
    }
}
