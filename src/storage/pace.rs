//! Holds background writing to a rate, so that it leaves the disk to those who wait for it.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Waits are made of steps this long, so that a cancelled writer notices.
const STEP: Duration = Duration::from_millis(50);
/// What was not written in time may be caught up on by so much.
const BURST: Duration = Duration::from_millis(100);

/// A rate that all writers of one kind share, and what they have written.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_s: Option<NonZeroU64>,
    /// When what was granted so far is written at the rate.
    free_at: Mutex<Option<Instant>>,
    written_bytes: AtomicU64,
    held_back_ns: AtomicU64,
}

impl RateLimit {
    /// `None`: as fast as the disk takes it.
    pub fn new(bytes_per_s: Option<NonZeroU64>) -> Self {
        Self {
            bytes_per_s,
            free_at: Mutex::new(None),
            written_bytes: AtomicU64::new(0),
            held_back_ns: AtomicU64::new(0),
        }
    }

    /// Bytes written so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// How long writers were held back so far, all together.
    pub fn held_back(&self) -> Duration {
        Duration::from_nanos(self.held_back_ns.load(Ordering::Relaxed))
    }

    /// Counts `bytes` and waits until they may be written. `false`: called off meanwhile.
    pub fn pass(&self, bytes: u64, cancel: &AtomicBool) -> bool {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        let started = Instant::now();
        let until = self.grant(bytes, started);
        while !cancel.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let held_back = until.saturating_duration_since(started);
                self.held_back_ns.fetch_add(held_back.as_nanos() as u64, Ordering::Relaxed);
                return true;
            }
            std::thread::sleep(left.min(STEP));
        }
        false
    }

    /// When `bytes` that are asked for at `now` may be written.
    fn grant(&self, bytes: u64, now: Instant) -> Instant {
        let Some(rate) = self.bytes_per_s else { return now };
        let takes = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let granted = free_at.map_or(earliest, |free_at| free_at.max(earliest)) + takes;
        *free_at = Some(granted);
        granted.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(bytes_per_s: u64) -> RateLimit {
        RateLimit::new(NonZeroU64::new(bytes_per_s))
    }

    #[test]
    fn the_rate_is_held_however_it_is_asked_for() {
        let (limit, start) = (limit(1_000), Instant::now());
        // 100 ms may be caught up on at first.
        assert_eq!(limit.grant(100, start), start);
        assert_eq!(limit.grant(500, start), start + Duration::from_millis(500));
        assert_eq!(limit.grant(500, start + Duration::from_millis(400)), start + Duration::from_secs(1));
        // Much later, no more than the burst was saved up.
        let later = start + Duration::from_secs(60);
        assert_eq!(limit.grant(1_100, later), later + Duration::from_secs(1));
    }

    #[test]
    fn without_a_rate_nothing_waits_and_all_is_counted() {
        let (limit, never) = (RateLimit::new(None), AtomicBool::new(false));
        assert!(limit.pass(u64::MAX / 2, &never) && limit.pass(5, &never));
        assert_eq!((limit.written_bytes(), limit.held_back()), (u64::MAX / 2 + 5, Duration::ZERO));
    }

    #[test]
    fn a_cancelled_writer_does_not_wait() {
        let limit = limit(1);
        assert!(!limit.pass(1 << 40, &AtomicBool::new(true)));
    }
}
