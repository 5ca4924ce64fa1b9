//! Embedding through the cache: what is known is taken from it, the rest is computed and kept.

use super::{Key, Known, VectorCache};
use crate::embed::{EmbedError, Embeddings};

/// Bytes of text that are computed before they are kept: some 16,000 tokens, at which a slow core works for some
/// seconds. Who gives up waiting for many texts, and sends them again, finds most of them known.
const KEPT_AT_ONCE: usize = 64 << 10;

/// Embeds texts, of which only those that are not in `cache` reach `compute`, in their order, part by part. `dim`:
/// numbers in a vector.
///
/// # Errors
/// What `compute` says, with positions among all of `texts`.
pub(in crate::embed) fn embed_through(
    cache: &VectorCache,
    key: impl Fn(&str) -> Key,
    dim: usize,
    texts: &[&str],
    mut compute: impl FnMut(&[&str]) -> Result<Embeddings, EmbedError>,
) -> Result<Embeddings, EmbedError> {
    let keys: Vec<Key> = texts.iter().map(|text| key(text)).collect();
    let mut known: Vec<Option<Known>> = keys.iter().map(|key| cache.get(key, dim)).collect();
    let missing: Vec<usize> = (0..texts.len()).filter(|&index| known[index].is_none()).collect();
    let cached = texts.len() - missing.len();
    count(cached, missing.len());
    for part in parts(&missing, |index| texts[index].len()) {
        let unknown: Vec<&str> = part.iter().map(|&index| texts[index]).collect();
        let Embeddings { vectors, token_counts, truncated, .. } =
            compute(&unknown).map_err(|error| among_all(error, part))?;
        for (&index, ((vector, tokens), truncated)) in
            part.iter().zip(vectors.into_iter().zip(token_counts).zip(truncated))
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

/// Cuts a list where the bytes of a part would pass [`KEPT_AT_ONCE`].
fn parts(missing: &[usize], bytes: impl Fn(usize) -> usize) -> impl Iterator<Item = &[usize]> {
    let mut left = missing;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |&&index: &&usize| {
            sum += bytes(index);
            sum <= KEPT_AT_ONCE
        };
        let count = left.iter().take_while(fits).count().max(1).min(left.len());
        let (part, rest) = left.split_at(count);
        left = rest;
        (!part.is_empty()).then_some(part)
    })
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
