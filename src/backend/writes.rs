//! What is written of a table: rows that are inserted or replaced, and rows that are deleted, by one statement each.

use crate::collection::{CollectionError, Deleted, DocumentVectors, Prepared};
use crate::postgres::{Param, Row, ToSql, Type};
use crate::types::{DocumentId, EmbeddingState, NewDocument, Seq};

use super::json;
use super::remote::RemoteCollection;
use super::rows::vector_text;

impl RemoteCollection {
    /// Writes rows by one statement.
    pub(super) fn insert(&self, rows: &[NewRow]) -> Result<Seq, CollectionError> {
        let (vector, table) = (self.checked()?.extension.vector(self.definition()), self.table());
        let sql = |guard: &str| {
            format!(
                "with change as materialized (select date_trunc('milliseconds', clock_timestamp()) as moment, \
                 nextval(pg_get_serial_sequence($6, 'version')) as version), \
                 written as (insert into {table} as t \
                 (id, content, metadata, embedding, embedded, created_at, updated_at, version) \
                 select id, content, metadata::jsonb, embedding::{vector}, embedded, moment, moment, version \
                 from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[]) \
                 with ordinality as new(id, content, metadata, embedding, embedded, n), change where {guard} order by n \
                 on conflict (id) do update set content = excluded.content, metadata = excluded.metadata, \
                 embedding = excluded.embedding, embedded = excluded.embedded, updated_at = excluded.updated_at, \
                 version = excluded.version returning version) select max(version), count(*) from written"
            )
        };
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let contents: Vec<Option<&str>> = rows.iter().map(|row| row.content.as_deref()).collect();
        let metadata: Vec<&str> = rows.iter().map(|row| row.metadata.as_str()).collect();
        let vectors: Vec<&str> = rows.iter().map(|row| row.embedding.as_str()).collect();
        let embedded: Vec<bool> = rows.iter().map(|row| row.embedded).collect();
        let params: [Param<'_>; 6] = [
            (&ids, Type::TEXT_ARRAY),
            (&contents, Type::TEXT_ARRAY),
            (&metadata, Type::TEXT_ARRAY),
            (&vectors, Type::TEXT_ARRAY),
            (&embedded, Type::BOOL_ARRAY),
            (&table, Type::TEXT),
        ];
        let asked = rows.len() as u64;
        self.write("write documents", sql, &params, |row| match number(row, 1) {
            written if written == asked => Ok(Seq(number(row, 0))),
            written => Err(self.passed_over(asked.saturating_sub(written), asked, "written")),
        })
    }

    /// Deletes by one statement, which locks rows in the order in which writers do. `$1` is the table's name; the
    /// condition's parameters begin at `$2`.
    pub(super) fn delete_where(&self, condition: &str, params: &[Param<'_>]) -> Result<Deleted, CollectionError> {
        let table = self.table();
        let sql = |guard: &str| {
            format!(
                "with asked as materialized (select id from {table} where {condition} order by id for update), \
                 gone as (delete from {table} where {guard} and id in (select id from asked) returning 1) \
                 select (select count(*) from gone), nextval(pg_get_serial_sequence($1, 'version')), \
                 (select count(*) from asked)"
            )
        };
        let params: Vec<Param<'_>> =
            [(&table as &(dyn ToSql + Sync), Type::TEXT)].into_iter().chain(params.to_vec()).collect();
        self.write("delete documents", sql, &params, |row| match (number(row, 0), number(row, 2)) {
            // A table whose `version` lost its sequence numbers nothing.
            (gone, asked) if gone == asked => {
                Ok(Deleted { deleted: usize::try_from(gone).unwrap_or(usize::MAX), seq: Seq(number(row, 1)) })
            }
            (gone, asked) => Err(self.passed_over(asked.saturating_sub(gone), asked, "deleted")),
        })
    }

    /// Why a write is rolled back that the database did in part and called done.
    fn passed_over(&self, count: u64, asked: u64, done: &str) -> String {
        let table = self.inner.placement.qualified().plain();
        format!("a trigger or a policy of table {table} passes over {count} of {asked} documents; nothing was {done}")
    }
}

/// A count or a number of a sequence; 0 where there is none.
fn number(row: &Row, at: usize) -> u64 {
    row.try_get::<_, Option<i64>>(at).ok().flatten().and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

/// A row to write.
pub(super) struct NewRow {
    pub id: DocumentId,
    content: Option<String>,
    metadata: String,
    embedding: String,
    embedded: bool,
}

impl NewRow {
    pub fn of((prepared, (vectors, state)): (Prepared, (DocumentVectors, EmbeddingState))) -> Self {
        let NewDocument { id, text, metadata, .. } = prepared.document;
        Self {
            id,
            content: text,
            metadata: json::object(&metadata),
            embedding: vector_text(&vectors.numbers),
            embedded: state == EmbeddingState::Embedded,
        }
    }
}
