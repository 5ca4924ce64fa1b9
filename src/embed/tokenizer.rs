//! Texts to tokens: a model's own tokenizer, its truncation replaced by ours and always reported.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::{Tokenizer, TruncationParams};

use super::{EmbedError, Piece};

/// A model's tokenizer.
pub(super) struct TextTokenizer {
    inner: Tokenizer,
    /// The same without truncation, made when somebody wants every token: with it, tokenising stops at the limit.
    whole: OnceLock<Box<Tokenizer>>,
    model: String,
    /// Whether no token reaches across an ASCII blank, so that a text may be cut there without changing what stands
    /// before.
    splits_at_blanks: bool,
    /// Bytes that are tokenised first of a long text.
    first_cut_bytes: usize,
}

/// The tokens of one text as the model reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Special tokens included, at most the model's `max_tokens`.
    pub ids: Vec<u32>,
    /// Whether the text was longer.
    pub truncated: bool,
}

/// Longest tokenizer.json that is read; the largest genuine ones have about 17 MB.
const MAX_FILE_BYTES: u64 = 128 << 20;
/// Bytes a token that are tokenised first; words of most texts have 4 to 6.
const FIRST_CUT_BYTES_PER_TOKEN: usize = 16;

impl TextTokenizer {
    /// Loads a tokenizer.json. The file's own truncation and padding are ignored.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`] for a file that is not a usable tokenizer, [`EmbedError::Storage`].
    pub(super) fn load(path: &Path, model: &str, max_tokens: usize) -> Result<Self, EmbedError> {
        let size = fs::metadata(path).map_err(|e| EmbedError::io(path, "read", e))?.len();
        if size > MAX_FILE_BYTES {
            let reason = format!("it has {size} bytes, at most {MAX_FILE_BYTES} are allowed");
            return Err(EmbedError::malformed(path, reason));
        }
        let bytes = fs::read(path).map_err(|e| EmbedError::io(path, "read", e))?;
        Self::from_bytes(&bytes, model, max_tokens).map_err(|reason| EmbedError::malformed(path, reason))
    }

    fn from_bytes(bytes: &[u8], model: &str, max_tokens: usize) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let splits_at_blanks = splits_at_blanks(&json);
        drop(json);
        let inner = guarded(|| {
            let mut inner = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
            inner.with_padding(None);
            // Truncation subtracts the special tokens without a check of its own.
            let special = inner.encode_fast("", true).map_err(|e| e.to_string())?.get_ids().len();
            if special >= max_tokens {
                return Err(format!("it adds {special} special tokens to each text, and {max_tokens} fit"));
            }
            let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
            inner.with_truncation(Some(truncation)).map_err(|e| e.to_string())?;
            Ok(inner)
        })?;
        let first_cut_bytes = max_tokens * FIRST_CUT_BYTES_PER_TOKEN;
        Ok(Self { inner, whole: OnceLock::new(), model: model.to_owned(), splits_at_blanks, first_cut_bytes })
    }

    /// The tokens of `prefix` followed by `text`.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`].
    pub(super) fn encode(&self, prefix: &str, text: &str) -> Result<Tokens, EmbedError> {
        let joined;
        let text = if prefix.is_empty() {
            text
        } else {
            joined = format!("{prefix}{text}");
            &joined
        };
        let mut limit_bytes = self.first_cut_bytes;
        loop {
            let cut = if self.splits_at_blanks { cut_at_blank(text, limit_bytes) } else { text };
            let tokens = self.encode_whole(cut)?;
            // A truncated beginning has the tokens that the whole would have; a shorter one tells nothing.
            if tokens.truncated || cut.len() == text.len() {
                return Ok(tokens);
            }
            limit_bytes = limit_bytes.saturating_mul(4);
        }
    }

    /// Every token of `text`, untruncated.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`].
    pub(super) fn pieces(&self, text: &str, with_special: bool) -> Result<Vec<Piece>, EmbedError> {
        let whole = self.whole.get_or_init(|| {
            let mut whole = self.inner.clone();
            // Taking truncation away has nothing to check.
            _ = whole.with_truncation(None);
            Box::new(whole)
        });
        let encode = || whole.encode_char_offsets(text, with_special).map_err(|e| e.to_string());
        let encoding = guarded(encode).map_err(|reason| EmbedError::Tokenizer { model: self.model.clone(), reason })?;
        let bytes_of_chars: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let byte = |at: usize| bytes_of_chars.get(at).copied().unwrap_or(text.len());
        let piece = |at: usize| {
            let (id, (start, stop)) = (encoding.get_ids()[at], encoding.get_offsets()[at]);
            match encoding.get_special_tokens_mask()[at] {
                0 => {
                    let text = text.get(byte(start)..byte(stop)).unwrap_or_default().to_owned();
                    Piece { id, text, special: false, range: Some((start, stop)) }
                }
                _ => Piece { id, text: encoding.get_tokens()[at].clone(), special: true, range: None },
            }
        };
        Ok((0..encoding.len()).map(piece).collect())
    }

    fn encode_whole(&self, text: &str) -> Result<Tokens, EmbedError> {
        let encoding = guarded(|| self.inner.encode_fast(text, true).map_err(|e| e.to_string()))
            .map_err(|reason| EmbedError::Tokenizer { model: self.model.clone(), reason })?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), truncated: !encoding.get_overflowing().is_empty() })
    }
}

/// The tokenizers crate has panicked on hostile files; whatever it does stays here.
fn guarded<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| Err(panic_message(panic.as_ref())))
}

/// What a caught panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a message"))
}

/// Whether a tokenizer.json is BERT's: words are cut at blanks first, and no added token holds or swallows a blank.
fn splits_at_blanks(json: &Value) -> bool {
    let kind = |part: &str| json[part]["type"].as_str();
    let tokens = json["added_tokens"].as_array();
    kind("pre_tokenizer") == Some("BertPreTokenizer")
        && matches!(kind("normalizer"), None | Some("BertNormalizer"))
        && kind("model") == Some("WordPiece")
        && tokens.into_iter().flatten().all(|token| {
            let content = token["content"].as_str().unwrap_or(" ");
            !content.contains(char::is_whitespace) && token["lstrip"] == false && token["rstrip"] == false
        })
}

/// The longest beginning of `text` of at most `limit_bytes` that ends before a blank, or all of it where none does.
fn cut_at_blank(text: &str, limit_bytes: usize) -> &str {
    if text.len() <= limit_bytes {
        return text;
    }
    match text.as_bytes()[..=limit_bytes].iter().rposition(|b| matches!(b, b' ' | b'\n')) {
        // An ASCII byte is never inside a longer character.
        Some(end) if end > 0 => &text[..end],
        _ => text,
    }
}

/// Where a model's tokenizer lies.
pub(super) fn tokenizer_path(dir: &Path) -> PathBuf {
    dir.join("tokenizer.json")
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
    fn pieces_say_what_of_the_text_they_are_and_nothing_is_cut() {
        let tokenizer = load(&small_tokenizer(), 4).unwrap();
        let pieces = tokenizer.pieces("мир, AB c", true).unwrap();
        let seen: Vec<_> = pieces.iter().map(|p| (p.id, p.text.as_str(), p.special, p.range)).collect();
        let wanted = [
            (2, "[CLS]", true, None),
            (8, "мир", false, Some((0, 3))),
            (9, ",", false, Some((3, 4))),
            (4, "A", false, Some((5, 6))),
            (6, "B", false, Some((6, 7))),
            (7, "c", false, Some((8, 9))),
            (3, "[SEP]", true, None),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(tokenizer.pieces("мир, AB c", false).unwrap(), pieces[1..6]);
        assert_eq!(tokenizer.pieces("", true).unwrap().len(), 2);
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
