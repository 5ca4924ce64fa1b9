//! Searches of a table: by the index on its vectors, by comparing every row, by its words.

use std::collections::HashMap;
use std::time::Instant;

use crate::collection::{Candidate, CollectionError, Nearest, QueryWords, Shelf, is_exact, sort};
use crate::index::Place;
use crate::postgres::{Param, Row, Type};
use crate::types::{
    Document, DocumentId, Explain, Filter, Fusion, Metric, Mode, Paging, Plan, SearchRequest, Value, VectorError,
    VectorStorage, round_to_half,
};

use super::json;
use super::remote::{RemoteCollection, texts};
use super::rows::{self, Columns, Keys, vector_text};
use super::table::configuration;

/// Largest `hnsw.ef_search` of pgvector.
const MAX_EF_SEARCH: usize = 1_000;
/// Candidates kept where nobody says how many.
const DEFAULT_EF_SEARCH: usize = 100;
/// Most words of a query as Postgres reads them: an address of ours is several there.
const MAX_LEXEMES: usize = 512;
/// The settings of a transaction that compares every row that passes.
const COMPARE_ALL: &str = "set local enable_indexscan = off; set local enable_indexonlyscan = off";

/// In which order rows are asked for.
enum Order {
    /// Before version 17 Postgres reads an index in the order of distances only where nothing else is asked for. Which
    /// of equals come is left to the index.
    ByDistance,
    /// Of equal scores the lower id comes first.
    ByScore,
}

/// A statement and what it is run with.
struct Statement {
    /// SQL up to the guard condition (`guard` in table.rs): that the table is still the one which was looked at.
    before: String,
    /// SQL after the guard condition.
    after: String,
    params: Vec<String>,
}

impl Statement {
    fn run(&self, collection: &RemoteCollection, settings: &str) -> Result<Vec<Row>, CollectionError> {
        let params = texts(self.params.iter().map(String::as_str).collect());
        let sql = |guard: &str| format!("{}{guard}{}", self.before, self.after);
        collection.read("search", settings, sql, &params.typed())
    }
}

impl Shelf for RemoteCollection {
    /// Words are in the row itself: who sees the row sees them.
    fn refresh(&self) -> Result<(), CollectionError> {
        Ok(())
    }

    fn vector_of(&self, id: &DocumentId) -> Result<Vec<f32>, CollectionError> {
        match self.get(id)? {
            Some(document) => Ok(document.vector),
            None => Err(CollectionError::QueryDocumentNotFound { id: id.clone() }),
        }
    }

    fn nearest(
        &self,
        vector: &[f32],
        excluded: &[DocumentId],
        request: &SearchRequest,
        depth: usize,
    ) -> Result<Nearest, CollectionError> {
        let started = Instant::now();
        let is_exact = is_exact(request, depth);
        if let Some(ef) = request.ef_search.filter(|ef| *ef > MAX_EF_SEARCH && !is_exact) {
            return Err(self.not_here(format!("takes an \"ef_search\" of at most {MAX_EF_SEARCH}, and it is {ef}")));
        }
        // One more tells whether there are equals on both sides of the cut.
        let wanted = depth + excluded.len() + 1;
        let compare = self.nearest_statement(vector, request, Order::ByScore, wanted)?;
        let walk = self.nearest_statement(vector, request, Order::ByDistance, wanted)?;
        let by_index = !is_exact && self.is_large()?;
        let planning = started.elapsed();
        let ef = request.ef_search.unwrap_or_else(|| DEFAULT_EF_SEARCH.max(wanted)).min(MAX_EF_SEARCH);
        let walk_settings = format!(
            "set local hnsw.ef_search = {ef}; set local hnsw.iterative_scan = strict_order; set local enable_seqscan = off"
        );
        let found = |rows: Vec<Row>| {
            let mut candidates = self.candidates(&rows, |row| 0.0 - row.get::<_, f32>(8))?;
            candidates.retain(|candidate| !excluded.contains(&candidate.id));
            sort(&mut candidates);
            Ok::<_, CollectionError>(candidates)
        };
        let mut by_walk = None;
        if by_index {
            let rows = walk.run(self, &walk_settings)?;
            // The index gives up after so many rows that do not pass: then every row that does is compared.
            let is_filled = rows.len() >= wanted;
            by_walk = Some(found(rows)?).filter(|found| is_filled && !is_cut_within_equals(found, depth, request));
        }
        let plan = if by_walk.is_some() { Plan::Graph } else { Plan::Exact };
        let mut candidates = match by_walk {
            Some(candidates) => candidates,
            None => found(compare.run(self, COMPARE_ALL)?)?,
        };
        let explain = match request.explain {
            true => {
                let (statement, settings) =
                    if plan == Plan::Graph { (&walk, walk_settings.as_str()) } else { (&compare, COMPARE_ALL) };
                Some(self.explain(statement, settings, request.filter.as_ref(), plan, planning)?)
            }
            false => None,
        };
        candidates.truncate(depth);
        Ok(Nearest { candidates, plan, explain })
    }

    fn matching(
        &self,
        words: &QueryWords,
        request: &SearchRequest,
        depth: usize,
    ) -> Result<Vec<Candidate>, CollectionError> {
        let passes = self.condition(request.filter.as_ref(), 2)?;
        // Who was found by words alone gets a score by vector too, where scores are added.
        let by_score = matches!(request.mode, Mode::Hybrid(Fusion::Weighted { .. }));
        let columns = self.ranked(request, by_score)?.sql();
        let before = self.matching_from(&columns);
        let after = format!(" and {} order by 9 desc, id limit {depth}", passes.sql);
        let params = std::iter::once(self.asked(words)?).chain(passes.params).collect();
        let statement = Statement { before, after, params };
        let rows = statement.run(self, "")?;
        let mut candidates = self.candidates(&rows, |row| row.get::<_, f64>(8) as f32)?;
        sort(&mut candidates);
        Ok(candidates)
    }

    fn words_of(
        &self,
        words: &QueryWords,
        candidates: &[&Candidate],
    ) -> Result<HashMap<DocumentId, f32>, CollectionError> {
        let id = |candidate: &&Candidate| Value::String(candidate.id.as_str().to_owned());
        let ids = Value::Array(candidates.iter().map(id).collect());
        let statement = Statement {
            before: self.matching_from("id"),
            after: " and id in (select jsonb_array_elements_text($2::jsonb))".to_owned(),
            params: vec![self.asked(words)?, json::value(&ids)],
        };
        let mut scores = HashMap::with_capacity(candidates.len());
        for row in statement.run(self, "")? {
            if let Ok(id) = DocumentId::new(row.get(0)) {
                scores.insert(id, row.get::<_, f64>(1) as f32);
            }
        }
        Ok(scores)
    }

    /// As they stand now: one that was replaced since it was ranked, and that still passes, is shown anew.
    fn fetch(
        &self,
        candidates: Vec<Candidate>,
        request: &SearchRequest,
    ) -> Result<Vec<Option<Candidate>>, CollectionError> {
        let include = request.include;
        let is_reranked = request.rerank.is_some();
        let columns = Columns {
            content: include.text || request.highlight || is_reranked,
            metadata: if include.metadata || is_reranked { Keys::All } else { Keys::None },
            vector: include.vector,
        };
        if columns == Columns::NONE {
            return Ok(candidates.into_iter().map(Some).collect());
        }
        let passes = self.condition(request.filter.as_ref(), 2)?;
        let (table, columns) = (self.table(), columns.sql());
        let sql =
            |guard: &str| format!("select {columns} from {table} where {guard} and id = any($1) and {}", passes.sql);
        let ids: Vec<&str> = candidates.iter().map(|candidate| candidate.id.as_str()).collect();
        let filter = texts(passes.params.iter().map(String::as_str).collect());
        let mut params: Vec<Param<'_>> = vec![(&ids, Type::TEXT_ARRAY)];
        params.extend(filter.typed());
        let rows = self.read("read documents", "", sql, &params)?;
        let place = |document: Document| (document.stored.id.clone(), Place::Elsewhere(rows::in_memory(document)));
        let places: HashMap<DocumentId, Place> = self.documents_of(&rows)?.into_iter().map(place).collect();
        let fetched = |candidate: Candidate| {
            places.get(&candidate.id).map(|place| Candidate { place: place.clone(), ..candidate })
        };
        Ok(candidates.into_iter().map(fetched).collect())
    }
}

impl RemoteCollection {
    /// What is read of rows to rank them; the rest is read of hits alone.
    fn ranked(&self, request: &SearchRequest, vector: bool) -> Result<Columns, CollectionError> {
        let group = request.grouping.iter().map(|grouping| &grouping.field);
        let metadata = Keys::values(request.facets.iter().chain(group)).map_err(|cannot| self.not_here(cannot))?;
        Ok(Columns { content: false, metadata, vector: vector || request.diversity.is_some() })
    }

    /// What a query's words are looked for as.
    ///
    /// # Errors
    /// [`CollectionError::NotOnBackend`] for U+0000.
    fn asked(&self, words: &QueryWords) -> Result<String, CollectionError> {
        if words.text.contains('\0') {
            return Err(self.not_here("holds no text with U+0000, and the query has one; take it out".to_owned()));
        }
        Ok(words.text.clone())
    }

    /// A statement, up to the guard, of the rows that have one of the words of the text `$1`, as our own index finds
    /// them: `columns` of them, and their score. Lexemes are quoted as tsquery reads them.
    fn matching_from(&self, columns: &str) -> String {
        let configuration = configuration(self.definition());
        format!(
            "select {columns}, ts_rank(t.words, asked.query, 1)::float8 from {} as t, \
             (select string_agg('''' || replace(replace(word, '\\', '\\\\'), '''', '''''') || '''', ' | ')::tsquery \
             as query from (select lexeme from unnest(to_tsvector('{configuration}', $1)) \
             order by positions[1], lexeme limit {MAX_LEXEMES}) as words(word)) as asked \
             where t.words @@ asked.query and ",
            self.table(),
        )
    }

    fn not_here(&self, cannot: String) -> CollectionError {
        CollectionError::NotOnBackend { name: self.name().clone(), cannot }
    }

    /// A query as the column has its vectors, and what its scores are multiplied by. Of `dot` any length is as good, so
    /// it is brought to one of which half precision keeps most.
    ///
    /// # Errors
    /// [`CollectionError::QueryVector`] for numbers beyond half precision.
    fn as_stored(&self, vector: &[f32]) -> Result<(Vec<f32>, f64), CollectionError> {
        let (mut stored, mut times) = (vector.to_vec(), 1.0);
        if self.definition().index.storage == VectorStorage::Float16 {
            if self.definition().metric == Metric::Dot {
                let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                // A power of two: numbers that half precision has stay such.
                times = norm.log2().floor().exp2();
                stored.iter_mut().for_each(|x| *x = (f64::from(*x) / times) as f32);
            }
            // What is small beside the documents of the table may be rounded away.
            if let Err(error @ VectorError::TooLargeForHalf { .. }) = round_to_half(&mut stored) {
                return Err(CollectionError::QueryVector(error));
            }
        }
        Ok((stored, times))
    }

    /// The number after the columns is the score with the other sign, in the precision in which scores are shown.
    fn nearest_statement(
        &self,
        vector: &[f32],
        request: &SearchRequest,
        order: Order,
        count: usize,
    ) -> Result<Statement, CollectionError> {
        let passes = self.condition(request.filter.as_ref(), 2)?;
        let (extension, definition) = (self.checked()?.extension, self.definition());
        let distance =
            format!("embedding {} $1::{}", extension.operator(definition.metric), extension.vector(definition));
        let (vector, times) = self.as_stored(vector)?;
        let shown = match definition.metric {
            Metric::Cosine => format!("(({distance}) - 1)::real"),
            Metric::Dot if times != 1.0 => format!("(({distance}) * '{times:e}'::float8)::real"),
            Metric::Dot | Metric::L2 => format!("({distance})::real"),
        };
        let order = match order {
            Order::ByDistance => distance,
            Order::ByScore => "9, id".to_owned(),
        };
        let before = format!("select {}, {shown} from {} where ", self.ranked(request, false)?.sql(), self.table());
        let after = format!(" and {} order by {order} limit {count}", passes.sql);
        let params = std::iter::once(vector_text(&vector)).chain(passes.params).collect();
        Ok(Statement { before, after, params })
    }

    /// `score`: of a row, by the number after the columns.
    fn candidates(&self, rows: &[Row], score: impl Fn(&Row) -> f32) -> Result<Vec<Candidate>, CollectionError> {
        let documents = self.documents_of(rows)?;
        let candidate = |(document, row): (Document, &Row)| Candidate {
            id: document.stored.id.clone(),
            score: score(row),
            place: Place::Elsewhere(rows::in_memory(document)),
        };
        Ok(documents.into_iter().zip(rows).map(candidate).collect())
    }

    /// What the database's planner says of a search, and of the rows that pass its filter.
    fn explain(
        &self,
        statement: &Statement,
        settings: &str,
        filter: Option<&Filter>,
        plan: Plan,
        planning: std::time::Duration,
    ) -> Result<Explain, CollectionError> {
        let Statement { before, after, params } = statement;
        let explained = Statement { before: format!("explain {before}"), after: after.clone(), params: params.clone() };
        let lines = explained.run(self, settings)?;
        let passes = self.condition(filter, 1)?;
        let rows = Statement {
            before: format!("explain (format text) select from {} where ", self.table()),
            after: format!(" and {}", passes.sql),
            params: passes.params,
        };
        let estimate = rows.run(self, "")?;
        let first = estimate.first().map(|row| row.get::<_, String>(0)).unwrap_or_default();
        Ok(Explain {
            plan,
            estimated_matches: rows_in(&first),
            planning,
            segments: Vec::new(),
            memtable_rows: 0,
            database: lines.iter().map(|row| row.get(0)).collect(),
        })
    }
}

/// Whether a page of these candidates, best first and cut at `depth`, begins or ends between equal scores: which of
/// them an index hands out is another set for each depth, so pages would not fit together.
fn is_cut_within_equals(candidates: &[Candidate], depth: usize, request: &SearchRequest) -> bool {
    let is_between = |at: usize| match (candidates.get(at.wrapping_sub(1)), candidates.get(at)) {
        (Some(before), Some(after)) => before.score == after.score,
        _ => false,
    };
    let begins_within = match &request.paging {
        Paging::FirstPage => false,
        Paging::Offset(offset) => is_between(*offset),
        Paging::After(after) => candidates.iter().filter(|candidate| candidate.score == after.score).count() > 1,
    };
    begins_within || is_between(depth)
}

/// The number after `rows=` in a line of a plan.
fn rows_in(line: &str) -> u64 {
    let digits = line.split("rows=").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_read_from_the_first_line_of_a_plan() {
        assert_eq!(rows_in("Seq Scan on a  (cost=0.00..1.05 rows=1234 width=0)"), 1_234);
        assert_eq!(rows_in("nothing"), 0);
    }
}
