//! Searching a keyword index by BM25: the best by score, and of equals those that come first by id.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tantivy::columnar::{Column, StrColumn};
use tantivy::query::{BooleanQuery, EnableScoring, Query};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocId, DocSet, Searcher, SegmentReader, TERMINATED, TantivyError, Term};

use super::best::{Best, Found, cut};
use super::schema::{Fields, ID, SEQ};
use super::{TextError, TextIndex};
use crate::types::{DocumentId, Seq};

/// What the two averages may differ by in rounding alone.
const ROUNDING: f32 = 1.0 + 1e-5;

/// A document that has at least one of the words.
#[derive(Clone, Debug, PartialEq)]
pub struct TextHit {
    /// The document.
    pub id: DocumentId,
    /// The change that wrote the version which was indexed. It may have been replaced or deleted since.
    pub seq: Seq,
    /// BM25 with k1 = 1.2 and b = 0.75 (Robertson & Zaragoza 2009): above 0, rises with relevance; cut to 14 bits.
    pub score: f32,
}

/// A search of one moment of an index.
pub struct Search {
    searcher: Searcher,
    query: BooleanQuery,
    fields: Fields,
    index: TextIndex,
}

impl Search {
    /// `fields`: of the index, into whose words `query` looks.
    pub(super) fn new(searcher: Searcher, query: BooleanQuery, fields: Fields, index: TextIndex) -> Self {
        Self { searcher, query, fields, index }
    }

    /// The hits from rank `from` on, `count` of them where there are as many: by falling score, ties by ascending id.
    ///
    /// # Errors
    /// [`TextError::Index`].
    pub fn hits(&self, from: usize, count: usize) -> Result<Vec<TextHit>, TextError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        self.best(from + count)
            .map(|mut hits| hits.split_off(from.min(hits.len())))
            .map_err(|error| self.index.failed(error))
    }

    /// The hits among the documents of these ids, in no order: whatever rank they have.
    ///
    /// # Errors
    /// [`TextError::Index`].
    pub fn hits_among(&self, ids: &[&DocumentId]) -> Result<Vec<TextHit>, TextError> {
        self.among(ids).map_err(|error| self.index.failed(error))
    }

    fn among(&self, ids: &[&DocumentId]) -> tantivy::Result<Vec<TextHit>> {
        // Word by word: a scorer of all of them scores thousands of documents around each one that it is asked for.
        let scoring = EnableScoring::enabled_from_searcher(&self.searcher);
        let weights = self.query.clauses().iter().map(|(_, word)| word.weight(scoring));
        let weights = weights.collect::<tantivy::Result<Vec<_>>>()?;
        let mut hits = Vec::new();
        for segment in self.searcher.segment_readers() {
            let documents = documents_of(segment, self.fields.id, ids)?;
            if documents.is_empty() {
                continue;
            }
            let columns = Columns::of(segment)?;
            let scorers = weights.iter().map(|weight| weight.scorer(segment, 1.0));
            let mut scorers = scorers.collect::<tantivy::Result<Vec<_>>>()?;
            for document in documents {
                let mut sum = None;
                for scorer in &mut scorers {
                    if scorer.doc() < document {
                        scorer.seek(document);
                    }
                    if scorer.doc() == document {
                        sum = Some(sum.unwrap_or(0.0) + scorer.score());
                    }
                }
                if let Some(score) = sum {
                    let (id, seq) = columns.read(document)?;
                    hits.push(TextHit { id, seq, score: cut(score) });
                }
            }
        }
        Ok(hits)
    }

    fn best(&self, wanted: usize) -> tantivy::Result<Vec<TextHit>> {
        let weight = self.query.weight(EnableScoring::enabled_from_searcher(&self.searcher))?;
        let segments = self.searcher.segment_readers();
        let mut best = Best::new(wanted);
        let lengths = Lengths::of(segments, self.fields.words)?;
        for (number, segment) in (0..).zip(segments) {
            let alive = segment.alive_bitset();
            let slack = lengths.slack(number);
            weight.for_each_pruning(best.threshold() / slack, segment, &mut |document, score| {
                if alive.is_none_or(|alive| alive.is_alive(document)) {
                    best.offer(number, document, score);
                }
                best.threshold() / slack
            })?;
        }
        let columns = segments.iter().map(Columns::of).collect::<tantivy::Result<Vec<_>>>()?;
        let (mut found, ties) = best.into_found();
        found.extend(first_by_id(&ties, wanted - found.len(), &columns)?);
        let hit = |found: &Found| {
            let (id, seq) = columns[found.segment].read(found.document)?;
            Ok(TextHit { id, seq, score: found.score })
        };
        let mut hits = found.iter().map(hit).collect::<tantivy::Result<Vec<_>>>()?;
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        Ok(hits)
    }
}

/// The documents of a segment that have one of these ids and are in the index still, in ascending order.
fn documents_of(segment: &SegmentReader, field: Field, ids: &[&DocumentId]) -> tantivy::Result<Vec<DocId>> {
    let (index, alive) = (segment.inverted_index(field)?, segment.alive_bitset());
    let mut documents = Vec::new();
    for id in ids {
        let term = Term::from_field_text(field, id.as_str());
        let Some(mut postings) = index.read_postings(&term, IndexRecordOption::Basic)? else { continue };
        while postings.doc() != TERMINATED {
            if alive.is_none_or(|alive| alive.is_alive(postings.doc())) {
                documents.push(postings.doc());
            }
            postings.advance();
        }
    }
    documents.sort_unstable();
    Ok(documents)
}

/// How long texts are on average, in words, by segment.
///
/// tantivy passes over blocks of 128 documents by their greatest score. It takes for that the score of the document
/// that had the greatest one by the average length of the segment, while scores count with the average of all. With
/// K = k1 (1 - b + b length / average), a score is weight * frequency / (frequency + K) * (k1 + 1). Where the averages
/// are to each other as r, each K changes by a factor between 1 and r, each score by one between 1 and 1 / r, and so no
/// document's score is greater than max(r, 1 / r) times that of the one that was taken.
struct Lengths {
    averages: Vec<f64>,
    of_all: f64,
}

impl Lengths {
    fn of(segments: &[SegmentReader], words: Field) -> tantivy::Result<Self> {
        let average = |words: u64, documents: u64| words as f64 / documents.max(1) as f64;
        let (mut averages, mut all) = (Vec::with_capacity(segments.len()), (0, 0));
        for segment in segments {
            let (words, documents) = (segment.inverted_index(words)?.total_num_tokens(), u64::from(segment.max_doc()));
            averages.push(average(words, documents));
            all = (all.0 + words, all.1 + documents);
        }
        Ok(Self { averages, of_all: average(all.0, all.1) })
    }

    /// How many times greater than its block's greatest score a score of this segment may be.
    fn slack(&self, segment: usize) -> f32 {
        let ratio = self.averages[segment] / self.of_all;
        let slack = ratio.max(1.0 / ratio) as f32;
        // A segment without a word has no document to find.
        if slack.is_finite() { slack * ROUNDING } else { 1.0 }
    }
}

/// The `count` that come first by id. Segments number their ids in ascending order, so that few have to be read.
fn first_by_id(ties: &[Found], count: usize, columns: &[Columns]) -> tantivy::Result<Vec<Found>> {
    if ties.len() <= count {
        return Ok(ties.to_vec());
    }
    let mut by_segment: Vec<Vec<(u64, Found)>> = columns.iter().map(|_| Vec::new()).collect();
    for found in ties {
        by_segment[found.segment].push((columns[found.segment].ord(found.document)?, *found));
    }
    for of_segment in &mut by_segment {
        if of_segment.len() > count {
            of_segment.select_nth_unstable_by_key(count, |(ord, _)| *ord);
            of_segment.truncate(count);
        }
        of_segment.sort_unstable_by_key(|(ord, _)| Reverse(*ord));
    }
    let next = |of_segment: &mut Vec<(u64, Found)>| -> tantivy::Result<_> {
        let Some((ord, found)) = of_segment.pop() else { return Ok(None) };
        Ok(Some((Reverse(columns[found.segment].id(ord)?), found.segment, found.document)))
    };
    let mut heads = BinaryHeap::new();
    for of_segment in &mut by_segment {
        heads.extend(next(of_segment)?);
    }
    let mut first = Vec::with_capacity(count);
    while first.len() < count
        && let Some((_, segment, document)) = heads.pop()
    {
        first.push(Found { segment, document, ..ties[0] });
        heads.extend(next(&mut by_segment[segment])?);
    }
    Ok(first)
}

/// What a segment says of each of its documents.
pub(super) struct Columns {
    ids: StrColumn,
    seqs: Column<u64>,
}

impl Columns {
    pub(super) fn of(segment: &SegmentReader) -> tantivy::Result<Self> {
        let columns = segment.fast_fields();
        Ok(Self { ids: columns.str(ID)?.ok_or_else(lost)?, seqs: columns.u64(SEQ)? })
    }

    pub(super) fn read(&self, document: DocId) -> tantivy::Result<(DocumentId, Seq)> {
        let id = self.id(self.ord(document)?)?;
        let seq = self.seqs.first(document).ok_or_else(lost)?;
        Ok((DocumentId::new(&id).map_err(|_| lost())?, Seq(seq)))
    }

    /// The place of its id among those of the segment.
    fn ord(&self, document: DocId) -> tantivy::Result<u64> {
        self.ids.term_ords(document).next().ok_or_else(lost)
    }

    fn id(&self, ord: u64) -> tantivy::Result<String> {
        let mut id = String::new();
        if !self.ids.ord_to_str(ord, &mut id)? {
            return Err(lost());
        }
        Ok(id)
    }
}

/// Every document is written with an id and a seq.
fn lost() -> TantivyError {
    TantivyError::InternalError("a document has lost its id or seq".to_owned())
}
