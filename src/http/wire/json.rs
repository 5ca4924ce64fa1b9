//! Parsing a JSON body: what is wrong with it becomes a code and a sentence.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use serde_path_to_error::Segment;

use super::room;
use super::scan::{ScanError, scan};
use crate::http::error::{ApiError, Code};
use crate::http::trim;
use crate::types::limits::MAX_JSON_DEPTH;

/// Bytes of memory that metadata, filters and inputs may take for each byte of their text: objects of a few short
/// entries take 15,
const VALUE_BYTES_A_BYTE: usize = 20;
/// and at least.
const MIN_VALUE_BYTES: usize = 32 << 20;
/// Most characters that a refusal repeats of a name,
const NAME_CHARS: usize = 100;
/// and of anything else at its beginning
const BEGINNING_CHARS: usize = 600;
/// and at its end, where serde says in which line.
const END_CHARS: usize = 200;

/// Parses a JSON object.
///
/// # Errors
/// 400 where the text is not JSON or too deep, 422 where it is JSON of another shape, 413 where its values would take
/// many times the memory of the text.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    parse_measured(bytes).map(|(value, _)| value)
}

/// As [`parse`], with the bytes of memory that the values take which clients nest and name as they like.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_measured<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), ApiError> {
    if let Err(error) = std::str::from_utf8(bytes) {
        let detail = format!("the body is not UTF-8 (byte {}); send JSON encoded as UTF-8", error.valid_up_to());
        return Err(ApiError::new(Code::InvalidJson, detail));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        let detail = "the body begins with a byte order mark (U+FEFF), which JSON has none of; leave it out";
        return Err(ApiError::new(Code::InvalidJson, detail));
    }
    scan(bytes).map_err(|error| match error {
        ScanError::TooDeep { offset } => {
            let detail = format!("nesting passes {MAX_JSON_DEPTH} levels at byte {offset}; send a flatter body");
            ApiError::new(Code::JsonTooDeep, detail)
        }
        ScanError::Integer { offset } => {
            let detail = format!(
                "the integer at byte {offset} is outside {} to {}; send a smaller one, in metadata also a string or 1e20",
                i64::MIN,
                i64::MAX
            );
            ApiError::new(Code::IntegerOutOfRange, detail)
        }
    })?;
    let value_bytes = (VALUE_BYTES_A_BYTE * bytes.len()).max(MIN_VALUE_BYTES);
    let (read, taken) = room::within(value_bytes, || (serde_json::from_slice(bytes), room::taken()));
    let Object(value) = read.map_err(|error| refuse(&error, || place::<T>(bytes, value_bytes, &error)))?;
    Ok((value, taken))
}

/// Where the value at fault stands, such as `documents[3].if_seq`; empty where it is the whole body, or is not known.
/// The text is read once more, as keeping track of the place takes time.
fn place<T: DeserializeOwned>(bytes: &[u8], value_bytes: usize, error: &serde_json::Error) -> String {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let again = room::within(value_bytes, || serde_path_to_error::deserialize::<_, Object<T>>(&mut json));
    let said = error.to_string();
    let Some(found) = again.err().filter(|again| again.inner().to_string() == said) else { return String::new() };
    // The sentence has the name of an unknown field.
    let count = found.path().iter().len().saturating_sub(usize::from(said.starts_with("unknown field")));
    let place = found.path().iter().take(count).fold(String::new(), |place, segment| match segment {
        Segment::Seq { .. } => format!("{place}{segment}"),
        _ if place.is_empty() => segment.to_string(),
        _ => format!("{place}.{segment}"),
    });
    shortened(&place, NAME_CHARS, NAME_CHARS).into_owned()
}

/// Parses a JSON object that stands in the query string as parameter `name`.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub(crate) fn parse_parameter<T: DeserializeOwned>(name: &'static str, text: &str) -> Result<T, ApiError> {
    parse(text.as_bytes()).map_err(|error| {
        let detail = format!("parameter {name:?} is not what it should be: {}", error.detail.replace("the body", "it"));
        ApiError::new(Code::InvalidParameter, detail)
    })
}

/// `place` tells where the value at fault stands.
fn refuse(error: &serde_json::Error, place: impl FnOnce() -> String) -> ApiError {
    let text = without_content(&error.to_string());
    if error.classify() != Category::Data {
        return ApiError::new(Code::InvalidJson, format!("the body is not valid JSON: {text}"));
    }
    // serde has no kinds of error beyond its texts, which its own derive writes; a test below holds them.
    let code = if text.starts_with("unknown field") {
        Code::UnknownField
    } else if text.starts_with("missing field") {
        Code::MissingField
    } else if text.starts_with(super::vector::REFUSED) {
        Code::InvalidVector
    } else if text.starts_with(super::filter::REFUSED) {
        Code::InvalidFilter
    } else if text.starts_with(room::REFUSED) {
        // It is no value's own fault.
        return ApiError::new(Code::BodyTooLarge, text);
    } else {
        Code::InvalidValue
    };
    let (place, text) = (place(), in_words_of_json(text));
    ApiError::new(code, if place.is_empty() { text } else { format!("{place}: {text}") })
}

/// serde's sentence in the words of JSON, not of Rust.
fn in_words_of_json(said: String) -> String {
    const FOUND: [(&str, &str); 3] = [
        ("invalid type: map, ", "invalid type: an object, "),
        ("invalid type: sequence, ", "invalid type: an array, "),
        ("unknown variant ", "unknown value "),
    ];
    const EXPECTED: [(&str, &str); 11] = [
        ("u8", "a whole number from 0"),
        ("u16", "a whole number from 0"),
        ("u32", "a whole number from 0"),
        ("u64", "a whole number from 0"),
        ("usize", "a whole number from 0"),
        ("i64", "a whole number"),
        ("a nonzero u32", "a whole number from 1"),
        ("f32", "a number"),
        ("f64", "a number"),
        ("a sequence", "an array"),
        ("a map", "an object"),
    ];
    let begin = FOUND.iter().find_map(|(rust, json)| Some(format!("{json}{}", said.strip_prefix(rust)?)));
    let said = begin.unwrap_or(said);
    let end = said.rsplit_once(", expected ").and_then(|(found, expected)| {
        let (what, at) = expected.split_at(expected.find(" at line ").unwrap_or(expected.len()));
        let (_, json) = EXPECTED.iter().find(|(rust, _)| *rust == what)?;
        Some(format!("{found}, expected {json}{at}"))
    });
    end.unwrap_or(said)
}

/// serde's sentence without what it repeats of a document: of a string or a number nothing, of a name its beginning.
/// They may have megabytes, and hold what belongs into no log.
fn without_content(said: &str) -> String {
    for kind in ["invalid type: ", "invalid value: "] {
        let Some(found) = said.strip_prefix(kind) else { continue };
        for (begins, ends, what) in
            [("string \"", "\"", "a string"), ("integer `", "`", "an integer"), ("floating point `", "`", "a number")]
        {
            let found = found.strip_prefix(begins).and_then(|found| found.rsplit_once(&format!("{ends}, expected ")));
            if let Some((_, expected)) = found {
                return format!("{kind}{what}, expected {expected}");
            }
        }
    }
    for kind in ["unknown field `", "unknown variant `"] {
        let named = said.strip_prefix(kind).and_then(|named| named.rsplit_once("`, expected "));
        if let Some((name, expected)) = named {
            return format!("{kind}{}`, expected {expected}", shortened(name, NAME_CHARS, 0));
        }
    }
    shortened(said, BEGINNING_CHARS, END_CHARS).into_owned()
}

/// A text, or its first and last characters where it has more.
pub(crate) fn shortened(text: &str, first: usize, last: usize) -> Cow<'_, str> {
    let place = |(at, _): (usize, char)| at;
    let Some(begins) = text.char_indices().nth(first).map(place) else { return text.into() };
    // After as many characters from the end.
    let ends = last.checked_sub(1).map_or(Some(text.len()), |n| text.char_indices().nth_back(n).map(place));
    match ends.filter(|ends| *ends > begins) {
        Some(ends) => format!("{}\u{2026}{}", &text[..begins], &text[ends..]).into(),
        None => text.into(),
    }
}

/// A JSON object and nothing else: serde's derive would also take an array of the fields in their order.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// JSON text as a response, written where its value is at hand.
#[derive(Debug)]
pub(crate) struct JsonText(Vec<u8>);

impl JsonText {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, ApiError> {
        serde_json::to_vec(value).map(Self).map_err(ApiError::internal)
    }
}

impl IntoResponse for JsonText {
    fn into_response(self) -> Response {
        trim::after(self.0.len());
        (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[expect(dead_code, reason = "only parsed")]
        a: u32,
        #[expect(dead_code, reason = "only parsed")]
        inner: Option<Object<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only parsed")]
        b: u32,
    }

    fn code(text: &[u8]) -> Code {
        parse::<Body>(text).unwrap_err().code
    }

    #[test]
    fn every_fault_has_its_code() {
        assert!(parse::<Body>(b"{\"a\":1,\"inner\":{\"b\":2}}").is_ok());
        let cases: [(&[u8], Code); 14] = [
            (b"", Code::InvalidJson),
            (b"{\"a\":1", Code::InvalidJson),
            (b"{\"a\":1}}", Code::InvalidJson),
            (b"{\"a\":NaN}", Code::InvalidJson),
            (b"{\"a\":\"\xff\"}", Code::InvalidJson),
            (b"{'a':1}", Code::InvalidJson),
            (b"{\"a\":1,\"c\":2}", Code::UnknownField),
            (b"{\"a\":1,\"inner\":{\"b\":1,\"x\":2}}", Code::UnknownField),
            (b"{}", Code::MissingField),
            (b"{\"a\":\"1\"}", Code::InvalidValue),
            (b"{\"a\":-1}", Code::InvalidValue),
            (b"[1]", Code::InvalidValue),
            (b"{\"a\":1,\"inner\":[2]}", Code::InvalidValue),
            (b"{\"a\":18446744073709551615}", Code::IntegerOutOfRange),
        ];
        for (text, wanted) in cases {
            assert_eq!(code(text), wanted, "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(code("{\"a\":".repeat(1_000_000).as_bytes()), Code::JsonTooDeep);
    }

    #[test]
    fn values_that_take_much_more_than_their_text_are_refused() {
        use crate::http::wire::document::DocumentBody;
        use crate::http::wire::embeddings::EmbeddingsBody;
        use crate::http::wire::search::SearchBody;

        fn code_of<T: DeserializeOwned>(before: &str, item: &str, count: usize, after: &str) -> Option<Code> {
            let text = format!("{before}{}{after}", vec![item; count].join(","));
            parse::<T>(text.as_bytes()).err().map(|error| error.code)
        }
        let metadata = |item: &str, count: usize| {
            code_of::<DocumentBody>("{\"id\":\"a\",\"metadata\":{\"a\":[", item, count, "]}}")
        };
        for item in ["{\"\":1}", "[1]"] {
            assert_eq!(metadata(item, 20_000), None, "{item}");
            assert_eq!(metadata(item, 400_000), Some(Code::BodyTooLarge), "{item}");
        }
        assert_eq!(metadata("0.123456789", 100_000), None);
        let input = |count: usize| code_of::<EmbeddingsBody>("{\"model\":\"m\",\"input\":[", "[1]", count, "]}");
        assert_eq!((input(2_048), input(400_000)), (None, Some(Code::BodyTooLarge)));
        let filter = |count: usize| code_of::<SearchBody>("{\"id\":\"a\",\"filter\":{\"$and\":[", "{}", count, "]}}");
        assert_eq!((filter(300), filter(100_000)), (None, Some(Code::InvalidFilter)));
        // What one body took is there for the next.
        assert_eq!((metadata("[1]", 20_000), input(2_048)), (None, None));
    }

    #[test]
    fn a_refusal_repeats_no_text_and_of_names_the_beginning() {
        let said = |text: String| parse::<Body>(text.as_bytes()).unwrap_err().detail.into_owned();
        let long = "\u{200b}, expected ".repeat(100_000);
        let detail = said(format!(r#"{{"a":1,"inner":"{long}\", expected x"}}"#));
        assert!(detail.starts_with("inner: invalid type: a string, expected an object at line 1"), "a long one");
        let detail = said(r#"{"a":"s3cret"}"#.into());
        assert!(detail.starts_with("a: invalid type: a string, expected a whole number from 0 at"), "{detail}");
        for (number, what) in [("-4111111111111111", "an integer"), ("4111111111111111.5", "a number")] {
            let detail = said(format!(r#"{{"a":1,"inner":{number}}}"#));
            let wanted = format!("inner: invalid type: {what}, expected an object at line 1");
            assert!(detail.starts_with(&wanted), "{detail}");
        }
        let detail = said(r#"{"a":-4111111111111111}"#.into());
        assert!(detail.starts_with("a: invalid value: an integer, expected a whole number from 0"), "{detail}");
        let detail = said(r#"{"a":41111111111111111111}"#.into());
        assert!(detail.starts_with("the integer at byte 5 is outside "), "{detail}");
        let detail = said(format!(r#"{{"{long}":1}}"#));
        assert!(detail.starts_with("unknown field `\u{200b}, exp") && detail.len() < 400, "{detail}");
        assert!(detail.contains("\u{2026}`, expected `a` or `inner` at line 1"), "{detail}");
        let twice = format!(r#"{{"id":"a","metadata":{{"{long}":1,"{long}":2}}}}"#);
        let error = parse::<crate::http::wire::document::DocumentBody>(twice.as_bytes()).unwrap_err();
        assert!(error.detail.len() < 4_000 && error.detail.contains(" stands twice in one object at line 1"));
    }

    #[test]
    fn texts_are_shortened_in_their_middle() {
        let cases = [("abcd", "abcd"), ("абвг", "абвг"), ("абвгд", "аб\u{2026}гд"), ("", "")];
        for (text, wanted) in cases {
            assert_eq!(shortened(text, 2, 2), wanted);
        }
        assert_eq!((shortened("abc", 3, 0), shortened("abcd", 3, 0)), ("abc".into(), "abc\u{2026}".into()));
    }

    #[test]
    fn the_sentence_says_where() {
        let error = parse::<Body>(b"{\"a\":1,\n\"c\":2}").unwrap_err();
        assert!(error.detail.contains("`c`") && error.detail.contains("line 2"), "{}", error.detail);
    }

    #[test]
    fn the_sentence_names_the_place_in_the_words_of_json() {
        use crate::http::wire::document::UpsertBody;

        fn said<T: DeserializeOwned>(text: &str) -> String {
            let Err(error) = parse::<T>(text.as_bytes()) else { panic!("{text} was taken") };
            let detail = error.detail.into_owned();
            detail.split_once(" at line ").map_or(detail.clone(), |(before, _)| before.to_owned())
        }
        let documents = |second: &str| said::<UpsertBody>(&format!(r#"{{"documents":[{{"id":"a"}},{second}]}}"#));
        assert_eq!(
            documents(r#"{"id":"b","if_seq":"0"}"#),
            "documents[1].if_seq: invalid type: a string, expected a whole number from 0"
        );
        assert!(documents(r#"{"text":"b"}"#).starts_with("documents[1]: missing field `id`"));
        assert!(documents(r#"{"id":"b","txt":"b"}"#).starts_with("documents[1]: unknown field `txt`, expected"));
        assert!(said::<UpsertBody>(r#"{"documents":{}}"#).starts_with("documents: invalid type: an object, expected"));
        assert!(said::<Body>(r#"{"a":1,"inner":[]}"#).starts_with("inner: invalid type: an array, expected an object"));
        assert!(said::<Body>(r#"{"a":1,"c":2}"#).starts_with("unknown field `c`, expected"));
        assert!(said::<Body>("\u{feff}{\"a\":1}").contains("byte order mark"));
        let out = said::<Body>(r#"{"a":18446744073709551615}"#);
        assert!(out.starts_with("the integer at byte 5 is outside -9223372036854775808 to"), "{out}");
    }
}
