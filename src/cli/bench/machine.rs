//! What was measured on what: the header of every report.

use std::fs;
use std::thread::available_parallelism;

use serde_json::{Value, json};

/// Processor, cores, instruction set, kernel, version and date, for a report's head.
pub(super) fn describe() -> Value {
    json!({
        "cpu": cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        "cpu_level": cpu_level(),
        "cores": available_parallelism().map_or(1, usize::from),
        "memory_gib": memory_gib(),
        "os": std::env::consts::OS,
        "kernel": read_trimmed("/proc/sys/kernel/osrelease"),
        "pannier": env!("CARGO_PKG_VERSION"),
        "optimised": !cfg!(debug_assertions),
        "date": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

/// The same as one line for people.
pub(super) fn line(machine: &Value) -> String {
    let text = |key: &str| match &machine[key] {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    };
    let build = if machine["optimised"] == json!(true) { "" } else { ", NOT OPTIMISED" };
    format!(
        "{} ({}), {} cores, {} GiB, {} {}, pannier {}{build}, {}",
        text("cpu"),
        text("cpu_level"),
        text("cores"),
        text("memory_gib"),
        text("os"),
        text("kernel"),
        text("pannier"),
        text("date"),
    )
}

fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gib() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = info.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    Some((kib + (1 << 19)) >> 20)
}

fn read_trimmed(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The highest instruction set that kernels of this kind can use here.
#[cfg(target_arch = "x86_64")]
fn cpu_level() -> &'static str {
    if is_x86_feature_detected!("avx512vnni") {
        "AVX-512 VNNI"
    } else if is_x86_feature_detected!("avx512f") {
        "AVX-512"
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        "AVX2+FMA"
    } else {
        "x86-64"
    }
}

/// The highest instruction set that kernels of this kind can use here.
#[cfg(not(target_arch = "x86_64"))]
fn cpu_level() -> &'static str {
    if cfg!(target_arch = "aarch64") { "NEON" } else { std::env::consts::ARCH }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_says_what_ran_where() {
        let machine = describe();
        assert!(machine["cores"].as_u64().is_some_and(|cores| cores > 0), "{machine}");
        let line = line(&machine);
        assert!(line.contains(env!("CARGO_PKG_VERSION")) && line.contains(cpu_level()), "{line}");
        assert!(line.contains("T") && line.ends_with('Z'), "{line}");
    }
}
