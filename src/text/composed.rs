//! A tokenizer that reads letters alike however they are written: "é" as one character, and as "e" with its accent
//! behind it, as names of files and texts taken out of PDFs often are.

use std::borrow::Cow;

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Words are runs of letters, digits and the marks that belong to them. Their texts are in normalisation form C
/// (Unicode Standard Annex 15); their places are those of the text as given.
#[derive(Clone, Default)]
pub(super) struct ComposedWords {
    token: Token,
}

/// The words of a text.
pub(super) struct Stream<'a> {
    text: &'a str,
    /// What of the text has been read, in bytes.
    read: usize,
    token: &'a mut Token,
}

impl Tokenizer for ComposedWords {
    type TokenStream<'a> = Stream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Stream<'a> {
        self.token.reset();
        Stream { text, read: 0, token: &mut self.token }
    }
}

impl TokenStream for Stream<'_> {
    fn advance(&mut self) -> bool {
        let rest = &self.text[self.read..];
        let Some(skipped) = rest.find(char::is_alphanumeric) else {
            self.read = self.text.len();
            return false;
        };
        let word = &rest[skipped..];
        let word = &word[..word.find(|c: char| !c.is_alphanumeric() && !is_combining_mark(c)).unwrap_or(word.len())];
        self.token.position = self.token.position.wrapping_add(1);
        self.token.offset_from = self.read + skipped;
        self.token.offset_to = self.token.offset_from + word.len();
        self.token.text.clear();
        self.token.text.push_str(&composed(word));
        self.read = self.token.offset_to;
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

fn composed(word: &str) -> Cow<'_, str> {
    match is_nfc_quick(word.chars()) {
        IsNormalized::Yes => Cow::Borrowed(word),
        _ => Cow::Owned(word.nfc().collect()),
    }
}
