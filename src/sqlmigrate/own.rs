//! Our own steps: what every target needs before tables of vectors.

use std::path::Path;

use super::{MigrateError, Step};

/// Name, way there, way back.
const STEPS: [(&str, &str, &str); 2] = [
    (
        "001_pannier_schema.sql",
        "create schema if not exists pannier;\n\
         comment on schema pannier is 'Cursors and dead letters of Pannier''s replication';\n",
        "drop schema if exists pannier restrict;\n",
    ),
    (
        "002_pgvector.sql",
        "-- depends: 001\n\
         -- Where the extension is there already, in whatever schema, this changes nothing.\n\
         create extension if not exists vector;\n",
        // Columns of other tables may need it.
        "select 1;\n",
    ),
];

/// The steps, in their order.
///
/// # Errors
/// None but for a mistake in the table above, which a test would find.
pub(super) fn steps() -> Result<Vec<Step>, MigrateError> {
    let read = |(name, up, down): (&str, &str, &str)| Step::read(Path::new(name), up)?.with_down(Path::new(name), down);
    STEPS.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_can_be_read() {
        let steps = steps().unwrap();
        assert!(steps.iter().all(|step| step.has_down && !step.is_alone && !step.up.is_empty()));
        assert_eq!(steps[1].depends, [steps[0].version]);
    }
}
