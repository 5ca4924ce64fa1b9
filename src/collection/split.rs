//! Where a long text is cut into chunks: by tokens, at the ends of sentences or at least of words where it can be.

use std::ops::Range;

use crate::types::{ChunkDefinition, ChunkSpan};

/// Spans of the chunks of `text`, in order, together all of it; one where it is short enough.
///
/// `tokens`: from which character to which each token reaches, in order. A chunk has at most `max_tokens` of them, and
/// begins about `overlap_tokens` before the end of the one before it.
pub fn split(text: &str, tokens: &[Range<usize>], definition: ChunkDefinition) -> Vec<ChunkSpan> {
    let characters: Vec<char> = text.chars().collect();
    let (most, overlap) = (definition.max_tokens as usize, definition.overlap_tokens as usize);
    let cuts = Cuts { characters: &characters, tokens };
    let mut spans = Vec::new();
    let mut first = 0;
    loop {
        let last = tokens.len() <= first + most;
        let end = if last { tokens.len() } else { cuts.best(first + most / 2 + 1..first + most + 1) };
        let from = if first == 0 { 0 } else { cuts.start(first) };
        let to = if last { characters.len() } else { cuts.end(end) };
        spans.push(ChunkSpan { start: from as u32, end: to as u32 });
        if last {
            return spans;
        }
        let back = end.saturating_sub(overlap).max(first + 1);
        first = (back..end).find(|&token| cuts.is_between_words(token)).unwrap_or(end);
    }
}

struct Cuts<'a> {
    characters: &'a [char],
    tokens: &'a [Range<usize>],
}

impl Cuts<'_> {
    /// The last place in `places` where a sentence ends, else a word, else the last place. A place is the token after it.
    fn best(&self, places: Range<usize>) -> usize {
        let last = places.end - 1;
        let mut backwards = places.clone().rev();
        let sentence = backwards.find(|&place| self.is_between_sentences(place));
        sentence.or_else(|| places.rev().find(|&place| self.is_between_words(place))).unwrap_or(last)
    }

    fn is_between_words(&self, place: usize) -> bool {
        self.gap(place).iter().any(|c| c.is_whitespace())
    }

    fn is_between_sentences(&self, place: usize) -> bool {
        let gap = self.gap(place);
        let before = self.end(place).checked_sub(1).and_then(|at| self.characters.get(at));
        gap.contains(&'\n')
            || matches!(before, Some('。' | '！' | '？'))
            || matches!(before, Some('.' | '!' | '?' | '…')) && gap.iter().any(|c| c.is_whitespace())
    }

    /// What stands between a token and the one before it.
    fn gap(&self, place: usize) -> &[char] {
        self.characters.get(self.end(place)..self.start(place)).unwrap_or_default()
    }

    fn start(&self, token: usize) -> usize {
        self.tokens[token].start.min(self.characters.len())
    }

    /// Where the token before `place` ends.
    fn end(&self, place: usize) -> usize {
        self.tokens[place - 1].end.min(self.characters.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token for each run of letters and for each other sign.
    fn tokens(text: &str) -> Vec<Range<usize>> {
        let mut tokens: Vec<Range<usize>> = Vec::new();
        let mut in_word = false;
        for (at, c) in text.chars().enumerate() {
            match (c.is_alphanumeric(), in_word, tokens.last_mut()) {
                (true, true, Some(token)) => token.end = at + 1,
                _ if !c.is_whitespace() => tokens.push(at..at + 1),
                _ => {}
            }
            in_word = c.is_alphanumeric();
        }
        tokens
    }

    fn parts(text: &str, max_tokens: u32, overlap_tokens: u32) -> Vec<String> {
        let spans = split(text, &tokens(text), ChunkDefinition { max_tokens, overlap_tokens });
        spans.iter().map(|span| span.of(text).unwrap().to_owned()).collect()
    }

    #[test]
    fn short_texts_stay_whole() {
        assert_eq!(parts("", 4, 1), [""]);
        assert_eq!(parts(" a b ", 4, 1), [" a b "]);
    }

    #[test]
    fn sentences_are_kept_together_where_they_fit() {
        assert_eq!(parts("One two. Three four five six.", 5, 0), ["One two.", "Three four five six."]);
        assert_eq!(parts("One\ntwo three four", 3, 0), ["One two three".replacen(' ', "\n", 1), "four".into()]);
        assert_eq!(parts("a b c d e f", 4, 0), ["a b c d", "e f"]);
    }

    #[test]
    fn chunks_overlap_by_whole_words() {
        assert_eq!(parts("a b c d e f g", 4, 2), ["a b c d", "c d e f", "e f g"]);
    }

    proptest! {
        #[test]
        fn every_token_is_in_a_chunk_and_no_chunk_has_too_many(
            text in "([a-zé]{1,6}[ .\n。]{0,2}){0,60}",
            max_tokens in 1u32..20,
            overlap in 0u32..10,
        ) {
            let (tokens, definition) =
                (tokens(&text), ChunkDefinition { max_tokens, overlap_tokens: overlap.min(max_tokens / 2) });
            let spans = split(&text, &tokens, definition);
            prop_assert_eq!((spans[0].start, spans[spans.len() - 1].end), (0, text.chars().count() as u32));
            let inside = |span: &ChunkSpan, token: &Range<usize>| {
                span.start as usize <= token.start && token.end <= span.end as usize
            };
            for token in &tokens {
                prop_assert!(spans.iter().any(|span| inside(span, token)), "{:?} of {:?}", token, spans);
            }
            for (at, span) in spans.iter().enumerate() {
                let count = tokens.iter().filter(|token| inside(span, token)).count();
                prop_assert!(count <= max_tokens as usize, "{} tokens in {:?}", count, span);
                prop_assert!(at == 0 || spans[at - 1].start < span.start);
            }
        }
    }
}
