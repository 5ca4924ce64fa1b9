//! `import debezium`: change events, in their order.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::time::Instant;

use clap::Args;

use super::super::target::{Access, Target};
use super::super::{CliError, Context, output, read};
use super::writing::{Writer, document};
use crate::source::{Change, Events};
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;
use crate::types::{CollectionName, Metadata};

/// Arguments of `import debezium`.
#[derive(Args, Debug)]
#[command(after_help = "\
A line holds one event, as Debezium writes it: op c, u, d or r with `before` and `after`, in the schema/payload envelope or
without, or flattened by ExtractNewRecordState. Tombstones (null) are passed over. Applying the same events twice does no
harm, as long as they keep their order.

Example:
  kcat -C -t db.public.products -e | pannier import debezium products - --key product_id")]
pub struct DebeziumArgs {
    /// Collection to write into
    collection: String,
    /// File of events, one a line, or - for stdin
    file: String,
    /// Columns of the key, joined by commas
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', default_value = "id")]
    key: Vec<String>,
    /// What stands before the key in a document's id
    #[arg(long, value_name = "TEXT", default_value = "")]
    id_prefix: String,
    /// Column that holds the text, where the collection has no template
    #[arg(long, value_name = "COLUMN")]
    text_column: Option<String>,
    /// Column that holds the vector
    #[arg(long, value_name = "COLUMN")]
    vector_column: Option<String>,
    /// Columns to leave out, joined by commas
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    exclude_columns: Vec<String>,
}

/// Runs `import debezium`.
///
/// # Errors
/// [`CliError::Lines`] when some events could not be applied, after all others have been.
pub(super) fn run(args: &DebeziumArgs, context: &Context) -> Result<(), CliError> {
    let name = CollectionName::new(&args.collection)?;
    let (input, len_bytes) = read::open(&args.file)?;
    let target = Target::of(context, Access::Existing)?;
    super::postgres::require_collection(&target, &name, args.text_column.is_some() || args.vector_column.is_some())?;
    let progress = output::byte_progress(context, len_bytes);
    let input = read::buffered(input, &progress);
    let events = Events { key: args.key.clone(), exclude: args.exclude_columns.clone() };
    let started = Instant::now();
    let mut writer = Writer::new(&target, &name);
    // The last word on each id of a batch; within a batch nothing else counts.
    let mut waiting: BTreeMap<String, Option<(String, Metadata)>> = BTreeMap::new();
    for (index, line) in input.lines().enumerate() {
        let line = line.map_err(|e| CliError::io(format!("read {}", args.file), e))?;
        let place = || format!("{}: line {}", args.file, index + 1);
        match events.read(&line) {
            Ok(Change::Nothing) => {}
            Ok(Change::Delete { id }) => _ = waiting.insert(format!("{}{id}", args.id_prefix), None),
            Ok(Change::Upsert { id, fields, before }) => {
                let id = format!("{}{id}", args.id_prefix);
                if let Some(before) = before {
                    waiting.insert(format!("{}{before}", args.id_prefix), None);
                }
                let (text, vector) = (args.text_column.as_deref(), args.vector_column.as_deref());
                match document(id.clone(), fields, text, vector) {
                    Ok(document) => _ = waiting.insert(id, Some((place(), document))),
                    Err(detail) => writer.refuse(&place(), &detail),
                }
            }
            Err(error) => progress.suspend(|| writer.refuse(&place(), &error.to_string())),
        }
        if waiting.len() >= MAX_DOCUMENTS_PER_REQUEST - 1 {
            apply(&mut writer, std::mem::take(&mut waiting))?;
        }
    }
    apply(&mut writer, waiting)?;
    progress.finish_and_clear();
    writer.counts.report(&name, &target.place(), started.elapsed().as_secs_f64(), "event", context)
}

fn apply(writer: &mut Writer, waiting: BTreeMap<String, Option<(String, Metadata)>>) -> Result<(), CliError> {
    let gone: Vec<String> = waiting.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| id.clone()).collect();
    let there: Vec<(String, Metadata)> = waiting.into_values().flatten().collect();
    writer.upsert(&there)?;
    writer.delete(&gone)
}
