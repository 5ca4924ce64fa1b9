//! Simulated power loss over a whole store: a recorded history of changes to files, every state that a power cut may
//! leave of it, and what a store opened on such a state must hold.

mod check;
mod disk;
mod jobs;
mod killed;
mod power_loss;
mod random;
mod restored;
mod workload;
