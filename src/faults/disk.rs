//! A disk under a page cache: what is durable, what is not yet, and what a power cut may leave of that.
//!
//! A file's bytes are durable once it is synced, a name once its directory is; nothing else is assumed. Of what is not
//! durable a cut may keep nothing, everything, a beginning, any subset of the writes, or any subset of the sectors; a
//! sector that was not kept may hold what it held before, zeros or rubbish. Of the names that changed in a directory it
//! may keep any subset of the changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::random::Random;
use crate::storage::fault::Event;

/// The part of a write that a disk keeps or loses as a whole.
const SECTOR_BYTES: usize = 512;

/// Files and directories below a root, by relative path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Contents {
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Contents {
    /// Writes everything into `root`, which is emptied before.
    pub(super) fn put(&self, root: &Path) {
        _ = std::fs::remove_dir_all(root);
        std::fs::create_dir_all(root).unwrap();
        self.dirs.iter().for_each(|dir| std::fs::create_dir_all(root.join(dir)).unwrap());
        self.files.iter().for_each(|(path, bytes)| std::fs::write(root.join(path), bytes).unwrap());
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Edit>,
}

#[derive(Clone, Debug)]
enum NameEdit {
    Link { path: PathBuf, inode: usize },
    Unlink { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: usize },
    MakeDir { path: PathBuf },
    RemoveDir { path: PathBuf },
}

impl NameEdit {
    fn touches(&self, dir: &Path) -> bool {
        let (Self::Link { path, .. }
        | Self::Unlink { path }
        | Self::Rename { to: path, .. }
        | Self::MakeDir { path }
        | Self::RemoveDir { path }) = self;
        path.starts_with(dir) || matches!(self, Self::Rename { from, .. } if from.starts_with(dir))
    }

    fn dir(&self) -> &Path {
        let (Self::Link { path, .. }
        | Self::Unlink { path }
        | Self::Rename { to: path, .. }
        | Self::MakeDir { path }
        | Self::RemoveDir { path }) = self;
        path.parent().unwrap()
    }
}

#[derive(Clone, Debug, Default)]
struct Names {
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, usize>,
}

impl Names {
    fn apply(&mut self, edit: &NameEdit) {
        match edit {
            NameEdit::Link { path, inode } => _ = self.files.insert(path.clone(), *inode),
            NameEdit::Unlink { path } => _ = self.files.remove(path),
            NameEdit::Rename { from, to, inode } => {
                self.files.remove(from);
                self.files.insert(to.clone(), *inode);
            }
            NameEdit::MakeDir { path } => _ = self.dirs.insert(path.clone()),
            NameEdit::RemoveDir { path } => {
                self.dirs.retain(|dir| !dir.starts_with(path));
                self.files.retain(|file, _| !file.starts_with(path));
            }
        }
    }
}

/// The disk at one moment of a history.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    /// As programs see them.
    live: Names,
    /// As they are certain to be after a cut.
    durable: Names,
    pending: Vec<NameEdit>,
}

impl Disk {
    /// A disk on which `contents` is durable below `root`.
    pub(super) fn new(root: &Path, contents: &Contents) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            inodes: Vec::new(),
            live: Names::default(),
            durable: Names::default(),
            pending: Vec::new(),
        };
        disk.durable.dirs.extend(contents.dirs.iter().cloned());
        for (path, bytes) in &contents.files {
            disk.durable.files.insert(path.clone(), disk.inodes.len());
            disk.inodes.push(Inode { durable: bytes.clone(), pending: Vec::new() });
        }
        disk.live = disk.durable.clone();
        disk
    }

    /// The same disk, seen below another root.
    pub(super) fn moved_to(mut self, root: &Path) -> Self {
        root.clone_into(&mut self.root);
        self
    }

    /// The same disk without a directory, as if it had never been there.
    pub(super) fn without(mut self, dir: &Path) -> Self {
        for names in [&mut self.live, &mut self.durable] {
            names.dirs.retain(|path| !path.starts_with(dir));
            names.files.retain(|path, _| !path.starts_with(dir));
        }
        self.pending.retain(|edit| !edit.touches(dir));
        self
    }

    /// What programs see now: all that happened, durable or not.
    pub(super) fn live(&self) -> Contents {
        let bytes = |inode: &Inode| {
            let mut bytes = inode.durable.clone();
            inode.pending.iter().for_each(|edit| apply(&mut bytes, edit));
            bytes
        };
        let files = self.live.files.iter().map(|(path, &inode)| (path.clone(), bytes(&self.inodes[inode])));
        Contents { dirs: self.live.dirs.clone(), files: files.collect() }
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }

    fn name(&mut self, edit: NameEdit) {
        self.live.apply(&edit);
        self.pending.push(edit);
    }

    /// The next thing that happens.
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Mark { .. } => {}
            Event::CreateFile { path } | Event::OpenOrCreate { path } => {
                let empties = matches!(event, Event::CreateFile { .. });
                let path = self.relative(path);
                match self.live.files.get(&path) {
                    Some(&inode) if empties => self.inodes[inode].pending.push(Edit::Truncate { len: 0 }),
                    Some(_) => {}
                    None => {
                        let inode = self.inodes.len();
                        self.inodes.push(Inode::default());
                        self.name(NameEdit::Link { path, inode });
                    }
                }
            }
            Event::Write { path, offset, bytes } => {
                let edit = Edit::Write { offset: *offset as usize, bytes: bytes.clone() };
                self.edit(path, edit);
            }
            Event::Truncate { path, len } => self.edit(path, Edit::Truncate { len: *len as usize }),
            Event::SyncFile { path } => {
                if let Some(&inode) = self.live.files.get(&self.relative(path)) {
                    let Inode { durable, pending } = &mut self.inodes[inode];
                    pending.drain(..).for_each(|edit| apply(durable, &edit));
                }
            }
            Event::SyncDir { path } => {
                let dir = self.relative(path);
                let (synced, pending) = self.pending.drain(..).partition(|edit: &NameEdit| edit.dir() == dir);
                self.pending = pending;
                synced.iter().for_each(|edit| self.durable.apply(edit));
            }
            Event::CreateDir { path } => {
                let path = self.relative(path);
                if !path.as_os_str().is_empty() {
                    self.name(NameEdit::MakeDir { path });
                }
            }
            Event::Rename { from, to } => {
                let (from, to) = (self.relative(from), self.relative(to));
                let inode = self.live.files[&from];
                self.name(NameEdit::Rename { from, to, inode });
            }
            Event::Link { from, to } => {
                let (from, path) = (self.relative(from), self.relative(to));
                let inode = self.live.files[&from];
                self.name(NameEdit::Link { path, inode });
            }
            Event::RemoveFile { path } => {
                let path = self.relative(path);
                self.name(NameEdit::Unlink { path });
            }
            Event::RemoveDir { path } => self.remove_dir(&self.relative(path)),
        }
    }

    /// Files first, then the directory: a cut may come between.
    fn remove_dir(&mut self, path: &Path) {
        let files: Vec<_> = self.live.files.keys().filter(|file| file.starts_with(path)).cloned().collect();
        files.into_iter().for_each(|path| self.name(NameEdit::Unlink { path }));
        self.name(NameEdit::RemoveDir { path: path.to_owned() });
    }

    fn edit(&mut self, path: &Path, edit: Edit) {
        // A file that was removed while it was open leaves nothing.
        if let Some(&inode) = self.live.files.get(&self.relative(path)) {
            self.inodes[inode].pending.push(edit);
        }
    }

    /// One of the states that a power cut at this moment may leave.
    pub(super) fn cut(&self, random: &mut Random) -> Contents {
        let mut names = self.durable.clone();
        subset(&self.pending, random).into_iter().for_each(|edit| names.apply(edit));
        let mut dirs = BTreeSet::new();
        for dir in &names.dirs {
            if dir.parent().is_none_or(|parent| parent.as_os_str().is_empty() || dirs.contains(parent)) {
                dirs.insert(dir.clone());
            }
        }
        let has_place = |path: &Path| {
            let parent = path.parent().unwrap();
            parent.as_os_str().is_empty() || dirs.contains(parent)
        };
        let files = names.files.iter().filter(|(path, _)| has_place(path));
        let files = files.map(|(path, &inode)| (path.clone(), left_of(&self.inodes[inode], random))).collect();
        Contents { dirs, files }
    }
}

/// Nothing, everything, a beginning, or any of the items, in order.
fn subset<'a, T>(items: &'a [T], random: &mut Random) -> Vec<&'a T> {
    match random.below(4) {
        0 => Vec::new(),
        1 => items.iter().collect(),
        2 => items.iter().take(random.below(items.len() + 1)).collect(),
        _ => items.iter().filter(|_| random.chance(2)).collect(),
    }
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::Truncate { len } => bytes.resize(*len, 0),
        Edit::Write { offset, bytes: written } => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
    }
}

/// What a cut leaves of a file's bytes.
fn left_of(inode: &Inode, random: &mut Random) -> Vec<u8> {
    let mut left = inode.durable.clone();
    if inode.pending.is_empty() {
        return left;
    }
    match random.below(5) {
        0 => subset(&inode.pending, random).into_iter().for_each(|edit| apply(&mut left, edit)),
        1 => cut_inside(&mut left, &inode.pending, random),
        _ => lose_sectors(&mut left, &inode.pending, random),
    }
    left
}

/// Some edits, then a part of the next one.
fn cut_inside(left: &mut Vec<u8>, pending: &[Edit], random: &mut Random) {
    let whole = random.below(pending.len());
    pending[..whole].iter().for_each(|edit| apply(left, edit));
    if let Edit::Write { offset, bytes } = &pending[whole] {
        let bytes = bytes[..random.below(bytes.len() + 1)].to_vec();
        apply(left, &Edit::Write { offset: *offset, bytes });
    }
}

/// The length is kept, and of the sectors that were written each is kept, as it was before, zero, or rubbish.
fn lose_sectors(left: &mut Vec<u8>, pending: &[Edit], random: &mut Random) {
    let (before, mut after) = (left.clone(), left.clone());
    pending.iter().for_each(|edit| apply(&mut after, edit));
    let uniform = random.chance(2).then(|| random.below(4));
    left.clone_from(&after);
    left.resize(after.len(), 0);
    let written = |at: usize| {
        pending.iter().any(|edit| match edit {
            Edit::Write { offset, bytes } => at + SECTOR_BYTES > *offset && at < offset + bytes.len(),
            Edit::Truncate { .. } => false,
        })
    };
    for at in (0..after.len()).step_by(SECTOR_BYTES).filter(|&at| written(at)) {
        let end = after.len().min(at + SECTOR_BYTES);
        // A sector that held durable bytes is written whole, old or new: what the device acknowledged it keeps.
        let shared = at < before.len();
        let fate = uniform.unwrap_or_else(|| random.below(4));
        let old = |position: usize| before.get(position).copied().unwrap_or(0);
        for position in at..end {
            left[position] = match fate {
                0 => after[position],
                1 => old(position),
                2 if !shared => 0,
                3 if !shared => random.next() as u8,
                _ if position < before.len() => before[position],
                2 => 0,
                _ => random.next() as u8,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, name: &str) -> Event {
        let path = Path::new("/d").join(name);
        match kind {
            "create" => Event::CreateFile { path },
            "write" => Event::Write { path, offset: 0, bytes: b"new".to_vec() },
            "sync" => Event::SyncFile { path },
            "rename" => Event::Rename { from: Path::new("/d/t").to_owned(), to: path },
            _ => Event::SyncDir { path: "/d".into() },
        }
    }

    /// Every state that is met in many cuts after these events.
    fn states(events: &[(&str, &str)]) -> BTreeSet<Vec<(String, String)>> {
        let old = Contents { dirs: BTreeSet::new(), files: [("a".into(), b"old".to_vec())].into() };
        let mut disk = Disk::new(Path::new("/d"), &old);
        events.iter().for_each(|(kind, name)| disk.apply(&event(kind, name)));
        let mut random = Random(1);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let one = |contents: Contents| contents.files.iter().map(|(p, b)| (p.display().to_string(), text(b))).collect();
        (0..2_000).map(|_| one(disk.cut(&mut random))).collect()
    }

    #[test]
    fn what_was_not_synced_is_seen_until_the_cut() {
        let old = Contents { dirs: BTreeSet::new(), files: [("a".into(), b"old".to_vec())].into() };
        let mut disk = Disk::new(Path::new("/d"), &old);
        for (kind, name) in [("create", "t"), ("write", "t"), ("sync", "t"), ("rename", "a")] {
            disk.apply(&event(kind, name));
        }
        let new = Contents { dirs: BTreeSet::new(), files: [("a".into(), b"new".to_vec())].into() };
        assert_eq!(disk.live(), new);
        let mut random = Random(1);
        let left: BTreeSet<_> = (0..100).map(|_| disk.cut(&mut random).files[Path::new("a")].clone()).collect();
        assert_eq!(left, [b"new".to_vec(), b"old".to_vec()].into());
        // A sync by another process makes it last.
        let mut elsewhere = disk.moved_to(Path::new("/e"));
        elsewhere.apply(&Event::SyncDir { path: "/e".into() });
        assert!((0..100).all(|_| elsewhere.cut(&mut random) == new));
    }

    #[test]
    fn a_publish_leaves_old_or_new_only_with_all_of_its_syncs() {
        let whole = [("create", "t"), ("write", "t"), ("sync", "t"), ("rename", "a"), ("dir", "")];
        let a = |steps: &[(&str, &str)]| -> BTreeSet<String> {
            states(steps).into_iter().flatten().filter(|(name, _)| name == "a").map(|(_, bytes)| bytes).collect()
        };
        assert_eq!(a(&whole), ["new".to_owned()].into());
        assert_eq!(a(&whole[..4]), ["new".to_owned(), "old".to_owned()].into());
        let unsynced: Vec<_> = whole.iter().copied().filter(|(kind, _)| *kind != "sync").collect();
        let left = a(&unsynced);
        assert!(
            left.contains("") && left.contains("new") && left.contains("ne") && left.contains("\0\0\0"),
            "{left:?}"
        );
    }
}
