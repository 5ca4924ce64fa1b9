//! Texts to tokens: a model's own tokenizer, its truncation replaced by ours and always reported.

mod charsmap;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod guard;
mod inspect;
mod room;

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokenizers::{
    Encoding, PostProcessor, Token, Tokenizer, TruncationDirection, TruncationParams, truncate_encodings,
};

use super::local::OF_SECOND;
use super::settings::Settings;
use super::{EmbedError, Piece};
use guard::Guard;
use inspect::Inspected;
use room::{Place, Room};

use crate::types::guarded;

/// A model's tokenizer.
pub(super) struct TextTokenizer {
    /// It stops [`MARGIN_TOKENS`] beyond the limit; what is beyond is cut off here.
    inner: Arc<Tokenizer>,
    /// The same without truncation, made when somebody wants every token: with it, tokenising stops at the limit.
    whole: OnceLock<Arc<Tokenizer>>,
    model: String,
    guard: Guard,
    /// Whether no token reaches across an ASCII blank, so that a text may be cut there without changing what stands
    /// before.
    splits_at_blanks: bool,
    /// ASCII signs behind which it may be cut as well.
    signs: Vec<u8>,
    /// Bytes that are tokenised first of a long text.
    first_cut_bytes: usize,
    max_tokens: usize,
    /// How many tokens it adds to every text, and how many of these behind it.
    special_tokens: usize,
    tokens_behind: usize,
    /// Rows of the model's table of tokens.
    vocabulary: usize,
    lower_case: bool,
}

/// The tokens of one text as the model reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Special tokens included, at most the model's `max_tokens`.
    pub ids: Vec<u32>,
    /// Whether the text was longer.
    pub truncated: bool,
}

/// The tokens of one of two texts, without special ones, at most the model's `max_tokens`.
pub(super) struct Side(Encoding);

/// What a tokenizer must keep to.
#[derive(Clone, Copy)]
struct Limits {
    max_tokens: usize,
    /// Rows of the model's table of tokens.
    vocabulary: usize,
    lower_case: bool,
    /// How long loading, or one text, may take of a core where patterns are involved.
    patience: Duration,
}

/// Its name in the transformer's directory.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
/// Longest tokenizer.json that is read; the largest genuine ones have about 17 MB.
const MAX_FILE_BYTES: u64 = 128 << 20;
/// Bytes a token that are tokenised first; words of most texts have 4 to 6.
const FIRST_CUT_BYTES_PER_TOKEN: usize = 16;
/// How many tokens beyond the limit a beginning must have to stand for the whole: blanks at its end may become tokens
/// that they are not within the text.
const MARGIN_TOKENS: usize = 16;
/// Longest text that is tokenised without asking for room.
const SHORT_BYTES: usize = 64 << 10;
/// Room of the process for longer ones, in bytes of text: a byte takes up to 300 of memory until it is tokens.
static ROOM: Room = Room::new(4 << 20);
/// A mebibyte of text takes a genuine tokenizer about a second of a core.
const PATIENCE: Duration = Duration::from_secs(20);

impl TextTokenizer {
    /// Loads a tokenizer.json. The file's own truncation and padding are ignored.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`] for a file that is not a usable tokenizer of a model with these settings,
    /// [`EmbedError::Storage`].
    pub(super) fn load(path: &Path, model: &str, settings: &Settings) -> Result<Self, EmbedError> {
        let size = fs::metadata(path).map_err(|e| EmbedError::io(path, "read", e))?.len();
        if size > MAX_FILE_BYTES {
            let reason = format!("it has {size} bytes, at most {MAX_FILE_BYTES} are allowed");
            return Err(EmbedError::malformed(path, reason));
        }
        let bytes = fs::read(path).map_err(|e| EmbedError::io(path, "read", e))?;
        let limits = Limits {
            max_tokens: settings.max_tokens,
            vocabulary: settings.architecture.vocab_size,
            lower_case: settings.lower_case,
            patience: PATIENCE,
        };
        Self::from_bytes(bytes, model, limits).map_err(|reason| EmbedError::malformed(path, reason))
    }

    fn from_bytes(bytes: Vec<u8>, model: &str, limits: Limits) -> Result<Self, String> {
        let Limits { max_tokens, vocabulary, lower_case, patience } = limits;
        let Inspected { splits_at_blanks, signs, has_patterns } = inspect::inspect(&bytes, vocabulary)?;
        let guard = Guard::new(has_patterns.then_some(patience));
        let (inner, special_tokens, tokens_behind) = guard.run_within(move || {
            let mut inner = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|e| e.to_string())?;
            // Truncation subtracts the special tokens without a check of its own.
            let (special, behind) = special_tokens(&inner)?;
            let least = inner.encode_fast("", true).map_err(|e| e.to_string())?.len();
            if least.max(special) >= max_tokens {
                return Err(format!("it adds {special} special tokens to each text, and {max_tokens} fit"));
            }
            inner.with_truncation(Some(to_length(max_tokens + MARGIN_TOKENS))).map_err(|e| e.to_string())?;
            Ok((Arc::new(inner), special, behind))
        })?;
        Ok(Self {
            inner,
            whole: OnceLock::new(),
            model: model.to_owned(),
            guard,
            splits_at_blanks,
            signs,
            first_cut_bytes: max_tokens * FIRST_CUT_BYTES_PER_TOKEN,
            max_tokens,
            special_tokens,
            tokens_behind,
            vocabulary,
            lower_case,
        })
    }

    /// Whether texts get special tokens.
    pub(super) fn adds_tokens(&self) -> bool {
        self.special_tokens > 0
    }

    /// The tokens of `prefix` followed by `text`, without the blanks around both, as sentence-transformers reads them.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`], [`EmbedError::Cancelled`] while it waits for room.
    pub(super) fn encode(&self, prefix: &str, text: &str) -> Result<Tokens, EmbedError> {
        let text = match prefix {
            "" => Cow::Borrowed(text),
            prefix => Cow::Owned(format!("{prefix}{text}")),
        };
        let text = if self.lower_case { Cow::Owned(text.to_lowercase()) } else { text };
        let (encoding, _) = self.beginning(text.trim(), true)?;
        self.tokens(&encoding)
    }

    /// Every token of `text`, untruncated, without the blanks around it.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`], [`EmbedError::Cancelled`] while it waits for room.
    pub(super) fn pieces(&self, text: &str, with_special: bool) -> Result<Vec<Piece>, EmbedError> {
        let blanks = text.chars().take_while(|c| c.is_whitespace()).count();
        let text = text.trim();
        // Each token takes memory once more, as a piece.
        let _place = place_for(text, 2)?;
        let (read, origins) = match self.lower_case {
            true => (text.to_lowercase(), Some(origins_of_lower_case(text))),
            false => (text.to_owned(), None),
        };
        let whole = self.whole.get_or_init(|| {
            let mut whole = Tokenizer::clone(&self.inner);
            // Taking truncation away has nothing to check.
            _ = whole.with_truncation(None);
            Arc::new(whole)
        });
        let whole = Arc::clone(whole);
        let encode = move || whole.encode_char_offsets(read, with_special).map_err(|e| e.to_string());
        let encoding = self.guard.run_within(encode);
        let encoding = encoding.map_err(|reason| EmbedError::Tokenizer { model: self.model.clone(), reason })?;
        let bytes_of_chars: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let byte = |at: usize| bytes_of_chars.get(at).copied().unwrap_or(text.len());
        let piece = |at: usize| {
            let (id, (start, stop)) = (encoding.get_ids()[at], encoding.get_offsets()[at]);
            match encoding.get_special_tokens_mask()[at] {
                0 => {
                    let (start, stop) = match &origins {
                        Some(origins) => within_origins(origins, start, stop),
                        None => (start, stop),
                    };
                    let text = text.get(byte(start)..byte(stop)).unwrap_or_default().to_owned();
                    Piece { id, text, special: false, range: Some((blanks + start, blanks + stop)) }
                }
                _ => Piece { id, text: encoding.get_tokens()[at].clone(), special: true, range: None },
            }
        };
        Ok((0..encoding.len()).map(piece).collect())
    }

    /// The tokens of one of two texts, as many as there may be of both together.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`], [`EmbedError::Cancelled`] while it waits for room.
    pub(super) fn side(&self, text: &str) -> Result<Side, EmbedError> {
        let (mut encoding, _) = self.beginning(text.trim(), false)?;
        encoding.truncate(self.max_tokens, 0, TruncationDirection::Right);
        encoding.take_overflowing();
        Ok(Side(encoding))
    }

    /// The ids of two texts one after the other, as a cross-encoder reads them, with [`OF_SECOND`] where the tokenizer
    /// says so; the longer is cut where both do not fit, and each has half where neither does.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`].
    pub(super) fn pair(&self, first: &Side, second: &Side) -> Result<Vec<u32>, EmbedError> {
        let (first, mut second) = (first.0.clone(), second.0.clone());
        // Templates set types of their own; other files keep those that the texts come with.
        second.set_type_ids(vec![1; second.len()]);
        let encoding = guarded(|| self.together(first, second)).map_err(|reason| self.failed(reason))?;
        let mut ids = encoding.get_ids().to_vec();
        // Special tokens are added after truncation, as many as the file likes.
        if ids.len() > self.max_tokens {
            return Err(self.failed(format!("it made {} tokens, and {} fit", ids.len(), self.max_tokens)));
        }
        self.check_vocabulary(&ids)?;
        for (id, kind) in ids.iter_mut().zip(encoding.get_type_ids()) {
            match kind {
                0 => {}
                1 => *id |= OF_SECOND,
                other => return Err(self.failed(format!("it made a token of the type {other}, of two texts"))),
            }
        }
        Ok(ids)
    }

    /// Two texts with the special tokens around them, cut to the limit.
    fn together(&self, first: Encoding, second: Encoding) -> Result<Encoding, String> {
        let added = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let Some(left) = self.max_tokens.checked_sub(added) else {
            return Err(format!("it adds {added} special tokens to two texts, and {} fit", self.max_tokens));
        };
        let cut = truncate_encodings(first, Some(second), &to_length(left)).map_err(|e| e.to_string())?;
        let (mut first, mut second) = cut;
        for side in [&mut first].into_iter().chain(&mut second) {
            side.take_overflowing();
        }
        self.inner.post_process(first, second, true).map_err(|e| e.to_string())
    }

    /// The first tokens of `text`, some beyond the limit where there are more, and how many bytes of it were read for
    /// them: no more than that takes.
    fn beginning(&self, text: &str, with_special: bool) -> Result<(Encoding, usize), EmbedError> {
        if !self.splits_at_blanks {
            return Ok((self.encoding(text, with_special)?, text.len()));
        }
        let mut limit_bytes = self.first_cut_bytes;
        loop {
            let cut = cut_between_words(text, limit_bytes, &self.signs);
            let encoding = self.encoding(cut, with_special)?;
            // A beginning that is cut itself has the tokens that the whole would have; a shorter one tells nothing.
            if cut.len() == text.len() || encoding.len() >= self.max_tokens + MARGIN_TOKENS {
                return Ok((encoding, cut.len()));
            }
            limit_bytes = limit_bytes.saturating_mul(4);
        }
    }

    fn encoding(&self, text: &str, with_special: bool) -> Result<Encoding, EmbedError> {
        let _place = place_for(text, 1)?;
        let result = if self.guard.is_patient() {
            guarded(|| self.inner.encode_fast(text, with_special).map_err(|e| e.to_string()))
        } else {
            let (inner, text) = (Arc::clone(&self.inner), text.to_owned());
            self.guard.run_within(move || inner.encode_fast(text, with_special).map_err(|e| e.to_string()))
        };
        result.map_err(|reason| self.failed(reason))
    }

    /// Of more tokens than fit, the first, with the special ones behind them.
    fn tokens(&self, encoding: &Encoding) -> Result<Tokens, EmbedError> {
        let ids = encoding.get_ids();
        let truncated = ids.len() > self.max_tokens;
        let ids = match truncated {
            true => {
                let behind = &ids[ids.len() - self.tokens_behind..];
                [&ids[..self.max_tokens - behind.len()], behind].concat()
            }
            false => ids.to_vec(),
        };
        self.check_vocabulary(&ids)?;
        Ok(Tokens { ids, truncated })
    }

    /// The file's numbers were checked, but a tokenizer numbers the added tokens that it does not know itself.
    fn check_vocabulary(&self, ids: &[u32]) -> Result<(), EmbedError> {
        match ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            Some(id) => {
                Err(self.failed(format!("it made the token {id}, and the model's table has {}", self.vocabulary)))
            }
            None => Ok(()),
        }
    }

    fn failed(&self, reason: String) -> EmbedError {
        EmbedError::Tokenizer { model: self.model.clone(), reason }
    }
}

/// By character of the lower-cased text, of which character of `text` it comes: few become two, as `İ` does.
fn origins_of_lower_case(text: &str) -> Vec<usize> {
    text.chars().enumerate().flat_map(|(at, c)| c.to_lowercase().map(move |_| at)).collect()
}

/// The characters that those from `start` to `stop` come of.
fn within_origins(origins: &[usize], start: usize, stop: usize) -> (usize, usize) {
    let after_last = origins.last().map_or(0, |last| last + 1);
    let first = origins.get(start).copied().unwrap_or(after_last);
    let last = stop.checked_sub(1).and_then(|last| origins.get(last)).map_or(first, |last| last + 1);
    (first, last.max(first))
}

/// Room for a text that is tokenised, where it is long; `times` what one takes.
fn place_for(text: &str, times: usize) -> Result<Option<Place<'static>>, EmbedError> {
    match text.len() > SHORT_BYTES {
        true => Ok(Some(ROOM.enter(text.len() * times)?)),
        false => Ok(None),
    }
}

fn to_length(max_length: usize) -> TruncationParams {
    TruncationParams { max_length, ..TruncationParams::default() }
}

/// How many tokens are put around every text, and how many of these behind it.
fn special_tokens(inner: &Tokenizer) -> Result<(usize, usize), String> {
    // A token that no tokenizer has stands for the text.
    const TEXT: u32 = u32::MAX;
    let text = Encoding::from_tokens(vec![Token::new(TEXT, String::new(), (0, 0))], 0);
    let encoding = inner.post_process(text, None, true).map_err(|e| e.to_string())?;
    let ids = encoding.get_ids();
    // A template may leave the text out.
    Ok(ids.iter().rev().position(|&id| id == TEXT).map_or((ids.len(), 0), |behind| (ids.len() - 1, behind)))
}

/// The longest beginning of `text` of at most `limit_bytes` that ends before a run of blanks, or behind one of `signs`
/// with an ASCII character after it, as a mark would become part of the sign; all of it where none does.
fn cut_between_words<'a>(text: &'a str, limit_bytes: usize, signs: &[u8]) -> &'a str {
    if text.len() <= limit_bytes {
        return text;
    }
    let bytes = text.as_bytes();
    let is_between = |end: &usize| match bytes[*end] {
        b' ' | b'\n' => true,
        next => next.is_ascii_graphic() && signs.contains(&bytes[end - 1]),
    };
    match (1..=limit_bytes).rev().find(is_between) {
        // An ASCII byte is never inside a longer character.
        Some(end) if !text[..end].trim_end().is_empty() => text[..end].trim_end(),
        _ => text,
    }
}

#[cfg(test)]
pub(crate) mod tests;
