//! What a sink is told: whose documents, to which table, in which shape. Kept in the data directory without secrets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ReplicateError;
use crate::postgres::ConnectSettings;
use crate::storage::{keep_to_owner, publish_private, read_file};

/// The collections of a sink that copies every one.
pub const ALL_COLLECTIONS: &str = "*";
/// The file below the data directory.
const FILE: &str = "replication.json";
const FILE_VERSION: u32 = 1;
/// Longest name of a sink.
const MAX_NAME_BYTES: usize = 64;

/// The name of a sink: `[a-z0-9_-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SinkName(String);

impl SinkName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ReplicateError::Settings`].
    pub fn new(name: &str) -> Result<Self, ReplicateError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(allowed) {
            let reason =
                format!("sink name {name:?}: use 1 to {MAX_NAME_BYTES} of the characters a-z, 0-9, '_' and '-'");
            return Err(ReplicateError::Settings { reason });
        }
        Ok(Self(name.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the connection URL comes from each time a connection is made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretFrom {
    /// An environment variable of the server.
    Variable(String),
    /// A file that only the server's user may read.
    File(PathBuf),
    /// The URL itself, stored in clear because somebody asked for that.
    Clear(String),
}

impl SecretFrom {
    /// Reads the URL.
    ///
    /// # Errors
    /// [`ReplicateError::Settings`] that names the variable or the file, never what is in it.
    pub fn connection(&self) -> Result<ConnectSettings, ReplicateError> {
        let url = match self {
            Self::Variable(name) => std::env::var(name).map_err(|_| ReplicateError::Settings {
                reason: format!("the environment variable {name} is not set for this process"),
            })?,
            Self::File(path) => return Ok(ConnectSettings::from_file(path)?),
            Self::Clear(url) => url.clone(),
        };
        Ok(ConnectSettings::from_url(&url)?)
    }

    /// What may be shown.
    pub fn shown(&self) -> String {
        match self {
            Self::Variable(name) => format!("variable {name}"),
            Self::File(path) => format!("file {}", path.display()),
            Self::Clear(_) => "stored in clear".to_owned(),
        }
    }
}

impl std::fmt::Debug for SecretFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

/// The shape of a sink's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutKind {
    /// A schema of its own with everything that a document has.
    #[default]
    Pannier,
    /// `learning_vectors_384_v1`: examples of a learning system.
    LearningVectors,
    /// `embeddings`: one table of many tenants and kinds, under row-level security.
    Embeddings,
    /// `product_embeddings`: a number as the key, the vector, a time.
    ProductEmbeddings,
    /// The vector within a JSON column of rows that are there already.
    Jobs,
    /// As the vecs client reads it.
    Vecs,
    /// As LangChain and supabase-js read it, with the function `match_documents`.
    MatchDocuments,
    /// Columns as the settings map them.
    Custom,
}

impl LayoutKind {
    /// All of them with the names that users write.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("pannier", Self::Pannier),
        ("learning_vectors_384_v1", Self::LearningVectors),
        ("embeddings", Self::Embeddings),
        ("product_embeddings", Self::ProductEmbeddings),
        ("jobs", Self::Jobs),
        ("vecs", Self::Vecs),
        ("match_documents", Self::MatchDocuments),
        ("custom", Self::Custom),
    ];

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(own, _)| *own == name).map(|(_, kind)| *kind)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("custom", |(name, _)| name)
    }
}

/// The type of the vector column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorType {
    /// 32 bits a number.
    #[default]
    Vector,
    /// 16 bits a number.
    Halfvec,
}

/// The index on the vector column, made once the backfill is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// A graph.
    #[default]
    Hnsw,
    /// Lists around centres.
    Ivfflat,
    /// None: somebody else sees to it.
    None,
}

/// What becomes of rows that the collection lacks, in a table that was there before the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtraRows {
    /// A table that has any is not adopted. Once it is, the rows are the sink's: what the collection lacks is deleted.
    #[default]
    Refuse,
    /// They stay, then and later; they are no difference.
    Keep,
    /// They are deleted, then and later.
    Delete,
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkSettings {
    /// Its name, unique in a store.
    pub name: SinkName,
    /// The collection, or `*` for every collection.
    pub collection: String,
    /// Where the connection URL comes from.
    pub url: SecretFrom,
    /// The shape of the table.
    #[serde(default)]
    pub layout: LayoutKind,
    /// `schema.table`; the layout's own where it is `None`.
    #[serde(default)]
    pub table: Option<String>,
    /// Whether the table is made where it is missing; else it must be there.
    #[serde(default = "yes")]
    pub create: bool,
    /// The type of the vector column where we make it.
    #[serde(default)]
    pub vector_type: VectorType,
    /// The index on the vector column.
    #[serde(default)]
    pub index: IndexKind,
    /// The tenant whose rows these are, where the layout has tenants.
    #[serde(default)]
    pub tenant: Option<String>,
    /// What kind of thing the documents are, where the layout asks for it.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// The key column, where the layout leaves its name open.
    #[serde(default)]
    pub key: Option<String>,
    /// Column to field, for the layout `custom`.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// What becomes of rows that the collection lacks.
    #[serde(default)]
    pub extra_rows: ExtraRows,
    /// The schema that holds the cursors and the dead letters.
    #[serde(default = "state_schema")]
    pub state_schema: String,
    /// Whether it rests.
    #[serde(default)]
    pub paused: bool,
}

fn yes() -> bool {
    true
}

fn state_schema() -> String {
    "pannier".to_owned()
}

impl SinkSettings {
    /// With everything else as it is by default.
    pub fn new(name: SinkName, collection: &str, url: SecretFrom) -> Self {
        Self {
            name,
            collection: collection.to_owned(),
            url,
            layout: LayoutKind::default(),
            table: None,
            create: true,
            vector_type: VectorType::default(),
            index: IndexKind::default(),
            tenant: None,
            entity_type: None,
            key: None,
            columns: BTreeMap::new(),
            extra_rows: ExtraRows::default(),
            state_schema: state_schema(),
            paused: false,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    sinks: Vec<SinkSettings>,
}

/// Reads the sinks of a data directory. A file that others may read, although a secret is in it, is put right.
///
/// # Errors
/// [`ReplicateError::Settings`] when the file cannot be understood.
pub fn load(data: &Path) -> Result<Vec<SinkSettings>, ReplicateError> {
    let path = data.join(FILE);
    let Some(bytes) = read_file(&path)? else { return Ok(Vec::new()) };
    let wrong = |reason: String| ReplicateError::Settings { reason: format!("{}: {reason}", path.display()) };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if file.version != FILE_VERSION {
        return Err(wrong(format!("its version is {}, supported is {FILE_VERSION}", file.version)));
    }
    if file.sinks.iter().any(|sink| matches!(sink.url, SecretFrom::Clear(_)))
        && let Err(error) = keep_to_owner(&path)
    {
        // Another's file, which this process may only read.
        tracing::warn!(%error, "a secret is in a file that others may read");
    }
    Ok(file.sinks)
}

/// Writes the sinks of a data directory.
///
/// # Errors
/// [`ReplicateError::Storage`].
pub fn save(data: &Path, sinks: Vec<SinkSettings>) -> Result<(), ReplicateError> {
    let file = File { version: FILE_VERSION, sinks };
    let bytes = serde_json::to_vec_pretty(&file).expect("settings are plain values");
    let path = data.join(FILE);
    if file.sinks.is_empty() && !path.exists() {
        return Ok(());
    }
    Ok(publish_private(&path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_without_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), []);
        let name = SinkName::new("main").unwrap();
        let settings = SinkSettings::new(name, "c", SecretFrom::Variable("DATABASE_URL".into()));
        save(dir.path(), vec![settings.clone()]).unwrap();
        assert_eq!(load(dir.path()).unwrap(), [settings]);
        std::fs::write(dir.path().join(FILE), br#"{"version":9,"sinks":[]}"#).unwrap();
        assert!(load(dir.path()).unwrap_err().to_string().contains("version is 9"));
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(load(dir.path()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_with_a_secret_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let clear = SecretFrom::Clear("postgres://me:s3cret@h/x".into());
        save(dir.path(), vec![SinkSettings::new(SinkName::new("main").unwrap(), "c", clear)]).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load(dir.path()).unwrap().len(), 1);
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn secrets_are_read_when_needed_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        let from = SecretFrom::File(path.clone());
        assert!(from.connection().unwrap_err().to_string().contains("missing"));
        std::fs::write(&path, "postgres://me:s3cret@h/x\n").unwrap();
        assert_eq!(from.connection().unwrap().place(), "me@h:5432/x");
        let clear = SecretFrom::Clear("postgres://me:s3cret@h/x".into());
        assert!(!format!("{clear:?}").contains("s3cret"));
        assert!(SecretFrom::Variable("PANNIER_NO_SUCH".into()).connection().is_err());
    }

    #[test]
    fn names_are_checked() {
        assert!(SinkName::new("a-b_9").is_ok());
        for name in ["", "A", "a/b", &"x".repeat(65)] {
            assert!(SinkName::new(name).is_err(), "{name}");
        }
    }
}
