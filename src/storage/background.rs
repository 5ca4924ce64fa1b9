//! Threads that give way to all others.

/// How far behind others a thread stands: the last place, at which Linux gives a thread about one seventieth of the time
/// that an ordinary one gets of the same core.
#[cfg(target_os = "linux")]
const NICE: i32 = 19;

/// Has the system run the calling thread where nobody else wants a core, for as long as it lives. Only speed depends on it,
/// so a system that refuses, or is not Linux, changes nothing.
///
/// Not for a thread that holds locks that others wait for.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the call takes three numbers. On Linux 0 stands for the calling thread.
        let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0;
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
