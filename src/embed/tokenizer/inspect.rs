//! What a tokenizer.json is, and whether it may be loaded: the tokenizers crate believes every number in it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::charsmap;

/// What the tokenizer's treatment depends on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inspected {
    /// Whether no token reaches across an ASCII blank.
    pub splits_at_blanks: bool,
    /// ASCII signs that are always words of their own, and that no added token holds; none where
    /// `splits_at_blanks` is not so.
    pub signs: Vec<u8>,
    /// Whether it holds regular expressions, which may match for ever.
    pub has_patterns: bool,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u64,
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    max_input_chars_per_word: Option<u64>,
    dropout: Option<f64>,
    alpha: Option<f64>,
    #[serde(default)]
    vocab: Vocabulary,
}

/// The largest numbers of a vocabulary, which is read without being kept.
#[derive(Default)]
struct Vocabulary {
    count: u64,
    largest_id: u64,
    longest_bytes: usize,
}

/// Longest word of WordPiece, which takes time in proportion to its square; genuine files say 100.
const MAX_WORD_CHARS: u64 = 200;
/// Longest token; genuine ones are runs of 128 blanks or dashes at most.
const MAX_TOKEN_BYTES: usize = 1024;
/// Longest regular expression, and how many there may be; GPT-4's has 150 bytes.
const MAX_PATTERN_BYTES: usize = 2000;
const MAX_PATTERNS: usize = 32;
/// How many times as long as a text what is made of it may be. XLM-RoBERTa's normaliser turns one character into 33
/// bytes, and its blanks take 3.
const MAX_GROWTH: usize = 128;

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VocabularyVisitor)
    }
}

struct VocabularyVisitor;

impl Vocabulary {
    fn add(&mut self, token: &str, id: u64) {
        self.count += 1;
        self.largest_id = self.largest_id.max(id);
        self.longest_bytes = self.longest_bytes.max(token.len());
    }
}

impl<'de> Visitor<'de> for VocabularyVisitor {
    type Value = Vocabulary;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
        let mut vocabulary = Vocabulary::default();
        while let Some((token, id)) = map.next_entry::<Cow<'de, str>, u64>()? {
            vocabulary.add(&token, id);
        }
        Ok(vocabulary)
    }

    /// Unigram's: tokens with their scores, in order of their ids.
    fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> Result<Vocabulary, A::Error> {
        let mut vocabulary = Vocabulary::default();
        while let Some((token, IgnoredAny)) = tokens.next_element::<(Cow<'de, str>, IgnoredAny)>()? {
            vocabulary.add(&token, vocabulary.count);
        }
        Ok(vocabulary)
    }
}

/// Reads a tokenizer.json for a model whose table of tokens has `vocabulary` rows.
///
/// # Errors
/// In words, why it must not be loaded.
pub(super) fn inspect(bytes: &[u8], vocabulary: usize) -> Result<Inspected, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    file.check_vocabulary(vocabulary)?;
    file.check_model()?;
    check_template(&file.post_processor)?;
    let mut steps = Steps { growth: 1, patterns: 0 };
    steps.read(&file.normalizer)?;
    steps.read(&file.pre_tokenizer)?;
    let (splits_at_blanks, has_patterns) = (file.splits_at_blanks(), steps.patterns > 0);
    let signs = if splits_at_blanks { file.signs() } else { Vec::new() };
    Ok(Inspected { splits_at_blanks, signs, has_patterns })
}

impl File {
    fn check_vocabulary(&self, rows: usize) -> Result<(), String> {
        let added = self.added_tokens.iter().map(|token| (token.id, token.content.len()));
        let (largest, longest) = added
            .fold((self.model.vocab.largest_id, self.model.vocab.longest_bytes), |max, token| {
                (max.0.max(token.0), max.1.max(token.1))
            });
        if largest >= rows as u64 {
            return Err(format!(
                "it makes tokens up to {largest}, and the model's table has {rows}: it is the tokenizer of another model"
            ));
        }
        if longest > MAX_TOKEN_BYTES {
            return Err(format!("it has a token of {longest} bytes, at most {MAX_TOKEN_BYTES} are allowed"));
        }
        Ok(())
    }

    fn check_model(&self) -> Result<(), String> {
        if self.model.dropout.is_some_and(|dropout| dropout != 0.0)
            || self.model.alpha.is_some_and(|alpha| alpha != 0.0)
        {
            return Err("it draws lots (dropout or alpha), so that equal texts get unequal vectors".to_owned());
        }
        match self.model.max_input_chars_per_word {
            Some(chars) if chars > MAX_WORD_CHARS => {
                Err(format!("it reads words of {chars} characters, at most {MAX_WORD_CHARS} are allowed"))
            }
            _ => Ok(()),
        }
    }

    /// Whether words are cut at blanks first, no step before that looks beyond one, and no added token holds or
    /// swallows a blank.
    fn splits_at_blanks(&self) -> bool {
        let splits = match kind(&self.pre_tokenizer) {
            "BertPreTokenizer" => true,
            "Metaspace" => self.pre_tokenizer["split"] != false,
            "Sequence" => kind(&self.pre_tokenizer["pretokenizers"][0]) == "WhitespaceSplit",
            _ => false,
        };
        splits
            && is_local(&self.normalizer)
            && matches!(self.model.kind.as_deref(), Some("WordPiece" | "Unigram" | "BPE"))
            && self.added_tokens.iter().all(|token| {
                !token.content.is_empty()
                    && !token.content.contains(char::is_whitespace)
                    && !token.lstrip
                    && !token.rstrip
            })
    }

    /// BERT's words end at signs as well. A normaliser may make signs of an added token that is not ASCII.
    fn signs(&self) -> Vec<u8> {
        let are_words = kind(&self.pre_tokenizer) == "BertPreTokenizer"
            && keeps_signs(&self.normalizer)
            && self.added_tokens.iter().all(|token| token.content.is_ascii());
        let is_free = |sign: &u8| self.added_tokens.iter().all(|token| !token.content.as_bytes().contains(sign));
        match are_words {
            true => (b'!'..=b'~').filter(u8::is_ascii_punctuation).filter(is_free).collect(),
            false => Vec::new(),
        }
    }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

/// Whether a normaliser changes what stands before a blank in the same way whatever follows the blank.
fn is_local(normalizer: &Value) -> bool {
    match kind(normalizer) {
        "" => normalizer.is_null(),
        "BertNormalizer" | "Lowercase" | "StripAccents" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Nmt" | "Precompiled" => {
            true
        }
        // Runs of blanks made one; texts are cut before such a run.
        "Replace" => normalizer["pattern"]["Regex"] == " {2,}",
        "Sequence" => normalizer["normalizers"].as_array().is_some_and(|steps| steps.iter().all(is_local)),
        _ => false,
    }
}

/// Whether a local normaliser leaves an ASCII sign what it is where another ASCII character follows it.
fn keeps_signs(normalizer: &Value) -> bool {
    kind(normalizer) != "Precompiled"
        && normalizer["normalizers"].as_array().is_none_or(|steps| steps.iter().all(keeps_signs))
}

/// A template may hold a text as often as it likes, after truncation; where two texts were cut, all combinations of
/// what was cut off are made.
fn check_template(step: &Value) -> Result<(), String> {
    for (template, texts) in [("single", 1), ("pair", 2)] {
        let pieces = step[template].as_array().map(Vec::as_slice).unwrap_or_default();
        let sequences: Vec<&Value> =
            pieces.iter().map(|piece| &piece["Sequence"]["id"]).filter(|id| !id.is_null()).collect();
        let repeats = (1..sequences.len()).any(|at| sequences[..at].contains(&sequences[at]));
        if repeats || sequences.len() > texts {
            return Err("its template repeats each text".to_owned());
        }
    }
    step["processors"].as_array().into_iter().flatten().try_for_each(check_template)
}

/// What the steps before the model do to a text's length, taken together.
struct Steps {
    growth: usize,
    patterns: usize,
}

impl Steps {
    fn read(&mut self, step: &Value) -> Result<(), String> {
        if let Some(pattern) = step["pattern"]["Regex"].as_str() {
            self.patterns += 1;
            if pattern.len() > MAX_PATTERN_BYTES || self.patterns > MAX_PATTERNS {
                let limits = format!("at most {MAX_PATTERNS} of {MAX_PATTERN_BYTES} bytes");
                return Err(format!("it has too many or too long patterns, allowed are {limits}"));
            }
        }
        let growth = match kind(step) {
            "Replace" => {
                let content = step["content"].as_str().map_or(0, str::len);
                // An expression may match nothing, and so before every character.
                step["pattern"]["String"].as_str().map_or(content + 1, |from| content.div_ceil(from.len().max(1)))
            }
            "Prepend" => 1 + step["prepend"].as_str().map_or(0, str::len),
            "Metaspace" => 3,
            "ByteLevel" => 2,
            "Precompiled" => charsmap::longest_replacement(step["precompiled_charsmap"].as_str().unwrap_or_default())?,
            _ => 1,
        };
        self.growth = self.growth.saturating_mul(growth.max(1));
        if self.growth > MAX_GROWTH {
            return Err(format!("it makes texts more than {MAX_GROWTH} times as long"));
        }
        let inner = [&step["normalizers"], &step["pretokenizers"]];
        inner.into_iter().filter_map(Value::as_array).flatten().try_for_each(|step| self.read(step))
    }
}
