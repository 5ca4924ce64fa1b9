//! Everything that is tested from outside: one binary, a module each.

mod api;
mod cli;
mod crash;
mod damage;
mod filters;
mod histories;
#[cfg(feature = "text")]
mod keywords;
mod kinds;
mod postgres;
mod recall;
mod replicate;
mod rewrites;
mod support;
mod tidy;
