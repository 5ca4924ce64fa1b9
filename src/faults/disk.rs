//! A disk under a page cache: what is durable, what is not yet, and what a power cut may leave of that.
//!
//! A file's bytes are durable once it is synced, a name once its directory is; nothing else is assumed. Of what is not
//! durable a cut may keep nothing, everything, a beginning, any subset of the writes, or any subset of the sectors; a
//! sector that was not kept may hold what it held before, zeros or rubbish. Of the names that changed in a directory it
//! may keep any subset of the changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
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
    /// Everything below `root`.
    pub(super) fn read(root: &Path) -> Self {
        let mut contents = Self::default();
        let mut waiting = vec![root.to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let below = path.strip_prefix(root).unwrap().to_owned();
                if path.is_dir() {
                    contents.dirs.insert(below);
                    waiting.push(path);
                } else {
                    contents.files.insert(below, std::fs::read(path).unwrap());
                }
            }
        }
        contents
    }

    /// The same without a name in its root.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.dirs.retain(|path| !path.starts_with(name));
        self.files.retain(|path, _| !path.starts_with(name));
        self
    }

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

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir(usize),
}

/// A name in a directory: the directory's number, and the name.
type Place = (usize, OsString);

#[derive(Clone, Debug)]
enum NameEdit {
    Link { place: Place, node: Node },
    Unlink { place: Place },
    Rename { from: Place, to: Place, node: Node },
}

impl NameEdit {
    /// The name that comes or goes; of a rename, the new one.
    fn place(&self) -> &Place {
        let (Self::Link { place, .. } | Self::Unlink { place } | Self::Rename { to: place, .. }) = self;
        place
    }
}

/// The number of the root.
const ROOT: usize = 0;

/// The names in each directory, by its number.
#[derive(Clone, Debug)]
struct Names(Vec<BTreeMap<OsString, Node>>);

impl Names {
    fn apply(&mut self, edit: &NameEdit) {
        match edit {
            NameEdit::Link { place, node } => _ = self.0[place.0].insert(place.1.clone(), *node),
            NameEdit::Unlink { place } => _ = self.0[place.0].remove(&place.1),
            NameEdit::Rename { from, to, node } => {
                self.0[from.0].remove(&from.1);
                self.0[to.0].insert(to.1.clone(), *node);
            }
        }
    }

    fn find(&self, path: &Path) -> Option<Node> {
        path.iter().try_fold(Node::Dir(ROOT), |node, name| match node {
            Node::Dir(dir) => self.0[dir].get(name).copied(),
            Node::File(_) => None,
        })
    }

    /// Every directory and file below a directory, by path.
    fn below(&self, dir: usize, path: &Path, found: &mut Vec<(PathBuf, Node)>) {
        for (name, &node) in &self.0[dir] {
            let path = path.join(name);
            found.push((path.clone(), node));
            if let Node::Dir(dir) = node {
                self.below(dir, &path, found);
            }
        }
    }

    /// All that can be reached, with the bytes that `bytes` says a file has.
    fn contents(&self, mut bytes: impl FnMut(usize) -> Vec<u8>) -> Contents {
        let (mut found, mut contents) = (Vec::new(), Contents::default());
        self.below(ROOT, Path::new(""), &mut found);
        for (path, node) in found {
            match node {
                Node::Dir(_) => _ = contents.dirs.insert(path),
                Node::File(inode) => _ = contents.files.insert(path, bytes(inode)),
            }
        }
        contents
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
        let none = || Names(vec![BTreeMap::new()]);
        let mut disk =
            Self { root: root.to_owned(), inodes: Vec::new(), live: none(), durable: none(), pending: Vec::new() };
        contents.dirs.iter().for_each(|dir| disk.make_dir(dir));
        for (path, bytes) in &contents.files {
            let inode = disk.make_file(path).unwrap();
            disk.inodes[inode].durable.clone_from(bytes);
        }
        disk.durable = disk.live.clone();
        disk.pending.clear();
        disk
    }

    /// The same disk, seen below another root.
    pub(super) fn moved_to(mut self, root: &Path) -> Self {
        root.clone_into(&mut self.root);
        self
    }

    /// The same disk without a name in its root, as if it had never been there.
    pub(super) fn without(mut self, name: &str) -> Self {
        let place: Place = (ROOT, name.into());
        for names in [&mut self.live, &mut self.durable] {
            names.0[ROOT].remove(&place.1);
        }
        self.pending.retain(|edit| edit.place() != &place);
        self
    }

    /// What programs see now: all that happened, durable or not.
    pub(super) fn live(&self) -> Contents {
        self.live.contents(|inode| {
            let Inode { durable, pending } = &self.inodes[inode];
            let mut bytes = durable.clone();
            pending.iter().for_each(|edit| apply(&mut bytes, edit));
            bytes
        })
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }

    /// Where a name stands or is to stand; `None` for the root, and below what did not pass our own layer.
    fn place(&self, path: &Path) -> Option<Place> {
        match self.live.find(path.parent()?)? {
            Node::Dir(dir) => Some((dir, path.file_name()?.to_owned())),
            Node::File(_) => None,
        }
    }

    fn inode(&self, path: &Path) -> Option<usize> {
        match self.live.find(&self.relative(path))? {
            Node::File(inode) => Some(inode),
            Node::Dir(_) => None,
        }
    }

    fn name(&mut self, edit: NameEdit) {
        self.live.apply(&edit);
        self.pending.push(edit);
    }

    fn make_file(&mut self, path: &Path) -> Option<usize> {
        let place = self.place(path)?;
        let inode = self.inodes.len();
        self.inodes.push(Inode::default());
        self.name(NameEdit::Link { place, node: Node::File(inode) });
        Some(inode)
    }

    fn make_dir(&mut self, path: &Path) {
        let Some(place) = self.place(path) else { return };
        let node = Node::Dir(self.live.0.len());
        self.live.0.push(BTreeMap::new());
        self.durable.0.push(BTreeMap::new());
        self.name(NameEdit::Link { place, node });
    }

    /// The next thing that happens.
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Mark { .. } => {}
            Event::CreateFile { path } | Event::OpenOrCreate { path } => {
                let empties = matches!(event, Event::CreateFile { .. });
                match self.inode(path) {
                    Some(inode) if empties => self.inodes[inode].pending.push(Edit::Truncate { len: 0 }),
                    Some(_) => {}
                    None => _ = self.make_file(&self.relative(path)),
                }
            }
            Event::Write { path, offset, bytes } => {
                let edit = Edit::Write { offset: *offset as usize, bytes: bytes.clone() };
                self.edit(path, edit);
            }
            Event::Truncate { path, len } => self.edit(path, Edit::Truncate { len: *len as usize }),
            Event::SyncFile { path } => {
                if let Some(inode) = self.inode(path) {
                    let Inode { durable, pending } = &mut self.inodes[inode];
                    pending.drain(..).for_each(|edit| apply(durable, &edit));
                }
            }
            Event::SyncDir { path } => {
                if let Some(Node::Dir(dir)) = self.live.find(&self.relative(path)) {
                    let (synced, pending) = self.pending.drain(..).partition(|edit: &NameEdit| edit.place().0 == dir);
                    self.pending = pending;
                    synced.iter().for_each(|edit| self.durable.apply(edit));
                }
            }
            Event::CreateDir { path } => self.make_dir(&self.relative(path)),
            Event::Rename { from, to } => {
                let (from, to) = (self.relative(from), self.relative(to));
                if let (Some(node), Some(from), Some(to)) = (self.live.find(&from), self.place(&from), self.place(&to))
                {
                    self.name(NameEdit::Rename { from, to, node });
                }
            }
            Event::Link { from, to } => {
                let (from, to) = (self.relative(from), self.relative(to));
                if let (Some(node), Some(place)) = (self.live.find(&from), self.place(&to)) {
                    self.name(NameEdit::Link { place, node });
                }
            }
            Event::RemoveFile { path } => {
                if let Some(place) = self.place(&self.relative(path)) {
                    self.name(NameEdit::Unlink { place });
                }
            }
            Event::RemoveDir { path } => self.remove_dir(&self.relative(path)),
        }
    }

    /// What is in it first, then the directory: a cut may come between.
    fn remove_dir(&mut self, path: &Path) {
        let (Some(Node::Dir(dir)), Some(place)) = (self.live.find(path), self.place(path)) else { return };
        let mut below = Vec::new();
        self.live.below(dir, path, &mut below);
        for (path, _) in below.iter().rev() {
            let place = self.place(path).unwrap();
            self.name(NameEdit::Unlink { place });
        }
        self.name(NameEdit::Unlink { place });
    }

    fn edit(&mut self, path: &Path, edit: Edit) {
        // A file that was removed while it was open leaves nothing.
        if let Some(inode) = self.inode(path) {
            self.inodes[inode].pending.push(edit);
        }
    }

    /// One of the states that a power cut at this moment may leave.
    pub(super) fn cut(&self, random: &mut Random) -> Contents {
        let mut names = self.durable.clone();
        subset(&self.pending, random).into_iter().for_each(|edit| names.apply(edit));
        // A file of two names has the same bytes under both.
        let mut left = BTreeMap::new();
        names.contents(|inode| left.entry(inode).or_insert_with(|| left_of(&self.inodes[inode], random)).clone())
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
    fn a_directory_that_is_renamed_takes_along_what_was_synced_in_it() {
        let mut disk = Disk::new(Path::new("/d"), &Contents::default());
        let dir = |name: &str| Path::new("/d").join(name);
        disk.apply(&Event::CreateDir { path: dir("new") });
        disk.apply(&Event::CreateFile { path: dir("new/a") });
        disk.apply(&Event::SyncDir { path: dir("new") });
        disk.apply(&Event::Link { from: dir("new/a"), to: dir("new/b") });
        disk.apply(&Event::Rename { from: dir("new"), to: dir("old") });
        disk.apply(&Event::SyncDir { path: dir("") });
        let mut random = Random(1);
        let left: BTreeSet<Vec<_>> = (0..100).map(|_| disk.cut(&mut random).files.into_keys().collect()).collect();
        assert_eq!(left, [vec!["old/a".into()], vec!["old/a".into(), "old/b".into()]].into());
        disk.apply(&Event::SyncDir { path: dir("old") });
        assert_eq!(disk.cut(&mut random), disk.live());
        disk.apply(&Event::RemoveDir { path: dir("old") });
        assert_eq!(disk.live(), Contents::default());
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
