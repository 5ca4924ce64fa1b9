//! Where a long text is cut into chunks: by tokens, at the ends of sentences or at least of words where it can be.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::types::{ChunkDefinition, ChunkSpan};

/// Spans of the chunks of `text`, in order, together all of it but blanks; one where it is short enough, or is nothing
/// but blanks.
///
/// `tokens`: from which character to which each token reaches, in order. A chunk has at most `max_tokens` of them, and
/// begins `overlap_tokens` before the end of the one before it, or up to half as many where a word begins there.
pub fn split(text: &str, tokens: &[Range<usize>], definition: ChunkDefinition) -> Vec<ChunkSpan> {
    let (most, overlap) = (definition.max_tokens as usize, definition.overlap_tokens as usize);
    let cuts = Cuts::new(text, tokens);
    let mut spans = Vec::new();
    let mut first = 0;
    loop {
        let last = tokens.len() <= first + most;
        let end = if last { tokens.len() } else { cuts.best_end(first + most / 2 + 1..first + most + 1) };
        let from = if first == 0 { 0 } else { cuts.text_from(first) };
        let to = if last { cuts.characters.len() } else { cuts.text_to(end) };
        // Some tokenizers make tokens of blanks. A chunk of nothing else would be found as the empty text is.
        if cuts.part(from..to).iter().any(|c| !c.is_whitespace()) {
            spans.push(ChunkSpan { start: from as u32, end: to as u32 });
        }
        if last {
            break;
        }
        let back = end.saturating_sub(overlap).max(first + 1);
        first = cuts.best_start(back..end);
    }
    if spans.is_empty() {
        spans.push(ChunkSpan { start: 0, end: cuts.characters.len() as u32 });
    }
    spans
}

/// A place where a text may be cut is named by the token after it; there is none before the first token.
struct Cuts<'a> {
    characters: Vec<char>,
    /// By character, whether a grapheme begins there: what readers take for one character.
    begins: Vec<bool>,
    tokens: &'a [Range<usize>],
}

impl<'a> Cuts<'a> {
    fn new(text: &str, tokens: &'a [Range<usize>]) -> Self {
        let (characters, begins) = text
            .graphemes(true)
            .flat_map(|grapheme| grapheme.chars().enumerate().map(|(at, character)| (character, at == 0)))
            .unzip();
        Self { characters, begins, tokens }
    }

    /// The last of `places` where a sentence ends, else a word, else a grapheme, else the last.
    fn best_end(&self, places: Range<usize>) -> usize {
        let last = places.end - 1;
        let mut whole = places.rev().filter(|&place| self.is_between_graphemes(place));
        let sentence = whole.clone().find(|&place| self.is_between_sentences(place));
        let word = || whole.clone().find(|&place| self.is_between_words(place));
        sentence.or_else(word).or_else(|| whole.next()).unwrap_or(last)
    }

    /// The first of `places` where a sentence or a word begins, if it is in their first half, else a grapheme, else
    /// their end.
    fn best_start(&self, places: Range<usize>) -> usize {
        let near = places.start + places.len() / 2;
        let mut whole = places.clone().filter(|&place| self.is_between_graphemes(place));
        let begins = |place: &usize| self.is_between_sentences(*place) || self.is_between_words(*place);
        let word = whole.clone().take_while(|&place| place <= near).find(begins);
        word.or_else(|| whole.next()).unwrap_or(places.end)
    }

    /// Several tokens may be one character, or characters that are one grapheme.
    fn is_between_graphemes(&self, place: usize) -> bool {
        let start = self.start(place);
        self.end(place) <= start && self.begins.get(start).is_none_or(|&begins| begins)
    }

    fn is_between_words(&self, place: usize) -> bool {
        self.part(self.gap(place)).iter().any(|c| c.is_whitespace())
    }

    fn is_between_sentences(&self, place: usize) -> bool {
        let gap = self.gap(place);
        let before = gap.start.checked_sub(1).and_then(|at| self.characters.get(at));
        let gap = self.part(gap);
        gap.contains(&'\n')
            || matches!(before, Some('。' | '！' | '？'))
            || matches!(before, Some('.' | '!' | '?' | '…')) && gap.iter().any(|c| c.is_whitespace())
    }

    /// What stands between the words on both sides of a place. Blanks may be part of either token: some tokenizers make
    /// ` word` one.
    fn gap(&self, place: usize) -> Range<usize> {
        let before = self.part(self.tokens[place - 1].start..self.end(place));
        let blanks = before.iter().rev().take_while(|c| c.is_whitespace()).count();
        self.end(place) - blanks..self.text_from(place)
    }

    /// Where the text after `place` begins, without blanks that its first token carries.
    fn text_from(&self, place: usize) -> usize {
        let token = self.part(self.start(place)..self.tokens[place].end);
        self.start(place) + token.iter().take_while(|c| c.is_whitespace()).count()
    }

    /// Where the text before `place` ends: with what is no token's, as accents that the tokenizer takes away, but
    /// without blanks.
    fn text_to(&self, place: usize) -> usize {
        let end = self.end(place);
        let between = self.part(end..self.start(place));
        end + between.len() - between.iter().rev().take_while(|c| c.is_whitespace()).count()
    }

    /// Empty where there are no such characters.
    fn part(&self, characters: Range<usize>) -> &[char] {
        self.characters.get(characters).unwrap_or_default()
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
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// From a text to the characters of its tokens.
    type Tokenizer = fn(&str) -> Vec<Range<usize>>;

    /// A token for each run of letters and for each other sign, as BERT's.
    fn words(text: &str) -> Vec<Range<usize>> {
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

    /// A token for each sign, as BERT's of Chinese.
    fn signs(text: &str) -> Vec<Range<usize>> {
        let visible = text.chars().enumerate().filter(|(_, c)| !c.is_whitespace());
        visible.map(|(at, _)| at..at + 1).collect()
    }

    /// As [`words`], each with the blank before it, as ModernBERT's.
    fn carrying(text: &str) -> Vec<Range<usize>> {
        let characters: Vec<char> = text.chars().collect();
        let carries = |token: &Range<usize>| token.start > 0 && characters[token.start - 1].is_whitespace();
        let mut tokens = words(text);
        for token in &mut tokens {
            token.start -= usize::from(carries(token));
        }
        tokens
    }

    /// A token for each byte, as byte-level tokenizers make of signs that they do not know.
    fn bytes(text: &str) -> Vec<Range<usize>> {
        let visible = text.chars().enumerate().filter(|(_, c)| !c.is_whitespace());
        visible.flat_map(|(at, c)| std::iter::repeat_n(at..at + 1, c.len_utf8())).collect()
    }

    fn parts_of(text: &str, tokens: &[Range<usize>], max_tokens: u32, overlap_tokens: u32) -> Vec<String> {
        let spans = split(text, tokens, ChunkDefinition { max_tokens, overlap_tokens });
        spans.iter().map(|span| span.of(text).unwrap().to_owned()).collect()
    }

    fn parts(text: &str, max_tokens: u32, overlap_tokens: u32) -> Vec<String> {
        parts_of(text, &words(text), max_tokens, overlap_tokens)
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

    #[test]
    fn blanks_that_tokens_carry_part_words_and_sentences() {
        let parts = |text: &str, max, overlap| parts_of(text, &carrying(text), max, overlap);
        assert_eq!(parts("a b c d e f g", 4, 2), ["a b c d", "c d e f", "e f g"]);
        assert_eq!(parts("One two. Three four five six.", 5, 0), ["One two.", "Three four five six."]);
        assert_eq!(parts("one two six\nten four five", 4, 0), ["one two six", "ten four five"]);
        // The last word has two tokens.
        let tokens = [0..3, 3..7, 7..11, 11..15, 15..19];
        assert_eq!(parts_of("one two six tenfour", &tokens, 4, 0), ["one two six", "tenfour"]);
    }

    #[test]
    fn blanks_that_are_tokens_make_no_chunks_of_their_own() {
        // A token for each character, as byte-level tokenizers make of new lines.
        let parts = |text: &str| {
            let tokens: Vec<Range<usize>> = (0..text.chars().count()).map(|at| at..at + 1).collect();
            parts_of(text, &tokens, 8, 2)
        };
        let blanks = "\n".repeat(100);
        for text in [format!("one{blanks}two"), format!("{blanks}one{blanks}two{blanks}")] {
            let parts = parts(&text);
            assert_eq!(parts.iter().map(|part| part.trim()).collect::<Vec<_>>(), ["one", "two"], "{parts:?}");
        }
        assert_eq!(parts(&blanks), std::slice::from_ref(&blanks));
        // Within a chunk they count as they do for the model.
        assert_eq!(parts("a  b  c  d"), ["a  b  c ", "c  d"]);
    }

    #[test]
    fn chunks_without_blanks_overlap_too() {
        let text = "这是一个很长的句子。".repeat(20);
        let spans = split(&text, &signs(&text), ChunkDefinition { max_tokens: 64, overlap_tokens: 8 });
        let spans: Vec<_> = spans.iter().map(|span| (span.start, span.end)).collect();
        assert_eq!(spans, [(0, 60), (52, 110), (102, 160), (152, 200)]);
    }

    #[test]
    fn what_is_no_token_stays_where_it_stands() {
        assert_eq!(parts_of("cafe\u{301} noir", &[0..4, 6..10], 1, 0), ["cafe\u{301}", "noir"]);
    }

    /// Characters with which a grapheme begins.
    fn graphemes(text: &str) -> Vec<usize> {
        text.grapheme_indices(true).map(|(at, _)| text[..at].chars().count()).collect()
    }

    /// The most tokens between which no grapheme ends.
    fn longest(tokens: &[Range<usize>], begins: &[usize]) -> usize {
        let are_joined = |a: &Range<usize>, b: &Range<usize>| a.end > b.start || !begins.contains(&b.start);
        tokens.chunk_by(are_joined).map(<[_]>::len).max().unwrap_or_default()
    }

    const PIECES: [&str; 15] = [
        "a",
        "word",
        "élan",
        "这",
        "是",
        "。",
        ". ",
        ".",
        " ",
        "\n",
        ",",
        "e\u{301}",
        "क्षि",
        "🇩🇪",
        "👩\u{200d}👩\u{200d}👧",
    ];

    /// Words, signs and graphemes of several characters, never with two blanks beside each other.
    fn texts() -> impl Strategy<Value = String> {
        vec(select(&PIECES[..]), 0..150).prop_map(|pieces| {
            let joined = pieces.into_iter().fold(String::new(), |text, piece| {
                let is_second = text.chars().last().is_none_or(char::is_whitespace);
                text + if is_second { piece.trim_start() } else { piece }
            });
            joined.trim_end().to_owned()
        })
    }

    proptest! {
        #[test]
        fn chunks_hold_all_of_a_text_and_overlap_as_asked(
            text in texts(),
            tokenizer in select(vec![words as Tokenizer, signs, carrying, bytes]),
            max_tokens in 1u32..80,
            overlap in 0u32..40,
        ) {
            let (tokens, overlap) = (tokenizer(&text), overlap.min(max_tokens / 2));
            let spans = split(&text, &tokens, ChunkDefinition { max_tokens, overlap_tokens: overlap });
            let characters: Vec<char> = text.chars().collect();
            prop_assert_eq!((spans[0].start, spans[spans.len() - 1].end), (0, characters.len() as u32));
            for pair in spans.windows(2) {
                let between = characters.get(pair[0].end as usize..pair[1].start as usize).unwrap_or_default();
                prop_assert!(between.iter().all(|c| c.is_whitespace()), "{:?} between {:?}", between, pair);
            }
            // Where a chunk may end, a grapheme must.
            let begins = graphemes(&text);
            let (max_tokens, overlap, longest) = (max_tokens as usize, overlap as usize, longest(&tokens, &begins));
            if longest > max_tokens.div_ceil(2) {
                return Ok(());
            }
            let inside = |span: &ChunkSpan, token: &Range<usize>| {
                let blanks = characters[token.clone()].iter().take_while(|c| c.is_whitespace()).count();
                span.start as usize <= token.start + blanks && token.end <= span.end as usize
            };
            for span in &spans {
                let count = tokens.iter().filter(|token| inside(span, token)).count();
                prop_assert!(count <= max_tokens, "{} tokens in {:?}", count, span);
                for at in [span.start as usize, span.end as usize] {
                    prop_assert!(at == characters.len() || begins.contains(&at), "{:?} cuts a grapheme", span);
                }
            }
            for pair in spans.windows(2) {
                prop_assert!(pair[0].start < pair[1].start && pair[0].end < pair[1].end, "{:?}", pair);
                let shared = tokens.iter().filter(|token| pair.iter().all(|span| inside(span, token))).count();
                let least = (overlap - overlap / 2).min((overlap + 1).saturating_sub(longest));
                prop_assert!((least..=overlap).contains(&shared), "{} tokens shared by {:?}", shared, pair);
            }
        }
    }
}
