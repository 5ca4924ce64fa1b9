//! Where each file of a data directory stands.

use std::path::{Path, PathBuf};

/// The names inside one data directory. It only computes paths and touches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPaths {
    root: PathBuf,
}

impl DataPaths {
    /// Paths below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `FORMAT`: store id and format version, written once.
    pub fn format(&self) -> PathBuf {
        self.root.join("FORMAT")
    }

    /// `MANIFEST`: the live files.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("MANIFEST")
    }

    /// `LOCK`: held while a process has the directory open.
    pub fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// `log/`.
    pub fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    /// `log/<first_seq>.log`, 20 decimal digits, so that names sort as numbers.
    pub fn log_file(&self, first_seq: u64) -> PathBuf {
        self.log_dir().join(format!("{first_seq:020}.log"))
    }

    /// `segments/`.
    pub fn segments_dir(&self) -> PathBuf {
        self.root.join("segments")
    }

    /// `segments/<collection>/`: every generation of one collection.
    pub fn collection_dir(&self, collection: u32) -> PathBuf {
        self.segments_dir().join(collection.to_string())
    }

    /// `segments/<collection>/<generation>/`.
    pub fn segment_dir(&self, collection: u32, generation: u32) -> PathBuf {
        self.collection_dir(collection).join(generation.to_string())
    }

    /// `segments/<collection>/<generation>/<id>.seg`.
    pub fn segment_file(&self, collection: u32, generation: u32, id: u64) -> PathBuf {
        self.segment_dir(collection, generation).join(format!("{id}.seg"))
    }

    /// `segments/<collection>/<generation>/<id>.<version>.dead`: rows of a segment that no longer count.
    pub fn dead_file(&self, collection: u32, generation: u32, id: u64, version: u64) -> PathBuf {
        self.segment_dir(collection, generation).join(format!("{id}.{version}.dead"))
    }

    /// `snapshots/`: one directory a snapshot.
    pub fn snapshots_dir(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// `NEWEST`: which log file is the newest, and how long it is at least.
    pub fn newest_log_mark(&self) -> PathBuf {
        self.root.join("NEWEST")
    }

    /// `RESTORE`: names the directory that is about to become the store.
    pub fn restore_marker(&self) -> PathBuf {
        self.root.join("RESTORE")
    }

    /// `restore/`: a store that is being put together to take this one's place.
    pub fn restore_dir(&self) -> PathBuf {
        self.root.join("restore")
    }

    /// `before-restore/`: what stood here before the last restore.
    pub fn before_restore_dir(&self) -> PathBuf {
        self.root.join("before-restore")
    }

    /// `.before-restore.tmp/`: what stood here before the last restore, while it is removed.
    pub fn discarded_dir(&self) -> PathBuf {
        self.root.join(".before-restore.tmp")
    }

    /// `dry-run/`: the copy of the store on which migrations are tried.
    pub fn dry_run_dir(&self) -> PathBuf {
        self.root.join("dry-run")
    }

    /// `sources/`: how far sources were read, each with the timeline that it was read into.
    pub fn sources_dir(&self) -> PathBuf {
        self.root.join("sources")
    }

    /// `replication.json`: which copies are kept in Postgres.
    pub fn copies(&self) -> PathBuf {
        self.root.join("replication.json")
    }

    /// `meta.sled`: the document index, which can be rebuilt.
    pub fn meta_dir(&self) -> PathBuf {
        self.root.join("meta.sled")
    }

    /// `cache/vectors.cache`: vectors of texts that were embedded before, which may be removed at any time.
    pub fn vector_cache(&self) -> PathBuf {
        self.root.join("cache").join("vectors.cache")
    }

    /// `text/`: the keyword indexes, which can be rebuilt.
    pub fn text_dir(&self) -> PathBuf {
        self.root.join("text")
    }

    /// `text/<collection>/`.
    #[cfg(any(test, feature = "text"))]
    pub fn text_index_dir(&self, collection: u32) -> PathBuf {
        self.text_dir().join(collection.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_design() {
        let paths = DataPaths::new("/d");
        assert_eq!(paths.log_file(17), Path::new("/d/log/00000000000000000017.log"));
        assert_eq!(paths.log_file(u64::MAX), Path::new("/d/log/18446744073709551615.log"));
        assert_eq!(paths.segment_file(1, 2, 3), Path::new("/d/segments/1/2/3.seg"));
        assert_eq!(paths.dead_file(1, 2, 3, 4), Path::new("/d/segments/1/2/3.4.dead"));
        assert_eq!(paths.text_index_dir(9), Path::new("/d/text/9"));
        assert_eq!(paths.meta_dir(), Path::new("/d/meta.sled"));
    }
}
