//! `bench plot`: recall against queries a second, of us and the peers, as a picture of one report of `bench search`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::super::{CliError, Context, output};
use crate::storage;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
/// Between the picture's edge and the axes.
const MARGIN: f64 = 64.0;
/// Recall at the left end of the axis; the right one is 1.
const LEAST_RECALL: f64 = 0.9;
const COLOURS: [&str; 5] = ["#c0392b", "#2c6fbb", "#2e8b57", "#8e5ea2", "#7f6000"];

/// What `bench plot` draws.
#[derive(Args, Clone, Debug)]
pub(super) struct PlotArgs {
    /// A report of `bench search --json`
    #[arg(value_name = "REPORT")]
    report: PathBuf,
    /// The picture to write
    #[arg(long, value_name = "FILE.svg")]
    out: PathBuf,
}

/// The points of one program: recall and queries a second.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

pub(super) fn run(args: &PlotArgs, context: &Context) -> Result<(), CliError> {
    let bytes = storage::read_file(&args.report)?
        .ok_or_else(|| CliError::Refused(format!("there is no report {}", args.report.display())))?;
    let report: Value = serde_json::from_slice(&bytes).map_err(|error| {
        CliError::Refused(format!("{} is no report of bench search --json: {error}", args.report.display()))
    })?;
    let size = report["sizes"].as_array().and_then(|sizes| sizes.last());
    let curves = size.map(curves).unwrap_or_default();
    if curves.is_empty() {
        return Err(CliError::Refused(format!("{} holds no sweep over ef_search", args.report.display())));
    }
    let title = format!("{} vectors of {} numbers, one thread", size.map_or(&Value::Null, |s| &s["n"]), report["dim"]);
    storage::publish(&args.out, draw(&title, &curves).as_bytes())?;
    output::hint(context, format_args!("wrote {}", args.out.display()));
    Ok(())
}

/// Ours, and that of each peer, whose script prints the first `ef` that reaches each floor.
fn curves(size: &Value) -> Vec<Curve> {
    let point = |row: &Value| Some((row["recall_at_10"].as_f64()?, row["qps_calls"].as_f64()?));
    let ours = size["sweep"].as_array().into_iter().flatten().filter_map(point).collect();
    let mut curves = vec![Curve { name: "pannier".to_owned(), points: ours }];
    for row in size["peers"].as_array().into_iter().flatten() {
        let (Some(name), Some(point)) = (row["peer"].as_str(), point(row)) else { continue };
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name: name.to_owned(), points: vec![point] }),
        }
    }
    curves.retain_mut(|curve| {
        curve.points.retain(|&(recall, qps)| recall >= LEAST_RECALL && qps > 0.0);
        !curve.points.is_empty()
    });
    curves
}

/// Queries a second stand on a logarithmic axis from a power of ten to a power of ten.
fn draw(title: &str, curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|curve| &curve.points).map(|&(_, qps)| qps.log10());
    let low = all().fold(f64::INFINITY, f64::min).floor();
    let high = all().fold(f64::NEG_INFINITY, f64::max).ceil().max(low + 1.0);
    let x = |recall: f64| MARGIN + (recall - LEAST_RECALL) / (1.0 - LEAST_RECALL) * (WIDTH - 2.0 * MARGIN);
    let y = |log: f64| HEIGHT - MARGIN - (log - low) / (high - low) * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{MARGIN}\" \
         y=\"24\" font-size=\"15\">{title}</text>\n<text x=\"{MARGIN}\" y=\"42\">queries/s over recall@10</text>\n"
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
    for step in 0..=5 {
        let recall = LEAST_RECALL + f64::from(step) * (1.0 - LEAST_RECALL) / 5.0;
        let at = x(recall);
        line((at, y(low)), (at, y(high)), (at, y(low) + 18.0), format!("{recall:.2}"));
    }
    for log in low as i32..=high as i32 {
        let at = y(f64::from(log));
        line((x(LEAST_RECALL), at), (x(1.0), at), (MARGIN / 2.0, at + 4.0), format!("{:.0}", 10f64.powi(log)));
    }
    for (at, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let places: Vec<(f64, f64)> = curve.points.iter().map(|&(recall, qps)| (x(recall), y(qps.log10()))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>", path.join(" "));
        for (x, y) in places {
            _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let (tx, ty) = (WIDTH - MARGIN + 6.0, MARGIN + 16.0 * at as f64);
        _ = writeln!(svg, "<text x=\"{tx:.1}\" y=\"{ty:.1}\" fill=\"{colour}\">{}</text>", curve.name);
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_program_gets_its_curve() {
        let size = json!({
            "n": 1_000,
            "sweep": [{ "recall_at_10": 0.95, "qps_calls": 20_000 }, { "recall_at_10": 0.99, "qps_calls": 9_000 }],
            "peers": [
                { "peer": "a", "vectors_per_s": 5 },
                { "peer": "a", "floor": 0.95, "recall_at_10": 0.96, "qps_calls": 3_000 },
                { "peer": "b", "floor": 0.95, "recall_at_10": 0.5, "qps_calls": 3_000 },
            ],
        });
        let curves = curves(&size);
        let names: Vec<_> = curves.iter().map(|curve| (curve.name.as_str(), curve.points.len())).collect();
        assert_eq!(names, [("pannier", 2), ("a", 1)]);
        let svg = draw("title", &curves);
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (3, 2));
        assert!(svg.contains(">1000<") && svg.contains(">100000<"), "powers of ten around all points");
    }
}
