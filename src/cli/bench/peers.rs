//! The peers: scripts that measure other libraries on the same inputs, run in turn with this program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::{Value, json};

use super::super::CliError;
use super::report::Column;
use super::stats::rounded;
use super::{Places, stats};

/// Columns of [`search_ratios`].
pub(super) const RATIO_COLUMNS: [Column; 6] = [
    ("peer", "peer"),
    ("build vectors/s", "vectors_per_s"),
    ("queries/s at 0.95", "qps_calls_at_0.95"),
    ("its batch at 0.95", "qps_batch_at_0.95"),
    ("queries/s at 0.99", "qps_calls_at_0.99"),
    ("its batch at 0.99", "qps_batch_at_0.99"),
];

/// Whether peers run.
#[derive(Args, Clone, Debug)]
pub(super) struct PeerArgs {
    /// Python with the peers' packages: run the peers in turn and print ratios
    #[arg(long, value_name = "PATH")]
    peer_python: Option<PathBuf>,
}

impl PeerArgs {
    /// Whether they do.
    pub fn is_wanted(&self) -> bool {
        self.peer_python.is_some()
    }
}

/// What the search peers are to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnnRun<'a> {
    pub peers: &'a [String],
    pub base: &'a Path,
    pub queries: &'a Path,
    pub dim: u32,
    pub m: u32,
    pub ef_construction: u32,
}

/// What the embedding peer is to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct EmbedRun<'a> {
    pub model_dir: &'a Path,
    pub texts: &'a Path,
    pub mode: &'a str,
    pub system: &'a str,
    pub batch: usize,
    pub threads: usize,
    pub reps: usize,
    pub max_tokens: usize,
    pub cache: &'a Path,
}

/// Runs the search peers; their rows as they print them.
///
/// # Errors
/// [`CliError::Refused`], [`CliError::Io`].
pub(super) fn search(args: &PeerArgs, places: &Places, run: &AnnRun<'_>) -> Result<Vec<Value>, CliError> {
    let mut command = script(args, places, "ann_peer.py")?;
    command.arg("--base").arg(run.base).arg("--queries").arg(run.queries);
    command.args(["--dim", &run.dim.to_string(), "--m", &run.m.to_string()]);
    command.args(["--ef-construction", &run.ef_construction.to_string(), "--peers", &run.peers.join(",")]);
    lines(command)
}

/// Runs the embedding peer once; its row as it prints it.
///
/// # Errors
/// [`CliError::Refused`], [`CliError::Io`].
pub(super) fn embed(args: &PeerArgs, places: &Places, run: &EmbedRun<'_>) -> Result<Value, CliError> {
    let mut command = script(args, places, "embed_peer.py")?;
    command.arg("--model").arg(run.model_dir).arg("--texts").arg(run.texts).arg("--cache").arg(run.cache);
    command.args(["--mode", run.mode, "--system", run.system, "--batch", &run.batch.to_string()]);
    command.args(["--threads", &run.threads.to_string(), "--reps", &run.reps.to_string()]);
    command.args(["--max-tokens", &run.max_tokens.to_string()]);
    let printed = lines(command)?.pop();
    printed.ok_or_else(|| CliError::Refused("the peer embed_peer.py printed no figures".to_owned()))
}

/// Our figures divided by each peer's, where both have one. The peer's batch figure leaves out what each call costs its
/// language binding, so ours, over single calls, is compared with both.
pub(super) fn search_ratios(ours: &Value, rows: &[Value]) -> Vec<Value> {
    let mut ratios: Vec<Value> = Vec::new();
    for row in rows {
        let name = &row["peer"];
        if ratios.last().is_none_or(|last| last["peer"] != *name) {
            ratios.push(json!({ "peer": name }));
        }
        let Some(ratio) = ratios.last_mut() else { continue };
        if let Some(floor) = row["floor"].as_f64() {
            let at_floor = ours["floors"].as_array().and_then(|all| all.iter().find(|r| r["floor"] == json!(floor)));
            for (key, theirs) in [("qps_calls", &row["qps_calls"]), ("qps_batch", &row["qps_batch"])] {
                ratio[format!("{key}_at_{floor}")] =
                    divide(&at_floor.map_or(Value::Null, |r| r["qps_calls"].clone()), theirs);
            }
        } else {
            ratio["vectors_per_s"] = divide(&ours["vectors_per_s"], &row["vectors_per_s"]);
        }
    }
    ratios
}

/// `ours / theirs`, or null where one is missing.
pub(super) fn divide(ours: &Value, theirs: &Value) -> Value {
    match (ours.as_f64(), theirs.as_f64()) {
        (Some(ours), Some(theirs)) if theirs != 0.0 => json!(rounded(ours / theirs, 3)),
        _ => Value::Null,
    }
}

/// The median of one figure over runs, or null where no run has it.
pub(super) fn median_of(runs: &[Value], key: &str) -> Value {
    let figures: Vec<f64> = runs.iter().filter_map(|run| run[key].as_f64()).collect();
    match figures.is_empty() {
        true => Value::Null,
        false => json!(stats::median(&figures)),
    }
}

fn script(args: &PeerArgs, places: &Places, name: &str) -> Result<Command, CliError> {
    let path = places.shared.join("peers").join(name);
    if !path.is_file() {
        let detail = format!(
            "the peer's script {} is not there; name the directory that holds peers/{name} with --shared DIR or \
             PANNIER_SHARED",
            path.display()
        );
        return Err(CliError::Refused(detail));
    }
    let python = args.peer_python.clone().unwrap_or_else(|| PathBuf::from("python3"));
    let mut command = Command::new(python);
    command.arg(path).stdin(Stdio::null()).stderr(Stdio::inherit());
    Ok(command)
}

/// Runs a script that prints one JSON object a line.
fn lines(mut command: Command) -> Result<Vec<Value>, CliError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| CliError::io(format!("run {program}"), e))?;
    if !output.status.success() {
        let detail =
            format!("the peer ended with {}; its script says at its top which packages it needs", output.status);
        return Err(CliError::Refused(detail));
    }
    let parse = |line: &str| {
        serde_json::from_str(line).map_err(|error| CliError::Refused(format!("the peer printed {line:?}: {error}")))
    };
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_pair_each_peers_rows_with_ours() {
        let ours = json!({ "vectors_per_s": 3_000, "floors": [{ "floor": 0.95, "qps_calls": 8_000.0 }] });
        let rows = [
            json!({ "peer": "a", "vectors_per_s": 1_500 }),
            json!({ "peer": "a", "floor": 0.95, "qps_calls": 2_000, "qps_batch": 2_500 }),
            json!({ "peer": "a", "floor": 0.99, "qps_calls": 800, "qps_batch": 900 }),
            json!({ "peer": "b", "vectors_per_s": 6_000 }),
        ];
        let wanted = [
            json!({
                "peer": "a", "vectors_per_s": 2.0, "qps_calls_at_0.95": 4.0, "qps_batch_at_0.95": 3.2,
                "qps_calls_at_0.99": null, "qps_batch_at_0.99": null,
            }),
            json!({ "peer": "b", "vectors_per_s": 0.5 }),
        ];
        assert_eq!(search_ratios(&ours, &rows), wanted);
    }

    #[test]
    fn medians_and_ratios_pass_over_what_is_missing() {
        let runs = [json!({ "a": 3.0 }), json!({ "a": 1 }), json!({ "a": 2.0 }), json!({})];
        assert_eq!((median_of(&runs, "a"), median_of(&runs, "b")), (json!(2.0), Value::Null));
        assert_eq!((divide(&json!(1), &json!(0)), divide(&json!(null), &json!(1))), (Value::Null, Value::Null));
    }
}
