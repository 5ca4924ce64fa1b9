//! `bench plot`: reports of `bench search` and `bench embed` as pictures.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::super::{CliError, Context, output};
use crate::storage;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// Between the picture's edge and the axes.
const MARGIN: f64 = 64.0;
/// The same at the right, where the curves' names stand.
const RIGHT: f64 = 150.0;
/// Recall at the left end of the axis; the right one is 1.
const LEAST_RECALL: f64 = 0.9;
const COLOURS: [&str; 6] = ["#c0392b", "#2c6fbb", "#2e8b57", "#8e5ea2", "#7f6000", "#444444"];

/// What `bench plot` draws.
#[derive(Args, Clone, Debug)]
pub(super) struct PlotArgs {
    /// A report of `bench search --json`, or some of `bench embed --json`
    #[arg(value_name = "REPORT", required = true)]
    reports: Vec<PathBuf>,
    /// What stands on the horizontal axis [default: by the report: recall or batch]
    #[arg(long, value_enum, value_name = "WHAT")]
    over: Option<Over>,
    /// The picture to write
    #[arg(long, value_name = "FILE.svg")]
    out: PathBuf,
}

/// The horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Over {
    /// Queries a second over recall@10, of us and the peers, at the largest size of a report of `bench search`
    Recall,
    /// Microseconds of a search and of the build, a vector, over the sizes of a report of `bench search`
    Vectors,
    /// Texts a second over texts in a batch, a curve for each sample and precision of reports of `bench embed`
    Batch,
}

/// A curve and its points.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// What is drawn: the vertical axis is logarithmic, from a power of ten to a power of ten.
struct Chart {
    title: String,
    axes: &'static str,
    curves: Vec<Curve>,
    /// Whether the horizontal axis is logarithmic.
    is_log: bool,
    /// Where it has a line.
    ticks: Vec<f64>,
}

pub(super) fn run(args: &PlotArgs, context: &Context) -> Result<(), CliError> {
    let reports: Vec<Value> = args.reports.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let of_embed = reports[0]["bench"] == "embed";
    let chart = match args.over.unwrap_or(if of_embed { Over::Batch } else { Over::Recall }) {
        Over::Recall => over_recall(&reports[0]),
        Over::Vectors => over_vectors(&reports[0]),
        Over::Batch => over_batch(&reports),
    };
    if chart.curves.iter().all(|curve| curve.points.is_empty()) {
        let detail = format!("{} holds nothing of what is to be drawn", args.reports[0].display());
        return Err(CliError::Refused(detail));
    }
    storage::publish(&args.out, chart.draw().as_bytes())?;
    output::hint(context, format_args!("wrote {}", args.out.display()));
    Ok(())
}

fn read(path: &Path) -> Result<Value, CliError> {
    let bytes =
        storage::read_file(path)?.ok_or_else(|| CliError::Refused(format!("there is no report {}", path.display())))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| CliError::Refused(format!("{} is no report of bench --json: {error}", path.display())))
}

/// Ours, and that of each peer, whose script prints the first `ef` that reaches each floor.
fn over_recall(report: &Value) -> Chart {
    let size = report["sizes"].as_array().and_then(|sizes| sizes.last()).unwrap_or(&Value::Null);
    let point = |row: &Value| Some((row["recall_at_10"].as_f64()?, row["qps_calls"].as_f64()?));
    let mut curves = Vec::new();
    rows(&size["sweep"]).filter_map(point).for_each(|at| add(&mut curves, "pannier", at));
    for row in rows(&size["peers"]) {
        if let (Some(name), Some(at)) = (row["peer"].as_str(), point(row)) {
            add(&mut curves, name, at);
        }
    }
    curves.iter_mut().for_each(|curve: &mut Curve| curve.points.retain(|&(recall, _)| recall >= LEAST_RECALL));
    Chart {
        title: format!("{} vectors of {} numbers, one thread", size["n"], report["dim"]),
        axes: "queries/s over recall@10",
        curves,
        is_log: false,
        ticks: (0..=5).map(|step| LEAST_RECALL + f64::from(step) * (1.0 - LEAST_RECALL) / 5.0).collect(),
    }
}

/// At each size: the search with the least `ef` that reaches a recall, and the build.
fn over_vectors(report: &Value) -> Chart {
    let mut curves = Vec::new();
    for size in rows(&report["sizes"]) {
        let Some(n) = size["n"].as_f64() else { continue };
        for floor in [0.95, 0.99] {
            let reaches = |row: &&Value| row["recall_at_10"].as_f64().is_some_and(|recall| recall >= floor);
            if let Some(us) = rows(&size["sweep"]).find(reaches).and_then(|row| row["p50_us"].as_f64()) {
                add(&mut curves, &format!("search, {floor}"), (n, us));
            }
        }
        if let Some(per_s) = size["vectors_per_s"].as_f64() {
            add(&mut curves, "build, a vector", (n, 1e6 / per_s));
        }
    }
    let ticks = rows(&report["sizes"]).filter_map(|size| size["n"].as_f64()).collect();
    let title = format!("vectors of {} numbers", report["dim"]);
    Chart { title, axes: "microseconds over vectors", curves, is_log: true, ticks }
}

fn over_batch(reports: &[Value]) -> Chart {
    let mut curves = Vec::new();
    let mut ticks = Vec::new();
    for report in reports {
        let Some(batch) = report["batch"].as_f64() else { continue };
        let tokens = report["mean_tokens"].as_f64().unwrap_or_default();
        for row in rows(&report["medians"]) {
            let (Some(name), Some(per_s)) = (row["peer"].as_str(), row["texts_per_s"].as_f64()) else { continue };
            // "pannier", its version, the precision.
            let precision = name.rsplit(' ').next().unwrap_or(name);
            add(&mut curves, &format!("{precision}, {tokens:.0} tokens"), (batch, per_s));
        }
        ticks.push(batch);
    }
    curves.iter_mut().for_each(|curve| curve.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let title = format!("{}, {} thread(s)", text(&reports[0]["model"]["name"]), reports[0]["runs"][0]["threads"]);
    Chart { title, axes: "texts/s over texts in a batch", curves, is_log: true, ticks }
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Adds a point to the curve of that name; a logarithm of what is not above 0 cannot be drawn.
fn add(curves: &mut Vec<Curve>, name: &str, point: (f64, f64)) {
    if point.1 <= 0.0 {
        return;
    }
    match curves.iter_mut().find(|curve| curve.name == name) {
        Some(curve) => curve.points.push(point),
        None => curves.push(Curve { name: name.to_owned(), points: vec![point] }),
    }
}

impl Chart {
    fn draw(&self) -> String {
        let along = |at: f64| if self.is_log { at.log10() } else { at };
        let (left, right) = extent(self.ticks.iter().map(|&tick| along(tick)));
        let logs = || self.curves.iter().flat_map(|curve| &curve.points).map(|&(_, value)| value.log10());
        let (low, high) = extent(logs());
        let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
        let x = |at: f64| MARGIN + (along(at) - left) / (right - left).max(1e-9) * (WIDTH - MARGIN - RIGHT);
        let y = |log: f64| HEIGHT - MARGIN - (log - low) / (high - low) * (HEIGHT - 2.0 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{MARGIN}\" \
             y=\"24\" font-size=\"15\">{}</text>\n<text x=\"{MARGIN}\" y=\"42\">{}</text>\n",
            self.title, self.axes
        );
        let mut line = |from: (f64, f64), to: (f64, f64), label: (f64, f64), text: String| {
            let ((x1, y1), (x2, y2), (tx, ty)) = (from, to, label);
            // Writing to a string does not fail.
            _ = writeln!(
                svg,
                "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/><text x=\"{tx:.1}\" \
                 y=\"{ty:.1}\" text-anchor=\"middle\" fill=\"#555\">{text}</text>"
            );
        };
        for &tick in &self.ticks {
            let label = if self.is_log { format!("{tick:.0}") } else { format!("{tick:.2}") };
            line((x(tick), y(low)), (x(tick), y(high)), (x(tick), y(low) + 18.0), label);
        }
        for log in low as i32..=high as i32 {
            let at = y(f64::from(log));
            line((MARGIN, at), (WIDTH - RIGHT, at), (MARGIN / 2.0, at + 4.0), format!("{:.0}", 10f64.powi(log)));
        }
        for (at, (curve, colour)) in self.curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let places: Vec<(f64, f64)> = curve.points.iter().map(|&(at, value)| (x(at), y(value.log10()))).collect();
            let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>", path.join(" "));
            for (x, y) in places {
                _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
            let (tx, ty) = (WIDTH - RIGHT + 8.0, MARGIN + 16.0 * at as f64);
            _ = writeln!(svg, "<text x=\"{tx:.1}\" y=\"{ty:.1}\" fill=\"{colour}\">{}</text>", curve.name);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// The least and the largest.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(chart: &Chart) -> Vec<(&str, usize)> {
        chart.curves.iter().map(|curve| (curve.name.as_str(), curve.points.len())).collect()
    }

    #[test]
    fn every_program_gets_its_curve() {
        let report = json!({ "bench": "search", "dim": 384, "sizes": [{
            "n": 1_000,
            "sweep": [{ "recall_at_10": 0.95, "qps_calls": 20_000 }, { "recall_at_10": 0.99, "qps_calls": 9_000 }],
            "peers": [
                { "peer": "a", "vectors_per_s": 5 },
                { "peer": "a", "floor": 0.95, "recall_at_10": 0.96, "qps_calls": 3_000 },
                { "peer": "b", "floor": 0.95, "recall_at_10": 0.5, "qps_calls": 3_000 },
            ],
        }]});
        let chart = over_recall(&report);
        assert_eq!(names(&chart), [("pannier", 2), ("a", 1), ("b", 0)]);
        let svg = chart.draw();
        assert_eq!((svg.matches("<circle").count(), svg.contains(">0.90<")), (3, true));
        assert!(svg.contains(">1000<") && svg.contains(">100000<"), "powers of ten around all points");
    }

    #[test]
    fn costs_stand_over_the_number_of_vectors() {
        let sweep = |us: f64| json!([{ "recall_at_10": 0.9, "p50_us": 1 }, { "recall_at_10": 0.96, "p50_us": us }]);
        let sizes = json!([
            { "n": 1_000, "vectors_per_s": 2_000, "sweep": sweep(20.0) },
            { "n": 10_000, "vectors_per_s": 1_000, "sweep": sweep(40.0) },
        ]);
        let chart = over_vectors(&json!({ "bench": "search", "dim": 384, "sizes": sizes }));
        assert_eq!(names(&chart), [("search, 0.95", 2), ("build, a vector", 2)]);
        assert_eq!(chart.curves[0].points, [(1_000.0, 20.0), (10_000.0, 40.0)]);
        assert_eq!(chart.curves[1].points, [(1_000.0, 500.0), (10_000.0, 1_000.0)]);
        assert!(chart.draw().contains(">10000<"));
    }

    #[test]
    fn texts_stand_over_batches_by_length_and_precision() {
        let report = |batch: u32, per_s: f64| {
            json!({ "bench": "embed", "batch": batch, "mean_tokens": 17.1, "model": { "name": "m" },
                "runs": [{ "threads": 1 }],
                "medians": [{ "peer": "pannier 0.1.0 int8", "texts_per_s": per_s }] })
        };
        let chart = over_batch(&[report(32, 300.0), report(1, 100.0)]);
        assert_eq!((names(&chart), chart.ticks.clone()), (vec![("int8, 17 tokens", 2)], vec![1.0, 32.0]));
        assert_eq!(chart.curves[0].points, [(1.0, 100.0), (32.0, 300.0)], "in the order of the axis");
        assert!(chart.draw().contains("m, 1 thread(s)"));
    }
}
