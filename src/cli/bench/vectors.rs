//! `bench vectors`: real embeddings of short texts, written as rows for `bench search` and for its peers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::super::{CliError, Context};
use super::cranfield::DataSetArgs;
use super::rows::RowWriter;
use super::stats::{rate, rounded};
use super::{Places, report, samples};
use crate::embed::{DEFAULT_MODEL, InputKind, TextModel};
use crate::storage::Publishing;

/// Texts embedded at a time; progress moves by as many.
const BATCH: usize = 512;
/// Queries written: the collection's own, and held-out windows for the rest.
const QUERIES: usize = 1_000;

/// What `bench vectors` writes.
#[derive(Args, Clone, Debug)]
pub(super) struct VectorsArgs {
    /// Where the base vectors go: little-endian f32, row after row
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where the 1,000 query vectors go
    #[arg(long, value_name = "FILE")]
    queries_out: PathBuf,
    /// Where the texts of the base vectors go, one a line
    #[arg(long, value_name = "FILE")]
    texts_out: Option<PathBuf>,
    /// Base vectors
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    n: usize,
    #[command(flatten)]
    recipe: RecipeArgs,
}

/// From what vectors are made.
#[derive(Args, Clone, Debug)]
pub(super) struct RecipeArgs {
    #[command(flatten)]
    data_set: DataSetArgs,
    /// Model to embed with
    #[arg(long, value_name = "NAME", default_value = DEFAULT_MODEL)]
    model: String,
    /// Decides which texts are drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// The files to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// Base vectors.
    pub base: &'a Path,
    /// Query vectors.
    pub queries: &'a Path,
    /// The base vectors' texts.
    pub texts: Option<&'a Path>,
    /// Base vectors to make.
    pub n: usize,
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub dim: usize,
    pub queries: usize,
    /// How many of the base texts are whole sentences.
    pub sentences: usize,
    /// Time of embedding the base.
    pub took: Duration,
}

pub(super) fn run(args: &VectorsArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let target = Target { base: &args.out, queries: &args.queries_out, texts: args.texts_out.as_deref(), n: args.n };
    let made = make(&target, &args.recipe, places, context)?;
    let mut report = report::head("vectors");
    report["model"] = json!(args.recipe.model);
    report["base"] = json!(args.out);
    report["queries"] = json!(args.queries_out);
    report["rows"] = json!(args.n);
    report["query_rows"] = json!(made.queries);
    report["dim"] = json!(made.dim);
    report["seed"] = json!(args.recipe.seed);
    report["sentences"] = json!(made.sentences);
    report["windows"] = json!(args.n - made.sentences);
    report["seconds"] = json!(rounded(made.took.as_secs_f64(), 2));
    report["texts_per_s"] = json!(rounded(rate(args.n, made.took), 1));
    report::write(context, &report, || {
        report::fields(
            &report,
            &[
                ("base vectors", "rows"),
                ("of them whole sentences", "sentences"),
                ("of them windows of 8 to 24 words", "windows"),
                ("query vectors", "query_rows"),
                ("dim", "dim"),
                ("seconds", "seconds"),
                ("texts/s", "texts_per_s"),
            ],
        )
    })
}

/// Draws the texts, embeds them, writes the files.
///
/// # Errors
/// [`CliError::Refused`] without the data set, [`CliError::Embed`] without the model, [`CliError::Storage`].
pub(super) fn make(
    target: &Target<'_>,
    recipe: &RecipeArgs,
    places: &Places,
    context: &Context,
) -> Result<Made, CliError> {
    let set = recipe.data_set.load(places)?;
    let model = context.model_store().load(&recipe.model)?;
    let held_out = QUERIES.saturating_sub(set.queries.len());
    let samples = samples::draw(&set, target.n, held_out, recipe.seed)?;
    if let Some(path) = target.texts {
        write_lines(path, &samples.base)?;
    }
    let queries: Vec<&str> = set.queries.iter().map(|query| query.text.as_str()).collect();
    let queries: Vec<&str> =
        queries.into_iter().take(QUERIES).chain(samples.held_out.iter().map(String::as_str)).collect();
    embed_into(target.queries, &model, &queries, InputKind::Query, context)?;
    let base: Vec<&str> = samples.base.iter().map(String::as_str).collect();
    let took = embed_into(target.base, &model, &base, InputKind::Document, context)?;
    Ok(Made { dim: model.dim(), queries: queries.len(), sentences: samples.sentences, took })
}

/// Writes texts, one a line.
///
/// # Errors
/// [`CliError::Storage`], [`CliError::Io`].
pub(super) fn write_lines(path: &Path, texts: &[String]) -> Result<(), CliError> {
    let mut file = Publishing::create(path)?;
    for text in texts {
        writeln!(file, "{text}").map_err(|e| CliError::io(format!("write {}", path.display()), e))?;
    }
    Ok(file.commit()?)
}

fn embed_into(
    path: &Path,
    model: &TextModel,
    texts: &[&str],
    input: InputKind,
    context: &Context,
) -> Result<Duration, CliError> {
    let progress = report::progress(context, texts.len(), "texts embedded");
    let mut writer = RowWriter::create(path)?;
    let mut took = Duration::ZERO;
    for batch in texts.chunks(BATCH) {
        let started = Instant::now();
        let embeddings = model.embed(batch, input)?;
        took += started.elapsed();
        writer.write(&embeddings.vectors)?;
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    writer.finish()?;
    Ok(took)
}
