//! The columns of a table or query, and which of them become fields.

use super::{Deletions, TableSource, existing};
use crate::source::SourceError;

/// Types that cannot become a field.
const REFUSED: [&str; 2] = ["bytea", "bytea[]"];

/// Columns with their types, as Postgres names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Name and type.
    columns: Vec<(String, String)>,
    /// Those that become fields.
    fields: Vec<String>,
}

impl Shape {
    /// Checks a source against the columns that there are.
    ///
    /// # Errors
    /// [`SourceError::NoColumn`], [`SourceError::Kind`], and [`SourceError::Deletions`] where rows that are gone cannot
    /// be found by the key.
    pub(super) fn new(source: &TableSource, columns: Vec<(String, String)>) -> Result<Self, SourceError> {
        let flag = match &source.deletions {
            Deletions::Flag(flag) => Some(flag),
            Deletions::Ignored | Deletions::Missing => None,
        };
        let named = source.key.iter().chain(&source.cursor).chain(flag).chain(source.columns.iter().flatten());
        for name in named {
            if !columns.iter().any(|(column, _)| column == name) {
                let present = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
                return Err(SourceError::NoColumn {
                    column: name.clone(),
                    place: source.relation.to_string(),
                    present,
                });
            }
        }
        let is_field = |name: &str| {
            let is_wanted = source.columns.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| wanted == name));
            is_wanted && !source.exclude.iter().any(|excluded| excluded == name) && flag.is_none_or(|flag| flag != name)
        };
        let fields: Vec<String> = columns.iter().map(|(name, _)| name).filter(|name| is_field(name)).cloned().collect();
        for (column, kind) in &columns {
            let is_read =
                fields.contains(column) || source.key.contains(column) || source.cursor.as_ref() == Some(column);
            if is_read && REFUSED.contains(&kind.as_str()) {
                let (column, kind) = (column.clone(), kind.clone());
                return Err(SourceError::Kind { column, place: source.relation.to_string(), kind });
            }
        }
        let shape = Self { columns, fields };
        if source.deletions == Deletions::Missing {
            existing::key_of(source, &shape)?;
        }
        Ok(shape)
    }

    /// The type of a column.
    pub fn kind(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|(name, _)| name == column).map(|(_, kind)| kind.as_str())
    }

    /// Columns that become fields.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::QualifiedName;
    use crate::source::postgres::Relation;

    fn source() -> TableSource {
        TableSource {
            relation: Relation::Table(QualifiedName::new("public", "t")),
            key: vec!["id".into()],
            cursor: Some("at".into()),
            overlap: None,
            deletions: Deletions::Flag("gone".into()),
            columns: None,
            exclude: vec!["secret".into()],
            page_rows: 10,
        }
    }

    fn columns(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
    }

    #[test]
    fn fields_are_what_is_not_left_out() {
        let all = [("id", "bigint"), ("at", "date"), ("gone", "boolean"), ("secret", "bytea"), ("name", "text")];
        let shape = Shape::new(&source(), columns(&all)).unwrap();
        assert_eq!(shape.fields(), ["id", "at", "name"]);
        assert_eq!(shape.kind("at"), Some("date"));
    }

    #[test]
    fn missing_columns_and_bytes_are_named() {
        let missing = Shape::new(&source(), columns(&[("id", "int"), ("gone", "boolean")])).unwrap_err().to_string();
        assert!(missing.contains("\"at\"") && missing.contains("id, gone"), "{missing}");
        let bytes = [("id", "int"), ("at", "date"), ("gone", "boolean"), ("photo", "bytea")];
        let refused = Shape::new(&source(), columns(&bytes)).unwrap_err().to_string();
        assert!(refused.contains("--exclude-columns photo"), "{refused}");
    }

    #[test]
    fn a_key_by_which_nothing_can_be_missed_is_refused_before_anything_is_read() {
        let of = |key: &[&str], kind: &str| {
            let key = key.iter().map(|&name| name.to_owned()).collect();
            let source = TableSource { key, deletions: Deletions::Missing, cursor: None, exclude: vec![], ..source() };
            Shape::new(&source, columns(&[("id", kind), ("at", "date")])).map_err(|error| error.to_string())
        };
        assert!(of(&["id"], "uuid").is_ok());
        assert!(of(&["id", "at"], "uuid").unwrap_err().contains("a key of one column"));
        assert!(of(&["id"], "citext").unwrap_err().contains("\"id\" is citext"));
    }
}
