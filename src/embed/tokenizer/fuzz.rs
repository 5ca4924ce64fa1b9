//! Tokenizers over any bytes: as a text, and as a tokenizer's own file.

use std::sync::LazyLock;
use std::time::Duration;

use super::{Limits, TextTokenizer};

const LIMITS: Limits = Limits { max_tokens: 16, vocabulary: 10, lower_case: true, patience: Duration::from_secs(20) };

/// A small WordPiece tokenizer.
static SMALL: LazyLock<Option<TextTokenizer>> = LazyLock::new(|| {
    let file = include_bytes!("../../../fuzz/corpus/tokenizer/wordpiece.json");
    TextTokenizer::from_bytes(file.to_vec(), "fuzz", LIMITS).ok()
});

/// A text, after a prefix, and a file that says how texts are cut. Whether it is such a file that cuts a text, or,
/// where it does not begin as one, a text that can be cut.
pub fn tokenizer(bytes: &[u8]) -> bool {
    let small = SMALL.as_ref().expect("the corpus holds a good tokenizer");
    let tokens = small.encode("a ", &String::from_utf8_lossy(bytes));
    if let Ok(tokens) = &tokens {
        assert!(tokens.ids.len() <= LIMITS.max_tokens, "{} tokens", tokens.ids.len());
    }
    let own = TextTokenizer::from_bytes(bytes.to_vec(), "fuzz", LIMITS);
    let cuts = own.is_ok_and(|own| own.encode("", "a b, c").is_ok());
    if bytes.starts_with(b"{") { cuts } else { tokens.is_ok() }
}
