//! The machine: what its CPU can do, how many files a process may open.

use std::thread::available_parallelism;

use super::super::output;
use super::{Finding, Status};

/// The default model takes 190 MB, and merging as much again.
const LITTLE_MEMORY_BYTES: u64 = 512 << 20;
/// Connections, segments and the log together stay below this.
const FILES_WANTED: u64 = 1_024;

/// Checks the machine.
pub(super) fn check() -> Vec<Finding> {
    let mut findings = vec![cpu()];
    let limits = std::fs::read_to_string("/proc/self/limits").ok();
    findings.extend(limits.as_deref().and_then(open_files).map(files));
    findings.extend(available_memory().map(memory));
    findings
}

/// Bytes that a new process may take: what the system has left, or what the control group allows, if that is less.
fn available_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/proc/meminfo").as_deref().and_then(mem_available)?;
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
    let used = read("/sys/fs/cgroup/memory.current").and_then(|text| text.trim().parse::<u64>().ok());
    let left = limit.map(|limit| limit.saturating_sub(used.unwrap_or(0)));
    Some(left.map_or(system, |left| left.min(system)))
}

/// `MemAvailable` in the text of `/proc/meminfo`, in bytes.
fn mem_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

fn memory(bytes: u64) -> Finding {
    const NAME: &str = "memory";
    let detail = format!("{} available", output::bytes(bytes));
    match bytes < LITTLE_MEMORY_BYTES {
        true => Finding::new(Status::Warn, NAME, format!("{detail}; a model and a merge may not fit")),
        false => Finding::new(Status::Ok, NAME, detail),
    }
}

fn cpu() -> Finding {
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    let (level, status) = level();
    let slow = if status == Status::Ok { "" } else { ": embedding and searching will be slow" };
    Finding::new(status, "cpu", format!("{level}, {cores} threads at once{slow}"))
}

/// The best instruction set that is made use of.
#[cfg(target_arch = "x86_64")]
fn level() -> (&'static str, Status) {
    use std::arch::is_x86_feature_detected as has;
    if has!("avx512f") && has!("avx512vnni") {
        ("AVX-512 with VNNI", Status::Ok)
    } else if has!("avx512f") {
        ("AVX-512", Status::Ok)
    } else if has!("avx2") && has!("fma") {
        ("AVX2", Status::Ok)
    } else {
        ("neither AVX2 nor AVX-512", Status::Warn)
    }
}

#[cfg(target_arch = "aarch64")]
fn level() -> (&'static str, Status) {
    ("NEON", Status::Ok)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn level() -> (&'static str, Status) {
    ("no known vector instructions", Status::Warn)
}

fn files(limit: u64) -> Finding {
    const NAME: &str = "open files";
    match limit < FILES_WANTED {
        true => Finding::new(Status::Warn, NAME, format!("at most {limit}; raise it to {FILES_WANTED} (ulimit -n)")),
        false => Finding::new(Status::Ok, NAME, format!("at most {limit}")),
    }
}

/// The soft limit on open files in the text of `/proc/self/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_and_little_of_it_is_said() {
        let text = "MemTotal:       24604348 kB\nMemFree:  1 kB\nMemAvailable:   15 kB\n";
        assert_eq!((mem_available(text), mem_available("MemTotal: 1 kB")), (Some(15 << 10), None));
        assert_eq!((memory(1 << 20).status, memory(1 << 30).status), (Status::Warn, Status::Ok));
    }

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             95866                95866                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files("nothing of it"), None);
        assert_eq!((files(1_023).status, files(1_024).status), (Status::Warn, Status::Ok));
    }
}
