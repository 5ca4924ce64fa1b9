//! Values of metadata fields: how often each stands in documents, and which documents share one.

use std::collections::HashMap;

use crate::types::limits::{MAX_COUNTED_VALUES, MAX_SHARED_STRING_BYTES};
use crate::types::{Facet, Metadata, Value, lookup};

use super::CollectionError;

/// Most values of a facet.
const MAX_VALUES: usize = 100;
/// The first f64 above every i64.
const TOP: f64 = 9_223_372_036_854_775_808.0;

/// The values that a document has in a field: the field's own, or each element of its array once. Null, objects,
/// nested arrays and strings of more than [`MAX_SHARED_STRING_BYTES`] are none.
pub fn values<'a>(metadata: &'a Metadata, field: &str) -> Vec<&'a Value> {
    let one = |value: &&Value| match value {
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => true,
        Value::String(text) => text.len() <= MAX_SHARED_STRING_BYTES,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    match lookup(metadata, field) {
        Some(Value::Array(items)) => {
            let mut seen = std::collections::HashSet::new();
            items.iter().filter(one).filter(|value| seen.insert(key(value))).collect()
        }
        other => other.into_iter().filter(one).collect(),
    }
}

/// Tells values apart as filters do: 1 equals 1.0.
pub fn key(value: &Value) -> String {
    match value {
        Value::Float(float) if float.fract() == 0.0 && (-TOP..TOP).contains(float) => {
            format!("{:?}", Value::Int(*float as i64))
        }
        other => format!("{other:?}"),
    }
}

/// Counts the values of each field over documents.
pub struct Counts<'a> {
    fields: &'a [String],
    counts: Vec<HashMap<String, (Value, u64)>>,
    documents: u64,
    /// Different values that may still be met.
    room: usize,
}

impl<'a> Counts<'a> {
    /// Nothing counted yet.
    pub fn new(fields: &'a [String]) -> Self {
        Self::within(fields, MAX_COUNTED_VALUES)
    }

    fn within(fields: &'a [String], room: usize) -> Self {
        Self { fields, counts: vec![HashMap::new(); fields.len()], documents: 0, room }
    }

    /// Counts one document.
    ///
    /// # Errors
    /// [`CollectionError::Query`] where there are more than [`MAX_COUNTED_VALUES`] different values with it.
    pub fn add(&mut self, metadata: &Metadata) -> Result<(), CollectionError> {
        self.documents += 1;
        for (field, counts) in self.fields.iter().zip(&mut self.counts) {
            for value in values(metadata, field) {
                let known = counts.len();
                counts.entry(key(value)).or_insert_with(|| (value.clone(), 0)).1 += 1;
                let Some(room) = self.room.checked_sub(counts.len() - known) else {
                    let detail = format!(
                        "\"facets\" meets more than {MAX_COUNTED_VALUES} different values; leave {field:?} out, or \
                         narrow the search by a filter"
                    );
                    return Err(CollectionError::Query { detail });
                };
                self.room = room;
            }
        }
        Ok(())
    }

    /// What was counted: the most frequent first, ties by the value's text.
    pub fn into_facets(self) -> Vec<Facet> {
        let facet = |(field, counts): (&String, HashMap<String, (Value, u64)>)| {
            let mut counted: Vec<_> = counts.into_iter().collect();
            counted.sort_by(|(a_key, (_, a)), (b_key, (_, b))| b.cmp(a).then_with(|| a_key.cmp(b_key)));
            counted.truncate(MAX_VALUES);
            let values = counted.into_iter().map(|(_, counted)| counted).collect();
            Facet { field: field.clone(), values, documents: self.documents }
        };
        self.fields.iter().zip(self.counts).map(facet).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: Value) -> Metadata {
        [("k".to_owned(), value), ("n".to_owned(), Value::Int(2))].into()
    }

    #[test]
    fn values_are_counted_once_a_document() {
        let fields = ["k".to_owned(), "n".to_owned(), "none".to_owned()];
        let mut counts = Counts::new(&fields);
        let text = |text: &str| Value::String(text.to_owned());
        for value in [
            text("b"),
            Value::Array(vec![text("a"), text("b"), text("a"), Value::Null]),
            Value::Array(vec![Value::Float(1.0), Value::Int(1), Value::Float(1.5)]),
        ] {
            counts.add(&metadata(value)).unwrap();
        }
        let facets = counts.into_facets();
        let wanted = [(text("b"), 2), (Value::Float(1.5), 1), (Value::Float(1.0), 1), (text("a"), 1)];
        assert_eq!(facets[0].values, wanted);
        assert_eq!((facets[1].values.as_slice(), facets[1].documents), ([(Value::Int(2), 3)].as_slice(), 3));
        assert_eq!(facets[2].values, []);
    }

    #[test]
    fn long_strings_are_no_values() {
        let longest = Value::String("x".repeat(MAX_SHARED_STRING_BYTES));
        let long = Value::String("x".repeat(MAX_SHARED_STRING_BYTES + 1));
        let array = metadata(Value::Array(vec![long.clone(), longest.clone()]));
        assert_eq!(values(&array, "k"), [&longest]);
        assert_eq!(values(&metadata(long), "k"), Vec::<&Value>::new());
    }

    #[test]
    fn different_values_have_a_limit_over_all_fields() {
        let fields = ["k".to_owned(), "n".to_owned()];
        let mut counts = Counts::within(&fields, 3);
        let array = |values: &[i64]| metadata(Value::Array(values.iter().copied().map(Value::Int).collect()));
        counts.add(&array(&[1, 2])).unwrap();
        counts.add(&array(&[2, 1])).unwrap();
        let refused = counts.add(&array(&[3])).unwrap_err().to_string();
        assert!(refused.contains("leave \"k\" out"), "{refused}");
    }

    #[test]
    fn numbers_that_filters_take_for_equal_are_one_value() {
        for (int, float, is_one) in [
            (0, -0.0, true),
            (1 << 53, 9_007_199_254_740_992.0, true),
            ((1 << 53) + 1, 9_007_199_254_740_992.0, false),
            (i64::MIN, -TOP, true),
            (i64::MAX, TOP, false),
            (i64::MIN, -2.0 * TOP, false),
        ] {
            assert_eq!(key(&Value::Int(int)) == key(&Value::Float(float)), is_one, "{int} and {float}");
        }
    }
}
