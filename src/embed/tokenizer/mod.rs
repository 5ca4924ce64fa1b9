//! Texts to tokens: a model's own tokenizer, its truncation replaced by ours and always reported.

mod charsmap;
mod guard;
mod inspect;

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokenizers::{Encoding, Tokenizer, TruncationParams};

use super::EmbedError;
use super::settings::Settings;
use guard::Guard;
pub(super) use guard::panic_message;
use inspect::Inspected;

/// A model's tokenizer.
pub(super) struct TextTokenizer {
    inner: Arc<Tokenizer>,
    model: String,
    guard: Guard,
    /// Whether no token reaches across an ASCII blank, so that a text may be cut there without changing what stands
    /// before.
    splits_at_blanks: bool,
    /// Bytes that are tokenised first of a long text.
    first_cut_bytes: usize,
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

/// What a tokenizer must keep to.
#[derive(Clone, Copy)]
struct Limits {
    max_tokens: usize,
    /// Rows of the model's table of tokens.
    vocabulary: usize,
    lower_case: bool,
    /// How long loading, or one text, may take where patterns are involved.
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
/// A mebibyte of text takes a genuine tokenizer about a second.
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
        let Inspected { splits_at_blanks, has_patterns } = inspect::inspect(&bytes, vocabulary)?;
        let guard = Guard::new(has_patterns.then_some(patience));
        let inner = guard.run_within(move || {
            let mut inner = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
            inner.with_padding(None);
            // Truncation subtracts the special tokens without a check of its own.
            let special = inner.encode_fast("", true).map_err(|e| e.to_string())?.get_ids().len();
            if special >= max_tokens {
                return Err(format!("it adds {special} special tokens to each text, and {max_tokens} fit"));
            }
            let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
            inner.with_truncation(Some(truncation)).map_err(|e| e.to_string())?;
            Ok(Arc::new(inner))
        })?;
        let first_cut_bytes = max_tokens * FIRST_CUT_BYTES_PER_TOKEN;
        Ok(Self { inner, model: model.to_owned(), guard, splits_at_blanks, first_cut_bytes, lower_case })
    }

    /// The tokens of `prefix` followed by `text`, without the blanks around both, as sentence-transformers reads them.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`].
    pub(super) fn encode(&self, prefix: &str, text: &str) -> Result<Tokens, EmbedError> {
        let text = match prefix {
            "" => Cow::Borrowed(text),
            prefix => Cow::Owned(format!("{prefix}{text}")),
        };
        let text = if self.lower_case { Cow::Owned(text.to_lowercase()) } else { text };
        let text = text.trim();
        let mut limit_bytes = self.first_cut_bytes;
        while self.splits_at_blanks {
            let cut = cut_at_blank(text, limit_bytes);
            if cut.len() == text.len() {
                break;
            }
            let encoding = self.encoding(cut)?;
            // A beginning that is cut itself has the tokens that the whole would have; a shorter one tells nothing.
            let beyond: usize = encoding.get_overflowing().iter().map(|part| part.get_ids().len()).sum();
            if beyond >= MARGIN_TOKENS {
                return Ok(tokens(&encoding));
            }
            limit_bytes = limit_bytes.saturating_mul(4);
        }
        Ok(tokens(&self.encoding(text)?))
    }

    fn encoding(&self, text: &str) -> Result<Encoding, EmbedError> {
        let result = if self.guard.is_patient() {
            self.guard.run(|| self.inner.encode_fast(text, true).map_err(|e| e.to_string()))
        } else {
            let (inner, text) = (Arc::clone(&self.inner), text.to_owned());
            self.guard.run_within(move || inner.encode_fast(text, true).map_err(|e| e.to_string()))
        };
        result.map_err(|reason| EmbedError::Tokenizer { model: self.model.clone(), reason })
    }
}

fn tokens(encoding: &Encoding) -> Tokens {
    Tokens { ids: encoding.get_ids().to_vec(), truncated: !encoding.get_overflowing().is_empty() }
}

/// The longest beginning of `text` of at most `limit_bytes` that ends before a run of blanks, or all of it where none does.
fn cut_at_blank(text: &str, limit_bytes: usize) -> &str {
    if text.len() <= limit_bytes {
        return text;
    }
    match text.as_bytes()[..=limit_bytes].iter().rposition(|b| matches!(b, b' ' | b'\n')) {
        // An ASCII byte is never inside a longer character.
        Some(end) if !text[..end].trim_end().is_empty() => text[..end].trim_end(),
        _ => text,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A WordPiece tokenizer of a few words, with the truncation and padding that must be ignored.
    pub(crate) fn small_tokenizer() -> Value {
        let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b", "c", "мир", ","];
        let vocabulary: serde_json::Map<String, Value> =
            words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
        let special = |id: u32, content: &str| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        };
        serde_json::json!({
            "version": "1.0",
            "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": {"strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                    "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary},
        })
    }

    fn load(json: &Value, max_tokens: usize) -> Result<TextTokenizer, String> {
        TextTokenizer::from_bytes(json.to_string().as_bytes(), "small", max_tokens)
    }

    #[test]
    fn the_files_truncation_and_padding_are_ignored_and_ours_is_reported() {
        let tokenizer = load(&small_tokenizer(), 6).unwrap();
        let tokens = |text: &str| tokenizer.encode("", text).unwrap();
        assert_eq!(tokens("A b МИР"), Tokens { ids: vec![2, 4, 5, 8, 3], truncated: false });
        assert_eq!(tokens("a b c a"), Tokens { ids: vec![2, 4, 5, 7, 4, 3], truncated: false });
        assert_eq!(tokens("a b c a b"), Tokens { ids: vec![2, 4, 5, 7, 4, 3], truncated: true });
        assert_eq!(tokens(""), Tokens { ids: vec![2, 3], truncated: false });
        assert_eq!(tokenizer.encode("c ", "ab").unwrap(), Tokens { ids: vec![2, 7, 4, 6, 3], truncated: false });
    }

    #[test]
    fn a_long_text_has_the_tokens_that_its_whole_has() {
        let tokenizer = load(&small_tokenizer(), 8).unwrap();
        assert!(tokenizer.splits_at_blanks);
        let mebibyte = |unit: &str| unit.repeat((1 << 20) / unit.len());
        for text in [
            mebibyte("a b, c "),
            mebibyte("a"),
            mebibyte(" "),
            mebibyte("мир"),
            format!("{}a b", mebibyte(" \n")),
            format!("{} b", "a".repeat(130)),
            format!("{}b c a b c a b c a b c", " ".repeat(127)),
            format!("{}b c", "\u{301} ".repeat(300)),
            mebibyte("[SEP] [CLS]"),
        ] {
            assert_eq!(tokenizer.encode("", &text).unwrap(), tokenizer.encode_whole(&text).unwrap(), "{:.40}", text);
        }
    }

    #[test]
    fn only_tokenizers_that_split_at_blanks_are_cut_there() {
        let mut json = small_tokenizer();
        json["added_tokens"][1]["rstrip"] = true.into();
        assert!(!load(&json, 8).unwrap().splits_at_blanks);
        let mut json = small_tokenizer();
        json["pre_tokenizer"] = serde_json::json!({"type": "Whitespace"});
        assert!(!load(&json, 8).unwrap().splits_at_blanks);
    }

    #[test]
    fn hostile_files_are_errors() {
        assert!(load(&small_tokenizer(), 2).is_err_and(|e| e.contains("special tokens")));
        let text = small_tokenizer().to_string();
        for len in (0..text.len()).step_by(37) {
            assert!(TextTokenizer::from_bytes(&text.as_bytes()[..len], "small", 8).is_err(), "{len}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(TextTokenizer::from_bytes(deep.as_bytes(), "small", 8).is_err());
        let mut json = small_tokenizer();
        json["post_processor"]["special_tokens"] = serde_json::json!({});
        assert!(load(&json, 8).is_err());
        // A back reference keeps the pattern from linear time; the engine's limit on backtracking ends it.
        let mut json = small_tokenizer();
        json["pre_tokenizer"] = serde_json::json!({"type": "Split", "pattern": {"Regex": "((a+)+)\\1\\2c"},
            "behavior": "Isolated", "invert": false});
        assert!(load(&json, 8).unwrap().encode("", &"a".repeat(200)).is_ok());
    }
}
