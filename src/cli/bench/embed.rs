//! `bench embed`: texts and tokens a second of the model, in the fields that the peer's script prints.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::{CliError, Context, output, precision_parser};
use super::cranfield::DataSetArgs;
use super::peers::{self, EmbedRun, PeerArgs};
use super::scratch::Scratch;
use super::stats::{Latencies, median, peak_rss_mib, rounded, whole};
use super::{Places, report, vectors};
use crate::embed::{DEFAULT_MODEL, InputKind, Precision, TextModel};

/// Queries embedded before the clock starts, as the peer does.
const WARM_UP: usize = 20;
/// Texts of the samples that are not the queries.
const SHORT_TEXTS: usize = 512;
const LONG_TEXTS: usize = 64;
/// Words of a title that is as long as a short question.
const BRIEF_WORDS: RangeInclusive<usize> = 7..=8;
/// Shortest abstract that counts as long, in words.
const LONG_WORDS: usize = 150;

/// How texts are given to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Batches of texts of about equal token count
    Sorted,
    /// Batches in the file's order
    Unsorted,
    /// One text at a time
    Query,
}

/// Texts to embed when no file is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sample {
    /// The first 512 titles
    Short,
    /// The first 64 abstracts of 150 words or more
    Long,
    /// The titles of 7 or 8 words, about 12 tokens each
    Brief,
    /// The 225 queries of Cranfield
    Queries,
}

/// The peer that runs in this process.
const CANDLE: &str = "candle";

/// What `bench embed` measures.
#[derive(Args, Clone, Debug)]
pub(super) struct EmbedArgs {
    /// Texts, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "sample")]
    texts: Option<PathBuf>,
    /// Texts from the Cranfield collection
    #[arg(long, value_enum, default_value_t = Sample::Short)]
    sample: Sample,
    /// How texts are given to the model
    #[arg(long, value_enum, default_value_t = Mode::Sorted)]
    mode: Mode,
    /// Texts in a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Passes over the texts in one round; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// Rounds, with the peer in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Model to embed with
    #[arg(long, value_name = "NAME", default_value = DEFAULT_MODEL)]
    model: String,
    /// Precisions to compare, in turn [default: the one of --precision]
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = precision_parser())]
    precisions: Vec<Precision>,
    #[command(flatten)]
    data_set: DataSetArgs,
    #[command(flatten)]
    peer: PeerArgs,
    /// What the peer runs; candle's own forward runs in this process, the others need --peer-python
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_values = ["fp32"],
          value_parser = ["fp32", "fused", "int8", CANDLE])]
    peer_system: Vec<String>,
    /// Where the peer keeps its exported graphs
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    peer_cache: PathBuf,
}

pub(super) fn run(args: &EmbedArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let scratch = Scratch::create(places)?;
    let path = args.texts_file(&scratch, places)?;
    let text = fs::read_to_string(&path).map_err(|e| CliError::io(format!("read {}", path.display()), e))?;
    // As the peer reads them: a line is what stands between two newlines.
    let texts: Vec<&str> = text.split('\n').filter(|line| !line.is_empty()).collect();
    if texts.is_empty() {
        return Err(CliError::Refused(format!("{} holds no text", path.display())));
    }
    let started = Instant::now();
    let models = args.models(context)?;
    let load = started.elapsed();
    let first = &models[0].1;
    let threads = context.threads.or(available_parallelism().ok()).map_or(1, usize::from);

    let peers = args.peers(context)?;
    let model_dir = context.model_store().installed()?.into_iter().find(|m| m.name == first.name()).map(|m| m.dir);
    let mut ours = vec![Vec::new(); models.len()];
    let mut theirs = vec![Vec::new(); peers.len()];
    let progress = report::progress(context, args.rounds as usize * (models.len() + peers.len()), "rounds");
    let workload = Workload::prepare(&texts, models.iter().map(|(_, model)| &**model), args)?;
    for _ in 0..args.rounds {
        for ((name, model), runs) in models.iter().zip(&mut ours) {
            runs.push(workload.measure(name, model, args, threads)?);
            progress.inc(1);
        }
        for ((system, candle), runs) in peers.iter().zip(&mut theirs) {
            runs.push(match candle {
                Some(model) => workload.measure(system, model, args, threads)?,
                None => peers::embed(&args.peer, places, &args.peer_run(&path, &model_dir, system, first, threads)?)?,
            });
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

    let mut report = report::head("embed");
    report["model"] = json!({ "name": first.name(), "fingerprint": first.fingerprint(), "dim": first.dim() });
    report["load_s"] = json!(rounded(load.as_secs_f64(), 3));
    report["source"] =
        args.texts.as_ref().map_or_else(|| json!(format!("{:?}", args.sample)), |path| json!(output::path(path)));
    report["mean_tokens"] = json!(rounded(workload.tokens as f64 / texts.len() as f64, 1));
    report["batch"] = json!(args.batch);
    report["rounds"] = json!(args.rounds);
    let our_medians: Vec<Value> = ours.iter().map(|runs| medians_of(runs)).collect();
    let their_medians: Vec<Value> = theirs.iter().map(|runs| medians_of(runs)).collect();
    let pairs = our_medians.iter().flat_map(|ours| their_medians.iter().map(move |peer| ratios(ours, peer)));
    report["ratios"] = json!(pairs.collect::<Vec<_>>());
    report["medians"] = json!(our_medians.into_iter().chain(their_medians).collect::<Vec<_>>());
    report["runs"] = json!(ours.into_iter().chain(theirs).flatten().collect::<Vec<_>>());
    report::write(context, &report, || write_tables(&report))
}

impl EmbedArgs {
    /// The model in each precision, with what its rows are called.
    fn models(&self, context: &Context) -> Result<Vec<(String, Arc<TextModel>)>, CliError> {
        let set = [context.precision];
        let precisions = if self.precisions.is_empty() { &set[..] } else { &self.precisions };
        let load = |&precision: &Precision| {
            let model = context.model_store_of(precision).load(&self.model)?;
            Ok((format!("pannier {} {}", env!("CARGO_PKG_VERSION"), model.precision().name()), model))
        };
        precisions.iter().map(load).collect()
    }

    /// The peers that run: their names, and the model where it runs in this process.
    fn peers(&self, context: &Context) -> Result<Vec<(&str, Option<TextModel>)>, CliError> {
        let mut peers = Vec::new();
        for system in &self.peer_system {
            if system == CANDLE {
                peers.push((system.as_str(), Some(context.model_store().load_reference(&self.model)?)));
            } else if self.peer.is_wanted() {
                peers.push((system.as_str(), None));
            }
        }
        Ok(peers)
    }

    /// The file of the texts, written if they come from the collection, so that a peer reads the same.
    fn texts_file(&self, scratch: &Scratch, places: &Places) -> Result<PathBuf, CliError> {
        if let Some(path) = &self.texts {
            return Ok(path.clone());
        }
        let set = self.data_set.load(places)?;
        let is_long = |text: &String| text.split(' ').count() >= LONG_WORDS;
        let is_brief = |title: &String| BRIEF_WORDS.contains(&title.split(' ').count());
        let texts: Vec<String> = match self.sample {
            Sample::Short => set.titles.into_iter().take(SHORT_TEXTS).collect(),
            Sample::Long => set.documents.into_iter().map(|d| d.text).filter(is_long).take(LONG_TEXTS).collect(),
            Sample::Brief => set.titles.into_iter().filter(is_brief).collect(),
            Sample::Queries => set.queries.into_iter().map(|query| query.text).collect(),
        };
        let path = scratch.path().join("texts.txt");
        vectors::write_lines(&path, &texts)?;
        Ok(path)
    }

    fn peer_run<'a>(
        &'a self,
        texts: &'a Path,
        model_dir: &'a Option<PathBuf>,
        system: &'a str,
        model: &TextModel,
        threads: usize,
    ) -> Result<EmbedRun<'a>, CliError> {
        let Some(model_dir) = model_dir else {
            return Err(CliError::Refused(format!("the files of {} were not found for the peer", self.model)));
        };
        Ok(EmbedRun {
            model_dir,
            texts,
            mode: self.mode.name(),
            system,
            batch: self.batch as usize,
            threads,
            reps: self.reps as usize,
            max_tokens: model.max_tokens(),
            cache: &self.peer_cache,
        })
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Sorted => "sorted",
            Mode::Unsorted => "unsorted",
            Mode::Query => "query",
        }
    }
}

/// Texts in the order in which they are embedded.
struct Workload<'a> {
    texts: Vec<&'a str>,
    /// Tokens of all texts, as the model reads them.
    tokens: usize,
}

impl<'a> Workload<'a> {
    /// Embeds all texts once by each model, which warms the caches and counts their tokens, and puts them in order: the
    /// longest first where they are to be sorted.
    fn prepare<'m>(
        texts: &[&'a str],
        models: impl Iterator<Item = &'m TextModel>,
        args: &EmbedArgs,
    ) -> Result<Self, CliError> {
        let mut counted = Vec::with_capacity(texts.len());
        for model in models {
            counted.clear();
            for batch in texts.chunks(args.batch as usize) {
                let counts = model.embed(batch, InputKind::Document)?.token_counts;
                counted.extend(batch.iter().copied().zip(counts));
            }
        }
        if args.mode == Mode::Sorted {
            counted.sort_by_key(|&(_, tokens)| std::cmp::Reverse(tokens));
        }
        let tokens = counted.iter().map(|&(_, tokens)| tokens).sum();
        Ok(Self { texts: counted.into_iter().map(|(text, _)| text).collect(), tokens })
    }

    /// One round, in the peer's fields. Tokenising is inside the clock; loading and sorting are outside.
    fn measure(&self, name: &str, model: &TextModel, args: &EmbedArgs, threads: usize) -> Result<Value, CliError> {
        let mut row = json!({
            "peer": name,
            "mode": args.mode.name(),
            "texts": self.texts.len(),
            "threads": threads,
        });
        if args.mode == Mode::Query {
            let latencies = self.single_calls(model)?;
            for (key, share) in [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)] {
                row[key] = json!(rounded(latencies.percentile_us(share) / 1e3, 3));
            }
            row["calls"] = json!(latencies.count());
        } else {
            let seconds =
                (0..args.reps).map(|_| self.pass(model, args.batch as usize)).collect::<Result<Vec<_>, _>>()?;
            let middle = median(&seconds);
            row["texts_per_s"] = json!(rounded(self.texts.len() as f64 / middle, 1));
            row["tokens_per_s"] = json!(whole(self.tokens as f64 / middle));
            row["runs_s"] = json!(seconds.iter().map(|s| rounded(*s, 3)).collect::<Vec<_>>());
        }
        row["peak_rss_mb"] = json!(peak_rss_mib());
        Ok(row)
    }

    fn pass(&self, model: &TextModel, batch: usize) -> Result<f64, CliError> {
        let started = Instant::now();
        for batch in self.texts.chunks(batch) {
            model.embed(batch, InputKind::Document)?;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    fn single_calls(&self, model: &TextModel) -> Result<Latencies, CliError> {
        let call = |text: &&str| -> Result<Duration, CliError> {
            let started = Instant::now();
            model.embed(&[text], InputKind::Query)?;
            Ok(started.elapsed())
        };
        self.texts.iter().take(WARM_UP).try_for_each(|text| call(text).map(drop))?;
        Ok(Latencies::new(self.texts.iter().map(call).collect::<Result<_, _>>()?))
    }
}

fn medians_of(runs: &[Value]) -> Value {
    let first = runs.first().cloned().unwrap_or_default();
    let mut row = json!({ "peer": first["peer"], "runs": runs.len() });
    for key in ["texts_per_s", "tokens_per_s", "p50_ms", "p95_ms", "peak_rss_mb"] {
        row[key] = peers::median_of(runs, key);
    }
    row
}

/// Ours divided by the peer's: above 1 is faster for rates, below 1 for times.
fn ratios(ours: &Value, peer: &Value) -> Value {
    let mut row = json!({ "ours": ours["peer"], "peer": peer["peer"] });
    for key in ["texts_per_s", "tokens_per_s", "p50_ms", "p95_ms", "peak_rss_mb"] {
        row[key] = peers::divide(&ours[key], &peer[key]);
    }
    row
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    let columns = [
        ("", "peer"),
        ("texts/s", "texts_per_s"),
        ("tokens/s", "tokens_per_s"),
        ("p50 ms", "p50_ms"),
        ("p95 ms", "p95_ms"),
        ("peak RSS MiB", "peak_rss_mb"),
    ];
    let array = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let texts = report["runs"][0]["texts"].clone();
    let threads = output::counted(report["runs"][0]["threads"].as_u64().unwrap_or(0), "thread");
    let title = format!("{texts} texts of {} tokens on average, {threads}", report["mean_tokens"]);
    report::fields(report, &[("source", "source"), ("model load s", "load_s")])?;
    report::table(&format!("{title}; medians of {} rounds", report["rounds"]), &array("medians"), &columns)?;
    match array("ratios").as_slice() {
        [] => Ok(()),
        ratios => {
            let columns: Vec<_> = [("", "ours")].into_iter().chain(columns).collect();
            report::table("Ours divided by the peer's", ratios, &columns)
        }
    }
}
