//! The steps, in order: one file each. A step is never changed once it was released; what is wrong gets a new one.

mod s001_segment_calibration;
mod s002_manifest_text;
mod s003_manifest_template;

use sha2::{Digest, Sha256};

use crate::storage::DataPaths;

use super::MigrateError;

/// What a step would do, found by looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Files that it writes again.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// How a step is undone.
#[derive(Clone, Copy)]
pub(super) enum Down {
    /// By this.
    By(fn(&DataPaths) -> Result<(), MigrateError>),
    /// Not at all.
    Impossible(&'static str),
}

/// One step.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Its place in the order, from 1.
    pub(super) id: u32,
    pub(super) name: &'static str,
    /// What it does, for a person.
    pub(super) about: &'static str,
    /// What its files are called in a report.
    pub(super) noun: &'static str,
    /// Raised when the step does something else than before it was released.
    pub(super) revision: u32,
    /// Steps that must have been applied before.
    pub(super) needs: &'static [u32],
    /// What there is to do; nothing where the store is as the step leaves it.
    pub(super) plan: fn(&DataPaths) -> Result<Work, MigrateError>,
    /// Does it; begun again from anywhere, it goes on.
    pub(super) up: fn(&DataPaths) -> Result<(), MigrateError>,
    pub(super) down: Down,
    /// What is wrong after it; checked beyond there being nothing left to do.
    pub(super) verify: fn(&DataPaths) -> Result<(), MigrateError>,
}

/// Every step, in order.
pub(super) const STEPS: &[Step] =
    &[s001_segment_calibration::STEP, s002_manifest_text::STEP, s003_manifest_template::STEP];

impl Step {
    /// Names what the step is, so that a journal shows when another one has taken its number.
    pub(super) fn checksum(&self) -> String {
        let Self { id, name, about, noun, revision, needs, .. } = self;
        let digest = Sha256::digest(format!("{id} {name} {about} {noun} {revision} {needs:?}"));
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
