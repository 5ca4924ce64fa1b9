//! `bench search --filters`: recall and speed of filtered searches beside the unfiltered one, on the same vectors.
//!
//! Two kinds of metadata: drawn at random, so that what passes lies everywhere, and the closeness to one row, so that
//! what passes lies in one place, near some queries and far from most. Each filter is measured as one that is seldom
//! asked, and as one that is asked often, whose rows are packed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::{CliError, Context};
use super::random::Random;
use super::report;
use super::rows::RowReader;
use super::search::Vectors;
use super::stats::{median, rounded, whole};
use super::store::{BUILD_BATCH, Store, bare_request, id_of, upsert};
use super::sweep::{self, TOP_K, Truth};
use super::writes::optimise;
use crate::collection::{Collection, DefinitionRequest};
use crate::database::Options;
use crate::types::{Condition, FieldType, Filter, Metadata, Method, NewDocument, SearchRequest};

/// Decides the metadata.
const SEED: u64 = 1;
/// Values of each random field; a row has each with the same chance.
const RANDOM_FIELDS: [(&str, usize); 3] = [("tenth", 10), ("hundredth", 100), ("thousandth", 1_000)];
/// How often every case is measured.
const ROUNDS: usize = 7;
/// Searches after which a filter counts as asked often.
const ASKED_OFTEN: usize = 16;
/// Packing takes milliseconds a filter; where it does not end, what is there is measured.
const PACKED_WITHIN: Duration = Duration::from_secs(60);
/// The rank of a row by its closeness to one row, as a share of all rows.
const NEARNESS: &str = "nearness";

/// A filter for each query.
struct Case {
    name: &'static str,
    filter: Box<dyn Fn(usize) -> Option<Filter>>,
}

fn cases() -> Vec<Case> {
    let case = |name, filter: Box<dyn Fn(usize) -> Option<Filter>>| Case { name, filter };
    let word = |field: &'static str, values: usize| -> Box<dyn Fn(usize) -> Option<Filter>> {
        Box::new(move |query| Some(Filter::eq(field, value(query % values))))
    };
    let near = |share: f64| -> Box<dyn Fn(usize) -> Option<Filter>> {
        let condition = Condition::Lt(crate::types::Value::Float(share));
        Box::new(move |_| Some(Filter::Field { path: NEARNESS.to_owned(), condition: condition.clone() }))
    };
    let half = |_| {
        let condition = Condition::In((0..5).map(value).collect());
        Some(Filter::Field { path: "tenth".to_owned(), condition })
    };
    vec![
        case("none", Box::new(|_| None)),
        case("random 50 %", Box::new(half)),
        case("random 10 %", word("tenth", 10)),
        case("random 1 %", word("hundredth", 100)),
        case("random 0.1 %", word("thousandth", 1_000)),
        case("correlated 50 %", near(0.5)),
        case("correlated 10 %", near(0.1)),
        case("correlated 1 %", near(0.01)),
        case("correlated 0.1 %", near(0.001)),
    ]
}

fn value(number: usize) -> crate::types::Value {
    crate::types::Value::String(format!("v{number}"))
}

/// What is measured.
pub(super) struct Run<'a> {
    /// Numbers of documents.
    pub sizes: &'a [usize],
    pub vectors: &'a Vectors,
    /// Of the collections, without their fields.
    pub definition: DefinitionRequest,
    /// Where the databases stand.
    pub root: &'a Path,
    pub options: &'a Options,
}

/// Measures every case at every size and writes the report.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(run: Run, mut report: Value, context: &Context) -> Result<(), CliError> {
    let Run { sizes, vectors, definition, root, options } = run;
    let mut fields: BTreeMap<_, _> =
        RANDOM_FIELDS.iter().map(|(name, _)| ((*name).to_owned(), FieldType::Keyword)).collect();
    fields.insert(NEARNESS.to_owned(), FieldType::Number);
    let definition = DefinitionRequest { fields, ..definition };
    let mut measured = Vec::new();
    for &n in sizes {
        let dir = root.join(format!("filtered-{n}"));
        let store = Store::open(&dir, &definition, Options { packed_bytes: Some(0), ..options.clone() })?;
        if store.collection.stats().documents != n as u64 {
            fill(&store.collection, vectors, n, context)?;
            optimise(&store.collection)?;
        }
        let seldom = measure(&store.collection, vectors, context)?;
        store.close();
        let store = Store::open(&dir, &definition, options.clone())?;
        ask_often(&store.collection, vectors)?;
        let often = measure(&store.collection, vectors, context)?;
        store.close();
        measured.push(json!({ "n": n, "filters": seldom, "asked_often": often }));
    }
    report["sizes"] = json!(measured);
    report::write(context, &report, || write_tables(&report))
}

/// Writes the first `n` rows with their metadata.
fn fill(collection: &Collection, vectors: &Vectors, n: usize, context: &Context) -> Result<Duration, CliError> {
    let nearness = nearness(vectors, n)?;
    let progress = report::progress(context, n, "rows written, the graph follows");
    let mut random = Random::new(SEED);
    let mut reader = RowReader::open(&vectors.base, vectors.dim as usize)?;
    let mut spent = Duration::ZERO;
    for start in (0..n).step_by(BUILD_BATCH) {
        let rows = reader.read(BUILD_BATCH.min(n - start))?;
        let mut documents = Vec::with_capacity(rows.len());
        for (at, vector) in rows.into_iter().enumerate() {
            let mut metadata: Metadata =
                RANDOM_FIELDS.iter().map(|(name, values)| ((*name).to_owned(), value(random.below(*values)))).collect();
            metadata.insert(NEARNESS.to_owned(), crate::types::Value::Float(nearness[start + at]));
            documents.push(NewDocument {
                id: id_of(start + at)?,
                text: None,
                metadata,
                vector: Some(vector),
                chunks: Vec::new(),
            });
        }
        progress.inc(documents.len() as u64);
        spent += upsert(collection, documents)?;
    }
    progress.finish_and_clear();
    Ok(spent)
}

/// For each of the first `n` rows, which share of them is closer to the first.
fn nearness(vectors: &Vectors, n: usize) -> Result<Vec<f64>, CliError> {
    let mut reader = RowReader::open(&vectors.base, vectors.dim as usize)?;
    let mut closeness = Vec::with_capacity(n);
    let mut pivot: Option<Vec<f32>> = None;
    for start in (0..n).step_by(BUILD_BATCH) {
        for row in reader.read(BUILD_BATCH.min(n - start))? {
            let pivot = pivot.get_or_insert_with(|| row.clone());
            closeness.push(pivot.iter().zip(&row).map(|(a, b)| a * b).sum::<f32>());
        }
    }
    let mut order: Vec<usize> = (0..closeness.len()).collect();
    order.sort_by(|&a, &b| closeness[b].total_cmp(&closeness[a]));
    let mut shares = vec![0.0; order.len()];
    for (rank, row) in order.iter().enumerate() {
        shares[*row] = rank as f64 / order.len() as f64;
    }
    Ok(shares)
}

/// Searches with every filter until what is packed for them is.
fn ask_often(collection: &Collection, vectors: &Vectors) -> Result<(), CliError> {
    let (started, mut packed) = (Instant::now(), 0);
    loop {
        let before = std::mem::take(&mut packed);
        for case in cases() {
            let mut asked: Vec<Filter> = Vec::new();
            for (at, query) in vectors.queries.iter().enumerate() {
                let Some(filter) = (case.filter)(at).filter(|filter| !asked.contains(filter)) else { continue };
                let request = SearchRequest { filter: Some(filter.clone()), ..bare_request(query, TOP_K) };
                (0..ASKED_OFTEN).try_for_each(|_| collection.search(&request).map(drop))?;
                let answer = collection.search(&SearchRequest { explain: true, ..request })?;
                let segments = answer.explain.into_iter().flat_map(|explain| explain.segments);
                packed += segments.filter(|segment| segment.used == Method::PackedScan).count();
                asked.push(filter);
            }
        }
        if (packed > 0 && packed == before) || started.elapsed() > PACKED_WITHIN {
            return Ok(());
        }
    }
}

/// Measures the cases in turn, [`ROUNDS`] times, so that what else the machine does meanwhile falls on all alike:
/// medians, and of what a case has to the unfiltered one the median of the rounds' ratios.
fn measure(collection: &Collection, vectors: &Vectors, context: &Context) -> Result<Vec<Value>, CliError> {
    let cases = cases();
    let progress = report::progress(context, (1 + ROUNDS) * cases.len() * vectors.queries.len(), "queries measured");
    let (mut rows, mut asked_for) = (Vec::new(), Vec::new());
    for case in &cases {
        let request =
            |(at, query): (usize, &Vec<f32>)| SearchRequest { filter: (case.filter)(at), ..bare_request(query, TOP_K) };
        let requests: Vec<_> = vectors.queries.iter().enumerate().map(request).collect();
        let asked = explain(collection, &requests)?;
        let truth = Truth::of(collection, &requests, &progress)?;
        rows.push(json!({
            "filter": case.name,
            "first_plan_us": asked.first_plan_us,
            "matches": asked.matches,
            "compared": asked.compared,
            "methods": asked.methods,
            "incomplete": incomplete(collection, &requests, &truth)?,
        }));
        asked_for.push((requests, truth));
    }
    let round = || {
        let measured =
            asked_for.iter().map(|(requests, truth)| sweep::measure_requests(collection, requests, truth, &progress));
        measured.collect::<Result<Vec<_>, _>>()
    };
    let rounds = (0..ROUNDS).map(|_| round()).collect::<Result<Vec<_>, _>>()?;
    progress.finish_and_clear();
    for (at, row) in rows.iter_mut().enumerate() {
        let figure = |case: &Value, name: &str| case[name].as_f64().unwrap_or(0.0);
        let median_of = |name: &str| median(&rounds.iter().map(|cases| figure(&cases[at], name)).collect::<Vec<_>>());
        row["qps_calls"] = json!(whole(median_of("qps_calls")));
        row["p50_us"] = json!(median_of("p50_us"));
        row["p99_us"] = json!(median_of("p99_us"));
        row["recall_at_10"] = rounds[0][at]["recall_at_10"].clone();
        let ratio = |cases: &Vec<Value>| figure(&cases[at], "qps_calls") / figure(&cases[0], "qps_calls").max(1.0);
        row["to_unfiltered"] = json!(rounded(median(&rounds.iter().map(ratio).collect::<Vec<_>>()), 2));
    }
    Ok(rows)
}

/// What `explain` says of a case.
struct Asked {
    /// Median time of the plan where a filter comes for the first time, in microseconds.
    first_plan_us: f64,
    /// Median of the estimated matches.
    matches: f64,
    /// Median of the rows compared, rescoring left out.
    compared: f64,
    /// How many searches were answered in which way.
    methods: String,
}

fn explain(collection: &Collection, requests: &[SearchRequest]) -> Result<Asked, CliError> {
    let (mut plans, mut matches, mut compared) = (Vec::new(), Vec::new(), Vec::new());
    let mut methods: BTreeMap<&str, usize> = BTreeMap::new();
    let mut seen: Vec<&Option<Filter>> = Vec::new();
    for request in requests {
        let answer = collection.search(&SearchRequest { explain: true, ..request.clone() })?;
        let Some(explain) = answer.explain else { continue };
        if !seen.contains(&&request.filter) {
            seen.push(&request.filter);
            plans.push(explain.planning.as_secs_f64() * 1e6);
        }
        matches.push(explain.estimated_matches as f64);
        compared.push(explain.segments.iter().map(|segment| segment.compared).sum::<u64>() as f64);
        for segment in explain.segments {
            *methods.entry(method_name(segment.planned, segment.used)).or_default() += 1;
        }
    }
    let methods: Vec<_> = methods.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
    Ok(Asked {
        first_plan_us: rounded(median(&plans), 1),
        matches: median(&matches),
        compared: median(&compared),
        methods: methods.join(", "),
    })
}

fn method_name(planned: Method, used: Method) -> &'static str {
    match (planned, used) {
        (Method::FilteredWalk, Method::Scan) => "walk then scan",
        (_, Method::Skip) => "skip",
        (_, Method::Exact) => "exact",
        (_, Method::Scan) => "scan",
        (_, Method::PackedScan) => "packed scan",
        (_, Method::Walk) => "walk",
        (_, Method::FilteredWalk) => "filtered walk",
    }
}

/// Searches that returned fewer hits than there are.
fn incomplete(collection: &Collection, requests: &[SearchRequest], truth: &Truth) -> Result<usize, CliError> {
    let mut incomplete = 0;
    for (request, exact) in requests.iter().zip(&truth.hits) {
        incomplete += usize::from(collection.search(request)?.hits.len() < exact.len());
    }
    Ok(incomplete)
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    report::fields(report, &[("vectors", "vectors"), ("queries", "queries")])?;
    let columns = [
        ("filter", "filter"),
        ("matches", "matches"),
        ("recall@10", "recall_at_10"),
        ("too few hits", "incomplete"),
        ("queries/s", "qps_calls"),
        ("to unfiltered", "to_unfiltered"),
        ("p50 us", "p50_us"),
        ("p99 us", "p99_us"),
        ("compared", "compared"),
        ("first plan us", "first_plan_us"),
        ("answered by", "methods"),
    ];
    for size in report["sizes"].as_array().into_iter().flatten() {
        for (measured, title) in [("filters", "filters seldom asked"), ("asked_often", "filters asked often")] {
            let rows = size[measured].as_array().cloned().unwrap_or_default();
            report::table(&format!("{} vectors, one thread, {title}", size["n"]), &rows, &columns)?;
        }
    }
    Ok(())
}
