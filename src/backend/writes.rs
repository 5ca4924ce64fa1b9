//! What is written of a table: rows that are inserted or replaced, and rows that are deleted, by one statement each;
//! where a write expects what stands there, behind one that locks it.

use std::collections::HashMap;

use crate::collection::{BackendFault, CollectionError, Deleted, Known, Prepared, check_if_seq};
use crate::postgres::{Param, PostgresError, Row, Session, ToSql, Type};
use crate::types::{DocumentId, EmbeddingState, IfSeq, Seq};

use super::json;
use super::remote::RemoteCollection;
use super::rows::vector_text;
use super::table::Extension;

impl RemoteCollection {
    /// Writes rows in one transaction, where each that `if_seq` names stands at its seq.
    pub(super) fn insert(&self, rows: &[NewRow<'_>], if_seq: &IfSeq) -> Result<Seq, CollectionError> {
        let extension = self.checked()?.extension;
        self.transact(async |session, guard| {
            if let Err(refused) = self.check_versions(session, guard, rows, if_seq, None).await? {
                return Ok(Err(refused));
            }
            let (seq, written) = self.put(session, guard, &extension, rows, if_seq).await?;
            if written == rows.len() as u64 {
                return Ok(Ok(seq));
            }
            // One that was not to be there may have come meanwhile.
            let checked = self.check_versions(session, guard, rows, if_seq, Some(seq)).await?;
            Ok(checked.and_then(|()| Err(self.not_all_written(rows, written))))
        })
    }

    /// Writes rows by one statement: all but those that `if_seq` wants not to be there and that are. Returns the change
    /// and how many it wrote.
    pub(super) async fn put(
        &self,
        session: &Session,
        guard: &str,
        extension: &Extension,
        rows: &[NewRow<'_>],
        if_seq: &IfSeq,
    ) -> Result<(Seq, u64), PostgresError> {
        let (vector, table) = (extension.vector(self.definition()), self.table());
        let sql = format!(
            "with change as materialized (select date_trunc('milliseconds', clock_timestamp()) as moment, \
             nextval(pg_get_serial_sequence($6, 'version')) as version), \
             written as (insert into {table} as t \
             (id, content, metadata, embedding, embedded, created_at, updated_at, version) \
             select id, content, metadata::jsonb, embedding::{vector}, embedded, moment, moment, version \
             from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[]) \
             with ordinality as new(id, content, metadata, embedding, embedded, n), change where {guard} order by n \
             on conflict (id) do update set content = excluded.content, metadata = excluded.metadata, \
             embedding = excluded.embedding, embedded = excluded.embedded, updated_at = excluded.updated_at, \
             version = excluded.version where not t.id = any($7) returning version) \
             select max(version), count(*) from written"
        );
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let contents: Vec<Option<&str>> = rows.iter().map(|row| row.content).collect();
        let metadata: Vec<&str> = rows.iter().map(|row| row.metadata.as_str()).collect();
        let vectors: Vec<&str> = rows.iter().map(|row| row.embedding.as_str()).collect();
        let embedded: Vec<bool> = rows.iter().map(|row| row.embedded).collect();
        let new: Vec<&str> = if_seq.iter().filter(|(_, seq)| **seq == Seq(0)).map(|(id, _)| id.as_str()).collect();
        let params: [Param<'_>; 7] = [
            (&ids, Type::TEXT_ARRAY),
            (&contents, Type::TEXT_ARRAY),
            (&metadata, Type::TEXT_ARRAY),
            (&vectors, Type::TEXT_ARRAY),
            (&embedded, Type::BOOL_ARRAY),
            (&table, Type::TEXT),
            (&new, Type::TEXT_ARRAY),
        ];
        let written = session.query("write documents", &sql, &params).await?;
        Ok(written.first().map_or((Seq(0), 0), |row| (Seq(number(row, 0)), number(row, 1))))
    }

    /// Why a write is rolled back of which the database did a part.
    pub(super) fn not_all_written(&self, rows: &[NewRow<'_>], written: u64) -> CollectionError {
        let asked = rows.len() as u64;
        self.fault(BackendFault::Refused, self.passed_over(asked.saturating_sub(written), asked, "written"))
    }

    /// Locks the rows' documents until the transaction ends, and checks that each that `if_seq` names stands at its
    /// seq. All of them: who locks those that are named alone, and the others later, waits for writers of all in their
    /// order, and they for it. `ours`: what this transaction wrote is no other's.
    async fn check_versions(
        &self,
        session: &Session,
        guard: &str,
        rows: &[NewRow<'_>],
        if_seq: &IfSeq,
        ours: Option<Seq>,
    ) -> Result<Result<(), CollectionError>, PostgresError> {
        if if_seq.is_empty() {
            return Ok(Ok(()));
        }
        let table = self.table();
        let sql = format!("select id, version from {table} where {guard} and id = any($1) order by id for update");
        let mut ids: Vec<&str> = rows.iter().map(|row| row.id).chain(if_seq.keys()).map(DocumentId::as_str).collect();
        ids.sort_unstable();
        ids.dedup();
        let rows = session.query("look at documents", &sql, &[(&ids, Type::TEXT_ARRAY)]).await?;
        let stands: HashMap<String, Seq> = rows.iter().map(|row| (row.get(0), Seq(number(row, 1)))).collect();
        let check = |id: &DocumentId| match stands.get(id.as_str()).copied() {
            stands if stands.is_some() && stands == ours => Ok(()),
            stands => check_if_seq(if_seq, id, stands.unwrap_or_default()),
        };
        Ok(if_seq.keys().try_for_each(check))
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
pub(super) struct NewRow<'a> {
    id: &'a DocumentId,
    content: Option<&'a str>,
    metadata: String,
    embedding: String,
    embedded: bool,
}

impl<'a> NewRow<'a> {
    /// Of documents and their vectors, in the order in which all writers lock rows.
    pub fn all(documents: &'a [Prepared], vectors: &[Known]) -> Vec<Self> {
        Self::over(documents, vectors, &HashMap::new())
    }

    /// As [`NewRow::all`], with what stays of metadata as it stands there: by id as Postgres prints them.
    pub fn over(documents: &'a [Prepared], vectors: &[Known], standing: &HashMap<String, String>) -> Vec<Self> {
        let row = |(Prepared { document, .. }, (vectors, state)): (&'a Prepared, &Known)| {
            let old = standing.get(document.id.as_str());
            let metadata = old.and_then(|old| json::object_over(old, &document.metadata));
            Self {
                id: &document.id,
                content: document.text.as_deref(),
                metadata: metadata.unwrap_or_else(|| json::object(&document.metadata)),
                embedding: vector_text(&vectors.numbers),
                embedded: *state == EmbeddingState::Embedded,
            }
        };
        let mut rows: Vec<Self> = documents.iter().zip(vectors).map(row).collect();
        rows.sort_by(|a, b| a.id.cmp(b.id));
        rows
    }
}
