//! Everything that is tested from outside: one binary, a module each.

mod api;
mod bits;
mod chunks;
mod cli;
#[cfg(unix)]
mod clients;
#[cfg(unix)]
mod crash;
mod damage;
#[cfg(target_os = "linux")]
mod disk_failure;
mod filters;
mod histories;
mod hostile_vectors;
#[cfg(feature = "text")]
mod keywords;
mod kinds;
#[cfg(unix)]
mod linearizable;
mod migrations;
mod patches;
mod postgres;
mod quiet;
mod recall;
mod replicate;
mod rewrites;
#[cfg(target_os = "linux")]
mod soak;
mod support;
mod templates;
mod tidy;
