//! Which collections stand in a database, and where: `backends.json` in the data directory, without secrets.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::postgres::{ConnectSettings, PostgresError, QualifiedName};
use crate::storage::{publish, read_file};
use crate::types::CollectionName;

/// The file below the data directory.
const FILE: &str = "backends.json";
const FILE_VERSION: u32 = 1;
/// Longest name of a schema or a table: NAMEDATALEN - 1 of Postgres.
const MAX_NAME_BYTES: usize = 63;
/// The table beside those of the collections that says what each of them is.
pub(super) const REGISTER: &str = "pannier_collections";
/// The tables of the state of copies, by default in the schema [`DEFAULT_SCHEMA`].
const SINK_TABLES: [&str; 2] = ["sinks", "dead_letters"];
/// The variable that holds the URL where nobody named another.
pub const DEFAULT_VARIABLE: &str = "DATABASE_URL";
/// The schema where nobody named another.
pub const DEFAULT_SCHEMA: &str = "pannier";

/// Where a connection's URL is read from, each time a connection is made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UrlFrom {
    /// An environment variable of this process.
    Variable(String),
    /// A file that this process may read.
    File(PathBuf),
}

impl UrlFrom {
    /// The variable's name or the file's path: no secret.
    pub fn name(&self) -> String {
        match self {
            Self::Variable(name) => name.clone(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Reads the URL.
    ///
    /// # Errors
    /// [`PostgresError::Settings`] that names the variable or the file, never what is in it.
    pub(super) fn connection(&self) -> Result<ConnectSettings, PostgresError> {
        let wrong = |reason: String| PostgresError::Settings { reason };
        let url = match self {
            Self::Variable(name) => std::env::var(name)
                .map_err(|_| wrong(format!("the environment variable {name} is not set for this process")))?,
            Self::File(path) => return ConnectSettings::from_file(path),
        };
        ConnectSettings::from_url(&url)
    }
}

/// Where the documents of a collection stand in Postgres.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// How the database is reached.
    pub url: UrlFrom,
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl Placement {
    /// What was not said is filled in: the variable `DATABASE_URL`, the schema `pannier`, the collection's name as the
    /// table's.
    pub fn new(name: &CollectionName, url: Option<UrlFrom>, schema: Option<String>, table: Option<String>) -> Self {
        Self {
            url: url.unwrap_or_else(|| UrlFrom::Variable(DEFAULT_VARIABLE.to_owned())),
            schema: schema.unwrap_or_else(|| DEFAULT_SCHEMA.to_owned()),
            table: table.unwrap_or_else(|| name.to_string()),
        }
    }

    /// What of it cannot be, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        for (what, name) in [("schema", &self.schema), ("table", &self.table)] {
            if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
                return Some(format!(
                    "takes names of 1 to {MAX_NAME_BYTES} bytes without control characters, and \"backend.{what}\" is {name:?}"
                ));
            }
        }
        let is_state = self.schema == DEFAULT_SCHEMA && SINK_TABLES.contains(&self.table.as_str());
        (is_state || self.table == REGISTER).then(|| {
            format!(
                "keeps Pannier's own state in tables of the name {:?}; name another in \"backend.table\"",
                self.table
            )
        })
    }

    /// The table, quoted by its `Display`.
    pub(super) fn qualified(&self) -> QualifiedName {
        QualifiedName::new(&self.schema, &self.table)
    }
}

/// A collection as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub name: String,
    pub placement: Placement,
    /// Its definition and the time of its creation, as [`crate::log::creation_to_text`] writes them.
    pub creation: String,
    /// The table's number in the catalogue when this was written: one that others made since has another.
    pub table_number: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    collections: Vec<Entry>,
}

/// Reads the file of a data directory; empty where there is none.
///
/// # Errors
/// Why it cannot be understood, with its path.
pub(super) fn load(data: &Path) -> Result<Vec<Entry>, String> {
    let path = data.join(FILE);
    let wrong = |reason: String| format!("{}: {reason}", path.display());
    let Some(bytes) = read_file(&path).map_err(|error| error.to_string())? else { return Ok(Vec::new()) };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    match file.version {
        FILE_VERSION => Ok(file.collections),
        other => Err(wrong(format!("its version is {other}, supported is {FILE_VERSION}"))),
    }
}

/// Writes the file of a data directory.
///
/// # Errors
/// [`crate::storage::StorageError`]; what stood before stands then.
pub(super) fn save(data: &Path, collections: Vec<Entry>) -> Result<(), crate::storage::StorageError> {
    let file = File { version: FILE_VERSION, collections };
    let bytes = serde_json::to_vec_pretty(&file).expect("settings are plain values");
    publish(&data.join(FILE), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_where_and_holds_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), []);
        let name = CollectionName::new("a").unwrap();
        let placement = Placement::new(&name, None, None, None);
        assert_eq!((placement.schema.as_str(), placement.table.as_str()), ("pannier", "a"));
        let entry = Entry { name: "a".into(), placement, creation: "3:00".into(), table_number: Some(7) };
        save(dir.path(), vec![entry.clone()]).unwrap();
        assert_eq!(load(dir.path()).unwrap(), [entry]);
        std::fs::write(dir.path().join(FILE), br#"{"version":9,"collections":[]}"#).unwrap();
        assert!(load(dir.path()).unwrap_err().contains("version is 9"));
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(load(dir.path()).unwrap_err().contains(FILE));
    }

    #[test]
    fn urls_are_read_when_needed_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let from = UrlFrom::File(dir.path().join("url"));
        assert!(from.connection().unwrap_err().to_string().contains("missing"));
        std::fs::write(dir.path().join("url"), "postgres://me:s3cret@h/x\n").unwrap();
        assert_eq!(from.connection().unwrap().place(), "me@h:5432/x");
        assert!(!format!("{from:?} {}", from.name()).contains("s3cret"));
        assert!(UrlFrom::Variable("PANNIER_NO_SUCH".into()).connection().is_err());
    }

    #[test]
    fn names_fit_into_a_catalogue() {
        let name = CollectionName::new(&"x".repeat(64)).unwrap();
        assert!(Placement::new(&name, None, None, None).fault().unwrap().contains("backend.table"));
        let long = Some("s".repeat(64));
        assert!(Placement::new(&name, None, long, Some("t".into())).fault().unwrap().contains("backend.schema"));
        assert_eq!(Placement::new(&name, None, None, Some("a\"b".into())).fault(), None);
    }

    #[test]
    fn tables_of_the_state_are_no_collections() {
        let fault = |schema: &str, table: &str| {
            let name = CollectionName::new(table).unwrap();
            Placement::new(&name, None, Some(schema.to_owned()), None).fault()
        };
        for (schema, table) in
            [("pannier", "sinks"), ("pannier", "dead_letters"), ("pannier", "pannier_collections"), ("mine", REGISTER)]
        {
            assert!(fault(schema, table).unwrap().contains("name another in \"backend.table\""), "{schema}.{table}");
        }
        assert_eq!(fault("mine", "sinks"), None);
    }
}
