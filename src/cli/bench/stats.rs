//! Percentiles, medians and this process's memory: the figures that every measurement reports.

use std::fs;
use std::time::Duration;

/// Durations of single calls, in the order of their size.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    /// Takes the durations in any order.
    pub fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self { sorted: durations }
    }

    /// Calls measured.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The duration that `share` of the calls stay under, in microseconds: element `floor(count * share)` in
    /// ascending order, which is what the peers' scripts print. 0 without a call.
    pub fn percentile_us(&self, share: f64) -> f64 {
        element(&self.sorted, share).map_or(0.0, |d| d.as_secs_f64() * 1e6)
    }

    /// Calls a second when each follows the other.
    pub fn per_second(&self) -> f64 {
        let total: Duration = self.sorted.iter().sum();
        rate(self.count(), total)
    }
}

/// Things a second; 0 when no time passed.
pub(super) fn rate(count: usize, elapsed: Duration) -> f64 {
    match elapsed.as_secs_f64() {
        0.0 => 0.0,
        seconds => count as f64 / seconds,
    }
}

/// The middle value; of an even count the upper one of the two, as the peers' scripts take it. 0 without a value.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    element(&sorted, 0.5).copied().unwrap_or(0.0)
}

fn element<T>(sorted: &[T], share: f64) -> Option<&T> {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1)))
}

/// Rounds for a report.
pub(super) fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

/// Rounds to a whole number, for a report; below 0 is 0.
pub(super) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Memory of this process, in KiB, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Most resident at once (`VmHWM`).
    pub peak_kib: u64,
    /// Resident and not backed by a file (`RssAnon`).
    pub anon_kib: u64,
    /// Resident pages of mapped files (`RssFile`), which the kernel can drop at any time.
    pub file_kib: u64,
}

impl Memory {
    /// As it is now; `None` where the system has no `/proc`.
    pub fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self { peak_kib: field("VmHWM")?, anon_kib: field("RssAnon")?, file_kib: field("RssFile")? })
    }
}

/// Linux counts times for programs in hundredths of a second, whatever its own clock; see time(7).
const TICKS_PER_S: f64 = 100.0;

/// Time that all threads of this process have spent on processors, in seconds; `None` where the system has no `/proc`.
pub(super) fn cpu_seconds() -> Option<f64> {
    cpu_seconds_in(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The numbers 14 and 15 of proc_pid_stat(5); the second stands in parentheses and may hold any character.
fn cpu_seconds_in(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / TICKS_PER_S)
}

/// Most memory resident at once, in MiB; `None` where the system has no `/proc`.
pub(super) fn peak_rss_mib() -> Option<u64> {
    Memory::read().map(|memory| memory.peak_kib / 1024)
}

/// Lets the peak start again from what is resident now. Says whether the kernel took it.
pub(super) fn reset_peak_rss() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_micros(micros: impl IntoIterator<Item = u64>) -> Latencies {
        Latencies::new(micros.into_iter().map(Duration::from_micros).collect())
    }

    #[test]
    fn percentiles_are_the_elements_that_the_peers_take() {
        let hundred = of_micros((1..=100).rev());
        assert_eq!(hundred.count(), 100);
        assert_eq!(hundred.percentile_us(0.5).round(), 51.0);
        assert_eq!(hundred.percentile_us(0.99).round(), 100.0);
        assert_eq!(hundred.percentile_us(1.0).round(), 100.0);
        let one = of_micros([7]);
        assert_eq!((one.percentile_us(0.5).round(), one.percentile_us(0.99).round()), (7.0, 7.0));
        assert_eq!(of_micros([]).percentile_us(0.5), 0.0);
    }

    #[test]
    fn processor_time_is_that_of_user_and_system() {
        let stat = "71 (a b) c) S 1 71 71 0 -1 4194560 9 0 0 0 1234 66 0 0 20 0 4 0 100 200 300";
        assert_eq!(cpu_seconds_in(stat), Some(13.0));
        assert_eq!(cpu_seconds_in("71 (a) S 1"), None);
        let before = cpu_seconds();
        assert!(before <= cpu_seconds() && before.is_some() == cfg!(target_os = "linux"));
    }

    #[test]
    fn rates_count_the_time_inside_calls() {
        assert_eq!(of_micros([250_000, 750_000]).per_second(), 2.0);
        assert_eq!(rate(10, Duration::from_millis(500)), 20.0);
        assert_eq!(rate(10, Duration::ZERO), 0.0);
    }

    #[test]
    fn medians_do_not_depend_on_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn rounding_keeps_the_sign() {
        assert_eq!((rounded(1.2345, 2), rounded(-0.005, 2), rounded(1250.0, -2)), (1.23, -0.01, 1300.0));
        assert_eq!((whole(1.5), whole(-1.0), whole(f64::NAN)), (2, 0, 0));
    }

    #[test]
    fn memory_is_read_from_the_kernels_lines() {
        let status = "Name:\tpannier\nVmHWM:\t  2048 kB\nVmRSS:\t 9 kB\nRssAnon:\t     1024 kB\nRssFile:\t 512 kB\n";
        assert_eq!(Memory::parse(status), Some(Memory { peak_kib: 2048, anon_kib: 1024, file_kib: 512 }));
        assert_eq!(Memory::parse("VmHWM:\t1 kB\n"), None);
        assert_eq!(Memory::parse("VmHWM:\tx kB\nRssAnon:\t1 kB\nRssFile:\t1 kB\n"), None);
    }
}
