//! Migrations of a store: ordered steps from older formats to the present one, and a journal of what was done.
//!
//! A step finds what it has to do by looking at the files, changes them one by one, each by an atomic publish, and can
//! be begun again from anywhere. docs/operations/migrations.md has the promises.

mod error;
mod journal;
mod run;
mod steps;
#[cfg(test)]
mod tests;

pub use error::MigrateError;
pub use journal::JOURNAL_FILE;
pub use run::{Before, Change, Changed, Migrations, StepState, StepStatus};
