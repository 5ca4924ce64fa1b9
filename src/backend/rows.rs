//! Rows of a table as documents.

use std::sync::Arc;

use crate::index::MemRow;
use crate::postgres::{FromSql, Row, quote_literal};
use crate::types::limits::MAX_SHARED_STRING_BYTES;
use crate::types::{Document, DocumentId, EmbeddingState, Seq, StoredDocument};

use super::filter::value_at;
use super::json;

/// The columns of both times, in milliseconds since the Unix epoch. `infinity` has no such number and becomes the last
/// or the first time that can be shown.
const TIMES: &str = "case when isfinite(created_at) then (extract(epoch from created_at) * 1000)::bigint \
     when created_at > 'epoch' then 253402207200999 else -377705023201000 end, \
     case when isfinite(updated_at) then (extract(epoch from updated_at) * 1000)::bigint \
     when updated_at > 'epoch' then 253402207200999 else -377705023201000 end";

/// What is read of a row beside what is small; the rest is empty in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub content: bool,
    pub metadata: Keys,
    pub vector: bool,
}

/// Which of a row's metadata are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    All,
    None,
    /// What this SQL makes of them, as [`Keys::values`] does.
    Values(String),
}

impl Keys {
    /// The values that documents share in the fields of these paths, each under its path: what facets count and groups
    /// are made by. Objects, and strings that are too long for either, are left out.
    ///
    /// # Errors
    /// What Postgres cannot do, as a clause after "which".
    pub fn values<'a>(paths: impl IntoIterator<Item = &'a String>) -> Result<Self, String> {
        let is_shared = |value: &str| {
            format!(
                "case jsonb_typeof({value}) when 'string' then octet_length({value} #>> '{{}}') \
                 <= {MAX_SHARED_STRING_BYTES} when 'number' then true when 'boolean' then true else false end"
            )
        };
        let (of_value, of_item) = (is_shared("v"), is_shared("x"));
        let mut values = Vec::new();
        for path in paths {
            if path.contains('\0') {
                return Err("holds no text with U+0000, and a field's name has one; take it out".to_owned());
            }
            let value = value_at(path, |name| Ok(quote_literal(name)))?;
            values.push(format!(
                "{}::text, (select case when jsonb_typeof(v) = 'array' then (select jsonb_agg(x order by n) \
                 from jsonb_array_elements(v) with ordinality as e(x, n) where {of_item}) \
                 when {of_value} then v end from (select {value} as v offset 0) as at_path)",
                quote_literal(path)
            ));
        }
        Ok(match values.is_empty() {
            true => Self::None,
            // Unpacked once a row, and not for each place that a path may mean: `offset 0` has both made once.
            false => Self::Values(format!(
                "(select jsonb_build_object({})::text from (select metadata #> '{{}}' as metadata offset 0) as unpacked)",
                values.join(", ")
            )),
        })
    }
}

impl Columns {
    pub const ALL: Self = Self { content: true, metadata: Keys::All, vector: true };
    pub const NONE: Self = Self { content: false, metadata: Keys::None, vector: false };

    /// Eight columns, as [`document`] reads them.
    pub fn sql(&self) -> String {
        let content = if self.content { "content" } else { "null::text" };
        let vector = if self.vector { "embedding::real[]" } else { "null::real[]" };
        let metadata = match &self.metadata {
            Keys::All => "metadata::text".to_owned(),
            Keys::None => "'{}'::text".to_owned(),
            Keys::Values(sql) => sql.clone(),
        };
        format!("id, {content}, {metadata}, embedded, {TIMES}, version, {vector}")
    }
}

/// Reads the columns that [`Columns::sql`] names.
///
/// # Errors
/// What cannot be a document of ours.
pub(super) fn document(row: &Row) -> Result<Document, String> {
    let id: String = field(row, 0, "id")?;
    let metadata: String = field(row, 2, "metadata")?;
    let version: i64 = field(row, 6, "version")?;
    let vector: Option<Vec<f32>> = field(row, 7, "embedding")?;
    let stored = StoredDocument {
        metadata: json::read(&metadata).ok_or_else(|| format!("the metadata of row {id:?} are no object"))?,
        id: DocumentId::new(&id).map_err(|error| format!("a row is no document: {error}"))?,
        text: field(row, 1, "content")?,
        created_at_ms: field(row, 4, "created_at")?,
        updated_at_ms: field(row, 5, "updated_at")?,
        embedding: match field(row, 3, "embedded")? {
            true => EmbeddingState::Embedded,
            false => EmbeddingState::Ready,
        },
    };
    let seq = Seq(u64::try_from(version).unwrap_or_default());
    Ok(Document { stored, seq, vector: vector.unwrap_or_default(), chunks: Vec::new() })
}

/// The id and the metadata, as Postgres prints them, of a row that [`document`] can read.
///
/// # Errors
/// As of [`document`].
pub(super) fn metadata_text(row: &Row) -> Result<(String, String), String> {
    Ok((field(row, 0, "id")?, field(row, 2, "metadata")?))
}

fn field<'a, T: FromSql<'a>>(row: &'a Row, at: usize, what: &str) -> Result<T, String> {
    row.try_get(at).map_err(|error| format!("a row's {what} cannot be read: {error}"))
}

/// A document as searches hold it.
pub(super) fn in_memory(document: Document) -> Arc<MemRow> {
    let Document { stored, seq, vector, .. } = document;
    Arc::new(MemRow { seq, document: stored, vector: vector.into(), chunks: Box::default() })
}

/// A vector as pgvector reads it; the digits are the shortest that mean the same f32.
pub(super) fn vector_text(vector: &[f32]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(12 * vector.len() + 2);
    for (n, x) in vector.iter().enumerate() {
        out.push(if n == 0 { '[' } else { ',' });
        _ = write!(out, "{x:?}");
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_keep_every_bit_as_text() {
        let vector = [0.1_f32, -1e-30, 3.0, f32::MAX];
        let text = vector_text(&vector);
        let back: Vec<f32> = text[1..text.len() - 1].split(',').map(|x| x.parse().unwrap()).collect();
        assert_eq!(back, vector);
    }
}
