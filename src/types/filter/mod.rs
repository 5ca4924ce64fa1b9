//! Metadata filters: the tree, its limits, and why one is refused.

mod evaluate;
mod soundness;

pub use soundness::contradiction;

use super::limits::{MAX_FIELD_NAME_BYTES, MAX_FILTER_NODES, MAX_JSON_DEPTH};
use super::{FieldType, GeoPoint, Value};

/// A condition on metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of them hold; true when empty.
    And(Vec<Filter>),
    /// At least one holds; false when empty.
    Or(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// The value at a path fits a condition.
    Field {
        /// A field's name, or names joined by dots for a nested one. A field whose own name holds the dots comes first.
        path: String,
        /// What the value must be.
        condition: Condition,
    },
}

/// What a field's value must be. Where the value is an array, one fitting element is enough for every condition but
/// `Ne` and `Nin`, which want no element to be equal. A missing field fits only `Ne`, `Nin` and `Exists(false)`.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Equal; 1 equals 1.0.
    Eq(Value),
    /// Not equal.
    Ne(Value),
    /// Greater; numbers with numbers, strings with strings by code point.
    Gt(Value),
    /// Greater or equal.
    Gte(Value),
    /// Less.
    Lt(Value),
    /// Less or equal.
    Lte(Value),
    /// Equal to one of them.
    In(Vec<Value>),
    /// Equal to none of them.
    Nin(Vec<Value>),
    /// The field is there (null counts as there), or is not.
    Exists(bool),
    /// A string that starts so.
    Prefix(String),
    /// An array with such an element, or a string with such a part.
    Contains(Value),
    /// A point (an object with the numbers `lat` and `lon`) at most so far away.
    GeoRadius {
        /// From here.
        center: GeoPoint,
        /// Metres, on the sphere.
        meters: f64,
    },
}

/// Why a filter was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Too many conditions.
    #[error("the filter has {got} nodes, at most {MAX_FILTER_NODES} are allowed")]
    TooLarge {
        /// Nodes counted.
        got: usize,
    },
    /// Too many levels.
    #[error("the filter is nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
    /// A path is too long.
    #[error("the filter names a field of {len} bytes, at most {MAX_FIELD_NAME_BYTES} are allowed")]
    LongPath {
        /// How long it is, in bytes.
        len: usize,
    },
    /// A condition that a field of the declared type can never be asked.
    #[error("the filter asks {path:?}, which is declared as {declared}, for {asked}; {fix}")]
    WrongType {
        /// The field.
        path: String,
        /// As the collection declares it.
        declared: FieldType,
        /// The condition, in words.
        asked: String,
        /// What to write instead.
        fix: &'static str,
    },
    /// No document can pass.
    #[error("no document can pass the filter: {reason}; take one of the conditions out")]
    Contradiction {
        /// Which conditions exclude each other.
        reason: String,
    },
    /// Every document passes, and what passes is to be deleted.
    #[error("every document passes the filter, so it would delete all; delete the collection to mean that")]
    PassesEverything,
}

impl Filter {
    /// The condition that `path` equals `value`.
    pub fn eq(path: impl Into<String>, value: Value) -> Self {
        Filter::Field { path: path.into(), condition: Condition::Eq(value) }
    }

    /// Checks size, depth and the length of paths.
    ///
    /// # Errors
    /// [`FilterError`] says which limit is passed.
    pub fn check(&self) -> Result<(), FilterError> {
        let got = self.count_nodes(1)?;
        if got > MAX_FILTER_NODES {
            return Err(FilterError::TooLarge { got });
        }
        Ok(())
    }

    fn count_nodes(&self, depth: usize) -> Result<usize, FilterError> {
        if depth > MAX_JSON_DEPTH {
            return Err(FilterError::TooDeep);
        }
        Ok(1 + match self {
            Filter::And(parts) | Filter::Or(parts) => {
                parts.iter().map(|p| p.count_nodes(depth + 1)).sum::<Result<usize, _>>()?
            }
            Filter::Not(part) => part.count_nodes(depth + 1)?,
            Filter::Field { path, .. } if path.len() > MAX_FIELD_NAME_BYTES => {
                return Err(FilterError::LongPath { len: path.len() });
            }
            Filter::Field { condition: Condition::In(values) | Condition::Nin(values), .. } => values.len(),
            Filter::Field { .. } => 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_held() {
        let many = Filter::And(vec![Filter::eq("a", Value::Null); MAX_FILTER_NODES]);
        assert_eq!(many.check(), Err(FilterError::TooLarge { got: MAX_FILTER_NODES + 1 }));
        let mut deep = Filter::eq("a", Value::Null);
        for _ in 0..MAX_JSON_DEPTH {
            deep = Filter::Not(Box::new(deep));
        }
        assert_eq!(deep.check(), Err(FilterError::TooDeep));
        let of = |path: String| Filter::Not(Box::new(Filter::eq(path, Value::Null)));
        assert_eq!(of(".".repeat(MAX_FIELD_NAME_BYTES)).check(), Ok(()));
        let len = MAX_FIELD_NAME_BYTES + 1;
        assert_eq!(of(".".repeat(len)).check(), Err(FilterError::LongPath { len }));
    }
}
