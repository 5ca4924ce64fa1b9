//! Threads that give way to all others.

/// How far behind others a thread stands: Linux gives it about a tenth of the time that an ordinary one gets of the same
/// core. Less would hold work up for as long as others keep every core busy, as a long import does.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
/// So long it may go on, in nanoseconds, when an ordinary thread wakes: the shortest slice that Linux grants. Without it a
/// search waits for milliseconds. Linux before 6.12 has one slice for all.
#[cfg(target_os = "linux")]
const SLICE_NS: u64 = 100_000;

/// Has the system run the calling thread mostly where nobody else wants a core, for as long as it lives. Only speed depends on
/// it, so a system that refuses, or is not Linux, changes nothing.
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
        // SAFETY: the system reads as many bytes of `attributes` as its `size` says. 0 stands for the calling thread, and
        // there are no flags.
        let refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0;
        if refused {
            tracing::debug!(error = %std::io::Error::last_os_error(), "the priority of a thread stays as it is");
        }
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
}
