//! Which migrations are applied, which wait, and what does not fit together.

use super::table::Row;
use super::{MigrateError, Step, Version};

/// A migration that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedStep {
    /// Its number.
    pub version: Version,
    /// Its name, where the table or a file has one.
    pub name: Option<String>,
    /// When, as the database writes times.
    pub applied_at: Option<String>,
    /// Whether its file is still there.
    pub has_file: bool,
    /// Whether the file is another than the one that was applied. `false` too where nobody noted a checksum.
    pub is_changed: bool,
}

/// Where a database stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// By version.
    pub applied: Vec<AppliedStep>,
    /// In the order in which they would be applied.
    pub pending: Vec<Step>,
}

impl Status {
    pub(super) fn of(steps: &[Step], rows: &[Row]) -> Self {
        let applied = rows.iter().map(|row| {
            let step = steps.iter().find(|step| step.version == row.version);
            let differs = |step: &Step| row.checksum.as_ref().is_some_and(|checksum| *checksum != step.checksum);
            AppliedStep {
                version: row.version,
                name: row.name.clone().or_else(|| step.map(|step| step.name.clone())),
                applied_at: row.applied_at.clone(),
                has_file: step.is_some(),
                is_changed: step.is_some_and(differs),
            }
        });
        let is_applied = |step: &&Step| rows.iter().any(|row| row.version == step.version);
        Self { applied: applied.collect(), pending: steps.iter().filter(|step| !is_applied(step)).cloned().collect() }
    }

    /// Refuses files that were edited after they were applied and, unless that is allowed, applied ones without a file;
    /// and what depends on one that has no file and was not applied.
    pub(super) fn check(&self, steps: &[Step], allow_missing: bool) -> Result<(), MigrateError> {
        for applied in &self.applied {
            if applied.is_changed
                && let Some(step) = steps.iter().find(|step| step.version == applied.version)
            {
                return Err(MigrateError::Changed { path: step.path.clone() });
            }
            if !applied.has_file && !allow_missing {
                return Err(MigrateError::Missing { version: applied.version });
            }
        }
        let is_known = |version: &Version| {
            steps.iter().any(|step| step.version == *version) || self.applied.iter().any(|row| row.version == *version)
        };
        for step in &self.pending {
            if let Some(&version) = step.depends.iter().find(|version| !is_known(version)) {
                let reason = "which has no file and was not applied";
                return Err(MigrateError::Dependency { path: step.path.clone(), version, reason });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn row(version: u64, checksum: Option<&str>) -> Row {
        Row { version: Version(version), name: None, checksum: checksum.map(str::to_owned), applied_at: None }
    }

    #[test]
    fn edited_and_lost_files_are_told_apart() {
        let steps =
            [Step::read(Path::new("1_a.sql"), "select 1").unwrap(), Step::read(Path::new("2_b.sql"), "").unwrap()];
        let status = Status::of(&steps, &[row(1, None)]);
        assert_eq!(status.pending.len(), 1);
        assert!(status.check(&steps, false).is_ok(), "rows of another program have no checksum");
        let changed = Status::of(&steps, &[row(1, Some("0"))]);
        assert!(matches!(changed.check(&steps, true), Err(MigrateError::Changed { .. })));
        let lost = Status::of(&steps, &[row(7, None)]);
        assert!(matches!(lost.check(&steps, false), Err(MigrateError::Missing { version: Version(7) })));
        assert!(lost.check(&steps, true).is_ok());
        let steps = [Step::read(Path::new("8_b.sql"), "-- depends: 007\nselect 1").unwrap()];
        assert!(Status::of(&steps, &[row(7, None)]).check(&steps, true).is_ok(), "what was applied needs no file");
        let error = Status::of(&steps, &[row(6, None)]).check(&steps, true).unwrap_err().to_string();
        assert!(error.contains("8_b.sql: it depends on 007, which has no file"), "{error}");
    }
}
