//! Vectors as JSON arrays of numbers.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::types::limits::MAX_DIM;

/// How the message of a refused component starts.
pub(super) const REFUSED: &str = "vector component";

/// f32, shape `[n]`, every component finite.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct WireVector(pub(crate) Vec<f32>);

impl<'de> Deserialize<'de> for WireVector {
    /// Only from JSON text that outlives the value: the parser finds where the array ends, and its numbers are read by
    /// the standard library, several times as fast as one by one through serde.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        numbers(text).map(Self).map_err(D::Error::custom)
    }
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
    for number in inside.split(',').map(str::trim_ascii) {
        let component: f32 = number.parse().map_err(|_| wrong_type(text))?;
        if !component.is_finite() {
            return Err(format!("{REFUSED} {} is {number:.40}, more than an f32 holds", vector.len()));
        }
        if vector.len() == MAX_DIM {
            return Err(format!("{REFUSED} {MAX_DIM} is one too many; the largest dim is {MAX_DIM}"));
        }
        vector.push(component);
    }
    Ok(vector)
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
}
