//! `bench quality`: how well each mode's answers fit the judgements of the Cranfield collection, and whether exact is
//! exact.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::{CliError, Context};
use super::cranfield::{Cranfield, DataSetArgs};
use super::oracle::Oracle;
use super::scratch::Scratch;
use super::stats::{Latencies, rate, rounded, whole};
use super::store::{Store, bare_request, id_of, rows_of, upsert};
use super::{Places, precision, ranking, report};
use crate::collection::{Collection, DefinitionRequest};
use crate::embed::{DEFAULT_MODEL, InputKind, Precision, TextModel};
use crate::types::{Fusion, Mode, NewDocument, Plan, Query, SearchRequest};

/// Texts embedded and documents written at a time.
const BATCH: usize = 100;
/// Hits asked for: recall@100 needs them.
const TOP_K: usize = 100;

/// What `bench quality` wants to know.
#[derive(Args, Clone, Debug)]
pub(super) struct QualityArgs {
    #[command(flatten)]
    data_set: DataSetArgs,
    /// Model to embed with
    #[arg(long, value_name = "NAME", default_value = DEFAULT_MODEL)]
    model: String,
    /// What searches look at; several are joined by commas
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "vector,keyword,hybrid")]
    mode: Vec<QualityMode>,
}

/// What searches look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum QualityMode {
    /// Nearness of vectors, approximate and exact.
    Vector,
    /// Words.
    Keyword,
    /// Both, by each way of making one ranking of two.
    Hybrid,
}

impl QualityMode {
    /// Its searches by the question's text: their names and what they look at.
    fn searches(self) -> &'static [(&'static str, Mode)] {
        match self {
            Self::Vector => &[("default", Mode::Vector)],
            Self::Keyword => &[("keyword", Mode::Keyword)],
            Self::Hybrid => &[
                ("hybrid", Mode::Hybrid(Fusion::ReciprocalRank)),
                ("hybrid, weighted 0.5", Mode::Hybrid(Fusion::Weighted { alpha: 0.5 })),
            ],
        }
    }
}

/// Vectors of the documents and of the queries, and what making them took.
struct Embedded {
    documents: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    tokens: usize,
    truncated: usize,
    documents_took: Duration,
}

/// One way of searching, and what it found for each query.
struct Searched {
    /// Row and score, nearest first.
    hits: Vec<Vec<(usize, f32)>>,
    plan: Plan,
    latencies: Latencies,
}

pub(super) fn run(args: &QualityArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let set = args.data_set.load(places)?;
    let model = context.model_store().load(&args.model)?;
    let embedded = embed(&set, &model, context)?;
    let scratch = Scratch::create(places)?;
    let definition = DefinitionRequest { model: Some(args.model.clone()), ..DefinitionRequest::default() };
    let store = Store::open(&scratch.path().join("db"), &definition, context.options())?;
    let started = Instant::now();
    write(&store.collection, &set, &embedded.documents)?;
    let ingest = started.elapsed();
    let started = Instant::now();
    store.collection.optimise()?;
    let optimise = started.elapsed();

    store.collection.refresh()?;
    let by_text = |mode: Mode| {
        search(&store.collection, &set, |query| {
            let text = Query::Text(set.queries[query].text.clone());
            SearchRequest { query: text, mode, ..bare_request(&[], TOP_K) }
        })
    };
    let mut searches = Vec::new();
    for &(name, mode) in args.mode.iter().flat_map(|mode| mode.searches()) {
        searches.push((name, by_text(mode)?));
    }
    let exact = search(&store.collection, &set, |query| SearchRequest {
        exact: true,
        ..bare_request(&embedded.queries[query], TOP_K)
    })?;
    let difference = compare_with_oracle(&embedded, &exact)?;
    store.close();
    let precision = match model.precision() {
        Precision::Float32 => Value::Null,
        _ => {
            let reference = context.model_store_of(Precision::Float32).load(&args.model)?;
            let reference = embed(&set, &reference, context)?;
            precision::compare(&set, [&embedded, &reference].map(|e| (e.documents.as_slice(), e.queries.as_slice())))
        }
    };

    let mut report = report::head("quality");
    report["model"] = json!({
        "name": model.name(), "fingerprint": model.fingerprint(), "dim": model.dim(), "precision": model.precision().name(),
    });
    report["data_set"] = describe(&set);
    report["relevance"] = json!("binary: a judgement of 1 or more gains 1, everything else 0");
    report["embed"] = json!({
        "documents": set.documents.len(),
        "seconds": rounded(embedded.documents_took.as_secs_f64(), 2),
        "documents_per_s": rounded(rate(set.documents.len(), embedded.documents_took), 1),
        "tokens_per_s": whole(rate(embedded.tokens, embedded.documents_took)),
        "truncated": embedded.truncated,
    });
    report["ingest_s"] = json!(rounded(ingest.as_secs_f64(), 3));
    report["optimise_s"] = json!(rounded(optimise.as_secs_f64(), 3));
    let rows = searches.iter().map(|(name, searched)| measure(name, &set, searched));
    report["searches"] = rows.chain([measure("exact", &set, &exact)]).collect();
    if let Some((_, default)) = searches.iter().find(|(name, _)| *name == "default") {
        report["overlap_at_10"] = json!(rounded(mean_overlap(&set, default, &exact), 4));
    }
    report["oracle"] = json!({
        "queries": exact.hits.len(), "top_k": TOP_K, "equal": true, "max_score_difference": rounded(difference, 9),
    });
    report["against_float32"] = precision;
    report::write(context, &report, || write_tables(&report))
}

fn embed(set: &Cranfield, model: &TextModel, context: &Context) -> Result<Embedded, CliError> {
    let progress = report::progress(context, set.documents.len(), "documents embedded");
    let (mut documents, mut tokens, mut truncated) = (Vec::new(), 0, 0);
    let started = Instant::now();
    for batch in set.documents.chunks(BATCH) {
        let texts: Vec<&str> = batch.iter().map(|document| document.text.as_str()).collect();
        let embeddings = model.embed(&texts, InputKind::Document)?;
        tokens += embeddings.token_counts.iter().sum::<usize>();
        truncated += embeddings.truncated.iter().filter(|cut| **cut).count();
        documents.extend(embeddings.vectors);
        progress.inc(batch.len() as u64);
    }
    let documents_took = started.elapsed();
    progress.finish_and_clear();
    let texts: Vec<&str> = set.queries.iter().map(|query| query.text.as_str()).collect();
    let queries = model.embed(&texts, InputKind::Query)?.vectors;
    Ok(Embedded { documents, queries, tokens, truncated, documents_took })
}

/// Writes the documents under the numbers of their rows, so that ties are broken alike everywhere.
fn write(collection: &Collection, set: &Cranfield, vectors: &[Vec<f32>]) -> Result<(), CliError> {
    let row = |(row, (entry, vector)): (usize, (&super::cranfield::Entry, &Vec<f32>))| {
        let document = NewDocument::from_text(id_of(row)?, entry.text.as_str());
        Ok(NewDocument { vector: Some(vector.clone()), ..document })
    };
    let documents: Vec<_> = set.documents.iter().zip(vectors).enumerate().map(row).collect::<Result<_, CliError>>()?;
    documents.chunks(BATCH).try_for_each(|batch| upsert(collection, batch.to_vec()).map(drop))
}

fn search(
    collection: &Collection,
    set: &Cranfield,
    request: impl Fn(usize) -> SearchRequest,
) -> Result<Searched, CliError> {
    let (mut hits, mut durations, mut plan) = (Vec::new(), Vec::new(), Plan::Exact);
    for query in 0..set.queries.len() {
        let request = request(query);
        let started = Instant::now();
        let response = collection.search(&request)?;
        durations.push(started.elapsed());
        if response.plan != Plan::Exact {
            plan = response.plan;
        }
        hits.push(rows_of(&response.hits)?);
    }
    Ok(Searched { hits, plan, latencies: Latencies::new(durations) })
}

/// Returns the largest difference of a score.
fn compare_with_oracle(embedded: &Embedded, exact: &Searched) -> Result<f64, CliError> {
    let mut oracle = Oracle::new(&embedded.queries);
    embedded.documents.iter().for_each(|row| oracle.push(row));
    let mut worst: f64 = 0.0;
    for (query, hits) in exact.hits.iter().enumerate() {
        let fail = |detail| CliError::Refused(format!("exact search differs from the brute-force oracle: {detail}"));
        worst = worst.max(oracle.check(query, hits, TOP_K).map_err(fail)?);
    }
    Ok(worst)
}

fn describe(set: &Cranfield) -> Value {
    json!({
        "name": "Cranfield",
        "documents": set.documents.len(),
        "queries": set.queries.len(),
        "judged_queries": set.queries.iter().filter(|query| set.relevant.contains_key(&query.id)).count(),
        "relevant_pairs": set.relevant.values().map(HashSet::len).sum::<usize>(),
    })
}

/// Means over the queries that have a relevant document.
fn measure(name: &str, set: &Cranfield, searched: &Searched) -> Value {
    let mut sums = [0.0; 4];
    let mut judged = 0;
    for (query, hits) in set.queries.iter().zip(&searched.hits) {
        let Some(relevant) = set.relevant.get(&query.id) else { continue };
        let relevant: HashSet<&str> = relevant.iter().map(String::as_str).collect();
        let ranking = ranking_of(set, hits);
        judged += 1;
        sums[0] += ranking::ndcg(&ranking, &relevant, 10);
        sums[1] += ranking::recall(&ranking, &relevant, 10);
        sums[2] += ranking::recall(&ranking, &relevant, 100);
        sums[3] += ranking::reciprocal_rank(&ranking, &relevant, 10);
    }
    let [ndcg, recall_10, recall_100, mrr] = sums.map(|sum| rounded(sum / f64::from(judged.max(1)), 4));
    json!({
        "search": name,
        "plan": searched.plan.name(),
        "queries": judged,
        "ndcg_at_10": ndcg,
        "recall_at_10": recall_10,
        "recall_at_100": recall_100,
        "mrr_at_10": mrr,
        "calls": searched.latencies.count(),
        "p50_us": rounded(searched.latencies.percentile_us(0.5), 1),
        "p99_us": rounded(searched.latencies.percentile_us(0.99), 1),
    })
}

pub(super) fn ranking_of<'a>(set: &'a Cranfield, hits: &[(usize, f32)]) -> Vec<&'a str> {
    hits.iter().filter_map(|&(row, _)| set.documents.get(row)).map(|document| document.id.as_str()).collect()
}

fn mean_overlap(set: &Cranfield, a: &Searched, b: &Searched) -> f64 {
    let overlap = |(a, b): (&Vec<_>, &Vec<_>)| ranking::overlap(&ranking_of(set, a), &ranking_of(set, b), 10);
    a.hits.iter().zip(&b.hits).map(overlap).sum::<f64>() / a.hits.len().max(1) as f64
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    let searches = report["searches"].as_array().map_or(&[][..], Vec::as_slice);
    report::table(
        "Cranfield, relevance binary; the default search embeds its text, the exact one is given the vector",
        searches,
        &[
            ("search", "search"),
            ("plan", "plan"),
            ("queries", "queries"),
            ("nDCG@10", "ndcg_at_10"),
            ("recall@10", "recall_at_10"),
            ("recall@100", "recall_at_100"),
            ("MRR@10", "mrr_at_10"),
            ("p50 us", "p50_us"),
            ("p99 us", "p99_us"),
            ("calls", "calls"),
        ],
    )?;
    report::table(
        "Embedding the documents",
        &[report["embed"].clone()],
        &[
            ("documents", "documents"),
            ("seconds", "seconds"),
            ("documents/s", "documents_per_s"),
            ("tokens/s", "tokens_per_s"),
            ("truncated", "truncated"),
        ],
    )?;
    report::table(
        "Exact search against the brute-force oracle in f64",
        &[report["oracle"].clone()],
        &[
            ("queries", "queries"),
            ("top_k", "top_k"),
            ("equal", "equal"),
            ("largest score difference", "max_score_difference"),
        ],
    )?;
    report::fields(report, &[("overlap@10 of the default search with the exact one", "overlap_at_10")])?;
    match &report["against_float32"] {
        Value::Null => Ok(()),
        row => report::table(
            "This precision against float32, exact search",
            std::slice::from_ref(row),
            &precision::COLUMNS,
        ),
    }
}
