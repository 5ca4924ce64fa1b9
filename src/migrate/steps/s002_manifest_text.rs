//! Manifests of version 1 in the present version: definitions say how keyword search reads texts.

use crate::manifest::{Manifest, ManifestError};
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

const OLD: u32 = 1;

fn plan(paths: &DataPaths) -> Result<Work, MigrateError> {
    let (version, bytes) = Manifest::stored_version(paths)?;
    Ok(if version == OLD { Work { files: 1, bytes } } else { Work::default() })
}

/// Publishing writes the present version; the steps for the versions between then find nothing to do.
fn up(paths: &DataPaths) -> Result<(), MigrateError> {
    match plan(paths)?.files {
        0 => Ok(()),
        _ => Ok(Manifest::load(paths)?.publish(paths)?),
    }
}

fn verify(paths: &DataPaths) -> Result<(), MigrateError> {
    Manifest::load(paths).map(drop).map_err(|error: ManifestError| error.into())
}
