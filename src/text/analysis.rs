//! From a text to the words that are indexed and searched.

use std::collections::HashSet;

use tantivy::tokenizer::{LowerCaser, RemoveLongFilter, Stemmer, TextAnalyzer, Token};

use super::composed::ComposedWords;
use crate::types::Language;

/// Longer words, in bytes, are left out: what is that long is no word but a hash or a URL's tail.
pub const MAX_WORD_BYTES: usize = 64;
/// Words of a query beyond these are not looked for.
const MAX_QUERY_WORDS: usize = 256;

/// Words that say nothing alone. A query leaves them out where it has others; the index has them all.
const ENGLISH_STOP_WORDS: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "have", "how", "if", "in", "into",
    "is", "it", "its", "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they",
    "this", "to", "was", "what", "when", "where", "which", "who", "will", "with",
];
const RUSSIAN_STOP_WORDS: &[&str] = &[
    "а",
    "без",
    "бы",
    "был",
    "была",
    "были",
    "было",
    "в",
    "вам",
    "вас",
    "во",
    "вот",
    "вы",
    "где",
    "да",
    "для",
    "до",
    "его",
    "ее",
    "её",
    "если",
    "есть",
    "же",
    "за",
    "и",
    "из",
    "или",
    "им",
    "их",
    "к",
    "как",
    "когда",
    "кто",
    "ли",
    "мы",
    "на",
    "не",
    "но",
    "о",
    "об",
    "он",
    "она",
    "они",
    "от",
    "по",
    "при",
    "с",
    "со",
    "так",
    "то",
    "у",
    "уже",
    "что",
    "чтобы",
    "это",
    "я",
];

/// The tokenizer of a language: runs of letters, their marks and digits, composed, in lower case, with their endings
/// removed.
pub(super) fn analyzer(language: Language) -> TextAnalyzer {
    // The filter keeps what is shorter than its limit.
    let base = TextAnalyzer::builder(ComposedWords::default())
        .filter(RemoveLongFilter::limit(MAX_WORD_BYTES + 1))
        .filter(LowerCaser);
    match language {
        Language::English => base.filter(Stemmer::new(tantivy::tokenizer::Language::English)).build(),
        Language::Russian => base.filter(Stemmer::new(tantivy::tokenizer::Language::Russian)).build(),
        Language::None => base.build(),
    }
}

/// Gives every token of a text, in order, to `take`.
pub(super) fn each_token(language: Language, text: &str, mut take: impl FnMut(&Token)) {
    let mut analyzer = analyzer(language);
    let mut stream = analyzer.token_stream(text);
    while stream.advance() {
        take(stream.token());
    }
}

fn tokens(language: Language, text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    each_token(language, text, |token| tokens.push(token.clone()));
    tokens
}

/// The words that a query looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// As they stand in the index: each once, in the order of the query.
    pub(super) terms: Vec<String>,
    /// How the text was read.
    pub(super) language: Language,
    /// Where the query ends that is looked for, in bytes of its text, where it had more words.
    pub cut: Option<usize>,
}

impl Words {
    /// Reads a query's text as words: no character of it is an operator.
    pub fn of(language: Language, text: &str) -> Self {
        let stop_words = match language {
            Language::English => ENGLISH_STOP_WORDS,
            Language::Russian => RUSSIAN_STOP_WORDS,
            Language::None => &[],
        };
        // Stemming neither adds nor removes words, so both lists go together.
        let plain = tokens(Language::None, text);
        let stemmed = tokens(language, text);
        let telling = plain.iter().any(|token| !stop_words.contains(&token.text.as_str()));
        let (mut seen, mut terms, mut cut) = (HashSet::new(), Vec::new(), None);
        for (plain, stemmed) in plain.iter().zip(stemmed) {
            if telling && stop_words.contains(&plain.text.as_str()) || !seen.insert(stemmed.text.clone()) {
                continue;
            }
            if terms.len() == MAX_QUERY_WORDS {
                cut = Some(stemmed.offset_from);
                break;
            }
            terms.push(stemmed.text);
        }
        Self { terms, language, cut }
    }

    /// Whether a text has one of them.
    pub fn are_in(&self, text: &str) -> bool {
        let wanted: HashSet<&str> = self.terms.iter().map(String::as_str).collect();
        let mut analyzer = analyzer(self.language);
        let mut stream = analyzer.token_stream(text);
        while stream.advance() {
            if wanted.contains(stream.token().text.as_str()) {
                return true;
            }
        }
        false
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(language: Language, text: &str) -> Vec<String> {
        Words::of(language, text).terms
    }

    #[test]
    fn endings_go_by_language() {
        assert_eq!(terms(Language::English, "Running runners, RUN!"), ["run", "runner"]);
        assert_eq!(terms(Language::None, "Running runners, RUN!"), ["running", "runners", "run"]);
        let forms = ["палатка", "палатки", "палаткой", "ПАЛАТКУ"];
        let stems: HashSet<_> = forms.iter().flat_map(|form| terms(Language::Russian, form)).collect();
        assert_eq!(stems.len(), 1, "{stems:?}");
        assert_eq!(terms(Language::Russian, "ёлки"), terms(Language::Russian, "Елки"));
    }

    #[test]
    fn a_text_has_a_word_where_its_stem_stands() {
        let words = Words::of(Language::English, "running boats");
        assert!(words.are_in("nobody RUNS") && words.are_in("The boat."));
        assert!(!words.are_in("nobody walks") && !words.are_in(""));
    }

    #[test]
    fn letters_are_the_same_with_their_marks_apart() {
        for (together, apart) in [("Résumé", "Re\u{301}sume\u{301}"), ("йод", "и\u{306}од"), ("Ёлка", "Е\u{308}лка")]
        {
            assert_ne!(together, apart);
            for language in [Language::None, Language::English, Language::Russian] {
                assert_eq!(terms(language, together), terms(language, apart), "{together}");
            }
        }
        let tokens = tokens(Language::None, "a re\u{301}sume\u{301}, b \u{301}");
        let places: Vec<_> =
            tokens.iter().map(|token| (token.text.as_str(), token.offset_from, token.offset_to)).collect();
        assert_eq!(places, [("a", 0, 1), ("résumé", 2, 12), ("b", 14, 15)]);
        // A word of Hindi has marks without which it is none.
        assert_eq!(terms(Language::None, "हिन्दी भाषा").len(), 2);
    }

    #[test]
    fn words_of_more_than_64_bytes_are_left_out() {
        for word in ["9f".repeat(32), "ж".repeat(32)] {
            assert_eq!(terms(Language::None, &format!("{word} {word}{word}")), [word]);
        }
        assert!(terms(Language::None, &"9".repeat(65)).is_empty());
    }

    #[test]
    fn no_character_is_an_operator() {
        let query = "title:(a-b AND \"c\") ~2 ^3 *d? -e +f [x TO y] \\ {";
        assert_eq!(
            terms(Language::None, query),
            ["title", "a", "b", "and", "c", "2", "3", "d", "e", "f", "x", "to", "y"]
        );
        assert!(Words::of(Language::English, " ?! \u{1f600} ").is_empty());
    }

    #[test]
    fn stop_words_count_only_where_there_is_nothing_else() {
        assert_eq!(terms(Language::English, "what is the wing of a plane"), ["wing", "plane"]);
        assert_eq!(terms(Language::English, "to be or not to be"), ["to", "be", "or", "not"]);
        assert_eq!(terms(Language::Russian, "что и как варить"), terms(Language::Russian, "варить"));
    }

    #[test]
    fn a_query_has_a_bounded_number_of_words() {
        let text: Vec<String> = (0..300).map(|n| format!("w{n}")).collect();
        let words = Words::of(Language::English, &text.join(" "));
        assert_eq!((words.terms.len(), words.cut), (MAX_QUERY_WORDS, text.join(" ").find("w256")));
        assert_eq!(Words::of(Language::English, &"again ".repeat(300)).cut, None);
    }
}
