//! A local directory as a source.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{Opened, Source, SourceError};
use crate::embed::files::ModelFile;
use crate::embed::settings::MODULES_FILE;
use crate::embed::{EmbedError, PullProgress};

/// A directory laid out as the model's repository, or the installed Python package that has such a one inside.
pub(super) struct Directory {
    kind: &'static str,
    root: PathBuf,
}

impl Directory {
    pub(super) fn new(kind: &'static str, given: &Path) -> Self {
        let inner = given.join("model");
        let given_itself = given.join(MODULES_FILE).is_file() || !inner.join(MODULES_FILE).is_file();
        Self { kind, root: if given_itself { given.to_owned() } else { inner } }
    }
}

impl Source for Directory {
    fn label(&self) -> String {
        format!("{} {}", self.kind, self.root.display())
    }

    fn open(
        &mut self,
        file: &ModelFile,
        _progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Option<Opened<'_>>, SourceError> {
        let path = self.root.join(&file.path);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((size_bytes, file)) => Ok(Some(Opened { reader: Box::new(file), size_bytes, downloaded: false })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(EmbedError::io(&path, "read", e).into()),
        }
    }

    fn holds(&mut self, path: &str) -> bool {
        self.root.join(path).is_file()
    }
}
