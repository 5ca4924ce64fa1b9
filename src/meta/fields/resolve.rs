//! From a filter to the rows of a segment that pass it, by postings alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ask::{Ask, Overlap, Span};
use super::block::{BlockReader, Damage, Rows, Table};
use super::cache::Key;
use super::page::PAGE_ROWS;
use super::term::{decode_cell, kind, string_term};
use super::{RowBounds, TABLE, field_key, page_key};
use crate::meta::{MetaError, MetaIndex};
use crate::types::{CollectionId, Condition, Filter, Ordinal, RowSet, SegmentId};

/// Which rows pass a filter, as far as the index knows.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The rows.
    pub bounds: Arc<RowBounds>,
    /// Fields that left rows undecided.
    pub undecided_fields: Vec<String>,
    /// Postings were found damaged and removed: they are to be made again.
    pub damaged: bool,
}

/// Why postings cannot be used.
enum Broken {
    Damage,
    Index(MetaError),
}

impl From<Damage> for Broken {
    fn from(_: Damage) -> Self {
        Broken::Damage
    }
}

impl From<MetaError> for Broken {
    fn from(error: MetaError) -> Self {
        Broken::Index(error)
    }
}

impl MetaIndex {
    /// The rows of a segment that pass a filter, dead ones included. What the index cannot tell is left undecided:
    /// this never fails.
    pub fn resolve(&self, collection: CollectionId, segment: SegmentId, rows: u32, filter: &Filter) -> Resolved {
        let unknown = |damaged| Resolved {
            bounds: Arc::new(RowBounds::unknown(rows)),
            undecided_fields: paths_of(filter),
            damaged,
        };
        let ready = || self.check_trusted().is_ok() && self.rows_of(collection, segment) == Some(rows);
        if !ready() {
            return unknown(false);
        }
        let mut undecided = BTreeSet::new();
        match (Segment { index: self, collection, segment, rows }).evaluate_whole(filter, &mut undecided) {
            // Removed meanwhile: what was read may have been half of it, and what was missed is no damage.
            _ if !ready() => unknown(false),
            Ok(bounds) => {
                let undecided_fields = if bounds.is_exact() { Vec::new() } else { undecided.into_iter().collect() };
                Resolved { bounds, undecided_fields, damaged: false }
            }
            Err(broken) => {
                let error = match broken {
                    // Postings are made again at once: the rest of the index can be trusted.
                    Broken::Damage => MetaError::Damaged { path: self.path.clone() },
                    Broken::Index(error) => error,
                };
                self.give_up_fields(collection, segment, &error);
                unknown(true)
            }
        }
    }

    fn give_up_fields(&self, collection: CollectionId, segment: SegmentId, error: &MetaError) {
        tracing::error!(%error, %collection, %segment, "postings cannot be read; they are made again");
        if let Err(error) = self.forget_fields(collection, &[segment]) {
            tracing::error!(%error, "damaged postings could not be removed");
        }
    }
}

/// Every field that a filter asks.
fn paths_of(filter: &Filter) -> Vec<String> {
    fn collect(filter: &Filter, paths: &mut BTreeSet<String>) {
        match filter {
            Filter::And(parts) | Filter::Or(parts) => parts.iter().for_each(|part| collect(part, paths)),
            Filter::Not(part) => collect(part, paths),
            Filter::Field { path, .. } => _ = paths.insert(path.clone()),
        }
    }
    let mut paths = BTreeSet::new();
    collect(filter, &mut paths);
    paths.into_iter().collect()
}

/// Distinguishes conditions; equal ones have equal bytes.
fn condition_bytes(path: &str, condition: &Condition) -> Vec<u8> {
    let (tag, values) = match condition {
        Condition::Eq(value) => (0u8, std::slice::from_ref(value)),
        Condition::Ne(value) => (1, std::slice::from_ref(value)),
        Condition::Gt(value) => (2, std::slice::from_ref(value)),
        Condition::Gte(value) => (3, std::slice::from_ref(value)),
        Condition::Lt(value) => (4, std::slice::from_ref(value)),
        Condition::Lte(value) => (5, std::slice::from_ref(value)),
        Condition::In(values) => (6, values.as_slice()),
        Condition::Nin(values) => (7, values.as_slice()),
        Condition::Contains(value) => (8, std::slice::from_ref(value)),
        Condition::Exists(wanted) => (9 + u8::from(*wanted), &[][..]),
        Condition::Prefix(_) => (11, &[][..]),
        Condition::GeoRadius { .. } => (12, &[][..]),
    };
    // The length first: what follows may hold any bytes.
    let mut bytes = vec![tag];
    bytes.extend((path.len() as u64).to_le_bytes());
    bytes.extend(path.as_bytes());
    match condition {
        Condition::Prefix(start) => bytes.extend(start.as_bytes()),
        Condition::GeoRadius { center, meters } => {
            [center.lat(), center.lon(), *meters].iter().for_each(|x| bytes.extend(x.to_bits().to_le_bytes()));
        }
        _ => {
            bincode::encode_into_std_write(values, &mut bytes, bincode::config::standard())
                .expect("memory takes any value");
        }
    }
    bytes
}

/// Distinguishes filters of several conditions, from each other and from conditions; equal ones have equal bytes.
fn filter_bytes(filter: &Filter) -> Vec<u8> {
    let (tag, parts) = match filter {
        Filter::Field { path, condition } => return condition_bytes(path, condition),
        Filter::And(parts) => (253u8, parts.as_slice()),
        Filter::Or(parts) => (254, parts.as_slice()),
        Filter::Not(part) => (255, std::slice::from_ref(&**part)),
    };
    let mut bytes = vec![tag];
    for part in parts.iter().map(filter_bytes) {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    bytes
}

/// A segment whose postings are ready.
struct Segment<'a> {
    index: &'a MetaIndex,
    collection: CollectionId,
    segment: SegmentId,
    rows: u32,
}

/// Rows found so far for one condition.
struct Found {
    certain: RowSet,
    open: RowSet,
    /// Open whatever else is known.
    opaque: RowSet,
    arrays: RowSet,
    /// Strings with a wanted part, which count only outside arrays.
    parts: RowSet,
}

impl Segment<'_> {
    /// As [`Self::evaluate`], and remembers what several conditions together decide: asked again, a filter has the same
    /// rows.
    fn evaluate_whole(&self, filter: &Filter, undecided: &mut BTreeSet<String>) -> Result<Arc<RowBounds>, Broken> {
        if matches!(filter, Filter::Field { .. }) {
            return self.evaluate(filter, undecided);
        }
        let key = self.key(filter_bytes(filter));
        if let Some(known) = self.index.fields.cache.get(&key) {
            return Ok(known);
        }
        let bounds = self.evaluate(filter, undecided)?;
        if bounds.is_exact() {
            self.index.fields.cache.put(key, bounds.clone());
        }
        Ok(bounds)
    }

    fn key(&self, condition: Vec<u8>) -> Key {
        Key { collection: self.collection, segment: self.segment, condition }
    }

    fn evaluate(&self, filter: &Filter, undecided: &mut BTreeSet<String>) -> Result<Arc<RowBounds>, Broken> {
        match filter {
            Filter::And(parts) => self.fold(parts, RowSet::full(self.rows), RowBounds::and, undecided),
            Filter::Or(parts) => self.fold(parts, RowSet::empty(self.rows), RowBounds::or, undecided),
            Filter::Not(part) => {
                let bounds = self.evaluate(part, undecided)?;
                Ok(Arc::new(Arc::unwrap_or_clone(bounds).not()))
            }
            Filter::Field { path, condition } => {
                let bounds = self.condition(path, condition)?;
                if !bounds.is_exact() {
                    undecided.insert(path.clone());
                }
                Ok(bounds)
            }
        }
    }

    fn fold(
        &self,
        parts: &[Filter],
        start: RowSet,
        combine: impl Fn(RowBounds, &RowBounds) -> RowBounds,
        undecided: &mut BTreeSet<String>,
    ) -> Result<Arc<RowBounds>, Broken> {
        let Some((first, rest)) = parts.split_first() else { return Ok(Arc::new(RowBounds::exact(start))) };
        let mut bounds = self.evaluate(first, undecided)?;
        for part in rest {
            let other = self.evaluate(part, undecided)?;
            bounds = Arc::new(combine(Arc::unwrap_or_clone(bounds), &other));
        }
        Ok(bounds)
    }

    fn condition(&self, path: &str, condition: &Condition) -> Result<Arc<RowBounds>, Broken> {
        let key = self.key(condition_bytes(path, condition));
        if let Some(known) = self.index.fields.cache.get(&key) {
            return Ok(known);
        }
        let bounds = Arc::new(self.ask(path, &Ask::of(condition))?);
        self.index.fields.cache.put(key, bounds.clone());
        Ok(bounds)
    }

    fn ask(&self, path: &str, ask: &Ask) -> Result<RowBounds, Broken> {
        let empty = || RowSet::empty(self.rows);
        let mut found = Found { certain: empty(), open: empty(), opaque: empty(), arrays: empty(), parts: empty() };
        for page in 0..self.rows.div_ceil(PAGE_ROWS) {
            let key = page_key(TABLE, self.collection, self.segment, page);
            let table = self.index.ask(|db| db.get(&key))?.ok_or(Broken::Damage)?;
            let table = Table::decode(&key, &table)?;
            let first = page * PAGE_ROWS;
            match table.field(path) {
                Some(field) => {
                    let prefix = field_key(self.collection, self.segment, page, field);
                    Field { index: self.index, prefix, first }.ask(ask, &mut found)?;
                }
                None if table.overflowed => found.opaque.insert_range(first, first.saturating_add(PAGE_ROWS)),
                None => {}
            }
        }
        Ok(found.bounds(ask))
    }
}

impl Found {
    fn bounds(mut self, ask: &Ask) -> RowBounds {
        if ask.arrays_only {
            self.certain.intersect(&self.arrays);
            self.open.intersect(&self.arrays);
        }
        self.parts.subtract(&self.arrays);
        self.certain.unite(&self.parts);
        self.open.unite(&self.opaque);
        let bounds = RowBounds::between(self.certain, self.open);
        if ask.negated { bounds.not() } else { bounds }
    }
}

/// The postings of one field in one page.
struct Field<'a> {
    index: &'a MetaIndex,
    prefix: Vec<u8>,
    /// First row of the page.
    first: Ordinal,
}

impl Field<'_> {
    fn ask(&self, ask: &Ask, found: &mut Found) -> Result<(), Broken> {
        for term in &ask.terms {
            self.add_term(term, &mut found.certain)?;
        }
        if let Some(span) = &ask.span {
            self.add_span(span, found)?;
        }
        for &kind in &ask.open {
            self.add_term(&[kind], &mut found.open)?;
        }
        if !ask.never {
            self.add_term(&[kind::OPAQUE], &mut found.opaque)?;
        }
        if ask.arrays_only || matches!(ask.span, Some(Span::Part(_))) {
            self.add_term(&[kind::ARRAY], &mut found.arrays)?;
        }
        Ok(())
    }

    fn add_term(&self, term: &[u8], into: &mut RowSet) -> Result<(), Broken> {
        self.scan(term, |found, rows| {
            if found == term {
                self.add(rows, into)?;
            }
            Ok(false)
        })
    }

    fn add_span(&self, span: &Span, found: &mut Found) -> Result<(), Broken> {
        match span {
            Span::Range { from, after, to } => self.scan(from, |term, rows| {
                let beyond = to.as_ref().is_some_and(|(to, inclusive)| term > &to[..] || (term == to && !inclusive));
                if term.first() != from.first() || beyond {
                    return Ok(false);
                }
                if !(*after && term == from) {
                    self.add(rows, &mut found.certain)?;
                }
                Ok(true)
            }),
            Span::Prefix(start) => self.scan(start, |term, rows| {
                let fits = term.starts_with(start);
                if fits {
                    self.add(rows, &mut found.certain)?;
                }
                Ok(fits)
            }),
            Span::Part(part) => {
                let whole = string_term(part);
                self.scan(&[kind::STRING], |term, rows| {
                    let Some(text) = term.strip_prefix(&[kind::STRING]) else { return Ok(false) };
                    if term == whole {
                        self.add(rows, &mut found.certain)?;
                    } else if contains(text, part.as_bytes()) {
                        self.add(rows, &mut found.parts)?;
                    }
                    Ok(true)
                })
            }
            Span::Circle(circle) => {
                let (first, last) = circle.rows();
                self.scan(&first, |term, rows| {
                    let Some(cell) = decode_cell(term).filter(|cell| cell.0 <= last) else { return Ok(false) };
                    match circle.overlap(cell) {
                        Overlap::Outside => {}
                        Overlap::Partly => self.add(rows, &mut found.open)?,
                        Overlap::Inside => self.add(rows, &mut found.certain)?,
                    }
                    Ok(true)
                })
            }
        }
    }

    fn add(&self, rows: Rows<'_>, into: &mut RowSet) -> Result<(), Damage> {
        rows.for_each(|row| into.insert(self.first + row))
    }

    /// Visits the terms from `from` on, ascending, until `visit` says no.
    fn scan(&self, from: &[u8], mut visit: impl FnMut(&[u8], Rows<'_>) -> Result<bool, Damage>) -> Result<(), Broken> {
        let wanted = [self.prefix.as_slice(), from].concat();
        let first =
            self.index.ask(|db| db.range(self.prefix.as_slice()..=wanted.as_slice()).next_back().transpose())?;
        let (mut key, mut value) = first.ok_or(Broken::Damage)?;
        loop {
            let mut block = BlockReader::open(&key, &value)?;
            // The next block would be the one to start with: it is lost.
            if !block.next.is_empty() && block.next <= from {
                return Err(Broken::Damage);
            }
            while let Some((term, rows)) = block.entry()? {
                if term >= from && !visit(term, rows)? {
                    return Ok(());
                }
            }
            if block.next.is_empty() {
                return Ok(());
            }
            let next = [self.prefix.as_slice(), block.next].concat();
            value = self.index.ask(|db| db.get(&next))?.ok_or(Broken::Damage)?;
            key = next.into();
        }
    }
}

/// Whether UTF-8 has such a part.
fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}
