//! Tokenizers sound, long-winded and hostile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::charsmap::tests::encode as base64;
use super::*;
use crate::embed::Cancellation;

/// A WordPiece tokenizer of a few words, with the truncation and padding that must be ignored.
pub(crate) fn small_tokenizer() -> Value {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b", "c", "мир", ","];
    let vocabulary: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
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

const LIMITS: Limits = Limits { max_tokens: 8, vocabulary: 10, lower_case: false, patience: Duration::from_secs(60) };

fn load(json: &Value, max_tokens: usize) -> Result<TextTokenizer, String> {
    TextTokenizer::from_bytes(json.to_string().into_bytes(), "small", Limits { max_tokens, ..LIMITS })
}

/// What sentence-transformers runs: the crate's own truncation, after all of a text.
fn reference(json: &Value, max_tokens: usize) -> Tokenizer {
    let mut reference = Tokenizer::from_bytes(json.to_string()).unwrap();
    reference.with_padding(None);
    reference.with_truncation(Some(to_length(max_tokens))).unwrap();
    reference
}

fn assert_like_reference(json: &Value, max_tokens: usize, texts: &[String]) {
    let (tokenizer, reference) = (load(json, max_tokens).unwrap(), reference(json, max_tokens));
    for text in texts {
        let ids = reference.encode_fast(text.trim(), true).unwrap().get_ids().to_vec();
        let truncated = tokenizer.encoding(text.trim(), true).unwrap().len() > max_tokens;
        assert_eq!(tokenizer.encode("", text).unwrap(), Tokens { ids, truncated }, "{text:.40}");
    }
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
    let pieces = tokenizer.pieces(" мир, AB c ", true).unwrap();
    let seen: Vec<_> = pieces.iter().map(|p| (p.id, p.text.as_str(), p.special, p.range)).collect();
    let wanted = [
        (2, "[CLS]", true, None),
        (8, "мир", false, Some((1, 4))),
        (9, ",", false, Some((4, 5))),
        (4, "A", false, Some((6, 7))),
        (6, "B", false, Some((7, 8))),
        (7, "c", false, Some((9, 10))),
        (3, "[SEP]", true, None),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(tokenizer.pieces(" мир, AB c ", false).unwrap(), pieces[1..6]);
    assert_eq!(tokenizer.pieces("", true).unwrap().len(), 2);
}

#[test]
fn a_long_text_has_the_tokens_that_its_whole_has() {
    let mebibyte = |unit: &str| unit.repeat((1 << 20) / unit.len());
    let texts = [
        mebibyte("a b, c "),
        mebibyte("a"),
        mebibyte(" "),
        mebibyte("мир"),
        format!("{}a b", mebibyte(" \n")),
        format!("{} b", "a".repeat(130)),
        format!("{}b c a b c a b c a b c", " ".repeat(127)),
        format!("{}b c", "\u{301} ".repeat(300)),
        mebibyte("[SEP] [CLS]"),
        mebibyte("[SEP][CLS]"),
        mebibyte("!"),
        mebibyte("a,b-c"),
        "a=b=\u{338}".repeat(1000),
    ];
    let mut json = small_tokenizer();
    assert_like_reference(&json, 8, &texts);
    let single = json["post_processor"]["single"].as_array_mut().unwrap();
    single.push(json!({"SpecialToken": {"id": "[SEP]", "type_id": 0}}));
    let (short, long) = ("a b c a b".to_owned(), "a b c a b c".to_owned());
    assert_like_reference(&json, 8, &[short.clone(), long.clone(), long.repeat(1000)]);
    json["post_processor"] = Value::Null;
    assert_like_reference(&json, 8, &[short, long.clone(), long.repeat(1000)]);
    // It composes signs with the marks behind them.
    json["normalizer"] = json!({"type": "NFC"});
    assert_like_reference(&json, 8, &texts[texts.len() - 3..]);
}

#[test]
fn of_a_long_text_only_the_beginning_is_read() {
    let json = small_tokenizer();
    let tokenizer = load(&json, 8).unwrap();
    let first = 8 * FIRST_CUT_BYTES_PER_TOKEN;
    for unit in ["a b, c ", "a", "!", "a,b-c", "c\n"] {
        let text = unit.repeat((1 << 20) / unit.len());
        for with_special in [true, false] {
            let (_, bytes) = tokenizer.beginning(text.trim(), with_special).unwrap();
            // Nothing tells whether a word without an end is one token or many.
            let most = if unit == "a" { 1 << 20 } else { first };
            assert!(bytes <= most, "{bytes} bytes of {unit:?}");
        }
    }
    // Accents are no tokens: the first words are not enough.
    let text = format!("{}{}", "\u{301} ".repeat(first), "a b ".repeat(1 << 18));
    let (_, bytes) = tokenizer.beginning(text.trim(), true).unwrap();
    assert!((first..20 * first).contains(&bytes), "{bytes} bytes");
}

#[test]
fn beginnings_end_where_words_do() {
    let cut = |text, limit_bytes| cut_between_words(text, limit_bytes, b",=");
    assert_eq!(cut("ab  c", 4), "ab");
    assert_eq!(cut("ab \u{3000}\nc", 6), "ab");
    assert_eq!(cut("ab  c", 5), "ab  c");
    assert_eq!(cut("ab,c-d", 5), "ab,");
    assert_eq!(cut("мир,,a", 7), "мир,");
    assert_eq!(cut("abcdef", 3), "abcdef");
    // A mark would become part of the sign.
    assert_eq!(cut("ab,c=\u{338}d", 6), "ab,");
}

#[test]
fn words_end_at_signs_that_no_added_token_holds() {
    let mut json = small_tokenizer();
    let signs = load(&json, 8).unwrap().signs;
    assert!(b"!,.'-".iter().all(|sign| signs.contains(sign)), "{signs:?}");
    assert!(b"[]aZ0 ".iter().all(|sign| !signs.contains(sign)), "{signs:?}");
    assert!(load(&unigram(json!({"type": "Metaspace", "replacement": "▁"})), 8).unwrap().signs.is_empty());
    // A normaliser may make an ASCII sign of it.
    json["added_tokens"][0]["content"] = "≠".into();
    assert!(load(&json, 8).unwrap().signs.is_empty());
}

#[test]
fn a_tokenizer_that_adds_no_tokens_tells_what_it_cuts() {
    let mut json = small_tokenizer();
    assert!(load(&json, 8).unwrap().adds_tokens());
    json["post_processor"] = Value::Null;
    let tokenizer = load(&json, 8).unwrap();
    assert!(!tokenizer.adds_tokens());
    let ids = vec![4, 5, 7, 4, 5, 7, 4, 5];
    let tokens = |text: &str| tokenizer.encode("", text).unwrap();
    assert_eq!(tokens("a b c a b c a b"), Tokens { ids: ids.clone(), truncated: false });
    assert_eq!(tokens("a b c a b c a b c"), Tokens { ids: ids.clone(), truncated: true });
    assert_eq!(tokens(&"a b c ".repeat(10_000)), Tokens { ids, truncated: true });
}

#[test]
fn long_texts_that_are_read_whole_wait_for_room() {
    let tokenizer = load(&small_tokenizer(), 8).unwrap();
    let (long, gone) = ("мир".repeat(SHORT_BYTES / 6 + 1), Cancellation::new());
    gone.cancel();
    let all = ROOM.enter(usize::MAX).unwrap();
    gone.scope(|| {
        let encoded = tokenizer.encode("", &long).map(drop);
        for result in [encoded, tokenizer.pieces(&long, true).map(drop), tokenizer.side(&long).map(drop)] {
            assert!(matches!(result, Err(EmbedError::Cancelled)), "{result:?}");
        }
        // What is short, or of which the beginning is enough, waits for nobody.
        assert_eq!(tokenizer.pieces("a b", false).unwrap().len(), 2);
        assert!(tokenizer.encode("", &"a b ".repeat(1 << 18)).unwrap().truncated);
    });
    drop(all);
    assert_eq!(tokenizer.encode("", &long).unwrap().ids, [2, 1, 3]);
}

/// The small tokenizer with the pairs of a BERT, which knows every word or fails.
pub(crate) fn pair_tokenizer(unknown: &str) -> Value {
    let mut json = small_tokenizer();
    let special = |id: &str, kind: u32| json!({"SpecialToken": {"id": id, "type_id": kind}});
    let sequence = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    json["post_processor"]["pair"] =
        json!([special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0), sequence("B", 1), special("[SEP]", 1)]);
    json["model"]["unk_token"] = unknown.into();
    json
}

#[test]
fn of_two_texts_no_more_is_tokenised_than_fits() {
    let (whole, reference) = (load(&pair_tokenizer("[UNK]"), 9).unwrap(), reference(&pair_tokenizer("[UNK]"), 9));
    let (short, half, long) = ("a b", "c , c , c", "a b c , ".repeat(2_000));
    let pairs = [(short, short), (short, half), (half, short), (half, half), (short, &long), (&long, half)];
    for (first, second) in pairs.into_iter().chain([(long.as_str(), long.as_str())]) {
        let pair = whole.pair(&whole.side(first).unwrap(), &whole.side(second).unwrap()).unwrap();
        let want = reference.encode_fast((first.trim(), second.trim()), true).unwrap();
        let want = want.get_ids().iter().zip(want.get_type_ids()).map(|(id, kind)| id | (kind * OF_SECOND));
        assert_eq!(pair, want.collect::<Vec<_>>(), "{first:.20} {second:.20}");
    }
    let two =
        |first: &[u32], second: &[u32]| [first.to_vec(), second.iter().map(|id| id | OF_SECOND).collect()].concat();
    let both = whole.pair(&whole.side(&long).unwrap(), &whole.side(&long).unwrap()).unwrap();
    assert_eq!(both, two(&[2, 4, 5, 7, 3], &[4, 5, 7, 3]));
    // A word at the end that cannot be tokenised is never met.
    let strict = load(&pair_tokenizer("[NONE]"), 9).unwrap();
    let ends_badly = format!("{long} unheard-of");
    assert!(strict.side("a unheard-of").is_err());
    let (a, bad) = (strict.side("a").unwrap(), strict.side(&ends_badly).unwrap());
    assert_eq!(strict.pair(&a, &bad).unwrap(), two(&[2, 4, 3], &[4, 5, 7, 9, 4, 3]));
    assert_eq!(strict.pair(&bad, &a).unwrap(), two(&[2, 4, 5, 7, 9, 4, 3], &[4, 3]));
}

#[test]
fn the_second_text_is_told_by_files_of_every_kind() {
    let bert = json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]});
    let of_second = |ids: &[u32]| -> Vec<u32> { ids.iter().map(|id| id | OF_SECOND).collect() };
    for (processor, want) in [
        (pair_tokenizer("[UNK]")["post_processor"].clone(), [vec![2, 4, 3, 5, 3], of_second(&[7, 5, 3])]),
        (bert, [vec![2, 4, 3, 5, 3], of_second(&[7, 5, 3])]),
        (Value::Null, [vec![4, 3, 5], of_second(&[7, 5])]),
    ] {
        let mut json = small_tokenizer();
        json["post_processor"] = processor;
        let tokenizer = load(&json, 9).unwrap();
        let (first, second) = (tokenizer.side("a [SEP] b").unwrap(), tokenizer.side("c b").unwrap());
        assert_eq!(tokenizer.pair(&first, &second).unwrap(), want.concat(), "{}", json["post_processor"]);
    }
}

#[test]
fn a_token_of_a_third_type_is_an_error() {
    let mut json = pair_tokenizer("[UNK]");
    json["post_processor"]["pair"][3]["Sequence"]["type_id"] = 2.into();
    let tokenizer = load(&json, 9).unwrap();
    let side = tokenizer.side("a").unwrap();
    let error = tokenizer.pair(&side, &side).unwrap_err().to_string();
    assert!(error.contains("type 2"), "{error}");
}

#[test]
fn special_tokens_that_leave_no_room_for_two_texts_are_an_error() {
    let mut json = pair_tokenizer("[UNK]");
    let last = json["post_processor"]["pair"][4].clone();
    json["post_processor"]["pair"].as_array_mut().unwrap().push(last);
    let tokenizer = load(&json, 3).unwrap();
    let side = tokenizer.side("a").unwrap();
    let error = tokenizer.pair(&side, &side).unwrap_err().to_string();
    assert!(error.contains("4 special tokens to two texts, and 3 fit"), "{error}");
}

#[test]
fn ids_beyond_the_table_are_errors_of_the_tokenizer() {
    let mut json = pair_tokenizer("[UNK]");
    let mut added = json["added_tokens"][0].clone();
    // A number that is taken: it gets the next one that is free, which the table has no more.
    added["content"] = "<x>".into();
    json["added_tokens"].as_array_mut().unwrap().push(added);
    let tokenizer = load(&json, 9).unwrap();
    assert_eq!(tokenizer.encode("", "a").unwrap().ids, [2, 4, 3]);
    let (a, x) = (tokenizer.side("a").unwrap(), tokenizer.side("<x>").unwrap());
    for error in [tokenizer.encode("", "a <x>").unwrap_err(), tokenizer.pair(&a, &x).unwrap_err()] {
        assert!(error.to_string().contains("the token 10,"), "{error}");
    }
    json = small_tokenizer();
    json["post_processor"] = json!({"type": "BertProcessing", "sep": ["[SEP]", 10], "cls": ["[CLS]", 2]});
    let error = load(&json, 8).unwrap().encode("", "a").unwrap_err().to_string();
    assert!(error.contains("the token 10,"), "{error}");
}

#[test]
fn only_tokenizers_that_split_at_blanks_are_cut_there() {
    let mut json = small_tokenizer();
    json["added_tokens"][1]["rstrip"] = true.into();
    assert!(!load(&json, 8).unwrap().splits_at_blanks);
    let mut json = small_tokenizer();
    json["pre_tokenizer"] = json!({"type": "Whitespace"});
    assert!(!load(&json, 8).unwrap().splits_at_blanks);
}

#[test]
fn hostile_files_are_errors() {
    assert!(load(&small_tokenizer(), 2).is_err_and(|e| e.contains("special tokens")));
    let text = small_tokenizer().to_string();
    for len in (0..text.len()).step_by(37) {
        assert!(TextTokenizer::from_bytes(text.as_bytes()[..len].to_vec(), "small", LIMITS).is_err(), "{len}");
    }
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(TextTokenizer::from_bytes(deep.into_bytes(), "small", LIMITS).is_err());
    let sequences = |depth: usize| {
        let (open, close) = (r#"{"type": "Sequence", "pretokenizers": ["#, "]}");
        let whole = small_tokenizer().to_string();
        let inner = format!("{}{}{}", open.repeat(depth), r#"{"type": "BertPreTokenizer"}"#, close.repeat(depth));
        whole.replace(r#"{"type":"BertPreTokenizer"}"#, &inner)
    };
    assert!(TextTokenizer::from_bytes(sequences(2).into_bytes(), "small", LIMITS).is_ok());
    assert!(TextTokenizer::from_bytes(sequences(100_000).into_bytes(), "small", LIMITS).is_err());
}

/// Each change to the small tokenizer with a word of what is said of it.
fn hostile_changes() -> Vec<(&'static str, Value, &'static str)> {
    let replace = |from: Value, to: &str| json!({"type": "Replace", "pattern": from, "content": to});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let doubling: Vec<Value> = (0..40).map(|_| replace(json!({"String": "a"}), "aa")).collect();
    let charsmap = |length: u32, longest: usize| {
        let table = [&length.to_le_bytes()[..], &[0; 4], &vec![b'x'; longest]].concat();
        json!({"type": "Precompiled", "precompiled_charsmap": base64(&table)})
    };
    vec![
        ("/post_processor/special_tokens", json!({}), ""),
        ("/post_processor/single", json!([text("A"), text("A")]), "repeats"),
        ("/post_processor/pair", json!([text("A"), text("B"), text("B")]), "repeats"),
        ("/post_processor/pair", json!([text("A"), text("A")]), "repeats"),
        ("/model/vocab/a", json!(10), "another model"),
        ("/model/vocab/a", json!(-1), "invalid value"),
        ("/model/vocab/a", json!(u64::MAX), "another model"),
        ("/added_tokens/0/id", json!(10), "another model"),
        ("/added_tokens/0/content", json!("x".repeat(1025)), "1025 bytes"),
        ("/model/max_input_chars_per_word", json!(1u64 << 40), "characters"),
        ("/model/dropout", json!(0.1), "draws lots"),
        ("/normalizer", json!({"type": "Sequence", "normalizers": doubling}), "times as long"),
        ("/normalizer", replace(json!({"Regex": ""}), &"x".repeat(200)), "times as long"),
        ("/normalizer", replace(json!({"Regex": "(".repeat(2001)}), ""), "patterns"),
        ("/normalizer", replace(json!({"Regex": "("}), ""), ""),
        ("/normalizer", replace(json!({"Regex": "((a{1000}){1000}){1000}"}), ""), ""),
        ("/normalizer", json!({"type": "Prepend", "prepend": "x".repeat(1 << 20)}), "times as long"),
        ("/normalizer", charsmap(u32::MAX, 1), "shorter than it says"),
        ("/normalizer", charsmap(4, 1000), "times as long"),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA!"}), "base64"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "ByteLevel"}); 60]}),
            "times as",
        ),
        ("/model/type", json!("Unigram"), ""),
        ("/model", json!({"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]}), ""),
    ]
}

#[test]
fn numbers_in_the_file_are_not_believed() {
    for (at, value, says) in hostile_changes() {
        let mut json = small_tokenizer();
        match json.pointer_mut(at) {
            Some(place) => *place = value.clone(),
            None => json["model"][at.rsplit('/').next().unwrap()] = value.clone(),
        }
        let error = load(&json, 8).err().unwrap_or_else(|| panic!("{at} {value} was loaded"));
        assert!(error.contains(says), "{at} {value:.80}: {error}");
    }
}

#[test]
fn what_panics_on_a_text_is_an_error_for_that_text() {
    let mut json = small_tokenizer();
    // The trie points beyond itself, which shows when a character is looked up.
    let table = [&8u32.to_le_bytes()[..], &(1000u32 << 10).to_le_bytes(), &[0; 4], b"a\0"].concat();
    json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": base64(&table)});
    let tokenizer = load(&json, 8).unwrap();
    for text in ["a", "b c"] {
        let error = tokenizer.encode("", text).unwrap_err().to_string();
        assert!(error.contains("panicked"), "{error}");
    }
    json = small_tokenizer();
    json["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
    let tokenizer = load(&json, 8).unwrap();
    assert!(tokenizer.encode("", "a").unwrap_err().to_string().contains("panicked"));
}

#[test]
fn patterns_that_take_for_ever_are_given_up() {
    let split = |pattern: &str| {
        let mut json = small_tokenizer();
        json["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false});
        json
    };
    // A back reference keeps the pattern from linear time; the engine's limit on backtracking ends it.
    assert!(load(&split("((a+)+)\\1\\2c"), 8).unwrap().encode("", &"a".repeat(200)).is_ok());
    // Every match looks at all that follows: time grows with the square of the text, which is in lower case by then.
    let limits = Limits { patience: Duration::from_millis(250), ..LIMITS };
    let json = split(".*[^a-z]|[a-z]").to_string().into_bytes();
    let tokenizer = TextTokenizer::from_bytes(json, "small", limits).unwrap();
    assert!(tokenizer.encode("", "abc").is_ok());
    let text = "a".repeat(100_000);
    let error = tokenizer.encode("", &text).unwrap_err().to_string();
    assert!(error.contains("longer than 250 ms"), "{error}");
    let begun = Instant::now();
    let error = tokenizer.encode("", "abc").unwrap_err().to_string();
    assert!(error.contains("not come to an end"), "{error} after {:?}", begun.elapsed());
    while tokenizer.encode("", "abc").is_err() {
        assert!(begun.elapsed() < Duration::from_secs(300), "the thread that was left behind has not ended");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The limit is of a core's time: the machine may be busy with other threads.
#[cfg(target_os = "linux")]
#[test]
fn waiting_for_a_core_is_no_time_of_a_pattern() {
    let guard = Guard::new(Some(Duration::from_millis(50)));
    let slow = || {
        std::thread::sleep(Duration::from_millis(500));
        Ok(1)
    };
    assert_eq!(guard.run_within(slow), Ok(1));
    assert_eq!(guard.run_within(|| Ok(2)), Ok(2));
}

/// XLM-RoBERTa's kind: Unigram over words that begin with a mark.
fn unigram(pre_tokenizer: Value) -> Value {
    let mut json = small_tokenizer();
    let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁", "▁a", "b", "ab", "▁c", "c"];
    let vocabulary: Vec<Value> =
        pieces.iter().enumerate().map(|(i, piece)| json!([piece, -((i * i) as f64)])).collect();
    json["model"] = json!({"type": "Unigram", "unk_id": 1, "vocab": vocabulary});
    json["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "NFKC"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]});
    json["pre_tokenizer"] = pre_tokenizer;
    json
}

#[test]
fn unigram_texts_are_cut_where_that_changes_nothing() {
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": true, "prepend_scheme": "always"});
    let sequence = json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace.clone()]});
    for pre_tokenizer in [metaspace, sequence] {
        let json = unigram(pre_tokenizer);
        let tokenizer = load(&json, 8).unwrap();
        assert!(tokenizer.splits_at_blanks);
        assert_eq!(tokenizer.encode("", " ab  c ").unwrap().ids, [2, 5, 6, 8, 3]);
        let (_, bytes) = tokenizer.beginning("ab c ".repeat(3000).trim(), true).unwrap();
        assert!(bytes <= 8 * FIRST_CUT_BYTES_PER_TOKEN, "{bytes} bytes");
        let texts = [
            "ab c ".repeat(3000),
            "ab     c \u{3000}  ".repeat(3000),
            "abc".repeat(3000),
            format!("{}abab c", "\u{200b} ".repeat(100)),
            " \u{301} a".repeat(400),
            format!("a{}b", " \u{3000}".repeat(3000)),
        ];
        assert_like_reference(&json, 8, &texts);
    }
    let unsplit = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false});
    assert!(!load(&unigram(unsplit), 8).unwrap().splits_at_blanks);
}

#[test]
fn texts_are_trimmed_and_put_in_lower_case_where_the_model_wants_that() {
    let mut json = small_tokenizer();
    json["normalizer"] = Value::Null;
    let bytes = json.to_string().into_bytes();
    let plain = TextTokenizer::from_bytes(bytes.clone(), "small", LIMITS).unwrap();
    let lower = TextTokenizer::from_bytes(bytes, "small", Limits { lower_case: true, ..LIMITS }).unwrap();
    assert_eq!(plain.encode("", " A МИР\n").unwrap().ids, [2, 1, 1, 3]);
    assert_eq!(lower.encode("B ", " A МИР\n").unwrap().ids, [2, 5, 4, 8, 3]);
}

#[test]
fn pieces_of_a_lower_cased_text_say_what_of_the_original_they_are() {
    let mut json = small_tokenizer();
    json["normalizer"] = Value::Null;
    let bytes = json.to_string().into_bytes();
    let tokenizer = TextTokenizer::from_bytes(bytes, "small", Limits { lower_case: true, ..LIMITS }).unwrap();
    // In lower case each of the first two signs is two.
    let text = " İİ, A МИР ΣΑΣ";
    let pieces = tokenizer.pieces(text, false).unwrap();
    let seen: Vec<_> = pieces.iter().map(|p| (p.id, p.text.as_str(), p.range)).collect();
    let wanted = [
        (1, "İİ", Some((1, 3))),
        (9, ",", Some((3, 4))),
        (4, "A", Some((5, 6))),
        (8, "МИР", Some((7, 10))),
        (1, "ΣΑΣ", Some((11, 14))),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(tokenizer.pieces("  ", false).unwrap(), []);
}
