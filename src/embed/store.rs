//! The models directory: which models lie there, and whether their files are what they must be.
//!
//! A model's files lie in the directory of its name, laid out as in its repository on the model hub.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{ModelFile, model_files};
use super::lock_file::{LOCK_FILE, Lock, Record, Stamp, hash_file};
use super::registry::{CROSS_ENCODER_FILES, KnownModel, find, known_names};
use super::settings::{MODULES_FILE, says_cross_encoder};
use super::{EmbedError, ModelKind, VerifiedFile};

/// The models directory.
#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

/// A model's name made certain: its canonical form, where it belongs, and what it consists of.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Canonical name.
    pub name: String,
    /// The registry's entry; `None` for a model that somebody installed under a name of their own.
    pub known: Option<&'static KnownModel>,
    /// The directory of its files.
    pub dir: PathBuf,
}

/// How files are compared with what they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// A file that looks unchanged since it was last hashed is not hashed again.
    Changed,
    /// Every byte is read.
    Everything,
}

impl Place {
    /// The files it consists of; only modules.json where that is not there to name them.
    ///
    /// # Errors
    /// What reading modules.json says.
    pub(super) fn files(&self) -> Result<Vec<ModelFile>, EmbedError> {
        if self.known.is_none() && self.is_cross_encoder() {
            return Ok(CROSS_ENCODER_FILES.iter().map(ModelFile::of).collect());
        }
        model_files(self.known, &self.dir.join(MODULES_FILE))
    }

    /// Whether it scores pairs of texts: as the registry says, or its config.json.
    pub(super) fn is_cross_encoder(&self) -> bool {
        match self.known {
            Some(known) => known.kind == ModelKind::CrossEncoder,
            None => !self.dir.join(MODULES_FILE).is_file() && says_cross_encoder(&self.dir.join("config.json")),
        }
    }

    /// Whether some of its files are there.
    pub(super) fn is_installed(&self) -> bool {
        is_model(&self.dir)
    }

    /// Where a file of the model lies.
    pub(super) fn path(&self, file: &ModelFile) -> PathBuf {
        self.dir.join(&file.path)
    }
}

impl Store {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the model of this name or alias belongs, installed or not.
    ///
    /// # Errors
    /// [`EmbedError::Name`] where the name could leave the models directory.
    pub(super) fn place(&self, name: &str) -> Result<Place, EmbedError> {
        let known = find(name);
        let name = known.map_or(name, |known| known.name);
        if !is_allowed(name) {
            return Err(EmbedError::Name { name: shown(name) });
        }
        Ok(Place { name: name.to_owned(), known, dir: self.dir.join(name) })
    }

    /// As [`Store::place`], for a model that must be known or there.
    ///
    /// # Errors
    /// [`EmbedError::Unknown`], and as [`Store::place`].
    pub(super) fn existing(&self, name: &str) -> Result<Place, EmbedError> {
        let place = self.place(name)?;
        if place.known.is_none() && !is_model(&place.dir) {
            return Err(EmbedError::Unknown { name: shown(&place.name), known: known_names(None) });
        }
        Ok(place)
    }

    /// Every place that holds a model, once, by name. A models directory that is not there holds none; one of another
    /// user's within it, which cannot be listed, is left out and logged.
    ///
    /// # Errors
    /// [`EmbedError::Storage`].
    pub(super) fn places(&self) -> Result<Vec<Place>, EmbedError> {
        let mut names = Vec::new();
        for first in subdirectories(&self.dir)? {
            if is_model(&self.dir.join(&first)) {
                names.push(first);
                continue;
            }
            match subdirectories(&self.dir.join(&first)) {
                Ok(second) => names.extend(second.into_iter().map(|second| format!("{first}/{second}"))),
                Err(error) => tracing::warn!(%error, "a part of the models directory is left out"),
            }
        }
        // A directory may have an alias for its name, beside that of the model itself.
        let places = names.iter().filter_map(|name| self.place(name).ok());
        let mut places: Vec<Place> = places.filter(|place| is_model(&place.dir)).collect();
        places.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        places.dedup_by(|a, b| a.name == b.name);
        Ok(places)
    }
}

/// A name as errors show it: the beginning of one that is very long.
fn shown(name: &str) -> String {
    const MAX_CHARS: usize = 100;
    match name.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Compares a model's files with the registry's hashes, or with those of its lock where the registry has none, and
/// records what was hashed.
///
/// # Errors
/// [`EmbedError::NotInstalled`] when a required file is missing, [`EmbedError::Damaged`] when one is another than it
/// must be, [`EmbedError::Malformed`] for a lock that cannot be read, [`EmbedError::Storage`].
pub(super) fn check_files(place: &Place, check: Check) -> Result<Vec<VerifiedFile>, EmbedError> {
    let files = place.files()?;
    let before = match Lock::read(&place.dir) {
        // It says nothing that the registry does not.
        Err(EmbedError::Malformed { .. }) if files.iter().all(|file| file.digest.is_some()) => {
            tracing::warn!(model = place.name, "the hashes of a model's files cannot be read: they are made anew");
            Lock::default()
        }
        read => read?,
    };
    let mut lock = Lock::default();
    let mut verified = Vec::new();
    for file in files {
        let Some(record) = check_file(place, &file, &before, check)? else {
            lock.absent.insert(file.path);
            continue;
        };
        verified.push(VerifiedFile {
            path: place.path(&file),
            size_bytes: record.stamp.size_bytes,
            sha256: record.sha256.clone(),
            pinned: file.digest.is_some(),
        });
        lock.records.insert(file.path, record);
    }
    if lock != before
        && let Err(error) = lock.write(&place.dir)
    {
        // A models directory that is mounted read-only works; its files are hashed at every start.
        tracing::warn!(model = place.name, %error, "the hashes of a model's files could not be recorded");
    }
    Ok(verified)
}

/// `None`: the file is optional and not there.
fn check_file(place: &Place, file: &ModelFile, before: &Lock, check: Check) -> Result<Option<Record>, EmbedError> {
    let (path, recorded) = (place.path(file), before.records.get(&file.path));
    let stamp = match fs::metadata(&path) {
        Ok(metadata) => Stamp::of(&metadata),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // A recorded file that has gone would change the vectors as surely as a changed one.
            if !file.required && recorded.is_none() {
                return Ok(None);
            }
            return Err(missing(place, file));
        }
        Err(e) => return Err(EmbedError::io(&path, "read the length of", e)),
    };
    if before.absent.contains(&file.path) {
        let dir = place.dir.display();
        let reason = format!(
            "the model was first used without this file, which may change its vectors; remove the file, or, to use the \
             model with it, {dir}/{LOCK_FILE}"
        );
        return Err(EmbedError::malformed(path, reason));
    }
    let pinned = file.digest.as_ref().map(|digest| digest.sha256);
    let expected = pinned.or(recorded.map(|record| record.sha256.as_str()));
    if let Some(record) = recorded
        && check == Check::Changed
        && record.stamp == stamp
        && expected == Some(record.sha256.as_str())
    {
        return Ok(Some(record.clone()));
    }
    let record = hash_file(&path)?;
    match expected {
        Some(expected) if expected != record.sha256 => {
            let (name, expected) = (place.name.clone(), expected.to_owned());
            Err(EmbedError::Damaged { name, path, expected, got: record.sha256 })
        }
        _ => Ok(Some(record)),
    }
}

/// What to say of a file that is not there.
pub(super) fn missing(place: &Place, file: &ModelFile) -> EmbedError {
    match file.as_pickle().map(|pickle| place.path(&pickle)).filter(|path| path.is_file()) {
        Some(path) => EmbedError::Pickle { path },
        None => {
            let (name, dir) = (place.name.clone(), place.dir.clone());
            EmbedError::NotInstalled { name, dir, missing: file.path.clone() }
        }
    }
}

/// Whether a model's files, or some of them, lie in `dir`.
fn is_model(dir: &Path) -> bool {
    dir.join(MODULES_FILE).is_file() || dir.join("config.json").is_file()
}

/// One or two parts joined by '/', none of which could mean another directory.
fn is_allowed(name: &str) -> bool {
    let part = |part: &str| {
        (1..=96).contains(&part.len())
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    name.split('/').count() <= 2 && name.split('/').all(part)
}

/// Names of the directories in `dir` that could be a part of a model's name.
fn subdirectories(dir: &Path) -> Result<Vec<String>, EmbedError> {
    let fail = |e| EmbedError::io(dir, "list", e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
            && is_allowed(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use sha2::Digest;

    use super::*;
    use crate::embed::tests::small::known_model;
    use crate::embed::{DEFAULT_MODEL, KnownDigest, KnownFile};

    /// A model of somebody's own, with every required file.
    fn install(dir: &Path) -> Place {
        let place = Store::new(dir.to_owned()).place("me/mine").unwrap();
        fs::create_dir_all(place.dir.join("1_Pooling")).unwrap();
        let modules = r#"[{"path": "", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}]"#;
        fs::write(place.dir.join(MODULES_FILE), modules).unwrap();
        for file in place.files().unwrap() {
            if file.required && file.path != MODULES_FILE {
                fs::write(place.path(&file), &file.path).unwrap();
            }
        }
        place
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let store = Store::new(PathBuf::from("models"));
        for name in ["", "..", "a/..", "../a", "a/b/c", "/a", "a/", "a\\b", ".hidden", "a b", "a/.b", "é"] {
            assert!(matches!(store.place(name), Err(EmbedError::Name { .. })), "{name:?}");
        }
        assert_eq!(store.place("all-minilm-l6-v2").unwrap().dir, Path::new("models").join(DEFAULT_MODEL));
        assert!(matches!(store.existing("who/knows"), Err(EmbedError::Unknown { .. })));
    }

    #[test]
    fn the_first_use_records_and_later_uses_must_match() {
        let dir = tempfile::tempdir().unwrap();
        let place = install(dir.path());
        let first = check_files(&place, Check::Changed).unwrap();
        assert_eq!(first.len(), 5);
        assert!(first.iter().all(|file| !file.pinned));
        assert_eq!(check_files(&place, Check::Everything).unwrap(), first);
        fs::write(place.dir.join("config.json"), "something else").unwrap();
        let error = check_files(&place, Check::Changed).unwrap_err();
        assert!(matches!(&error, EmbedError::Damaged { path, .. } if path.ends_with("config.json")), "{error}");
    }

    #[test]
    fn an_unchanged_stamp_is_trusted_until_everything_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let place = install(dir.path());
        check_files(&place, Check::Changed).unwrap();
        let path = place.dir.join("config.json");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "config.jsom").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(check_files(&place, Check::Changed).is_ok());
        assert!(matches!(check_files(&place, Check::Everything), Err(EmbedError::Damaged { .. })));
    }

    #[test]
    fn pinned_files_must_be_the_genuine_ones_whatever_the_lock_says() {
        let dir = tempfile::tempdir().unwrap();
        let place = Store::new(dir.path().to_owned()).place(DEFAULT_MODEL).unwrap();
        let error = check_files(&place, Check::Changed).unwrap_err();
        assert!(matches!(&error, EmbedError::NotInstalled { missing, .. } if missing == "config.json"), "{error}");
        let text = error.to_string();
        for way in ["pannier model pull sentence", "--from DIR_OR_ARCHIVE", "wheel", "copy its files into"] {
            assert!(text.contains(way), "{way}: {text}");
        }
        fs::create_dir_all(&place.dir).unwrap();
        let config = place.dir.join("config.json");
        fs::write(&config, "{}").unwrap();
        let record = hash_file(&config).unwrap();
        let lock = Lock { records: [("config.json".to_owned(), record)].into(), ..Lock::default() };
        lock.write(&place.dir).unwrap();
        assert!(matches!(check_files(&place, Check::Changed), Err(EmbedError::Damaged { .. })));
    }

    #[test]
    fn a_recorded_file_may_not_vanish_and_a_broken_lock_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let place = install(dir.path());
        let optional = place.dir.join("sentence_bert_config.json");
        fs::write(&optional, "{}").unwrap();
        assert_eq!(check_files(&place, Check::Changed).unwrap().len(), 6);
        fs::remove_file(&optional).unwrap();
        assert!(matches!(check_files(&place, Check::Changed), Err(EmbedError::NotInstalled { .. })));
        for nonsense in [b"nonsense".as_slice(), b"\xff\xfe\n"] {
            fs::write(place.dir.join(LOCK_FILE), nonsense).unwrap();
            assert!(matches!(check_files(&place, Check::Changed), Err(EmbedError::Malformed { .. })));
        }
    }

    #[test]
    fn a_file_that_may_be_there_and_was_not_may_not_appear() {
        let dir = tempfile::tempdir().unwrap();
        let place = install(dir.path());
        check_files(&place, Check::Changed).unwrap();
        let optional = place.dir.join("sentence_bert_config.json");
        fs::write(&optional, "{}").unwrap();
        for check in [Check::Changed, Check::Everything] {
            let error = check_files(&place, check).unwrap_err();
            assert!(matches!(&error, EmbedError::Malformed { path, .. } if *path == optional), "{error}");
        }
        fs::remove_file(&optional).unwrap();
        check_files(&place, Check::Everything).unwrap();
        // A lock of an earlier version does not say what was absent.
        let lock = place.dir.join(LOCK_FILE);
        let text = fs::read_to_string(&lock).unwrap().replace("lock 2", "lock 1");
        fs::write(
            &lock,
            text.lines().filter(|line| !line.starts_with("absent ")).map(|l| format!("{l}\n")).collect::<String>(),
        )
        .unwrap();
        fs::write(&optional, "{}").unwrap();
        assert_eq!(check_files(&place, Check::Changed).unwrap().len(), 6);
    }

    #[test]
    fn a_broken_lock_of_files_that_are_all_pinned_is_made_anew() {
        let digest = |text: &str| {
            let sha256 = crate::embed::lock_file::hex(&sha2::Sha256::digest(text)).leak();
            Some(KnownDigest { size_bytes: text.len() as u64, sha256 })
        };
        let file = |path| KnownFile { path, required: true, digest: digest(path) };
        let files = vec![file("config.json"), file("model.safetensors")].leak();
        let known = Box::leak(Box::new(KnownModel { files, ..known_model("me/pinned") }));
        let dir = tempfile::tempdir().unwrap();
        let place = Place { name: "me/pinned".to_owned(), known: Some(known), dir: dir.path().to_owned() };
        for file in place.files().unwrap() {
            fs::write(place.path(&file), &file.path).unwrap();
        }
        check_files(&place, Check::Changed).unwrap();
        let whole = fs::read(dir.path().join(LOCK_FILE)).unwrap();
        fs::write(dir.path().join(LOCK_FILE), &whole[..whole.len() / 2]).unwrap();
        assert_eq!(check_files(&place, Check::Changed).unwrap().len(), 2);
        assert_eq!(fs::read(dir.path().join(LOCK_FILE)).unwrap(), whole);
    }

    #[test]
    fn places_are_found_in_one_and_two_levels() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path());
        fs::create_dir_all(dir.path().join("solo")).unwrap();
        fs::write(dir.path().join("solo/config.json"), "{}").unwrap();
        fs::create_dir_all(dir.path().join("empty/inside")).unwrap();
        let store = Store::new(dir.path().to_owned());
        let names: Vec<String> = store.places().unwrap().into_iter().map(|place| place.name).collect();
        assert_eq!(names, ["me/mine", "solo"]);
        assert!(Store::new(dir.path().join("absent")).places().unwrap().is_empty());
    }

    #[test]
    fn a_model_in_a_directory_of_its_alias_is_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["zzz", "all-MiniLM-L6-v2", DEFAULT_MODEL] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("config.json"), "{}").unwrap();
        }
        let places = Store::new(dir.path().to_owned()).places().unwrap();
        let names: Vec<String> = places.into_iter().map(|place| place.name).collect();
        assert_eq!(names, [DEFAULT_MODEL, "zzz"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_that_cannot_be_listed_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path());
        // What root cannot list either: the network of a process that has ended and was not waited for.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let of_child = |file: &str| PathBuf::from(format!("/proc/{}/{file}", child.id()));
        while !fs::read_to_string(of_child("stat")).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        std::os::unix::fs::symlink(of_child("net"), dir.path().join("closed")).unwrap();
        assert!(subdirectories(&dir.path().join("closed")).is_err());
        let places = Store::new(dir.path().to_owned()).places().unwrap();
        assert_eq!(places.into_iter().map(|place| place.name).collect::<Vec<_>>(), ["me/mine"]);
        child.wait().unwrap();
    }
}
