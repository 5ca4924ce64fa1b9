//! Deletions by anti-join: which of the ids that we have does the table still have?

use std::collections::HashSet;

use super::{Shape, TableReader, TableSource, statements};
use crate::postgres::Type;
use crate::source::SourceError;

/// The column by which rows that are gone are found, and its type.
///
/// # Errors
/// [`SourceError::Deletions`] where keys are not of one column of a plain type.
pub(super) fn key_of<'a>(source: &'a TableSource, shape: &'a Shape) -> Result<(&'a str, &'a str), SourceError> {
    let [key] = source.key.as_slice() else {
        let reason =
            "rows that are gone are found by a key of one column; flag them in a column (--deleted-flag) instead";
        return Err(SourceError::Deletions { reason: reason.to_owned() });
    };
    let kind = shape.kind(key).unwrap_or_default();
    if can_be(kind, "").is_none() {
        let reason =
            format!("column {key:?} is {kind}; rows that are gone are found by keys of whole numbers, uuids and texts");
        return Err(SourceError::Deletions { reason });
    }
    Ok((key.as_str(), kind))
}

/// Whether a text could be a key of a type at all. What could not is another source's document.
fn can_be(kind: &str, text: &str) -> Option<bool> {
    match kind {
        "smallint" | "integer" | "bigint" => {
            let number = text.parse::<i64>().ok();
            let fits = |number: i64| match kind {
                "smallint" => i16::try_from(number).is_ok(),
                "integer" => i32::try_from(number).is_ok(),
                _ => true,
            };
            Some(number.is_some_and(|number| number.to_string() == text && fits(number)))
        }
        "uuid" => Some(is_uuid(text)),
        "text" | "character varying" | "name" => Some(true),
        _ => None,
    }
}

/// As Postgres writes them.
fn is_uuid(text: &str) -> bool {
    let is_part = |(index, byte): (usize, u8)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_part)
}

impl TableReader {
    /// How many of `keys` could be keys of the source, and those of them that are not there.
    ///
    /// # Errors
    /// [`SourceError::Deletions`] where keys are not of one column of a plain type, [`SourceError::Postgres`].
    pub async fn missing(&self, keys: &[String]) -> Result<(usize, Vec<String>), SourceError> {
        let (key, kind) = key_of(&self.source, &self.shape)?;
        let ours: Vec<&String> = keys.iter().filter(|text| can_be(kind, text) == Some(true)).collect();
        if ours.is_empty() {
            return Ok((0, Vec::new()));
        }
        let sql = statements::existing(&self.source, key, kind);
        let rows = self.read("look which rows are still there", &sql, &[(&ours, Type::TEXT_ARRAY)]).await?;
        let there: HashSet<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        let gone = ours.iter().filter(|key| !there.contains(**key)).map(|key| (*key).clone()).collect();
        Ok((ours.len(), gone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_be_a_key_can_be_missing() {
        let cases = [
            ("bigint", "7", Some(true)),
            ("bigint", "07", Some(false)),
            ("integer", "3000000000", Some(false)),
            ("bigint", "a", Some(false)),
            ("uuid", "6d1f3f1e-0000-4000-8000-00000000000a", Some(true)),
            ("uuid", "6D1F3F1E-0000-4000-8000-00000000000A", Some(false)),
            ("text", "anything", Some(true)),
            ("point", "(1,2)", None),
        ];
        for (kind, text, wanted) in cases {
            assert_eq!(can_be(kind, text), wanted, "{kind} {text}");
        }
    }
}
