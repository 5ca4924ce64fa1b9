//! Pulls from directories, archives and a hub on this machine, sound and unsound.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::hub::{self, Hub};
use super::*;
use crate::embed::lock_file::hash_file;
use crate::embed::registry::{CROSS_ENCODER_FILES, KnownDigest, KnownFile, KnownModel};
use crate::embed::tests::small::{install, install_cross_encoder, known_model};
use crate::embed::{DEFAULT_MODEL, InputKind, ModelKind, Models};
use crate::storage::fault::{Faults, Then};

const NAME: &str = "me/small";

fn ignore(_: PullProgress) {}

/// The files of the small model as an archive, below `root`, those named in `without` left out.
fn archive(dir: &Path, root: &str, without: &[&str]) -> PathBuf {
    pack(&install(&dir.join("source"), NAME), dir.join("model.whl"), root, without)
}

/// The files of a directory as an archive, as [`archive`].
fn pack(model: &Path, path: PathBuf, root: &str, without: &[&str]) -> PathBuf {
    let mut zip = ZipWriter::new(fs::File::create(&path).unwrap());
    for file in files(model).iter().filter(|file| !without.contains(&file.as_str())) {
        zip.start_file(format!("{root}{file}"), SimpleFileOptions::default()).unwrap();
        zip.write_all(&fs::read(model.join(file)).unwrap()).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// Files below `dir`, by their path relative to it.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_directory_and_an_archive_install_a_model_that_works() {
    for root in ["", "package/model/", "a/b/c/"] {
        let dir = tempfile::tempdir().unwrap();
        let from = archive(dir.path(), root, &[]);
        for from in [from, dir.path().join("source").join(NAME)] {
            let target = tempfile::tempdir().unwrap();
            let models = Models::new(target.path().join("models"), None);
            let mut seen = Vec::new();
            let pulled = models.pull(NAME, Some(&from), &mut |progress| seen.push(progress)).unwrap();
            assert_eq!((pulled.dim, pulled.licence), (64, None));
            assert_eq!(models.load(NAME).unwrap().embed(&["a"], InputKind::Query).unwrap().vectors.len(), 1);
            let last = seen.last().unwrap();
            assert_eq!((last.file.as_str(), Some(last.done_bytes)), ("model.safetensors", last.total_bytes));
            let left = files(&target.path().join("models/.pulling"));
            assert_eq!(left, ["me--small.lock"], "{left:?}");
            // Installed and sound: no source is looked at.
            models.pull(NAME, Some(Path::new("/nowhere")), &mut |_| panic!("nothing to do")).unwrap();
        }
    }
}

#[test]
fn an_installed_package_is_taken_by_its_inner_directory() {
    let dir = tempfile::tempdir().unwrap();
    let model = install(dir.path(), "package/model");
    let models = Models::new(dir.path().join("models"), None);
    models.pull(NAME, model.parent(), &mut ignore).unwrap();
    models.load(NAME).unwrap();
}

#[test]
fn a_cross_encoder_of_ones_own_is_installed_once_it_was_tried() {
    let dir = tempfile::tempdir().unwrap();
    let source = install_cross_encoder(dir.path(), "source", |_| {});
    let archive = pack(&source, dir.path().join("judge.zip"), "judge/", &[]);
    for from in [&source, &archive] {
        let target = tempfile::tempdir().unwrap();
        let models = Models::new(target.path().to_owned(), None);
        let pulled = models.pull("me/judge", Some(from), &mut ignore).unwrap();
        assert_eq!((pulled.kind, pulled.dim), (ModelKind::CrossEncoder, 1));
        assert_eq!(models.load_cross_encoder("me/judge").unwrap().score("a", &["b"]).unwrap().len(), 1);
        // A damaged file comes from the source again.
        fs::write(models.dir().join("me/judge/tokenizer.json"), "{}").unwrap();
        models.pull("me/judge", Some(from), &mut ignore).unwrap();
        models.verify("me/judge").unwrap();
    }
    let two_labels = |config: &mut serde_json::Value| config["id2label"] = serde_json::json!({"0": "a", "1": "b"});
    let no_head = |config: &mut serde_json::Value| config["architectures"] = serde_json::json!(["BertModel"]);
    let models = Models::new(dir.path().join("models"), None);
    for (from, says) in [
        (install_cross_encoder(dir.path(), "labels", two_labels), "several labels"),
        (install_cross_encoder(dir.path(), "encoder", no_head), "it has no modules.json"),
        (pack(&source, dir.path().join("lacking.zip"), "", &["tokenizer.json"]), "it has no tokenizer.json"),
    ] {
        let error = models.pull("me/judge", Some(&from), &mut ignore).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(models.installed().unwrap().is_empty());
    }
}

#[test]
fn what_another_client_of_the_hub_has_fetched_is_found() {
    let dir = tempfile::tempdir().unwrap();
    // Lays a snapshot out as those clients do.
    let cache = |name: &str, model: &Path| {
        let (cache, commit) = (dir.path().join("cache").join(name), "c0ffee".to_owned());
        let repository = cache.join("models--me--known");
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), &commit).unwrap();
        for file in files(model) {
            let to = repository.join("snapshots").join(&commit).join(&file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(model.join(&file), to).unwrap();
        }
        cache
    };
    let judge = install_cross_encoder(dir.path(), "judge", |_| {});
    let text_model = install(dir.path(), "source");
    let scores = KnownModel { kind: ModelKind::CrossEncoder, files: &CROSS_ENCODER_FILES, ..known_model("me/known") };
    let [scores, unlisted]: [&'static KnownModel; 2] =
        [Box::leak(Box::new(scores)), Box::leak(Box::new(known_model("me/known")))];
    let listed = known(&text_model).known.unwrap();
    for (name, model, known) in
        [("judge", &judge, scores), ("listed", &text_model, listed), ("unlisted", &text_model, unlisted)]
    {
        let cache = cache(name, model);
        let cached = || hub::cached_in(hf_hub::Cache::new(cache.clone()), known);
        let place = Place { name: "me/known".to_owned(), known: Some(known), dir: cache.join("installed") };
        fs::create_dir_all(&place.dir).unwrap();
        take(&place, &mut cached().expect("it is whole"), &mut ignore).unwrap();
        assert_eq!(
            fs::read(place.dir.join("model.safetensors")).unwrap(),
            fs::read(model.join("model.safetensors")).unwrap(),
            "{name}"
        );
        fs::remove_file(cache.join("models--me--known/snapshots/c0ffee/model.safetensors")).unwrap();
        assert!(cached().is_none(), "{name}: its weights are not there");
    }
}

#[test]
fn what_a_source_lacks_or_breaks_is_reported_and_nothing_stands_half() {
    let dir = tempfile::tempdir().unwrap();
    let whole = archive(dir.path(), "", &[]);
    let bytes = fs::read(&whole).unwrap();
    let cut = dir.path().join("cut.zip");
    fs::write(&cut, &bytes[..bytes.len() - 40]).unwrap();
    let flipped = dir.path().join("flipped.zip");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    fs::write(&flipped, &damaged).unwrap();
    let lacking = archive(dir.path(), "", &["tokenizer.json"]);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for (from, says) in [
        (cut, ""),
        (flipped, "model.safetensors"),
        (lacking, "it has no tokenizer.json"),
        (empty, "it has no modules.json"),
        (dir.path().join("absent.zip"), "cannot open"),
    ] {
        let target = tempfile::tempdir().unwrap();
        let models = Models::new(target.path().to_owned(), None);
        let error = models.pull(NAME, Some(&from), &mut ignore).unwrap_err();
        assert!(matches!(&error, EmbedError::Pull { failures, .. } if failures.len() == 1), "{error}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains(from.to_str().unwrap()), "{text}");
        assert!(models.load(NAME).is_err());
        let left = files(target.path());
        assert!(left.iter().all(|file| !file.ends_with("tmp") && !file.ends_with("safetensors")), "{left:?}");
    }
}

#[test]
fn files_of_a_known_model_must_be_the_genuine_ones() {
    let dir = tempfile::tempdir().unwrap();
    let impostor = install(dir.path(), "impostor");
    let models = Models::new(dir.path().join("models"), None);
    let error = models.pull(DEFAULT_MODEL, Some(&impostor), &mut ignore).unwrap_err().to_string();
    assert!(error.contains("config.json is not the file it must be: its length is"), "{error}");
    // The genuine length is not enough.
    fs::write(impostor.join("config.json"), vec![b' '; 612]).unwrap();
    let error = models.pull(DEFAULT_MODEL, Some(&impostor), &mut ignore).unwrap_err().to_string();
    assert!(error.contains("its sha256 is") && error.contains("953f9c0d"), "{error}");
    assert!(!models.dir().join(DEFAULT_MODEL).join("config.json").exists());
}

#[test]
fn a_damaged_file_is_fetched_again_and_must_match_the_first_pull() {
    let dir = tempfile::tempdir().unwrap();
    let from = archive(dir.path(), "", &[]);
    let models = Models::new(dir.path().join("models"), None);
    models.pull(NAME, Some(&from), &mut ignore).unwrap();
    let config = models.dir().join(NAME).join("config.json");
    let genuine = fs::read(&config).unwrap();
    fs::write(&config, "{}").unwrap();
    assert!(matches!(models.load(NAME), Err(EmbedError::Damaged { .. })));
    let mut fetched = Vec::new();
    models.pull(NAME, Some(&from), &mut |progress| fetched.push(progress.file)).unwrap();
    assert_eq!((fetched, fs::read(&config).unwrap()), (vec!["config.json".to_owned()], genuine));
    // Another model under the same name is not this one.
    fs::write(&config, "{}").unwrap();
    let other = install(dir.path(), "other");
    let text = fs::read_to_string(other.join("config.json")).unwrap().replace("1e-12", "1e-05");
    fs::write(other.join("config.json"), text).unwrap();
    let error = models.pull(NAME, Some(&other), &mut ignore).unwrap_err().to_string();
    assert!(error.contains("config.json is not the file it must be"), "{error}");
}

#[test]
fn a_model_that_cannot_be_used_is_not_installed_and_makes_room_for_one_that_can() {
    let dir = tempfile::tempdir().unwrap();
    let good = install(dir.path(), "good");
    let broken = |name: &str, file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let model = install(dir.path(), name);
        let path = model.join(file);
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
        model
    };
    let sources = [
        broken("truncated", "model.safetensors", &|bytes| bytes[..bytes.len() / 2].to_vec()),
        broken("nan", "model.safetensors", &|mut bytes| {
            let numbers = bytes.len() / 2;
            bytes[numbers..].fill(0xff);
            bytes
        }),
        broken("tokenizer", "tokenizer.json", &|_| b"{}".to_vec()),
        broken("config", "config.json", &|_| b"{}".to_vec()),
    ];
    let models = Models::new(dir.path().join("models"), None);
    for from in sources {
        let error = models.pull(NAME, Some(&from), &mut ignore).unwrap_err();
        assert!(matches!(error, EmbedError::Pull { .. }), "{from:?}: {error}");
        assert!(models.installed().unwrap().is_empty() && files(models.dir()) == [".pulling/me--small.lock"]);
    }
    // One that an earlier program installed without trying it.
    let installed = models.dir().join(NAME);
    for file in files(&good) {
        fs::create_dir_all(installed.join(&file).parent().unwrap()).unwrap();
        fs::copy(good.join(&file), installed.join(&file)).unwrap();
    }
    fs::write(installed.join("tokenizer.json"), "{}").unwrap();
    models.verify(NAME).unwrap();
    models.pull(NAME, Some(&good), &mut ignore).unwrap();
    models.load(NAME).unwrap().embed(&["a"], InputKind::Query).unwrap();
}

#[test]
fn files_of_two_sources_are_never_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (install(dir.path(), "good"), install_other(dir.path(), "other"));
    fs::remove_file(other.join("model.safetensors")).unwrap();
    let models = Models::new(dir.path().join("models"), None);
    models.pull(NAME, Some(&other), &mut ignore).unwrap_err();
    models.pull(NAME, Some(&good), &mut ignore).unwrap();
    for file in files(&good) {
        assert_eq!(
            fs::read(good.join(&file)).unwrap(),
            fs::read(models.dir().join(NAME).join(&file)).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn two_pulls_of_one_model_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let from = archive(dir.path(), "", &[]);
    let models = Models::new(dir.path().join("models"), None);
    let other = models.clone();
    let mut error = None;
    let from_again = from.clone();
    models
        .pull(NAME, Some(&from), &mut |_| {
            error = Some(other.pull(NAME, Some(&from_again), &mut ignore).unwrap_err().to_string());
        })
        .unwrap();
    assert!(error.unwrap().contains("is held by"));
}

/// A hub on this machine that serves the files of `dir`.
struct LocalHub {
    endpoint: String,
    /// Paths that were asked for, with their Range.
    asked: Arc<Mutex<Vec<String>>>,
    /// How many of the next answers break off in the middle.
    breaks: Arc<AtomicUsize>,
}

impl LocalHub {
    fn start(dir: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, breaks) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (log, left) = (Arc::clone(&asked), Arc::clone(&breaks));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(|line| line.unwrap());
                let request = lines.next().unwrap_or_default();
                let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let range =
                    headers.iter().find_map(|line| line.to_lowercase().strip_prefix("range: ").map(str::to_owned));
                let range = range.unwrap_or_default();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(format!("{path} {range}"));
                let _ = stream.write_all(&answer(&dir, &path, &range, &left));
            }
        });
        Self { endpoint, asked, breaks }
    }
}

/// `dir` holds the files of every revision, or a directory for each commit and the name of the newest in `commit`.
fn answer(dir: &Path, path: &str, range: &str, breaks: &AtomicUsize) -> Vec<u8> {
    let newest = fs::read_to_string(dir.join("commit"));
    if let (true, Ok(sha)) = (path == "/api/models/me/known/revision/main", &newest) {
        let body = format!("{{\"sha\": \"{sha}\", \"siblings\": []}}");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
        return format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    }
    let asked = path.split_once("/resolve/").and_then(|(_, asked)| asked.split_once('/'));
    let (revision, name) = asked.unwrap_or_default();
    let dir = match (revision, newest) {
        (_, Err(_)) => dir.to_owned(),
        ("main", Ok(newest)) => dir.join(newest),
        (commit, Ok(_)) => dir.join(commit),
    };
    let Ok(bytes) = fs::read(dir.join(name)) else {
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    };
    let (from, to) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(bytes.len(), |to: usize| to + 1);
    let mut answer = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\nETag: \"{}\"\r\n\
         x-repo-commit: c0ffee\r\nConnection: close\r\n\r\n",
        to - from,
        to - 1,
        bytes.len(),
        name.replace('/', "-"),
    )
    .into_bytes();
    let body = &bytes[from..to];
    let whole =
        body.len() < 1000 || breaks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err();
    answer.extend_from_slice(if whole { body } else { &body[..body.len() / 2] });
    answer
}

/// The small model as one that the registry knows, its weights hashed.
fn known(dir: &Path) -> Place {
    let record = hash_file(&dir.join("model.safetensors")).unwrap();
    let digest = KnownDigest { size_bytes: record.stamp.size_bytes, sha256: record.sha256.leak() };
    let file = |path, required, digest| KnownFile { path, required, digest };
    let files = vec![
        file("config.json", true, None),
        file("absent.json", false, None),
        file("modules.json", true, None),
        file("1_Pooling/config.json", true, None),
        file("model.safetensors", true, Some(digest)),
    ];
    let known = Box::leak(Box::new(KnownModel { files: files.leak(), ..known_model("me/known") }));
    Place { name: "me/known".to_owned(), known: Some(known), dir: dir.join("installed") }
}

#[test]
fn the_hub_is_read_continued_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let source = install(dir.path(), "source");
    let place = known(&source);
    let hub = LocalHub::start(source.clone());
    let staging = dir.path().join("staging");
    let open = || Hub::at(place.known.unwrap(), staging.clone(), &hub.endpoint, Duration::from_secs(20));
    hub.breaks.store(1, Ordering::SeqCst);
    let mut seen = Vec::new();
    let error = take(&place, &mut open(), &mut |progress| seen.push(progress)).unwrap_err().to_string();
    assert!(
        !error.is_empty() && place.dir.join("config.json").is_file() && !place.dir.join("model.safetensors").exists()
    );
    hub.asked.lock().unwrap().clear();
    take(&place, &mut open(), &mut |progress| seen.push(progress)).unwrap();
    let size = fs::metadata(source.join("model.safetensors")).unwrap().len();
    let resumed = format!("/me/known/resolve/main/model.safetensors bytes={}-", size / 2);
    let asked = hub.asked.lock().unwrap().clone();
    assert!(asked.contains(&resumed), "{asked:?}");
    assert!(!asked.iter().any(|path| path.contains("config.json")), "{asked:?}");
    assert!(seen.iter().any(|p| p.file == "model.safetensors" && p.done_bytes == size && p.total_bytes == Some(size)));
    check_files(&place, Check::Everything).unwrap();
    // What was left is longer than the file: it is thrown away.
    fs::remove_file(place.dir.join("model.safetensors")).unwrap();
    hub.breaks.store(1, Ordering::SeqCst);
    take(&place, &mut open(), &mut ignore).unwrap_err();
    let part = files(&staging).into_iter().find(|path| path.ends_with(".part")).unwrap();
    fs::write(staging.join(part), vec![0; size as usize + 1]).unwrap();
    take(&place, &mut open(), &mut ignore).unwrap();
    check_files(&place, Check::Everything).unwrap();
    // A hub that serves something else is found out.
    fs::remove_file(place.dir.join("model.safetensors")).unwrap();
    let mut bytes = fs::read(source.join("model.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(source.join("model.safetensors"), bytes).unwrap();
    let error = take(&place, &mut open(), &mut ignore).unwrap_err();
    assert!(matches!(error, SourceError::Mismatch { what: "its sha256", .. }), "{error}");
    assert!(!place.dir.join("model.safetensors").exists());
}

/// The small model as one that the registry knows without a list of files, to be installed in `dir`.
fn unlisted(dir: &Path) -> Place {
    let known: &KnownModel = Box::leak(Box::new(known_model("me/known")));
    assert!(known.files.is_empty());
    Place { name: known.name.to_owned(), known: Some(known), dir: dir.join("installed") }
}

/// The small model below `dir`, with another configuration than the others'.
fn install_other(dir: &Path, name: &str) -> PathBuf {
    let other = install(dir, name);
    let config = fs::read_to_string(other.join("config.json")).unwrap().replace("1e-12", "1e-05");
    fs::write(other.join("config.json"), config).unwrap();
    other
}

/// Pulls from that hub alone, with staging below `models`.
fn pull_from(hub: &LocalHub, place: &Place, models: &Path) -> Result<(), EmbedError> {
    let sources = |staging: &Path| -> Vec<Box<dyn Source>> {
        let (known, patience) = (place.known.unwrap(), Duration::from_secs(20));
        vec![Box::new(Hub::at(known, staging.join("hub"), &hub.endpoint, patience))]
    };
    pull_through(place, models, true, &sources, &|_| Ok(()), &mut ignore)
}

const MAIN_FILES: [&str; 4] = ["config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"];

#[track_caller]
fn assert_is_of(place: &Place, source: &Path) {
    for file in MAIN_FILES {
        assert_eq!(fs::read(place.dir.join(file)).unwrap(), fs::read(source.join(file)).unwrap(), "{file}");
    }
}

#[test]
fn files_of_two_commits_of_the_hub_are_never_mixed() {
    for is_listed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let commits = ["a", "b"].map(|letter| letter.repeat(40));
        let (old, new) = (install(dir.path(), &commits[0]), install_other(dir.path(), &commits[1]));
        let place = if is_listed { known(&old) } else { unlisted(dir.path()) };
        let hub = LocalHub::start(dir.path().to_owned());
        let pull = || pull_from(&hub, &place, &dir.path().join("models"));
        // Broken off, and gone on with where the hub stands still.
        fs::write(dir.path().join("commit"), &commits[0]).unwrap();
        hub.breaks.store(2, Ordering::SeqCst);
        pull().unwrap_err();
        hub.asked.lock().unwrap().clear();
        pull().unwrap_err();
        assert!(!hub.asked.lock().unwrap().iter().any(|asked| asked.contains("/config.json")), "it is there");
        fs::write(dir.path().join("commit"), &commits[1]).unwrap();
        hub.breaks.store(0, Ordering::SeqCst);
        hub.asked.lock().unwrap().clear();
        pull().unwrap();
        assert_is_of(&place, &new);
        let asked = hub.asked.lock().unwrap().clone();
        let mut files = asked.iter().filter(|asked| asked.contains("/resolve/"));
        assert!(files.all(|asked| asked.contains(&commits[1])), "{asked:?}");
    }
}

#[test]
fn what_the_hub_left_is_not_taken_for_a_directorys() {
    let dir = tempfile::tempdir().unwrap();
    let (source, other) = (install(dir.path(), "source"), install_other(dir.path(), "other"));
    let (place, models) = (unlisted(dir.path()), dir.path().join("models"));
    let hub = LocalHub::start(source);
    hub.breaks.store(9, Ordering::SeqCst);
    pull_from(&hub, &place, &models).unwrap_err();
    pull(&place, &models, Some(&other), &|_| Ok(()), &mut ignore).unwrap();
    assert_is_of(&place, &other);
}

#[test]
fn who_removes_a_model_that_cannot_be_mended_gets_the_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let commit = "b".repeat(40);
    let (source, newer) = (install(dir.path(), "source"), install_other(dir.path(), &commit));
    let (place, models) = (unlisted(dir.path()), dir.path().join("models"));
    pull(&place, &models, Some(&source), &|_| Ok(()), &mut ignore).unwrap();
    fs::write(place.dir.join("config.json"), "{}").unwrap();
    fs::write(dir.path().join("commit"), &commit).unwrap();
    let hub = LocalHub::start(dir.path().to_owned());
    for _ in 0..2 {
        let error = pull_from(&hub, &place, &models).unwrap_err().to_string();
        let way_out = format!("to take what the source has now, remove {}", place.dir.display());
        assert!(error.contains("config.json is not the file it must be") && error.contains(&way_out), "{error}");
    }
    fs::remove_dir_all(&place.dir).unwrap();
    pull_from(&hub, &place, &models).unwrap();
    assert_is_of(&place, &newer);
}

#[test]
fn a_model_with_a_broken_lock_is_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let from = archive(dir.path(), "", &[]);
    let models = Models::new(dir.path().join("models"), None);
    models.pull(NAME, Some(&from), &mut ignore).unwrap();
    let lock = models.dir().join(NAME).join(LOCK_FILE);
    let whole = fs::read(&lock).unwrap();
    for broken in [&whole[..whole.len() / 2], b"\xff\n".as_slice()] {
        fs::write(&lock, broken).unwrap();
        assert!(matches!(models.load(NAME), Err(EmbedError::Malformed { .. })));
        models.pull(NAME, Some(&from), &mut ignore).unwrap();
        models.verify(NAME).unwrap();
    }
    models.load(NAME).unwrap();
}

#[test]
fn who_asks_the_hub_is_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let place = unlisted(dir.path());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://me:secret@{closed}");
    let mut hub = Hub::at(place.known.unwrap(), dir.path().join("hub"), &endpoint, Duration::from_secs(20));
    assert_eq!(hub.label(), format!("model hub http://{closed}, me/known"));
    let mut errors = vec![hub.version().unwrap_err().to_string()];
    errors.push(take(&place, &mut hub, &mut ignore).unwrap_err().to_string());
    for error in errors {
        assert!(error.contains("refused") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_pull_that_dies_leaves_what_the_next_one_can_mend() {
    let home = tempfile::tempdir().unwrap();
    let [good, other, broken] = ["good", "other", "broken"].map(|name| install(home.path(), name));
    let config = fs::read_to_string(other.join("config.json")).unwrap().replace("1e-12", "1e-05");
    fs::write(other.join("config.json"), config).unwrap();
    fs::write(broken.join("tokenizer.json"), "{}").unwrap();
    fs::write(broken.join("sentence_bert_config.json"), r#"{"max_seq_length": 12}"#).unwrap();
    fs::remove_file(good.join("config_sentence_transformers.json")).unwrap();
    let is_of = |models: &Models, source: &Path| {
        let dir = models.dir().join(NAME);
        let own =
            files(&dir).into_iter().filter(|file| file != LOCK_FILE && !file.ends_with("tmp")).collect::<Vec<_>>();
        own == files(source) && own.iter().all(|file| fs::read(dir.join(file)).ok() == fs::read(source.join(file)).ok())
    };
    let mut died_between = 0;
    for fail_at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let models = Models::new(dir.path().to_owned(), None);
        for file in files(&broken) {
            let to = dir.path().join(NAME).join(&file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(broken.join(&file), to).unwrap();
        }
        models.verify(NAME).unwrap();
        let faults = Faults::arm(dir.path(), fail_at, Then::Crash);
        let pulled = models.pull(NAME, Some(&good), &mut ignore);
        let fired = faults.fired();
        drop(faults);
        // What lies there is all of one model, or refused.
        let usable = models.load(NAME).is_ok();
        assert_eq!(usable, is_of(&models, &good), "{fail_at}");
        died_between += usize::from(!usable && !is_of(&models, &broken));
        let again = Models::new(dir.path().to_owned(), None);
        again.pull(NAME, Some(&other), &mut ignore).unwrap_or_else(|e| panic!("{fail_at}: {e}"));
        again.load(NAME).unwrap();
        assert!(is_of(&again, &good) || is_of(&again, &other), "{fail_at}");
        if !fired {
            pulled.unwrap();
            break;
        }
    }
    assert!(died_between > 3, "{died_between}");
}

#[test]
fn a_hub_that_cannot_be_reached_or_never_answers_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let place = known(&install(dir.path(), "source"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, says) in [(silent.local_addr().unwrap(), "did not come on"), (closed, "refused")] {
        let endpoint = format!("http://{address}");
        let mut hub = Hub::at(place.known.unwrap(), dir.path().join("staging"), &endpoint, Duration::from_secs(2));
        let error = take(&place, &mut hub, &mut ignore).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
