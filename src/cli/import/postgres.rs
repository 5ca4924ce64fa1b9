//! `import postgres`: a table or a query into a collection, once or on a schedule.

mod options;
mod run;

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::super::connect::runtime;
use super::super::target::{Access, Target, collection_path};
use super::super::{CliError, Context, Failure, output};
use super::writing::Counts;
use crate::source::{EmbeddingVariables, embedding};
use crate::types::{Chain, CollectionName};

pub use options::PostgresArgs;
use run::Run;

/// Runs `import postgres`.
///
/// # Errors
/// [`CliError::Lines`] when some rows did not get in. On a schedule, a run that fails is printed, and the next one
/// comes, but for a failed disk of the data directory that this process holds.
pub(super) fn run(args: &PostgresArgs, context: &Context) -> Result<(), CliError> {
    let name = CollectionName::new(&args.collection)?;
    let schedule = args.schedule()?;
    let variables = embedding(&|name| std::env::var(name).ok()).map_err(|e| CliError::Refused(e.to_string()))?;
    let source = args.source(variables.batch)?;
    let found = args.connect.found()?;
    output::hint(context, format!("reading {} of {} ({})", source.relation, found.settings.place(), found.from));
    let target = Target::of(context, if args.create { Access::Create } else { Access::Existing })?;
    let brings_text = args.text_column.is_some() || args.vector_column.is_some();
    let is_to_create = args.create && target.find_collection(&name)?.is_none();
    match is_to_create {
        true => require_text(&name, brings_text || args.template.body()?.is_some())?,
        false => require_collection(&target, &name, brings_text)?,
    }
    let runtime = runtime()?;
    let run = Run {
        args,
        context,
        target: &target,
        name: &name,
        settings: &found.settings,
        source: &source,
        runtime: &runtime,
    };
    let (mut restart, mut is_to_create) = (args.restart, is_to_create);
    loop {
        let (began, started) = (jiff::Timestamp::now(), Instant::now());
        let done = match is_to_create {
            // A source that cannot be read leaves no empty collection behind.
            true => run.try_reading().and_then(|()| create(&target, &name, args, &variables)),
            false => Ok(()),
        };
        is_to_create &= done.is_err();
        let done = done.and_then(|()| {
            let mut counts = Counts::default();
            let read = run.once(&mut restart, &mut counts);
            let (place, seconds) = (target.place(), started.elapsed().as_secs_f64());
            if read.is_err() && counts != Counts::default() {
                output::hint(context, format!("{} {}", counts.summary(&name, &place, seconds), run.goes_on()));
            }
            read.and_then(|()| counts.report(&name, &place, seconds, "row", context))
        });
        let Some(schedule) = &schedule else { return done };
        match done {
            // The store takes no write any more, and nobody else can open it while this process has it open.
            Err(error) if target.is_directory() && error.failure() == Failure::DiskFailed => return Err(error),
            Err(error) => output::complain(format!("this run failed: {}", Chain(&error))),
            Ok(()) => {}
        }
        let Some(wait) = schedule.wait(began, jiff::Timestamp::now()) else { return Ok(()) };
        std::thread::sleep(wait);
    }
}

/// Creates the collection. One that stands is never asked for: a scheduled command is run again and again, also into a
/// collection that was made with more fields than its options name.
fn create(
    target: &Target,
    name: &CollectionName,
    args: &PostgresArgs,
    variables: &EmbeddingVariables,
) -> Result<(), CliError> {
    target.call("PUT", &collection_path(name), Some(&definition(args, variables)?))?;
    Ok(())
}

/// The definition of a new collection.
fn definition(args: &PostgresArgs, variables: &EmbeddingVariables) -> Result<Value, CliError> {
    let mut body = Map::new();
    let mut embedding = Map::new();
    if let Some(model) = args.model.as_ref().or(variables.model.as_ref()) {
        embedding.insert("model".to_owned(), json!(model));
    }
    if let Some(template) = args.template.body()? {
        embedding.insert("template".to_owned(), template);
    }
    // With a `dim` alone a collection has no model. Rows that bring no vectors need one, if only the default.
    if !embedding.is_empty() || args.vector_column.is_none() {
        body.insert("embedding".to_owned(), Value::Object(embedding));
    }
    if let Some(dim) = variables.dim {
        body.insert("dim".to_owned(), json!(dim));
    }
    let fields: Map<_, _> = args.fields.iter().map(|(field, kind)| (field.clone(), json!(kind))).collect();
    body.insert("fields".to_owned(), Value::Object(fields));
    if let Some(guard) = args.guard.body() {
        body.insert("guard".to_owned(), guard);
    }
    Ok(Value::Object(body))
}

/// Refuses a collection that is not there, or in which rows would have neither text nor vector.
pub(super) fn require_collection(target: &Target, name: &CollectionName, brings_text: bool) -> Result<(), CliError> {
    let Some(definition) = target.find_collection(name)? else {
        return Err(CliError::Refused(format!(
            "there is no collection {name}; make it with `pannier collection create {name} --template ..`"
        )));
    };
    require_text(name, brings_text || !definition["embedding"]["template"].is_null())
}

fn require_text(name: &CollectionName, has_text: bool) -> Result<(), CliError> {
    match has_text {
        true => Ok(()),
        false => Err(CliError::Refused(format!(
            "nothing says what the text of a row is: collection {name} has no template; name a column with --text-column \
             or --vector-column, or create a collection with --template or --template-fields"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        postgres: PostgresArgs,
    }

    #[test]
    fn rows_without_vectors_get_a_model() {
        let variables = EmbeddingVariables { model: None, dim: Some(384), batch: None };
        let of = |more: &str| {
            let line = format!("x c --table t --key id --create {more}");
            definition(&Line::parse_from(line.split_whitespace()).postgres, &variables).unwrap()
        };
        assert_eq!(of("--text-column a"), json!({"embedding": {}, "dim": 384, "fields": {}}));
        assert_eq!(of("--vector-column a"), json!({"dim": 384, "fields": {}}));
    }
}
