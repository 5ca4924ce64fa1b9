//! `bench search`: build and open times, and recall, queries a second and latency over `ef_search`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::{CliError, Context, output};
use super::oracle::Oracle;
use super::peers::{self, PeerArgs};
use super::rows::{RowReader, RowWriter, Source};
use super::scratch::{Scratch, directory_bytes, filesystem};
use super::stats::{Memory, median, rate, rounded, whole};
use super::store::{self, BUILD_BATCH, Store};
use super::sweep::{self, TOP_K, Truth};
use super::vectors::{self, RecipeArgs, Target};
use super::writes::optimise;
use super::{Places, filters, report};
use crate::collection::DefinitionRequest;
use crate::database::Options;
use crate::types::{GraphBuilder, Quantization, VectorStorage};

/// What the peers' script sweeps over, and lower efforts, which count as little as theirs do: see [`PEERS_LEAST_EF`].
const SWEEP: [usize; 18] = [10, 12, 14, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 400, 512];
/// The lowest effort that the peers' script tries, so that ratios to them take no lower one of ours.
const PEERS_LEAST_EF: usize = 16;
/// Recalls at which speeds are compared.
const FLOORS: [f64; 2] = [0.95, 0.99];
/// Queries that the oracle checks exact search with.
const ORACLE_QUERIES: usize = 20;
/// Times the database is closed and opened again.
const REOPENS: usize = 5;

/// What `bench search` measures.
#[derive(Args, Clone, Debug)]
pub(super) struct SearchArgs {
    /// Collection sizes, each measured by itself: the first rows of the vectors
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    n: Vec<usize>,
    /// Base vectors, little-endian f32, row after row, of length 1 [default: made as `bench vectors` makes them]
    #[arg(long, value_name = "FILE", requires = "queries")]
    vectors: Option<PathBuf>,
    /// Query vectors in the same form
    #[arg(long, value_name = "FILE", requires = "vectors")]
    queries: Option<PathBuf>,
    /// Numbers in a vector
    #[arg(long, value_name = "N", default_value_t = 384)]
    dim: u32,
    /// Values of ef_search
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = SWEEP)]
    ef: Vec<usize>,
    /// Neighbours of a graph node
    #[arg(long, value_name = "N", default_value_t = 16)]
    m: u32,
    /// Candidates considered while building the graph
    #[arg(long, value_name = "N", default_value_t = 128)]
    ef_construction: u32,
    /// What builds the graph
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    builder: Builder,
    /// What walks of the graph read
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    quantization: Codes,
    /// How the vectors are stored
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    storage: Storage,
    /// Keep the databases here, and use those that an earlier run left
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Measure searches with filters instead, over the same vectors with metadata
    #[arg(long)]
    filters: bool,
    /// Peers to run
    #[arg(long, value_name = "NAME", requires = "peer_python", value_delimiter = ',',
          default_values = ["hnswlib", "faiss", "usearch"])]
    peers: Vec<String>,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    peer: PeerArgs,
}

/// As [`GraphBuilder`].
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Builder {
    /// Ours
    #[default]
    Own,
    /// The reference
    HnswRs,
}

/// As [`Quantization`].
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Codes {
    /// One byte a component, the best again in f32
    #[default]
    Int8,
    /// The vectors themselves
    None,
    /// One bit a component, all that a walk keeps again by the vectors
    Binary,
}

/// As [`VectorStorage`].
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Storage {
    /// As they came
    #[default]
    Float32,
    /// In half the bytes
    Float16,
}

/// The vectors to measure with.
pub(super) struct Vectors {
    pub base: PathBuf,
    pub queries: Vec<Vec<f32>>,
    queries_path: PathBuf,
    pub dim: u32,
}

pub(super) fn run(args: &SearchArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let scratch = Scratch::create(places)?;
    let vectors = args.vectors(&scratch, places, context)?;
    // The peers build on one thread.
    let threads = context.threads.or(args.peer.is_wanted().then_some(NonZeroUsize::MIN));
    let graph_builder = match args.builder {
        Builder::Own => GraphBuilder::Own,
        Builder::HnswRs => GraphBuilder::HnswRs,
    };
    let options = Options { graph_builder, ..store::options(context, threads) };
    let mut report = report::head("search");
    report["vectors"] = json!(Source::File(RowReader::open(&vectors.base, vectors.dim as usize)?).describe());
    report["queries"] = json!(vectors.queries.len());
    report["dim"] = json!(vectors.dim);
    report["m"] = json!(args.m);
    report["ef_construction"] = json!(args.ef_construction);
    report["builder"] = json!(format!("{:?}", args.builder));
    report["quantization"] = json!(format!("{:?}", args.quantization));
    report["storage"] = json!(format!("{:?}", args.storage));
    report["build_threads"] = json!(threads.map_or(report["machine"]["cores"].clone(), |n| json!(n)));
    report["search_threads"] = json!(1);
    let root = args.keep.as_deref().unwrap_or(scratch.path());
    if args.filters {
        let definition = DefinitionRequest {
            m: Some(args.m),
            ef_construction: Some(args.ef_construction),
            ..DefinitionRequest::vectors(vectors.dim)
        };
        let run = filters::Run { sizes: &args.n, vectors: &vectors, definition, root, options: &options };
        return filters::run(run, report, context);
    }
    let mut sizes = Vec::new();
    for &n in &args.n {
        let mut size = args.measure(&vectors, n, root, &options, context)?;
        if args.peer.is_wanted() {
            let base = first_rows(&vectors, n, scratch.path())?;
            let rows = peers::search(
                &args.peer,
                places,
                &peers::AnnRun {
                    peers: &args.peers,
                    base: &base,
                    queries: &vectors.queries_path,
                    dim: vectors.dim,
                    m: args.m,
                    ef_construction: args.ef_construction,
                },
            )?;
            size["ratios"] = json!(peers::search_ratios(&size, &rows));
            size["peers"] = json!(rows);
        }
        sizes.push(size);
    }
    report["filesystem"] = json!(filesystem(root));
    report["sizes"] = json!(sizes);
    report::write(context, &report, || write_tables(&report))
}

impl SearchArgs {
    fn vectors(&self, scratch: &Scratch, places: &Places, context: &Context) -> Result<Vectors, CliError> {
        let (base, queries_path, dim) = match (&self.vectors, &self.queries) {
            (Some(base), Some(queries)) => (base.clone(), queries.clone(), self.dim),
            _ => {
                output::hint(context, "making vectors first; `pannier bench vectors` writes them once for many runs");
                let (base, queries) = (scratch.path().join("base.f32"), scratch.path().join("queries.f32"));
                let n = self.n.iter().copied().max().unwrap_or(0);
                let target = Target { base: &base, queries: &queries, texts: None, n };
                let dim = vectors::make(&target, &self.recipe, places, context)?.dim as u32;
                (base, queries, dim)
            }
        };
        let mut reader = RowReader::open(&queries_path, dim as usize)?;
        let queries = reader.read(reader.rows())?;
        Ok(Vectors { base, queries, queries_path, dim })
    }

    fn measure(
        &self,
        vectors: &Vectors,
        n: usize,
        root: &Path,
        options: &Options,
        context: &Context,
    ) -> Result<Value, CliError> {
        let dir = root.join(format!("rows-{n}"));
        let mut size = self.build(vectors, n, &dir, options, context)?;
        let query = vectors.queries.first().expect("a file of rows has at least one");
        let (mut opens, mut firsts) = (Vec::new(), Vec::new());
        let store = loop {
            let (store, times) = store::reopen(&dir, query, options.clone())?;
            opens.push(times.open.as_secs_f64() * 1e3);
            firsts.push(times.first_search.as_secs_f64() * 1e6);
            if opens.len() == REOPENS {
                break store;
            }
            store.close();
        };
        size["open_ms"] = json!(rounded(median(&opens), 2));
        size["first_search_us"] = json!(whole(median(&firsts)));
        size["opens"] = json!(REOPENS);

        let passes = (self.ef.len() + 2) * vectors.queries.len();
        let progress = report::progress(context, passes, "queries measured");
        let truth = Truth::gather(&store.collection, &vectors.queries, &progress)?;
        let measure = |ef| sweep::measure(&store.collection, &vectors.queries, &truth, ef, &progress);
        let default = measure(None)?;
        let sweep = self.ef.iter().map(|&ef| measure(Some(ef))).collect::<Result<Vec<_>, _>>()?;
        progress.finish_and_clear();
        if let Some(memory) = Memory::read() {
            size["rss_anon_mib"] = json!(memory.anon_kib / 1024);
            size["rss_file_mib"] = json!(memory.file_kib / 1024);
            size["peak_rss_mib"] = json!(memory.peak_kib / 1024);
        }
        // The oracle knows the rows as they came, and not as they were rounded.
        if matches!(self.storage, Storage::Float32) {
            size["oracle"] = check(vectors, n, &truth)?;
        }
        size["exact"] = truth.figures();
        size["default"] = default;
        size["lowest"] = json!(sweep::at_floors(&sweep, &FLOORS));
        let as_peers: Vec<_> =
            sweep.iter().filter(|row| row["ef"].as_u64() >= Some(PEERS_LEAST_EF as u64)).cloned().collect();
        size["floors"] = json!(sweep::at_floors(&as_peers, &FLOORS));
        size["sweep"] = json!(sweep);
        store.close();
        Ok(size)
    }

    /// Fills a collection with the first `n` rows, unless it holds them already; closes it.
    fn build(
        &self,
        vectors: &Vectors,
        n: usize,
        dir: &Path,
        options: &Options,
        context: &Context,
    ) -> Result<Value, CliError> {
        let definition = DefinitionRequest {
            m: Some(self.m),
            ef_construction: Some(self.ef_construction),
            quantization: Some(match self.quantization {
                Codes::Int8 => Quantization::Int8,
                Codes::None => Quantization::None,
                Codes::Binary => Quantization::Binary,
            }),
            storage: Some(match self.storage {
                Storage::Float32 => VectorStorage::Float32,
                Storage::Float16 => VectorStorage::Float16,
            }),
            ..DefinitionRequest::vectors(vectors.dim)
        };
        let store = Store::open(dir, &definition, options.clone())?;
        let mut size = json!({ "n": n, "built": false });
        if store.collection.stats().documents != n as u64 {
            let progress = report::progress(context, n, "rows written, the graph follows");
            let mut source = Source::File(RowReader::open(&vectors.base, vectors.dim as usize)?);
            let ingest = store::fill(&store.collection, &mut source, n, |rows| progress.inc(rows as u64))?;
            progress.finish_and_clear();
            let optimise = optimise(&store.collection)?;
            describe_build(&mut size, n, ingest, optimise);
        }
        let stats = store.collection.stats();
        store.close();
        let directory = directory_bytes(dir);
        size["segments"] = json!(stats.segments);
        size["graph_segments"] = json!(stats.graph_segments);
        size["segment_bytes"] = json!(stats.disk_bytes);
        size["segment_bytes_per_document"] = json!(stats.disk_bytes / n.max(1) as u64);
        size["directory_bytes_per_document"] = json!(directory / n.max(1) as u64);
        Ok(size)
    }
}

fn describe_build(size: &mut Value, n: usize, ingest: Duration, optimise: Duration) {
    let build = ingest + optimise;
    size["built"] = json!(true);
    size["ingest_s"] = json!(rounded(ingest.as_secs_f64(), 2));
    size["optimise_s"] = json!(rounded(optimise.as_secs_f64(), 2));
    size["build_s"] = json!(rounded(build.as_secs_f64(), 2));
    size["vectors_per_s"] = json!(whole(rate(n, build)));
}

/// Checks the exact answers to the first queries against f64 arithmetic over the file itself.
fn check(vectors: &Vectors, n: usize, truth: &Truth) -> Result<Value, CliError> {
    let checked = vectors.queries.len().min(ORACLE_QUERIES);
    let mut oracle = Oracle::new(&vectors.queries[..checked]);
    let mut source = Source::File(RowReader::open(&vectors.base, vectors.dim as usize)?);
    for start in (0..n).step_by(BUILD_BATCH) {
        source.take(BUILD_BATCH.min(n - start))?.iter().for_each(|row| oracle.push(row));
    }
    let mut worst: f64 = 0.0;
    for (query, hits) in truth.hits[..checked].iter().enumerate() {
        let difference = oracle.check(query, hits, TOP_K).map_err(|detail| {
            CliError::Refused(format!(
                "exact search over {n} rows differs from the brute-force oracle ({detail}); where --keep names \
                 databases of other vectors, use another directory"
            ))
        })?;
        worst = worst.max(difference);
    }
    Ok(json!({ "queries": checked, "equal": true, "max_score_difference": rounded(worst, 9) }))
}

/// A file of the first `n` rows: the given one where it has no more.
fn first_rows(vectors: &Vectors, n: usize, dir: &Path) -> Result<PathBuf, CliError> {
    let mut reader = RowReader::open(&vectors.base, vectors.dim as usize)?;
    if reader.rows() == n {
        return Ok(vectors.base.clone());
    }
    let path = dir.join(format!("base-{n}.f32"));
    let mut writer = RowWriter::create(&path)?;
    for start in (0..n).step_by(BUILD_BATCH) {
        writer.write(&reader.read(BUILD_BATCH.min(n - start))?)?;
    }
    writer.finish()?;
    Ok(path)
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    report::fields(report, &[("vectors", "vectors"), ("queries", "queries"), ("file system", "filesystem")])?;
    let build_columns = [
        ("vectors", "n"),
        ("build s", "build_s"),
        ("vectors/s", "vectors_per_s"),
        ("segments", "segments"),
        ("with graph", "graph_segments"),
        ("open ms", "open_ms"),
        ("first search us", "first_search_us"),
        ("opens", "opens"),
        ("segment bytes a document", "segment_bytes_per_document"),
        ("directory bytes a document", "directory_bytes_per_document"),
        ("RSS anon MiB", "rss_anon_mib"),
        ("RSS file MiB", "rss_file_mib"),
    ];
    let sizes = report["sizes"].as_array().cloned().unwrap_or_default();
    report::table("Building and opening", &sizes, &build_columns)?;
    let search_columns = [
        ("ef", "ef"),
        ("plan", "plan"),
        ("recall@10", "recall_at_10"),
        ("queries/s", "qps_calls"),
        ("p50 us", "p50_us"),
        ("p99 us", "p99_us"),
        ("calls", "calls"),
    ];
    for size in &sizes {
        let labelled = |label: &str, key: &str| {
            let mut row = size[key].clone();
            row["ef"] = json!(label);
            row
        };
        let mut rows = vec![labelled("exact", "exact"), labelled("default", "default")];
        rows.extend(size["sweep"].as_array().cloned().unwrap_or_default());
        report::table(&format!("{} vectors, one thread", size["n"]), &rows, &search_columns)?;
        if let Some(ratios) = size["ratios"].as_array() {
            report::table("Ratio to peers in the same run, ours divided by theirs", ratios, &peers::RATIO_COLUMNS)?;
        }
    }
    Ok(())
}
