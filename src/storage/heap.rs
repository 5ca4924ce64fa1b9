//! Memory that was freed, and that the allocator keeps.

/// Gives free memory back to the system. glibc keeps what many threads have freed, after large requests gigabytes of
/// it; other allocators need no telling. Takes up to some milliseconds, in which threads that allocate may wait.
pub fn give_back_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes the allocator's own locks, and touches nothing but memory that is free.
        unsafe { libc::malloc_trim(0) };
    }
}
