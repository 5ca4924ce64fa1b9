//! Vectors in JSON: arrays of numbers, or base64 of little-endian f32.

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::decimal::decimal;
use crate::types::limits::MAX_DIM;

/// How the message of a refused vector starts.
pub(super) const REFUSED: &str = "vector ";

/// Numbers, or base64 of little-endian f32, four bytes a number, which is a quarter as long and read faster.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Vector)]
#[expect(dead_code, reason = "what the schema is made of")]
pub(crate) enum VectorSchema {
    #[schema(title = "numbers")]
    Numbers(Vec<f32>),
    #[schema(title = "base64")]
    Base64(String),
}

/// f32, shape `[n]`, every component finite.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct WireVector(pub(crate) Vec<f32>);

impl<'de> Deserialize<'de> for WireVector {
    /// Only from JSON text that outlives the value: the parser finds where it ends, and numbers are read from the text,
    /// several times as fast as one by one through serde.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let vector = if text.starts_with('"') { from_base64(text) } else { numbers(text) };
        vector.map(Self).map_err(D::Error::custom)
    }
}

/// A vector as base64.
pub(crate) fn to_base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// The numbers of a JSON string of base64, with or without padding, or what is wrong with it.
fn from_base64(text: &str) -> Result<Vec<f32>, String> {
    const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let refuse = |what: &str| {
        let what = what.trim_end_matches('.');
        format!("{REFUSED}text: {what}; send base64 of little-endian f32, or an array of numbers")
    };
    let plain = text.trim_matches('"');
    // Some writers escape slashes.
    let unescaped = plain.contains('\\').then(|| serde_json::from_str::<String>(text)).transpose();
    let unescaped = unescaped.map_err(|error| refuse(&error.to_string()))?;
    let bytes =
        ANY_PADDING.decode(unescaped.as_deref().unwrap_or(plain)).map_err(|error| refuse(&error.to_string()))?;
    let (numbers, []) = bytes.as_chunks() else {
        return Err(refuse(&format!("{} bytes are no whole number of f32", bytes.len())));
    };
    if numbers.len() > MAX_DIM {
        return Err(too_many());
    }
    let vector: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    match vector.iter().position(|x| !x.is_finite()) {
        None => Ok(vector),
        Some(at) => Err(format!("{REFUSED}component {at} is {}, no finite number", vector[at])),
    }
}

fn too_many() -> String {
    format!("{REFUSED}component {MAX_DIM} is one too many; the largest dim is {MAX_DIM}")
}

/// The numbers of an array, or what is wrong with it. `text`: valid JSON.
fn numbers(text: &str) -> Result<Vec<f32>, String> {
    let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) else {
        return Err(wrong_type(text));
    };
    // A component as most clients print it has a dozen characters.
    let mut vector = Vec::with_capacity((inside.len() / 12 + 1).min(MAX_DIM));
    if inside.trim_ascii().is_empty() {
        return Ok(vector);
    }
    let bytes = inside.as_bytes();
    let mut at = 0;
    loop {
        at = after_blanks(bytes, at);
        let (component, length) = match decimal(&bytes[at..]) {
            Some(read) => read,
            None => {
                let rest = &inside[at..];
                let length = rest.find(',').unwrap_or(rest.len());
                (rest[..length].trim_ascii_end().parse().map_err(|_| wrong_type(text))?, length)
            }
        };
        if !component.is_finite() {
            let number = &inside[at..at + length];
            return Err(format!("{REFUSED}component {} is {number:.40}, more than an f32 holds", vector.len()));
        }
        if vector.len() == MAX_DIM {
            return Err(too_many());
        }
        vector.push(component);
        at = after_blanks(bytes, at + length);
        match bytes.get(at) {
            Some(b',') => at += 1,
            None => return Ok(vector),
            Some(_) => return Err(wrong_type(text)),
        }
    }
}

/// Where the first byte from `at` on stands that is no blank.
fn after_blanks(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// What is no array of numbers, in the words of the parser, without the place, which would be one within the value.
fn wrong_type(text: &str) -> String {
    let error = serde_json::from_str::<Vec<f64>>(text).err().map(|error| error.to_string()).unwrap_or_default();
    error.rsplit_once(" at line ").map_or(error.as_str(), |(what, _)| what).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<f32>, String> {
        serde_json::from_str::<WireVector>(text).map(|v| v.0).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_written_is_read_back_bit_for_bit() {
        let vector = [0.1f32, -0.0, 1.0, f32::MIN_POSITIVE, f32::MAX, 1e-45, -3.402_823e38, 16_777_217.0, 0.333_333_34];
        let text = serde_json::to_string(&vector).unwrap();
        assert!(text.starts_with("[0.1,-0.0,1.0,"), "{text}");
        let back = read(&text).unwrap();
        assert_eq!(back.map_bits(), vector.map_bits());
    }

    trait Bits {
        fn map_bits(&self) -> Vec<u32>;
    }

    impl<T: AsRef<[f32]>> Bits for T {
        fn map_bits(&self) -> Vec<u32> {
            self.as_ref().iter().map(|x| x.to_bits()).collect()
        }
    }

    #[test]
    fn integers_are_numbers_and_overflow_is_refused() {
        assert_eq!(read("[1, -2, 3.5]"), Ok(vec![1.0, -2.0, 3.5]));
        for text in ["[1, 1e39]", "[1, -1e300]", "[1, 1e999]"] {
            assert!(read(text).unwrap_err().starts_with("vector component 1 is"), "{text}");
        }
        for text in
            ["[\"1\"]", "[null]", "[[1]]", "1", "{}", "[1,]", "[,1]", "[inf]", "[+1]", "[.5]", "[1.]", "[1 2]", "[1"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read(" [ ] "), Ok(Vec::new()));
        assert_eq!(read("\t[ 1 ,\n2E0\r, -0.5e1 ]"), Ok(vec![1.0, 2.0, -5.0]));
        let error = read("[1, \"2\"]").unwrap_err();
        assert_eq!(error, "invalid type: string \"2\", expected f64");
        assert!(read(&format!("[{}0]", "0,".repeat(MAX_DIM))).unwrap_err().contains("one too many"));
    }

    #[test]
    fn base64_is_little_endian_f32() {
        assert_eq!(to_base64(&[1.0, -2.0]), "AACAPwAAAMA=");
        for text in ["\"AACAPwAAAMA=\"", "\"AACAPwAAAMA\"", "\"AACAPwAAAM\\u0041=\""] {
            assert_eq!(read(text), Ok(vec![1.0, -2.0]), "{text}");
        }
        assert_eq!(read("\"\""), Ok(Vec::new()));
        // PHP writes a slash so.
        let slashes = to_base64(&[f32::from_le_bytes([0xff, 0xff, 0xff, 0x3e])]);
        assert!(slashes.contains('/'), "{slashes}");
        assert_eq!(read(&format!("\"{}\"", slashes.replace('/', "\\/"))).map(|v| v.len()), Ok(1));
        for (text, what) in [
            ("\"a b\"", "Invalid symbol 32"),
            ("\"AACAPw==AAAA\"", "Invalid"),
            ("\"AACA\\ud800\"", "unexpected end of hex escape"),
            ("\"AACA\"", "3 bytes are no whole number of f32"),
            ("\"AADAfw==\"", "component 0 is NaN, no finite number"),
            ("\"AACAPwAAgH8=\"", "component 1 is inf, no finite number"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(REFUSED) && error.contains(what), "{text}: {error}");
        }
        let long = to_base64(&vec![0.5; MAX_DIM + 1]);
        assert!(read(&format!("\"{long}\"")).unwrap_err().contains("one too many"));
        assert_eq!(read(&format!("\"{}\"", to_base64(&vec![0.5; MAX_DIM]))).map(|v| v.len()), Ok(MAX_DIM));
    }
}
