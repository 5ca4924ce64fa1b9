//! The parts of a text that hold a query's words, with the words marked.

use std::collections::HashMap;
use std::ops::Range;

use super::analysis::{Words, each_token};

/// Most parts of one text.
const MAX_FRAGMENTS: usize = 3;
/// A part is about this long, in bytes of text.
const FRAGMENT_BYTES: usize = 160;
/// Matches of one text that a part may begin with: the first ones.
const MAX_PARTS: usize = 10_000;
const OPEN: &str = "<mark>";
const CLOSE: &str = "</mark>";
const CUT: char = '\u{2026}';

/// The parts of `text` that hold the most of `words`, in the order of the text, at most three. What matches stands in
/// `<mark>`; `&`, `<` and `>` of the text are escaped, so that a part is safe as HTML; `…` stands where text was left
/// out. Empty where the text has none of the words. No part is chosen by what stands after the first 10,000 matches.
pub fn fragments(words: &Words, text: &str) -> Vec<String> {
    let wanted: HashMap<&str, usize> = words.terms.iter().enumerate().map(|(n, word)| (word.as_str(), n)).collect();
    let mut tokens = Vec::new();
    each_token(words.language, text, |token| {
        let word = wanted.get(token.text.as_str()).copied();
        tokens.push(Place { word, bytes: token.offset_from..token.offset_to });
    });
    let mut chosen: Vec<Range<usize>> = Vec::new();
    for (_, part) in ranked(&tokens, wanted.len()) {
        if chosen.len() < MAX_FRAGMENTS && chosen.iter().all(|other| part.end <= other.start || other.end <= part.start)
        {
            chosen.push(part);
        }
    }
    chosen.sort_by_key(|part| part.start);
    let (mut shown, mut free) = (Vec::with_capacity(chosen.len()), 0);
    for part in chosen {
        shown.push(render(text, &tokens, free, part.clone()));
        free = part.end;
    }
    shown
}

/// A token of the text.
struct Place {
    /// The number of the query's word that it is, if any.
    word: Option<usize>,
    bytes: Range<usize>,
}

/// Runs of tokens that begin with a match, the best first: those with the most different words, then with the most
/// matches, then the earliest.
fn ranked(tokens: &[Place], words: usize) -> Vec<((usize, usize), Range<usize>)> {
    let (mut parts, mut end) = (Vec::new(), 0);
    // Of each word how often it stands in `start..end`, and what comes of it.
    let (mut counts, mut distinct, mut matches) = (vec![0_usize; words], 0, 0);
    for start in 0..tokens.len() {
        let within = |place: &Place| place.bytes.end - tokens[start].bytes.start <= FRAGMENT_BYTES;
        while end <= start || tokens.get(end).is_some_and(within) {
            if let Some(word) = tokens[end].word {
                distinct += usize::from(counts[word] == 0);
                counts[word] += 1;
                matches += 1;
            }
            end += 1;
        }
        if let Some(word) = tokens[start].word {
            parts.push(((distinct, matches), start..end));
            counts[word] -= 1;
            distinct -= usize::from(counts[word] == 0);
            matches -= 1;
        }
        if parts.len() == MAX_PARTS {
            break;
        }
    }
    parts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.start.cmp(&b.1.start)));
    parts
}

/// A part of the text with its matches marked, widened to the words before it as far as the length allows, and no
/// farther than token `free`: those before it are shown already.
fn render(text: &str, tokens: &[Place], free: usize, part: Range<usize>) -> String {
    let (mut first, last) = (part.start, part.end - 1);
    let used = tokens[last].bytes.end - tokens[first].bytes.start;
    // A match at the very start of a part reads badly: half of what is left goes before it.
    let mut room = FRAGMENT_BYTES.saturating_sub(used) / 2;
    while first > free && tokens[first].bytes.start - tokens[first - 1].bytes.start <= room {
        room -= tokens[first].bytes.start - tokens[first - 1].bytes.start;
        first -= 1;
    }
    let from = if first == 0 { 0 } else { tokens[first].bytes.start };
    let to = if last + 1 == tokens.len() { text.len() } else { tokens[last].bytes.end };
    let mut out = String::new();
    // Only text without words stands before the first token and behind the last; a long run of it is no help.
    let from = if tokens[first].bytes.start - from > FRAGMENT_BYTES { tokens[first].bytes.start } else { from };
    let to = if to - tokens[last].bytes.end > FRAGMENT_BYTES { tokens[last].bytes.end } else { to };
    if from > 0 {
        out.push(CUT);
    }
    let mut at = from;
    for place in &tokens[first..=last] {
        if place.word.is_some() {
            escape(&text[at..place.bytes.start], &mut out);
            out.push_str(OPEN);
            escape(&text[place.bytes.clone()], &mut out);
            out.push_str(CLOSE);
            at = place.bytes.end;
        }
    }
    escape(&text[at..to], &mut out);
    if to < text.len() {
        out.push(CUT);
    }
    out
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Language;

    fn of(query: &str, text: &str) -> Vec<String> {
        fragments(&Words::of(Language::English, query), text)
    }

    #[test]
    fn every_form_of_a_word_is_marked_and_the_text_is_escaped() {
        let text = "Tents <b> & a tent for two";
        assert_eq!(of("tent", text), ["<mark>Tents</mark> &lt;b&gt; &amp; a <mark>tent</mark> for two"]);
        assert_eq!(of("boat", text), Vec::<String>::new());
        assert_eq!(of("tent", ""), Vec::<String>::new());
    }

    #[test]
    fn no_part_repeats_the_one_before_it() {
        let numbers = (0..40).map(|n| format!("n{n:02}")).collect::<Vec<_>>().join(" ");
        let found = of("tent", &format!("tent {numbers} tent with pegs"));
        assert_eq!(found.len(), 2, "{found:?}");
        let shown = found.join(" ");
        assert!(shown.matches("<mark>").count() == 2 && shown.contains("n39"), "{found:?}");
        assert!((0..40).all(|n| shown.matches(&format!("n{n:02}")).count() <= 1), "{found:?}");
    }

    #[test]
    fn a_long_text_gives_its_best_parts_in_order() {
        let filler = "nothing of note here ".repeat(40);
        let text = format!("{filler}wing {filler}wing flutter at speed {filler}flutter {filler}speed {filler}");
        let found = of("wing flutter speed", &text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().any(|part| part.contains("<mark>wing</mark> <mark>flutter</mark> at <mark>speed</mark>")));
        for part in &found {
            assert!(part.starts_with('…') && part.ends_with('…') && part.len() < 260, "{part}");
        }
    }

    #[test]
    fn words_of_several_bytes_are_cut_between_characters() {
        let text = "ёлки и палки. ".repeat(60);
        let words = Words::of(Language::Russian, "палка");
        let found = fragments(&words, &text);
        assert_eq!(found.len(), 3);
        assert!(found[0].contains("<mark>палки</mark>"), "{found:?}");
    }

    #[test]
    fn parts_are_ranked_by_what_stands_in_them() {
        let mut state = 9_u64;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let (mut at, mut tokens) = (0, Vec::new());
        for _ in 0..2_000 {
            let start = at + below(20) as usize;
            // Some are longer than a part.
            let longest = if below(50) == 0 { 300 } else { 12 };
            at = start + 1 + below(longest) as usize;
            tokens.push(Place { word: Some(below(9) as usize).filter(|&word| word < 4), bytes: start..at });
        }
        let ranked = ranked(&tokens, 4);
        assert_eq!(ranked.len(), tokens.iter().filter(|place| place.word.is_some()).count());
        assert!(ranked.is_sorted_by(|a, b| a.0 > b.0 || a.0 == b.0 && a.1.start < b.1.start));
        for ((distinct, matches), part) in ranked {
            let all: Vec<usize> = tokens[part.clone()].iter().filter_map(|place| place.word).collect();
            let different: std::collections::HashSet<_> = all.iter().collect();
            assert_eq!((distinct, matches), (different.len(), all.len()), "{part:?}");
            let bytes = |last: usize| tokens[last].bytes.end - tokens[part.start].bytes.start;
            assert!(part.len() == 1 || bytes(part.end - 1) <= FRAGMENT_BYTES, "{part:?} is too long");
            assert!(part.end == tokens.len() || bytes(part.end) > FRAGMENT_BYTES, "{part:?} could be longer");
        }
    }

    #[test]
    fn a_text_of_nothing_but_matches_has_a_bounded_number_of_parts() {
        let tokens: Vec<Place> = (0..500_000).map(|n| Place { word: Some(0), bytes: 2 * n..2 * n + 1 }).collect();
        assert_eq!(ranked(&tokens, 1).len(), MAX_PARTS);
        assert_eq!(of("b", &"b ".repeat(500_000)).len(), MAX_FRAGMENTS);
    }
}
