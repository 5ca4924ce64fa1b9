//! Manifests of version 1 in the present version: definitions say how keyword search reads texts.

use crate::manifest::Manifest;
use crate::storage::DataPaths;

use super::super::MigrateError;
use super::{Down, Step, Work};

pub(super) const STEP: Step = Step {
    id: 2,
    name: "manifest_text",
    about: "manifest format 1 to 2: definitions say how keyword search reads texts",
    noun: "manifest",
    revision: 1,
    needs: &[],
    plan,
    up,
    down: Down::Impossible("a manifest of version 1 cannot say in which language texts are read"),
    verify,
};

const NEW: u32 = 2;

fn plan(paths: &DataPaths) -> Result<Work, MigrateError> {
    older_than(paths, NEW)
}

fn up(paths: &DataPaths) -> Result<(), MigrateError> {
    publish_older_than(paths, NEW)
}

/// The manifest, where its version is below `new`.
pub(super) fn older_than(paths: &DataPaths, new: u32) -> Result<Work, MigrateError> {
    let (version, bytes) = Manifest::stored_version(paths)?;
    Ok(if version < new { Work { files: 1, bytes } } else { Work::default() })
}

/// Publishing writes the present version; the steps for the versions between then find nothing to do.
pub(super) fn publish_older_than(paths: &DataPaths, new: u32) -> Result<(), MigrateError> {
    match older_than(paths, new)?.files {
        0 => Ok(()),
        _ => Ok(Manifest::load(paths)?.publish(paths)?),
    }
}

/// Reading checks everything.
pub(super) fn verify(paths: &DataPaths) -> Result<(), MigrateError> {
    Ok(Manifest::load(paths).map(drop)?)
}
