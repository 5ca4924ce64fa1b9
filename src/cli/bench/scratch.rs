//! Directories that are gone when a measurement ends, and what is known about the disk below them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::CliError;
use super::Places;
use crate::storage::{create_dir_all, remove_dir_all};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory of this process alone, removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty one where the arguments, or the system, want temporary files.
    ///
    /// # Errors
    /// [`CliError::Storage`].
    pub fn create(places: &Places) -> Result<Self, CliError> {
        let parent = places.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("pannier-bench-{}-{number}", std::process::id()));
        remove_dir_all(&path)?;
        create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary directory stays behind");
        }
    }
}

/// Bytes of the files in a directory and below, as their lengths say. What vanishes meanwhile does not count.
pub(super) fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let bytes_of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes_of).sum()
}

/// The kind of file system below a path, such as `ext4`; a durable write on `tmpfs` is none. `None` where the system
/// does not say.
pub(super) fn filesystem(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    mounted_on(&fs::read_to_string("/proc/self/mounts").ok()?, &path)
}

/// `mounts`: a line a mount, `device directory kind options ..`, later ones above earlier ones.
fn mounted_on(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let directory = PathBuf::from(fields.next()?.replace("\\040", " "));
        let kind = fields.next()?;
        path.starts_with(&directory).then(|| (directory.components().count(), kind.to_owned()))
    });
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_itself_with_what_it_holds() {
        let parent = tempfile::tempdir().unwrap();
        let places = Places { shared: PathBuf::new(), scratch: Some(parent.path().to_owned()) };
        let (one, other) = (Scratch::create(&places).unwrap(), Scratch::create(&places).unwrap());
        assert_ne!(one.path(), other.path());
        fs::create_dir(one.path().join("below")).unwrap();
        fs::write(one.path().join("below").join("file"), [0; 100]).unwrap();
        fs::write(one.path().join("file"), [0; 23]).unwrap();
        assert_eq!(directory_bytes(one.path()), 123);
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && other.path().exists());
        assert_eq!(directory_bytes(&path), 0);
    }

    #[test]
    fn finds_the_mount_that_lies_deepest() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmp /tmp tmpfs rw 0 0\n/dev/b /tmp/my\\040disk xfs rw 0 0\n";
        let kind = |path: &str| mounted_on(mounts, Path::new(path)).unwrap();
        assert_eq!(kind("/home/a"), "ext4");
        assert_eq!(kind("/tmp/b"), "tmpfs");
        assert_eq!(kind("/tmpfile"), "ext4");
        assert_eq!(kind("/tmp/my disk/c"), "xfs");
        assert_eq!(mounted_on("", Path::new("/")), None);
    }
}
