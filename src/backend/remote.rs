//! A collection whose documents stand in a table of Postgres: Pannier checks, embeds and plans, the database stores and
//! searches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::collection::{
    BackendFault, CollectionError, CollectionStats, Deleted, DocumentVectors, Frame, KeywordStats, Known, ListRequest,
    Made, Page, Prepared, Preview, SampledRecall, Upserted,
};
use crate::embed::Models;
use crate::postgres::{Param, PostgresError, Row, Session, Type, jsonb};
use crate::types::limits::{MAX_DOCUMENTS_PER_REQUEST, MAX_PAGE};
use crate::types::{
    CollectionName, Definition, Document, DocumentId, EmbeddingState, Filter, IfSeq, Metadata, NUMBER_BYTES,
    NewDocument, SearchRequest, SearchResponse, Seq, TemplateDefinition,
};

use super::fault::{failed, settle, settled};
use super::filter::Where;
use super::pool::{Failure, Pool};
use super::rows::{self, Columns, Keys};
use super::settings::Placement;
use super::table::{self, Checked, TableError};
use super::transaction;
use super::writes::NewRow;

/// Documents up to which every one is compared: fewer milliseconds than what the index's plan may cost.
pub(super) const COMPARED_UP_TO: i64 = 4_096;
/// How long the answer whether there are more stays good.
const SIZE_KNOWN_FOR: Duration = Duration::from_secs(5);
/// Documents whose metadata are in memory at once to compare how their texts are divided.
const DIVIDED_AT_ONCE: usize = 64;
/// Attempts of a call whose table is replaced meanwhile.
const MAX_ATTEMPTS: usize = 3;

/// A collection in Postgres: cheap to clone, safe to share between threads. Its calls block.
#[derive(Clone)]
pub struct RemoteCollection {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub name: CollectionName,
    pub definition: Definition,
    pub created_at_ms: i64,
    /// As the register has it.
    pub creation: String,
    pub placement: Placement,
    pub models: Models,
    pub pool: Arc<Pool>,
    /// Set once the table was looked at; empty again where another table has its name since.
    pub checked: Mutex<Option<Checked>>,
    /// The number of the table that was made or looked at last; kept where it is gone since.
    pub used: Mutex<Option<i64>>,
    /// Whether there are more than [`COMPARED_UP_TO`] documents, and since when that is known.
    pub is_large: Mutex<Option<(bool, Instant)>>,
}

impl RemoteCollection {
    /// Its name.
    pub fn name(&self) -> &CollectionName {
        &self.inner.name
    }

    /// Its definition.
    pub fn definition(&self) -> &Definition {
        &self.inner.definition
    }

    /// When its table was made, in milliseconds since the Unix epoch.
    pub fn created_at_ms(&self) -> i64 {
        self.inner.created_at_ms
    }

    /// Where its documents stand.
    pub fn placement(&self) -> &Placement {
        &self.inner.placement
    }

    /// A document by its id.
    ///
    /// # Errors
    /// [`CollectionError::Backend`].
    pub fn get(&self, id: &DocumentId) -> Result<Option<Document>, CollectionError> {
        Ok(self.documents(&[id.as_str()])?.pop())
    }

    /// A page of documents by ascending id.
    ///
    /// # Errors
    /// [`CollectionError::OutOfRange`], [`CollectionError::Filter`], [`CollectionError::NotOnBackend`],
    /// [`CollectionError::Backend`].
    pub fn list(&self, request: &ListRequest) -> Result<Page, CollectionError> {
        if !(1..=MAX_PAGE).contains(&request.limit) {
            return Err(CollectionError::OutOfRange {
                name: "limit",
                got: request.limit.to_string(),
                min: "1".to_owned(),
                max: MAX_PAGE.to_string(),
            });
        }
        self.frame().check_filter(request.filter.as_ref())?;
        let passes = self.condition(request.filter.as_ref(), 2)?;
        let after = request.after.as_ref().map_or("", DocumentId::as_str);
        let max_bytes = request.max_bytes.map_or(i64::MAX, |max| i64::try_from(max).unwrap_or(i64::MAX)).max(1);
        // One more than wanted, to know whether there are more. The database cuts by what they carry, and sends no
        // more.
        let sql = |guard: &str| {
            let (table, limit, columns) = (self.table(), request.limit + 1, Columns::ALL.sql());
            let (passes, vector_bytes) = (&passes.sql, self.inner.definition.dim as usize * NUMBER_BYTES);
            format!(
                "select {columns}, there from (select *, count(*) over () as there, \
                 sum(octet_length(id) + coalesce(octet_length(content), 0) + octet_length(metadata::text) \
                 + {vector_bytes}) over (order by id rows between unbounded preceding and 1 preceding) as carried_before \
                 from (select id, content, metadata, embedding, embedded, created_at, updated_at, version from {table} \
                 where {guard} and id > $1 and {passes} order by id limit {limit}) as page) as page \
                 where coalesce(carried_before, 0) < {max_bytes} order by id"
            )
        };
        let params = texts([after].into_iter().chain(passes.params.iter().map(String::as_str)).collect());
        let rows = self.read("list documents", "", sql, &params.typed())?;
        let mut documents = self.documents_of(&rows)?;
        documents.truncate(request.limit);
        let more = rows.first().is_some_and(|row| row.get::<_, i64>(8) > documents.len() as i64);
        let next = documents.last().filter(|_| more).map(|document| document.stored.id.clone());
        Ok(Page { documents, next })
    }

    /// Writes documents in one transaction, replacing those of the same ids. On return they are committed, and everyone
    /// who reads the table sees them.
    ///
    /// # Errors
    /// [`CollectionError`]; a refused request changes nothing.
    pub fn upsert(&self, documents: Vec<NewDocument>) -> Result<Upserted, CollectionError> {
        self.upsert_if(documents, &IfSeq::new())
    }

    /// As [`RemoteCollection::upsert`], if each document that `if_seq` names stands at its seq in the same transaction.
    ///
    /// # Errors
    /// As there, and [`CollectionError::SeqConflict`] for the first that does not.
    pub fn upsert_if(&self, documents: Vec<NewDocument>, if_seq: &IfSeq) -> Result<Upserted, CollectionError> {
        let frame = self.frame();
        frame.check_documents(&documents)?;
        if documents.is_empty() {
            let seq = self.stats()?.last_seq;
            return Ok(Upserted { upserted: 0, seq, embedded: 0, cached: 0, truncated: Vec::new() });
        }
        documents.iter().try_for_each(|new| self.check_holdable(&new.id, new.text.as_deref(), &new.metadata))?;
        let documents = frame.prepare_documents(documents)?;
        let known = self.known_vectors(&documents)?;
        let Made { vectors, embedded, cached, truncated } = frame.make_vectors(&documents, known)?;
        let rows = NewRow::all(&documents, &vectors);
        let seq = self.insert(&rows, if_seq)?;
        Ok(Upserted { upserted: rows.len(), seq, embedded, cached, truncated })
    }

    /// Deletes documents in one transaction. Ids that are not there are passed over.
    ///
    /// # Errors
    /// [`CollectionError`]; a refused request changes nothing.
    pub fn delete(&self, ids: &[DocumentId]) -> Result<Deleted, CollectionError> {
        if ids.len() > MAX_DOCUMENTS_PER_REQUEST {
            return Err(CollectionError::TooManyDocuments { got: ids.len(), max: MAX_DOCUMENTS_PER_REQUEST });
        }
        let ids: Vec<&str> = ids.iter().map(DocumentId::as_str).collect();
        self.delete_where("id = any($2)", &[(&ids, Type::TEXT_ARRAY)])
    }

    /// Deletes the documents that pass a filter, in one transaction.
    ///
    /// # Errors
    /// As [`RemoteCollection::list`], and for a filter that every document passes; nothing is deleted then.
    pub fn delete_matching(&self, filter: &Filter) -> Result<Deleted, CollectionError> {
        self.frame().check_deletion(filter)?;
        let passes = self.condition(Some(filter), 2)?;
        let params = texts(passes.params.iter().map(String::as_str).collect());
        self.delete_where(&passes.sql, &params.typed())
    }

    /// How many documents pass a filter, or all without one, as the database counts them in one statement.
    ///
    /// # Errors
    /// As [`RemoteCollection::list`].
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64, CollectionError> {
        self.frame().check_filter(filter)?;
        let passes = self.condition(filter, 1)?;
        let params = texts(passes.params.iter().map(String::as_str).collect());
        let (table, passes) = (self.table(), &passes.sql);
        let sql = |guard: &str| format!("select count(*) from {table} where {guard} and {passes}");
        let rows = self.read("count documents", "", sql, &params.typed())?;
        Ok(rows.first().map_or(0, |row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(0)))
    }

    /// As [`crate::Collection::search`]; it sees every write that was committed before the call, and words at once.
    ///
    /// # Errors
    /// [`CollectionError`].
    pub fn search(&self, request: &SearchRequest) -> Result<SearchResponse, CollectionError> {
        self.frame().search(self, request)
    }

    /// As [`crate::Collection::search_all`].
    ///
    /// # Errors
    /// The place of the first search that failed, and why.
    pub fn search_all(&self, requests: &[SearchRequest]) -> Result<Vec<SearchResponse>, (usize, CollectionError)> {
        self.frame().search_all(self, requests)
    }

    /// As [`crate::Collection::preview`].
    ///
    /// # Errors
    /// As there.
    pub fn preview(
        &self,
        documents: Vec<NewDocument>,
        template: Option<&TemplateDefinition>,
    ) -> Result<Vec<Preview>, CollectionError> {
        self.frame().preview(documents, template)
    }

    /// The collection's figures at this moment. What only a local collection has is 0.
    ///
    /// # Errors
    /// [`CollectionError::Backend`].
    pub fn stats(&self) -> Result<CollectionStats, CollectionError> {
        let table = self.table();
        // A deletion leaves no row with its number. Whoever may not read the sequence gets what the rows have.
        let last_change = "greatest(0, max(version), (select pg_sequence_last_value(name::regclass) \
             from pg_get_serial_sequence($1, 'version') as sequence(name) \
             where has_sequence_privilege(name, 'usage, select')))";
        let sql = |guard: &str| {
            format!(
                "select count(*), {last_change}, pg_total_relation_size(to_regclass($1)), count(content) \
                 from {table} where {guard}"
            )
        };
        let params: [Param<'_>; 1] = [(&table, Type::TEXT)];
        let rows = self.read("count documents", "", sql, &params)?;
        let number = |at: usize| rows.first().map_or(0, |row| u64::try_from(row.get::<_, i64>(at)).unwrap_or(0));
        Ok(CollectionStats {
            documents: number(0),
            segments: 0,
            graph_segments: 0,
            memtable_documents: 0,
            memtable_bytes: 0,
            deleted_rows: 0,
            disk_bytes: number(2),
            last_seq: Seq(number(1)),
            sealed_seq: Seq(number(1)),
            dim: self.definition().dim,
            // They are committed with their document.
            keywords: (number(3) > 0).then(|| KeywordStats {
                documents: number(3),
                applied_seq: Seq(number(1)),
                waiting: 0,
                unreadable: 0,
            }),
            recall: SampledRecall::default(),
        })
    }

    pub(super) fn frame(&self) -> Frame<'_> {
        Frame::new(&self.inner.name, &self.inner.definition, &self.inner.models)
    }

    /// The table, quoted.
    pub(super) fn table(&self) -> String {
        self.inner.placement.qualified().to_string()
    }

    /// A filter as SQL whose parameters begin at `$first`.
    pub(super) fn condition(&self, filter: Option<&Filter>, first: usize) -> Result<Where, CollectionError> {
        Where::new(filter, first).map_err(|cannot| CollectionError::NotOnBackend { name: self.name().clone(), cannot })
    }

    /// Those of some ids that are there, in no order.
    pub(super) fn documents(&self, ids: &[&str]) -> Result<Vec<Document>, CollectionError> {
        let (table, columns) = (self.table(), Columns::ALL.sql());
        let sql = |guard: &str| format!("select {columns} from {table} where {guard} and id = any($1)");
        let rows = self.read("read documents", "", sql, &[(&ids, Type::TEXT_ARRAY)])?;
        self.documents_of(&rows)
    }

    pub(super) fn documents_of(&self, rows: &[Row]) -> Result<Vec<Document>, CollectionError> {
        rows.iter().map(|row| rows::document(row).map_err(|e| self.fault(BackendFault::Conflict, e))).collect()
    }

    /// By document the vector of the same text, where it stands already.
    fn known_vectors(&self, documents: &[Prepared]) -> Result<Vec<Option<Known>>, CollectionError> {
        let mut vectors = self.vectors_of_same_texts(documents)?;
        let known = |new: &Prepared| {
            let numbers = vectors.remove(&new.document.id)?;
            Some((DocumentVectors { numbers, chunks: Vec::new() }, EmbeddingState::Embedded))
        };
        Ok(documents.iter().map(known).collect())
    }

    /// By id the vectors that were made of the same texts as those of documents would be.
    fn vectors_of_same_texts(&self, documents: &[Prepared]) -> Result<HashMap<DocumentId, Vec<f32>>, CollectionError> {
        let wanting: Vec<&Prepared> = documents.iter().filter(|new| new.wants_vector()).collect();
        // Where parts are weighed, the metadata tell how the text is divided, and they may be long.
        let template = self.definition().template.as_ref();
        let is_divided = template.is_some_and(TemplateDefinition::has_weights);
        let metadata = if is_divided { Keys::All } else { Keys::None };
        let columns = Columns { content: false, metadata, vector: true }.sql();
        let table = self.table();
        // The database compares texts, so that none comes back.
        let sql = |guard: &str| {
            format!(
                "select {columns} from {table} where {guard} and embedded and id = any($1) \
                 and (id, content) in (select * from unnest($1::text[], $2::text[]))"
            )
        };
        let mut vectors = HashMap::new();
        for piece in wanting.chunks(if is_divided { DIVIDED_AT_ONCE } else { MAX_DOCUMENTS_PER_REQUEST }) {
            let new: HashMap<&str, &Prepared> = piece.iter().map(|new| (new.document.id.as_str(), *new)).collect();
            let (ids, texts): (Vec<_>, Vec<_>) =
                piece.iter().map(|new| (new.document.id.as_str(), new.document.text.as_deref())).unzip();
            let rows = self.read("compare texts", "", sql, &[(&ids, Type::TEXT_ARRAY), (&texts, Type::TEXT_ARRAY)])?;
            for Document { mut stored, vector, .. } in self.documents_of(&rows)? {
                let Some(new) = new.get(stored.id.as_str()) else { continue };
                stored.text.clone_from(&new.document.text);
                if self.frame().is_same_text(&stored, new)? {
                    vectors.insert(stored.id, vector);
                }
            }
        }
        Ok(vectors)
    }

    /// Refuses what no text of Postgres holds.
    pub(super) fn check_holdable(
        &self,
        id: &DocumentId,
        text: Option<&str>,
        metadata: &Metadata,
    ) -> Result<(), CollectionError> {
        let in_text = text.is_some_and(|text| text.contains('\0'));
        if in_text || metadata.iter().any(|(key, value)| key.contains('\0') || jsonb::holds_nul(value)) {
            let id = id.as_str();
            let cannot = format!("holds no text with U+0000, and document {id:?} has one; take it out");
            return Err(CollectionError::NotOnBackend { name: self.name().clone(), cannot });
        }
        Ok(())
    }

    /// Whether there are so many documents that the index pays.
    pub(super) fn is_large(&self) -> Result<bool, CollectionError> {
        let known = *self.inner.is_large.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((is_large, since)) = known
            && since.elapsed() < SIZE_KNOWN_FOR
        {
            return Ok(is_large);
        }
        let (table, limit) = (self.table(), COMPARED_UP_TO + 1);
        let sql =
            |guard: &str| format!("select count(*) from (select from {table} where {guard} limit {limit}) as counted");
        let rows = self.read("count documents", "", sql, &[])?;
        let is_large = rows.first().is_some_and(|row| row.get::<_, i64>(0) > COMPARED_UP_TO);
        *self.inner.is_large.lock().unwrap_or_else(PoisonError::into_inner) = Some((is_large, Instant::now()));
        Ok(is_large)
    }

    /// The table and pgvector, once the table was found to be as it was made.
    pub(super) fn checked(&self) -> Result<Checked, CollectionError> {
        if let Some(checked) = &*self.inner.checked.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(checked.clone());
        }
        let Inner { pool, placement, definition, .. } = &*self.inner;
        let checked = pool.read(async |session| settled(table::check(session, placement, definition).await));
        let checked = self.settle(checked)?;
        *self.inner.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(checked.clone());
        *self.inner.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(checked.table);
        Ok(checked)
    }

    /// The number of the table that was made or used last, where that is known.
    pub(super) fn used_table(&self) -> Option<i64> {
        *self.inner.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a table of its name stands.
    pub(super) fn has_table(&self) -> Result<bool, CollectionError> {
        let Inner { pool, placement, .. } = &*self.inner;
        let number = pool.read(async |session| table::number(session, placement).await);
        Ok(number.map_err(|failure| self.failed(failure))? != 0)
    }

    /// What was known of the table is looked at anew.
    fn forget(&self) {
        *self.inner.checked.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.inner.is_large.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Runs a statement that changes nothing, under `settings`. It must have the condition that `sql` is given, as
    /// [`table::guard`] makes it.
    pub(super) fn read(
        &self,
        doing: &'static str,
        settings: &str,
        sql: impl Fn(&str) -> String,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, CollectionError> {
        self.guarded(|guard| {
            let sql = sql(guard);
            self.inner.pool.read(async |session| transaction::read(session, doing, settings, &sql, params).await)
        })
    }

    /// Runs a statement that changes something, with the condition that `sql` is given, and commits what `take` takes
    /// from its one row. What that refuses, with the reason, is rolled back.
    pub(super) fn write<T>(
        &self,
        doing: &'static str,
        sql: impl Fn(&str) -> String,
        params: &[Param<'_>],
        take: impl Fn(&Row) -> Result<T, String>,
    ) -> Result<T, CollectionError> {
        self.transact(async |session, guard| {
            let rows = session.query(doing, &sql(guard), params).await?;
            let taken = rows.first().map_or_else(|| Err("the database answered without a row".to_owned()), &take);
            Ok(taken.map_err(|detail| self.fault(BackendFault::Refused, detail)))
        })
    }

    /// Runs statements in one transaction, each with the condition that `call` is given, and commits them. What `call`
    /// refuses is rolled back. It may be run again where it did nothing.
    pub(super) fn transact<T>(
        &self,
        call: impl AsyncFn(&Session, &str) -> Result<Result<T, CollectionError>, PostgresError>,
    ) -> Result<T, CollectionError> {
        self.guarded(|guard| self.inner.pool.write(async |session| call(session, guard).await))?
    }

    /// Runs a call on the table that was looked at. Where another has its name since, which another server may have
    /// made with another definition, that one is looked at first.
    fn guarded<T>(&self, run: impl Fn(&str) -> Result<T, Failure>) -> Result<T, CollectionError> {
        let mut checked = self.checked()?;
        for _ in 0..MAX_ATTEMPTS {
            let failure = match run(&table::guard(&self.inner.placement, &checked)) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            if !table::may_be_another(&failure) {
                return Err(self.failed(failure));
            }
            self.forget();
            let now = self.checked()?;
            if now.table == checked.table {
                return Err(self.failed(failure));
            }
            checked = now;
        }
        let detail =
            format!("table {} is made anew again and again; try again", self.inner.placement.qualified().plain());
        Err(self.fault(BackendFault::Conflict, detail))
    }

    fn failed(&self, failure: Failure) -> CollectionError {
        match failed(self.name(), failure) {
            // Whoever is to mend the table has to know which.
            CollectionError::Backend { name, fault: fault @ (BackendFault::Dim | BackendFault::Drift), detail } => {
                let detail = format!("table {}: {detail}", self.inner.placement.qualified().plain());
                CollectionError::Backend { name, fault, detail }
            }
            error => error,
        }
    }

    pub(super) fn fault(&self, fault: BackendFault, detail: String) -> CollectionError {
        CollectionError::Backend { name: self.name().clone(), fault, detail }
    }

    fn settle<T>(&self, settled: Result<Result<T, TableError>, Failure>) -> Result<T, CollectionError> {
        settle(self.name(), settled)
    }
}

/// Texts as parameters.
pub(super) fn texts(values: Vec<&str>) -> Texts<'_> {
    Texts(values)
}

pub(super) struct Texts<'a>(Vec<&'a str>);

impl Texts<'_> {
    pub fn typed(&self) -> Vec<Param<'_>> {
        self.0.iter().map(|text| (text as &(dyn crate::postgres::ToSql + Sync), Type::TEXT)).collect()
    }
}
