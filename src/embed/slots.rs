//! Loaded models by name: each is loaded once, and why one cannot be used is remembered until its files look otherwise.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::EmbedError;
use super::batcher::Cancellation;
use super::lock_file::{LOCK_FILE, Stamp};
use super::settings::MODULES_FILE;
use super::store::Place;

/// How long a model is refused without a look into its files, where they look unchanged. Reading what looks the same
/// may end otherwise, as where memory had run out.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// A slot for each model that was asked for.
#[derive(Debug)]
pub(super) struct Slots<T>(Mutex<HashMap<String, Arc<Slot<T>>>>);

#[derive(Debug)]
struct Slot<T> {
    model: OnceLock<Arc<T>>,
    /// Why it could not be loaded. The lock is held while it is loaded, so that nobody loads it twice; that of the map
    /// is not held with it.
    refusal: Mutex<Option<Refusal>>,
}

/// Why a model cannot be used, and of which files that was said.
#[derive(Debug)]
struct Refusal {
    error: EmbedError,
    looks: Vec<Option<Look>>,
    until: Instant,
}

/// What tells that a file is another now, without reading it.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    stamp: Stamp,
    identity: Identity,
}

/// Inode, and when it was changed, in seconds and nanoseconds; nothing where the system is not Unix.
type Identity = Option<(u64, i64, i64)>;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Slots<T> {
    /// The model of this canonical name, if it is loaded. Waits for nobody who loads.
    pub(super) fn loaded(&self, name: &str) -> Option<Arc<T>> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(name).and_then(|slot| slot.model.get()).map(Arc::clone)
    }

    /// The model of this place, which `load` loads where it is not yet. Waits where others load it.
    ///
    /// # Errors
    /// What `load` says, at once where it said so of the same files; [`EmbedError::Cancelled`] for a caller that has
    /// gone before its turn.
    pub(super) fn get_or_load(
        &self,
        place: &Place,
        load: impl FnOnce() -> Result<T, EmbedError>,
    ) -> Result<Arc<T>, EmbedError> {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = || Arc::new(Slot { model: OnceLock::new(), refusal: Mutex::default() });
            Arc::clone(slots.entry(place.name.clone()).or_insert_with(slot))
        };
        let mut refusal = slot.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = slot.model.get() {
            return Ok(Arc::clone(model));
        }
        let looks = looks(place);
        if let Some(error) = refusal.as_ref().and_then(|refusal| refusal.of(&looks, Instant::now())) {
            return Err(error);
        }
        Cancellation::check_current()?;
        *refusal = None;
        match load() {
            Ok(model) => Ok(Arc::clone(slot.model.get_or_init(|| Arc::new(model)))),
            Err(error) => {
                let until = Instant::now() + REFUSED_FOR;
                *refusal = error.of_files().map(|error| Refusal { error, looks, until });
                Err(error)
            }
        }
    }
}

impl Refusal {
    /// What there is to say, unless the files are to be read again.
    fn of(&self, looks: &[Option<Look>], now: Instant) -> Option<EmbedError> {
        if self.looks == looks && now < self.until { self.error.of_files() } else { None }
    }
}

/// How all files look that decide whether the model can be used.
fn looks(place: &Place) -> Vec<Option<Look>> {
    // Those that name the others, and what they must be.
    let mut paths = [MODULES_FILE, "config.json", LOCK_FILE].map(|name| place.dir.join(name)).to_vec();
    for file in place.files().unwrap_or_default() {
        paths.extend(file.as_pickle().map(|pickle| place.path(&pickle)));
        paths.push(place.path(&file));
    }
    let look = |metadata: Metadata| Look { stamp: Stamp::of(&metadata), identity: identity(&metadata) };
    paths.iter().map(|path| fs::metadata(path).ok().map(look)).collect()
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use super::*;
    use crate::embed::Models;
    use crate::embed::store::Store;
    use crate::embed::tests::small::{install, install_cross_encoder};

    const NAME: &str = "me/small";

    fn installed(dir: &Path) -> Place {
        install(dir, NAME);
        Store::new(dir.to_owned()).place(NAME).unwrap()
    }

    fn damaged(place: &Place) -> EmbedError {
        let (expected, got) = ("a".repeat(64), "b".repeat(64));
        EmbedError::Damaged { name: place.name.clone(), path: place.dir.join("model.safetensors"), expected, got }
    }

    #[test]
    fn a_model_that_cannot_be_used_is_read_again_once_a_file_of_it_looks_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let place = installed(dir.path());
        let (slots, tries) = (Slots::<u8>::default(), Cell::new(0));
        let refused = || {
            let load = || {
                tries.set(tries.get() + 1);
                Err(damaged(&place))
            };
            slots.get_or_load(&place, load).unwrap_err().to_string()
        };
        // The last three were not there before.
        let files =
            ["model.safetensors", "1_Pooling/config.json", "tokenizer_config.json", "pytorch_model.bin", LOCK_FILE];
        for (read, file) in (1..).zip(files) {
            for _ in 0..3 {
                assert_eq!(refused(), damaged(&place).to_string());
            }
            assert_eq!(tries.get(), read, "before {file} changes");
            fs::write(place.dir.join(file), "something else").unwrap();
        }
        assert_eq!(*slots.get_or_load(&place, || Ok(7)).unwrap(), 7);
        assert_eq!(*slots.get_or_load(&place, || panic!("it is loaded")).unwrap(), 7);
        assert_eq!((slots.loaded(NAME).as_deref(), slots.loaded("me/other")), (Some(&7), None));
    }

    #[test]
    fn what_its_files_do_not_say_is_not_remembered_nor_is_anything_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let place = installed(dir.path());
        let slots = Slots::<u8>::default();
        let threads = || Err(EmbedError::Threads { threads: 1, reason: "none is left".to_owned() });
        slots.get_or_load(&place, threads).unwrap_err();
        assert_eq!(*slots.get_or_load(&place, || Ok(7)).unwrap(), 7);
        let now = Instant::now();
        let refusal = Refusal { error: damaged(&place), looks: looks(&place), until: now + REFUSED_FOR };
        let stands = |at| refusal.of(&looks(&place), at).is_some();
        assert!(stands(now) && !stands(now + REFUSED_FOR));
    }

    #[test]
    fn who_has_gone_loads_nothing_and_one_model_does_not_keep_another_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let place = installed(dir.path());
        let slots = Slots::<u8>::default();
        let gone = Cancellation::new();
        gone.cancel();
        let load = || -> Result<u8, EmbedError> { panic!("nobody waits for it") };
        let error = gone.scope(|| slots.get_or_load(&place, load)).unwrap_err();
        assert!(matches!(error, EmbedError::Cancelled), "{error}");
        let other = Place { name: "me/other".to_owned(), ..place.clone() };
        let both = slots.get_or_load(&place, || Ok(1 + *slots.get_or_load(&other, || Ok(1))?)).unwrap();
        assert_eq!(*both, 2);
    }

    #[test]
    fn a_damaged_model_is_refused_until_it_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let models = Models::new(dir.path().to_owned(), None);
        let text_model = || models.load(NAME).map(drop);
        let cross_encoder = || models.load_cross_encoder("me/judge").map(drop);
        let paths = [install(dir.path(), NAME), install_cross_encoder(dir.path(), "me/judge", |_| {})];
        let loads: [&dyn Fn() -> Result<(), EmbedError>; 2] = [&text_model, &cross_encoder];
        for ((path, name), load) in paths.into_iter().zip([NAME, "me/judge"]).zip(loads) {
            models.verify(name).unwrap();
            let weights = path.join("model.safetensors");
            let whole = fs::read(&weights).unwrap();
            fs::write(&weights, &whole[1..]).unwrap();
            for _ in 0..2 {
                let error = load().unwrap_err();
                assert!(matches!(error, EmbedError::Damaged { .. }), "{error}");
            }
            fs::write(&weights, &whole).unwrap();
            load().unwrap();
        }
    }
}
