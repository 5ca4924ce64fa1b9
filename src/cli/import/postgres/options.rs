//! The options of `import postgres`.

use std::convert::Infallible;

use clap::Args;

use super::super::super::CliError;
use super::super::super::connect::ConnectArgs;
use super::super::super::template::{GuardArgs, TemplateArgs};
use super::super::parse_field;
use crate::postgres::{QualifiedName, identifier_of};
use crate::source::{Deletions, Relation, Schedule, TableSource};
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;

/// Arguments of `import postgres`.
#[derive(Args, Debug)]
#[command(after_help = "\
Every row becomes a document whose fields are the columns; the collection's template makes its text. With --cursor, a column
that rises with every change such as updated_at, later runs read only what changed since; how far a source was read is kept
beside the collection. Texts that stay the same are not embedded again.

Examples:
  pannier import postgres products --table shop.products --key product_id --cursor updated_at \\
    --create --template-fields name,description,price
  pannier import postgres jobs --query 'select j.*, c.name as company from jobs j join companies c using (company_id)' \\
    --key job_id --cursor changed_at --deletes missing --every 5m")]
pub struct PostgresArgs {
    /// Collection to write into
    pub collection: String,
    /// Table or view to read, with its schema where that is not public; parts may stand in double quotes
    #[arg(long, value_name = "TABLE", required_unless_present = "query", conflicts_with = "query")]
    table: Option<String>,
    /// SELECT to read instead of a table
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// Columns that name a row, joined by commas; their values are the document's id. Names of columns may
    /// stand in double quotes
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', required = true, value_parser = column)]
    key: Vec<String>,
    /// Column whose value rises with every change of a row [default: every run reads all rows]
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    cursor: Option<String>,
    /// With --cursor: read again what lies so much before the last cursor, such as '1 minute', for transactions that
    /// ended late
    #[arg(long, value_name = "INTERVAL", requires = "cursor")]
    overlap: Option<String>,
    /// How to find rows that are gone: ignored, or missing to compare keys after every run, which refuses to delete
    /// more than half of this source's documents, but for ten
    #[arg(long, value_name = "HOW", default_value = "ignored", value_parser = ["ignored", "missing"])]
    deletes: String,
    /// Column that is true, or not null, where a row is to be deleted
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    deleted_flag: Option<String>,
    /// With --deletes missing: delete even if that is more than half of this source's documents
    #[arg(long)]
    pub delete_many: bool,
    /// Columns that become fields, joined by commas [default: all]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', value_parser = column)]
    columns: Option<Vec<String>>,
    /// Columns that do not, joined by commas
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', value_parser = column)]
    exclude_columns: Vec<String>,
    /// Column that holds the text, where the collection has no template
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    pub text_column: Option<String>,
    /// Column that holds the vector, so that nothing is embedded
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    pub vector_column: Option<String>,
    /// What stands before the key in a document's id
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub id_prefix: String,
    /// Rows read and written at a time, all of which are held in memory; choose fewer where rows have megabytes
    /// [default: EMBEDDING_BATCH_SIZE, else 1000]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: Option<u16>,
    /// Read again after so long, such as 30s, 5m or 1h
    #[arg(long, value_name = "TIME", conflicts_with = "cron")]
    every: Option<String>,
    /// Read again at the times of a pattern, in UTC, such as '*/15 * * * *'
    #[arg(long, value_name = "PATTERN")]
    cron: Option<String>,
    /// Name under which it is kept how far the source was read [default: made of collection and
    /// table, or for a query of collection and `query`]
    #[arg(long, value_name = "NAME")]
    pub source_name: Option<String>,
    /// Forget how far it was read, and read everything
    #[arg(long)]
    pub restart: bool,
    /// Create the collection where it is missing
    #[arg(long)]
    pub create: bool,
    /// With --create: model that embeds the texts [default: EMBEDDING_MODEL, else the default model]
    #[arg(long, requires = "create")]
    pub model: Option<String>,
    /// With --create: a metadata field of a type, keyword, number, boolean or geo; may be repeated
    #[arg(long = "field", value_name = "NAME:TYPE", value_parser = parse_field, requires = "create")]
    pub fields: Vec<(String, String)>,
    #[command(flatten)]
    pub template: TemplateArgs,
    #[command(flatten)]
    pub guard: GuardArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// The name of a column, the same with quotes as without.
fn column(text: &str) -> Result<String, Infallible> {
    Ok(identifier_of(text))
}

impl PostgresArgs {
    /// When to read again, if at all.
    pub(super) fn schedule(&self) -> Result<Option<Schedule>, CliError> {
        let schedule = match (&self.every, &self.cron) {
            (Some(every), _) => Schedule::every(every).map(Some),
            (_, Some(cron)) => Schedule::cron(cron).map(Some),
            (None, None) => Ok(None),
        };
        schedule.map_err(|error| CliError::Usage(error.to_string()))
    }

    /// What is read. `usual_batch`: rows at a time where the arguments do not say.
    pub(super) fn source(&self, usual_batch: Option<usize>) -> Result<TableSource, CliError> {
        let relation = match (&self.table, &self.query) {
            (Some(table), _) => Relation::Table(QualifiedName::parse(table)),
            (None, Some(query)) => Relation::Query(query.clone()),
            (None, None) => return Err(CliError::Usage("name a --table or give a --query".to_owned())),
        };
        let deletions = match (&self.deleted_flag, self.deletes.as_str()) {
            (Some(_), "missing") => {
                let detail = "--deleted-flag and --deletes missing are two ways to the same; choose one";
                return Err(CliError::Usage(detail.to_owned()));
            }
            (Some(flag), _) => Deletions::Flag(flag.clone()),
            (None, "missing") => Deletions::Missing,
            (None, _) => Deletions::Ignored,
        };
        Ok(TableSource {
            relation,
            key: self.key.clone(),
            cursor: self.cursor.clone(),
            overlap: self.overlap.clone(),
            deletions,
            columns: self.columns.clone(),
            exclude: self.exclude_columns.clone(),
            page_rows: self
                .batch
                .map(usize::from)
                .or(usual_batch)
                .unwrap_or(MAX_DOCUMENTS_PER_REQUEST)
                .clamp(1, MAX_DOCUMENTS_PER_REQUEST),
        })
    }
}
