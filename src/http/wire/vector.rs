//! Vectors as JSON arrays of numbers.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::types::limits::MAX_DIM;

/// How the message of a refused component starts.
pub(super) const REFUSED: &str = "vector component";

/// f32, shape `[n]`, every component finite.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct WireVector(pub(crate) Vec<f32>);

impl<'de> Deserialize<'de> for WireVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(VectorVisitor)
    }
}

struct VectorVisitor;

impl<'de> Visitor<'de> for VectorVisitor {
    type Value = WireVector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<WireVector, A::Error> {
        let mut vector = Vec::new();
        while let Some(number) = seq.next_element::<f64>()? {
            let component = number as f32;
            if !component.is_finite() {
                let index = vector.len();
                return Err(A::Error::custom(format_args!("{REFUSED} {index} is {number:e}, more than an f32 holds")));
            }
            if vector.len() == MAX_DIM {
                return Err(A::Error::custom(format_args!(
                    "{REFUSED} {MAX_DIM} is one too many; the largest dim is {MAX_DIM}"
                )));
            }
            vector.push(component);
        }
        Ok(WireVector(vector))
    }
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
        for text in ["[1, 1e39]", "[1, -1e300]"] {
            assert!(read(text).unwrap_err().starts_with("vector component 1 is"), "{text}");
        }
        for text in ["[\"1\"]", "[null]", "[[1]]", "1", "{}"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&format!("[{}0]", "0,".repeat(MAX_DIM))).unwrap_err().contains("one too many"));
    }
}
