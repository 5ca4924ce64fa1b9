//! What group commit waits on. Tests compile `queue.rs` and `group_commit.rs` once more with a scheduler's in its
//! place.

pub(super) use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
pub(super) use std::thread;
