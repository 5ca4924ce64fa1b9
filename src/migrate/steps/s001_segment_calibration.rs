//! Segments of version 1 as version 2, whose graphs can say which effort finds what.

use std::path::PathBuf;

use crate::manifest::Manifest;
use crate::segment::{Segment, downgrade, file_version, upgrade};
use crate::storage::{DataPaths, StorageError};

use super::super::MigrateError;
use super::{Down, Step, Work};

pub(super) const STEP: Step = Step {
    id: 1,
    name: "segment_calibration",
    about: "segment format 1 to 2: a place for the calibration of graphs, codes rounded as kernels do",
    noun: "segment",
    revision: 1,
    needs: &[],
    plan,
    up,
    down: Down::By(down),
    verify,
};

const OLD: u32 = 1;

fn segments(paths: &DataPaths) -> Result<Vec<PathBuf>, MigrateError> {
    let manifest = Manifest::read(paths)?;
    let of = |collection: &crate::manifest::CollectionEntry| {
        let (id, generation) = (collection.id.0, collection.generation);
        collection.segments.iter().map(|s| paths.segment_file(id, generation, s.id.0)).collect::<Vec<_>>()
    };
    Ok(manifest.collections.iter().flat_map(of).collect())
}

fn of_version(paths: &DataPaths, is: impl Fn(u32) -> bool) -> Result<Vec<PathBuf>, MigrateError> {
    let mut found = Vec::new();
    for path in segments(paths)? {
        if is(file_version(&path)?) {
            found.push(path);
        }
    }
    Ok(found)
}

fn plan(paths: &DataPaths) -> Result<Work, MigrateError> {
    let mut work = Work::default();
    for path in of_version(paths, |version| version == OLD)? {
        work.files += 1;
        work.bytes += path.metadata().map_err(|e| StorageError::io(&path, "read the length of", e))?.len();
    }
    Ok(work)
}

fn up(paths: &DataPaths) -> Result<(), MigrateError> {
    of_version(paths, |version| version == OLD)?.iter().try_for_each(|path| Ok(upgrade(path)?))
}

fn down(paths: &DataPaths) -> Result<(), MigrateError> {
    of_version(paths, |version| version == OLD + 1)?.iter().try_for_each(|path| Ok(downgrade(path)?))
}

fn verify(paths: &DataPaths) -> Result<(), MigrateError> {
    segments(paths)?.iter().try_for_each(|path| Ok(Segment::open_any(path)?.verify(|_| {})?))
}
