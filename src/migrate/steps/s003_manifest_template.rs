//! Manifests of version 2 in the present version: definitions say how fields become texts, and what may not be stored.

use crate::storage::DataPaths;

use super::super::MigrateError;
use super::s002_manifest_text::{older_than, publish_older_than, verify};
use super::{Down, Step, Work};

pub(super) const STEP: Step = Step {
    id: 3,
    name: "manifest_template",
    about: "manifest format 2 to 3: definitions say how fields become texts, and which personal data are refused",
    noun: "manifest",
    revision: 1,
    needs: &[2],
    plan,
    up,
    down: Down::Impossible("a manifest of version 2 cannot say how fields become texts"),
    verify,
};

const NEW: u32 = 3;

fn plan(paths: &DataPaths) -> Result<Work, MigrateError> {
    older_than(paths, NEW)
}

fn up(paths: &DataPaths) -> Result<(), MigrateError> {
    publish_older_than(paths, NEW)
}
