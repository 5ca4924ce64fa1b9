//! Tests of the manifest: golden bytes, truncations, bit flips, and a crash at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::format::{HEADER_BYTES, decode_format, decode_manifest, encode_manifest};
use super::{CollectionEntry, Manifest, ManifestError, SegmentEntry, StoreId, refuse_foreign};
use crate::storage::fault::{Faults, Operation, Then};
use crate::storage::{DataPaths, DirectoryLock, crc32c, list_entries, list_files, list_files_below};
use crate::types::{
    ChunkDefinition, CollectionId, CollectionName, Definition, EmbeddingDefinition, FieldType, FieldsTemplate,
    GuardAction, GuardDefinition, IndexDefinition, Language, Metric, PersonalData, SegmentId, Seq, TemplateDefinition,
    TextDefinition, VectorStorage,
};

fn sample(store_id: StoreId) -> Manifest {
    let definition = Definition {
        dim: 384,
        metric: Metric::Dot,
        embedding: Some(EmbeddingDefinition { model: "m".into(), fingerprint: "f".into() }),
        index: IndexDefinition { storage: VectorStorage::Float16, ..IndexDefinition::default() },
        fields: BTreeMap::from([("k".into(), FieldType::Number)]),
        text: TextDefinition { language: Language::Russian },
        template: Some(TemplateDefinition::Fields(FieldsTemplate {
            only: vec!["a".into()],
            exclude: Vec::new(),
            weights: BTreeMap::new(),
        })),
        guard: Some(GuardDefinition {
            action: GuardAction::Redact,
            kinds: BTreeSet::from([PersonalData::Phone]),
            allow: BTreeSet::new(),
        }),
        chunks: Some(ChunkDefinition { max_tokens: 200, overlap_tokens: 20 }),
    };
    let segment = SegmentEntry {
        id: SegmentId(5),
        rows: 100,
        tombstones: 3,
        min_seq: Seq(4),
        max_seq: Seq(9),
        len_bytes: 123_456,
        has_graph: true,
        dead_version: 2,
        dead_rows: 7,
    };
    let first = CollectionEntry {
        id: CollectionId(1),
        name: CollectionName::new("docs").unwrap(),
        definition,
        created_at_ms: 1_700_000_000_000,
        created_seq: Seq(3),
        generation: 2,
        sealed_seq: Seq(9),
        segments: vec![segment, SegmentEntry { id: SegmentId(6), has_graph: false, dead_version: 0, ..segment }],
    };
    let second = CollectionEntry {
        id: CollectionId(2),
        name: CollectionName::new("empty").unwrap(),
        segments: Vec::new(),
        created_seq: Seq(11),
        sealed_seq: Seq(10),
        ..first.clone()
    };
    Manifest {
        version: 1,
        store_id,
        timeline: 1,
        log_start: Seq(9),
        next_collection_id: 3,
        next_segment_id: 7,
        collections: vec![first, second],
    }
}

/// A store in a fresh directory, with [`sample`] published.
fn store() -> (tempfile::TempDir, DataPaths, Manifest) {
    let root = tempfile::tempdir().unwrap();
    let paths = DataPaths::new(root.path());
    let mut manifest = sample(Manifest::create(&paths).unwrap().store_id);
    manifest.publish(&paths).unwrap();
    (root, paths, manifest)
}

#[test]
fn what_is_published_is_loaded() {
    let (_root, paths, mut manifest) = store();
    assert_eq!((manifest.version, manifest.max_seq()), (2, Seq(11)));
    assert_eq!(Manifest::load(&paths).unwrap(), manifest);
    manifest.collections.pop();
    manifest.publish(&paths).unwrap();
    assert_eq!(Manifest::open(&paths).unwrap(), manifest);
    assert_eq!(manifest.version, 3);
}

/// A manifest whose only collection has a guard that allows these fields.
fn allowing(allow: impl IntoIterator<Item = String>) -> Manifest {
    let mut manifest = sample(StoreId(*b"0123456789abcdef"));
    manifest.collections.truncate(1);
    manifest.collections[0].definition.guard.as_mut().unwrap().allow = allow.into_iter().collect();
    manifest
}

#[test]
fn a_guard_that_allowed_much_before_that_was_bounded_is_read() {
    // Short names take three times their bytes in memory.
    let names = (0..700_000).map(|n| n.to_string());
    for manifest in [allowing(names), allowing(["x".repeat(17 << 20)])] {
        let bytes = encode_manifest(&manifest).unwrap();
        let read = decode_manifest(Path::new("MANIFEST"), &bytes);
        assert!(read.is_ok_and(|read| read == manifest), "a manifest of {} bytes", bytes.len());
    }
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let error = encode_manifest(&allowing(["x".repeat(64 << 20)])).unwrap_err();
    assert!(error.to_string().contains("the definition of docs has"), "{error}");
}

#[test]
fn golden_bytes() {
    let store_id = StoreId(*b"0123456789abcdef");
    assert_eq!(encode_manifest(&sample(store_id)).unwrap(), bytes_of_sample(3));
}

#[test]
fn older_versions_had_no_storage_no_template_no_chunks_and_no_text() {
    let store_id = StoreId(*b"0123456789abcdef");
    let mut wanted = sample(store_id);
    let read = |version| decode_manifest(Path::new("MANIFEST"), &bytes_of_sample(version)).unwrap();
    for collection in &mut wanted.collections {
        collection.definition.index = IndexDefinition::default();
        (collection.definition.template, collection.definition.guard) = (None, None);
        collection.definition.chunks = None;
    }
    assert_eq!(read(2), wanted);
    wanted.collections.iter_mut().for_each(|collection| collection.definition.text = TextDefinition::default());
    assert_eq!(read(1), wanted);
}

/// [`sample`] as each version of the format has it.
fn bytes_of_sample(version: u8) -> Vec<u8> {
    let mut text = if version == 1 { Vec::new() } else { b"\x01\0\0\0".to_vec() };
    if version == 3 {
        text.extend(b"\x01\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0a\0\0\0\0\0\0\0\0");
        text.extend([0; 8]);
        text.extend(b"\x01\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
        text.extend(b"\x01\xc8\0\0\0\x14\0\0\0");
    }
    let storage: &[u8] = if version < 3 { &[] } else { b"\x01\0\0\0" };
    let definition_len = 60 + storage.len() + text.len();
    let mut expected = b"PANNRMAN".to_vec();
    expected.push(version);
    expected.extend(b"\0\0\0\0\0\0\x000123456789abcdef\x01\0\0\0\x58\0\0\0");
    expected.extend([1u64, 9].map(u64::to_le_bytes).concat());
    expected.extend([3u32, 2].map(u32::to_le_bytes).concat());
    expected.extend([7u64, 421 + 2 * (storage.len() + text.len()) as u64].map(u64::to_le_bytes).concat());
    expected.extend([0; 4]);
    expected.extend(crc32c(&expected).to_le_bytes());
    assert_eq!(expected.len(), HEADER_BYTES);
    for (id, name, created, sealed, segments) in [(1u32, "docs", 3u64, 9u64, 2u32), (2, "empty", 11, 10, 0)] {
        expected.extend([id, 2].map(u32::to_le_bytes).concat());
        expected.extend(1_700_000_000_000i64.to_le_bytes());
        expected.extend([created, sealed].map(u64::to_le_bytes).concat());
        expected.extend([segments, name.len() as u32, definition_len as u32].map(u32::to_le_bytes).concat());
        expected.extend(name.as_bytes());
        expected.extend(b"\x80\x01\0\0\x01\0\0\0\x01");
        expected.extend(b"\x01\0\0\0\0\0\0\0m\x01\0\0\0\0\0\0\0f");
        expected.extend(b"\x10\0\0\0\x80\0\0\0\0\0\0\0");
        expected.extend(storage);
        expected.extend(b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0k\x01\0\0\0");
        expected.extend(&text);
        for (id, dead_version, flag) in [(5u64, 2u64, 1u8), (6, 0, 0)].into_iter().take(segments as usize) {
            expected.extend(id.to_le_bytes());
            expected.extend([100u32, 3].map(u32::to_le_bytes).concat());
            expected.extend([4, 9, 123_456, dead_version].map(u64::to_le_bytes).concat());
            expected.extend([7, 0, 0, 0, flag, 0, 0, 0]);
        }
    }
    expected.extend(crc32c(&expected).to_le_bytes());
    expected
}

#[test]
fn golden_bytes_of_format() {
    let mut expected = b"PANNRFMT\x01\0\0\0\0\0\0\x000123456789abcdef\x28\0\0\0".to_vec();
    expected.extend(0x9a41_5768_u32.to_le_bytes());
    assert_eq!(super::format::encode_format(StoreId(*b"0123456789abcdef")), expected);
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let (_root, paths, _) = store();
    for path in [paths.format(), paths.manifest()] {
        let good = fs::read(&path).unwrap();
        let decode = |bytes: &[u8]| match path == paths.format() {
            true => decode_format(&path, bytes).map(drop),
            false => decode_manifest(&path, bytes).map(drop),
        };
        let is_refused = |bytes: &[u8], case: &str| {
            let error = decode(bytes).unwrap_err();
            assert!(matches!(error, ManifestError::Damaged { .. }), "{case}: {error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{case}: {error}");
        };
        for len in 0..good.len() {
            is_refused(&good[..len], &format!("cut to {len}"));
        }
        is_refused(&[good.as_slice(), &[0]].concat(), "one byte more");
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            is_refused(&bytes, &format!("bit {bit}"));
        }
        decode(&good).unwrap();
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(matches!(Manifest::load(&paths), Err(ManifestError::Damaged { .. })));
        fs::write(&path, &good).unwrap();
    }
    Manifest::load(&paths).unwrap();
}

/// Puts right the checksums of header and file after a change to a manifest's bytes.
fn seal(bytes: &mut [u8]) {
    let header_crc = crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&header_crc.to_le_bytes());
    let end = bytes.len() - 4;
    let file_crc = crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&file_crc.to_le_bytes());
}

#[test]
fn damage_under_right_checksums_never_panics() {
    let (_root, paths, _) = store();
    let good = fs::read(paths.manifest()).unwrap();
    for at in 0..good.len() - 4 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            seal(&mut bytes);
            let _ = decode_manifest(&paths.manifest(), &bytes);
        }
    }
}

#[test]
fn a_number_after_which_none_can_be_counted_is_refused() {
    let (_root, paths, _) = store();
    let good = fs::read(paths.manifest()).unwrap();
    // The manifest's version, the next collection's id, the next segment's id.
    for (at, len) in [(40, 8), (56, 4), (64, 8)] {
        let mut bytes = good.clone();
        bytes[at..at + len].fill(0xff);
        seal(&mut bytes);
        let error = decode_manifest(&paths.manifest(), &bytes).unwrap_err();
        assert!(error.to_string().contains("beyond the last possible one"), "{at}: {error}");
    }
}

#[test]
fn newer_versions_and_unknown_flags_are_named() {
    let (_root, paths, _) = store();
    let good = fs::read(paths.manifest()).unwrap();
    for (at, expected) in [(8, "format version"), (12, "flags"), (36, "header length")] {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        seal(&mut bytes);
        fs::write(paths.manifest(), &bytes).unwrap();
        let error = Manifest::load(&paths).unwrap_err();
        assert!(matches!(error, ManifestError::Unsupported { what, .. } if what == expected), "{error}");
    }
    fs::write(paths.manifest(), &good).unwrap();
    let mut bytes = fs::read(paths.format()).unwrap();
    bytes[8] = 2;
    let crc = crc32c(&bytes[..36]);
    bytes[36..].copy_from_slice(&crc.to_le_bytes());
    fs::write(paths.format(), &bytes).unwrap();
    let error = Manifest::load(&paths).unwrap_err();
    assert!(matches!(error, ManifestError::Unsupported { found: 2, supported: 1, .. }), "{error}");
    assert!(error.to_string().contains("FORMAT has format version 2, this program supports 1"), "{error}");
}

#[test]
fn a_manifest_of_another_store_or_none_is_refused() {
    let (_root, paths, _) = store();
    let (_other_root, other, _) = store();
    fs::copy(other.manifest(), paths.manifest()).unwrap();
    let error = Manifest::load(&paths).unwrap_err();
    assert!(matches!(error, ManifestError::Foreign { .. }), "{error}");
    fs::remove_file(paths.manifest()).unwrap();
    let error = Manifest::open(&paths).unwrap_err();
    assert!(matches!(&error, ManifestError::Missing { path } if *path == paths.manifest()), "{error}");
}

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let paths = DataPaths::new(root.path());
    for name in ["holiday.jpg", "draft.tmp", "log", "restore/thesis.txt"] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        for error in [refuse_foreign(&paths).unwrap_err(), Manifest::open(&paths).unwrap_err()] {
            let is_named = |found: &Path| path.starts_with(found) && found != root.path();
            assert!(matches!(&error, ManifestError::NotAStore { found, .. } if is_named(found)), "{error}");
        }
        assert_eq!(list_files_below(root.path()).unwrap(), std::slice::from_ref(&path));
        fs::remove_file(path).unwrap();
    }
    fs::remove_dir(paths.restore_dir()).unwrap();
    refuse_foreign(&paths).unwrap();
    assert!(matches!(Manifest::load(&paths), Err(ManifestError::NotInitialised { .. })));
    fs::create_dir(root.path().join("lost+found")).unwrap();
    let _lock = DirectoryLock::acquire(paths.lock()).unwrap();
    let created = Manifest::open(&paths).unwrap();
    refuse_foreign(&paths).unwrap();
    assert_eq!(Manifest::open(&paths).unwrap(), created);
    assert!(matches!(Manifest::create(&paths), Err(ManifestError::AlreadyInitialised { .. })));
}

#[test]
fn a_second_store_that_was_left_below_goes_when_the_store_is_opened() {
    let (_root, paths, manifest) = store();
    for dir in [paths.dry_run_dir(), paths.discarded_dir()] {
        fs::create_dir_all(dir.join("segments")).unwrap();
        fs::write(dir.join("segments/1.seg"), "bytes").unwrap();
    }
    assert_eq!(Manifest::open(&paths).unwrap(), manifest);
    assert_eq!(list_entries(paths.root()).unwrap(), [paths.format(), paths.manifest()]);
}

#[test]
fn a_manifest_that_contradicts_itself_is_not_published() {
    let (_root, paths, good) = store();
    let breaks: [fn(&mut Manifest); 11] = [
        |m| m.next_collection_id = 2,
        |m| m.next_segment_id = 6,
        |m| m.collections[1].name = m.collections[0].name.clone(),
        |m| m.collections[0].segments[1].id = SegmentId(5),
        |m| m.collections[0].segments[0].min_seq = Seq(10),
        |m| m.log_start = Seq(u64::MAX),
        // One more would be too large a number.
        |m| m.version = (1 << 63) - 1,
        |m| m.next_segment_id = u64::MAX,
        |m| m.next_segment_id = 1 << 63,
        |m| m.next_collection_id = u32::MAX,
        |m| m.collections[0].segments[0].dead_version = 1 << 63,
    ];
    for (number, change) in breaks.into_iter().enumerate() {
        let mut manifest = good.clone();
        change(&mut manifest);
        let error = manifest.publish(&paths).unwrap_err();
        assert!(matches!(error, ManifestError::Invalid { .. }), "{number}: {error}");
    }
    assert_eq!(Manifest::load(&paths).unwrap(), good);
}

#[test]
fn a_crash_at_every_step_of_a_publish_leaves_the_old_or_the_new() {
    let mut steps = 0;
    for fail_at in 0.. {
        let (_root, paths, old) = store();
        let mut new = old.clone();
        new.log_start = Seq(10);
        let faults = Faults::arm(paths.root(), fail_at, Then::Crash);
        let result = new.publish(&paths);
        let fired = faults.fired();
        drop(faults);
        assert_eq!(result.is_err(), fired, "{fail_at}");
        let loaded = Manifest::open(&paths).unwrap();
        assert!(loaded == old || (loaded.version, loaded.log_start) == (3, Seq(10)), "{fail_at}: {loaded:?}");
        assert!(fired || loaded == new, "{fail_at}");
        assert_eq!(list_files(paths.root()).unwrap().len(), 2, "{fail_at}: no temporary is left");
        steps = fail_at;
        if !fired {
            break;
        }
    }
    assert_eq!(steps, 5, "create, write, sync, rename, sync");
}

#[test]
fn a_crash_at_every_step_of_the_first_start_can_be_started_over() {
    for fail_at in 0.. {
        let root = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(root.path().join("new/data"));
        let faults = Faults::arm(root.path(), fail_at, Then::Crash);
        let result = Manifest::open(&paths);
        let fired = faults.fired();
        drop(faults);
        assert_eq!(result.is_err(), fired, "{fail_at}");
        let opened = Manifest::open(&paths).unwrap();
        assert_eq!(Manifest::load(&paths).unwrap(), opened, "{fail_at}");
        if !fired {
            assert_eq!(result.unwrap(), opened);
            assert!(fail_at >= 10, "{fail_at}");
            break;
        }
    }
}

#[test]
fn format_comes_after_the_manifest() {
    let root = tempfile::tempdir().unwrap();
    let paths = DataPaths::new(root.path());
    let _faults = Faults::arm_only(root.path(), Operation::Rename, 1, Then::Crash);
    assert!(Manifest::create(&paths).is_err());
    assert!(paths.manifest().exists() && !paths.format().exists());
}
