//! Collects the terms of up to 65,536 rows, within bounded memory, until they are written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::block::Table;
use super::term::{MAX_DECLARED_BYTES, MAX_UNDECLARED_BYTES, Term, kind, terms_of};
use crate::types::limits::MAX_FIELD_BYTES;
use crate::types::{FieldType, Metadata, Value, lookup};

/// Rows of one page: as many as 16 bits tell apart.
pub const PAGE_ROWS: u32 = 1 << 16;
/// Most fields of a page that are indexed; declared ones always are.
const MAX_FIELDS: usize = 256;
/// Longest path that is indexed. No declared one is longer.
const MAX_PATH_BYTES: usize = MAX_FIELD_BYTES;
/// Memory for the terms of a page. When it is passed, the largest field that is not declared is given up.
const MAX_BYTES: usize = 64 << 20;
/// What a term takes beside its bytes: its place in the map, its list, their allocations.
const TERM_BYTES: usize = 96;

/// The terms of one field.
struct FieldTerms {
    declared: bool,
    given_up: bool,
    terms: BTreeMap<Term, Vec<u16>>,
    bytes: usize,
}

impl FieldTerms {
    fn add(&mut self, term: &[u8], row: u16) -> usize {
        if let Some(rows) = self.terms.get_mut(term) {
            // The elements of an array may be equal.
            if rows.last() != Some(&row) {
                rows.push(row);
                self.bytes += size_of::<u16>();
                return size_of::<u16>();
            }
            return 0;
        }
        self.terms.insert(term.to_vec(), vec![row]);
        let bytes = TERM_BYTES + term.len();
        self.bytes += bytes;
        bytes
    }

    /// Keeps only which rows have the field.
    fn give_up(&mut self) {
        self.given_up = true;
        let present = self.terms.remove(&[kind::PRESENT][..]).unwrap_or_default();
        self.bytes = 2 * (TERM_BYTES + size_of::<u16>() * present.len());
        self.terms = [(vec![kind::OPAQUE], present.clone()), (vec![kind::PRESENT], present)].into();
    }
}

/// The terms of one page.
pub struct PageTerms<'a> {
    declared: &'a BTreeMap<String, FieldType>,
    fields: HashMap<String, FieldTerms>,
    overflowed: bool,
    bytes: usize,
    max_bytes: usize,
}

/// A field's terms, ascending, each with the rows that have it.
pub type Postings = Vec<(Term, Vec<u16>)>;

impl<'a> PageTerms<'a> {
    /// An empty page of a collection that declares these fields.
    pub fn new(declared: &'a BTreeMap<String, FieldType>) -> Self {
        Self::with_memory(declared, MAX_BYTES)
    }

    fn with_memory(declared: &'a BTreeMap<String, FieldType>, max_bytes: usize) -> Self {
        Self { declared, fields: HashMap::new(), overflowed: false, bytes: 0, max_bytes }
    }

    /// Adds a row of the page; rows come in ascending order.
    pub fn add(&mut self, row: u16, metadata: &Metadata) {
        if has_dots(metadata) {
            // Several ways may lead to one path, and `lookup` says which counts. In order, so that where there are too
            // many, the same fields are indexed when the postings are made again.
            let mut paths = BTreeSet::new();
            self.overflowed |= walk(metadata, &mut String::new(), &mut |path, _| _ = paths.insert(path.to_owned()));
            for path in paths {
                if let Some(value) = lookup(metadata, &path) {
                    self.add_value(row, &path, value);
                }
            }
        } else {
            let overflowed = walk(metadata, &mut String::new(), &mut |path, value| self.add_value(row, path, value));
            self.overflowed |= overflowed;
        }
        while self.bytes > self.max_bytes && self.give_up_largest() {}
    }

    fn add_value(&mut self, row: u16, path: &str, value: &Value) {
        if !self.fields.contains_key(path) {
            let declared = self.declared.contains_key(path);
            if !declared && self.fields.len() >= MAX_FIELDS {
                self.overflowed = true;
                return;
            }
            let field = FieldTerms { declared, given_up: false, terms: BTreeMap::new(), bytes: 0 };
            self.fields.insert(path.to_owned(), field);
        }
        let Some(field) = self.fields.get_mut(path) else { return };
        if field.given_up {
            self.bytes += field.add(&[kind::PRESENT], row) + field.add(&[kind::OPAQUE], row);
            return;
        }
        let max_string = if field.declared { MAX_DECLARED_BYTES } else { MAX_UNDECLARED_BYTES };
        terms_of(value, max_string, &mut |term| self.bytes += field.add(term, row));
    }

    /// Returns whether there was one to give up.
    fn give_up_largest(&mut self) -> bool {
        let candidates = self.fields.iter_mut().filter(|(_, field)| !field.declared && !field.given_up);
        // Ties are broken by name, so that the same documents always give the same postings.
        let Some((_, largest)) = candidates.max_by(|a, b| (a.1.bytes, a.0).cmp(&(b.1.bytes, b.0))) else {
            return false;
        };
        let before = largest.bytes;
        largest.give_up();
        self.bytes = self.bytes + largest.bytes - before;
        true
    }

    /// The page's table, and by field number its terms with their rows.
    pub fn finish(self) -> (Table, Vec<Postings>) {
        let mut fields: Vec<_> = self.fields.into_iter().collect();
        fields.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let (paths, postings) =
            fields.into_iter().map(|(path, field)| (path, field.terms.into_iter().collect())).unzip();
        (Table { paths, overflowed: self.overflowed }, postings)
    }
}

fn has_dots(metadata: &Metadata) -> bool {
    metadata.iter().any(|(name, value)| name.contains('.') || matches!(value, Value::Object(inner) if has_dots(inner)))
}

/// Calls `visit` with every path below `metadata` of up to [`MAX_PATH_BYTES`] and its value; `path` is the way there.
/// Returns whether there are longer ones.
fn walk(metadata: &Metadata, path: &mut String, visit: &mut impl FnMut(&str, &Value)) -> bool {
    let start = path.len();
    let mut longer = false;
    for (name, value) in metadata {
        if start + name.len() > MAX_PATH_BYTES {
            longer = true;
            continue;
        }
        path.push_str(name);
        visit(path, value);
        if let Value::Object(inner) = value {
            path.push('.');
            longer |= walk(inner, path, visit);
        }
        path.truncate(start);
    }
    longer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(pairs: &[(&str, Value)]) -> Metadata {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn build(documents: &[Metadata], declared: &[(&str, FieldType)], max_bytes: usize) -> Found {
        let declared = declared.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        let mut page = PageTerms::with_memory(&declared, max_bytes);
        documents.iter().enumerate().for_each(|(row, document)| page.add(row as u16, document));
        let (table, postings) = page.finish();
        Found { table, postings }
    }

    struct Found {
        table: Table,
        postings: Vec<Vec<(Term, Vec<u16>)>>,
    }

    impl Found {
        fn kinds(&self, path: &str) -> Vec<u8> {
            let field = self.table.field(path).unwrap();
            self.postings[usize::from(field)].iter().map(|(term, _)| term[0]).collect()
        }

        fn rows(&self, path: &str, term: &[u8]) -> Vec<u16> {
            let Some(field) = self.table.field(path) else { return Vec::new() };
            let found = self.postings[usize::from(field)].iter().find(|(known, _)| known == term);
            found.map(|(_, rows)| rows.clone()).unwrap_or_default()
        }
    }

    #[test]
    fn nested_fields_have_their_paths() {
        let documents = [
            object(&[("a", Value::Object(object(&[("b", Value::Int(1)), ("c", Value::Null)])))]),
            object(&[("a", Value::Array(vec![Value::Int(1), Value::Int(1)]))]),
        ];
        let found = build(&documents, &[], usize::MAX);
        assert_eq!(found.table.paths, ["a", "a.b", "a.c"]);
        assert_eq!(found.rows("a", &[kind::PRESENT]), [0, 1]);
        assert_eq!(found.rows("a", &[kind::ARRAY]), [1]);
        assert_eq!(found.rows("a", &crate::meta::fields::term::scalar_term(&Value::Int(1)).unwrap()), [1]);
        assert_eq!(found.rows("a.c", &[kind::NULL]), [0]);
    }

    #[test]
    fn a_dotted_name_comes_before_a_nested_one() {
        let nested = Value::Object(object(&[("b", Value::Bool(true))]));
        let found = build(&[object(&[("a", nested), ("a.b", Value::Bool(false))])], &[], usize::MAX);
        assert_eq!(found.kinds("a.b"), [kind::PRESENT, kind::FALSE]);
    }

    #[test]
    fn the_largest_undeclared_field_is_given_up_when_memory_is_short() {
        let document = |n: i64| object(&[("id", Value::Int(n)), ("kept", Value::Int(n)), ("flag", Value::Bool(true))]);
        let documents: Vec<_> = (0..200).map(document).collect();
        let found = build(&documents, &[("kept", FieldType::Number)], 30_000);
        assert_eq!(found.kinds("id"), [kind::PRESENT, kind::OPAQUE]);
        assert_eq!(found.rows("id", &[kind::OPAQUE]), (0..200).collect::<Vec<_>>());
        assert_eq!(found.kinds("kept").len(), 201);
        assert_eq!(found.kinds("flag"), [kind::PRESENT, kind::TRUE]);
    }

    #[test]
    fn paths_beyond_the_limit_are_not_walked() {
        let inner: Metadata = (0..100_000).map(|n| (format!("f{n:05}"), Value::Null)).collect();
        for long in [".", "a"].map(|start| format!("{start}{}", "a".repeat(MAX_PATH_BYTES))) {
            let longest = "b".repeat(MAX_PATH_BYTES);
            let document = object(&[
                (long.as_str(), Value::Object(inner.clone())),
                (longest.as_str(), Value::Null),
                ("c", Value::Null),
            ]);
            let mut visited = Vec::new();
            assert!(walk(&document, &mut String::new(), &mut |path, _| visited.push(path.to_owned())));
            assert_eq!(visited, [longest.as_str(), "c"]);
            let found = build(&[document], &[], usize::MAX);
            assert!(found.table.overflowed);
            assert_eq!(found.table.paths, [longest.as_str(), "c"]);
        }
    }

    #[test]
    fn more_fields_than_the_limit_are_said_to_be_missing() {
        let document: Metadata = (0..MAX_FIELDS + 10).map(|n| (format!("f{n:04}"), Value::Null)).collect();
        let found = build(&[document], &[("f0260", FieldType::Keyword)], usize::MAX);
        assert!(found.table.overflowed && found.table.field("f0260").is_some());
        assert_eq!(found.table.field("f0265"), None);
    }
}
