//! The files of a store at one moment, held still while somebody gives them second names.

use std::path::PathBuf;

use crate::log;
use crate::manifest::Manifest;
use crate::types::Seq;

use super::CollectionError;
use super::engine::Engine;

/// What a store consists of at `last_seq`: the manifest as it is on disk, the files that it names, and the log files
/// given here. None of them changes or goes away while this is held.
#[derive(Debug)]
pub struct HeldFiles<'a> {
    /// As last published.
    pub manifest: &'a Manifest,
    /// Log files with every change that the manifest's segments lack, oldest first; none of them grows any more.
    pub log: Vec<PathBuf>,
    /// The last change in them.
    pub last_seq: Seq,
}

/// Holds the files of a store still for as long as `take` runs.
///
/// Writers go on meanwhile: the log continues in a new file, and only the installing of segments waits. The lists of
/// dead rows that the manifest names were written before it, so they know of no change beyond `last_seq`.
///
/// # Errors
/// [`CollectionError`] when the log cannot go on in a new file, or what `take` returns.
pub fn hold_files<T, E: From<CollectionError>>(
    engine: &Engine,
    take: impl FnOnce(HeldFiles<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let shared = &engine.shared;
    // Whoever installs, trims the log or removes files that a manifest named takes this lock first.
    let manifest = shared.manifest();
    let log = shared.log().expect("an engine starts over an open log");
    log.rotate().map_err(CollectionError::from)?;
    let (log, last_seq) = log::closed_files(&shared.paths, manifest.log_start).map_err(CollectionError::from)?;
    take(HeldFiles { manifest: &manifest, log, last_seq })
}
