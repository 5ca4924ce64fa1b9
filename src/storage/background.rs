//! Threads that give way to all others, and how much of a core a thread had.

#[cfg(feature = "local-models")]
use std::{thread::JoinHandle, time::Duration};

/// How far behind others a thread stands: Linux gives it about a tenth of the time that an ordinary one gets of the
/// same core. Less would hold work up for as long as others keep every core busy, as a long import does.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
/// Nanoseconds that it may go on when an ordinary thread wakes: the shortest slice that Linux grants. Without it a
/// search waits for milliseconds. Linux before 6.12 has one slice for all.
#[cfg(target_os = "linux")]
const SLICE_NS: u64 = 100_000;

/// Has the system run the calling thread mostly where nobody else wants a core, for as long as it lives. Only speed
/// depends on it, so a system that refuses, or is not Linux, changes nothing.
///
/// Not for a thread that holds locks that others wait for.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    {
        let attributes = libc::sched_attr {
            size: size_of::<libc::sched_attr>() as u32,
            sched_policy: libc::SCHED_OTHER as u32,
            sched_flags: 0,
            sched_nice: NICE,
            sched_priority: 0,
            sched_runtime: SLICE_NS,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the system reads as many bytes of `attributes` as its `size` says. 0 stands for the calling thread,
        // and there are no flags.
        let refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0;
        if refused {
            tracing::debug!(error = %std::io::Error::last_os_error(), "the priority of a thread stays as it is");
        }
    }
}

/// How long a core has worked on a thread that was not joined yet. `None` where the system does not tell, or is not
/// Linux, or where the thread has ended.
#[cfg(feature = "local-models")]
pub fn cpu_time<T>(thread: &JoinHandle<T>) -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::thread::JoinHandleExt;

        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the thread's handle is neither joined nor detached while it is borrowed, so that the system knows it
        // still. `clock` and `time` are written to and outlive the calls.
        let known = unsafe {
            libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        known.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
    #[cfg(not(target_os = "linux"))]
    {
        _ = thread;
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The number after the parenthesised name and 16 others; see proc_pid_stat(5).
    fn nice_of_this_thread() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn one_thread_gives_way_and_no_other() {
        let before = nice_of_this_thread();
        let gave_way = std::thread::spawn(|| {
            give_way();
            nice_of_this_thread()
        });
        assert_eq!(gave_way.join().unwrap(), NICE);
        assert_eq!(nice_of_this_thread(), before);
    }

    #[cfg(feature = "local-models")]
    #[test]
    fn a_threads_time_is_its_own() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};

        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let busy = std::thread::spawn(move || while !stopped.load(Ordering::Relaxed) {});
        while cpu_time(&busy).unwrap() < Duration::from_millis(20) {}
        stop.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        let (sender, waiting) = std::sync::mpsc::channel::<()>();
        let idle = std::thread::spawn(move || waiting.recv().is_err());
        assert!(cpu_time(&idle).unwrap() < Duration::from_millis(20), "it waits");
        drop(sender);
        assert!(idle.join().unwrap());
    }
}
