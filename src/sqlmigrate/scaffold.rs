//! A new migration's two files.

use std::path::{Path, PathBuf};

use super::{MigrateError, read_directory};
use crate::storage::{create_dir_all, publish};

/// Longest name of a migration.
const MAX_NAME_CHARS: usize = 64;

/// Writes the next migration of a directory, and its way back. `dry_run`: only says which files that would be.
///
/// # Errors
/// [`MigrateError`] when the directory's files cannot be read or the new ones cannot be written.
pub fn scaffold(dir: &Path, name: &str, dry_run: bool) -> Result<[PathBuf; 2], MigrateError> {
    let steps = if dir.exists() { read_directory(dir)? } else { Vec::new() };
    let next = steps.iter().map(|step| step.version.0).max().map_or(1, |last| last.saturating_add(1));
    let width = steps.iter().map(|step| step.digits.len()).max().unwrap_or(3).max(3);
    let stem = format!("{next:0width$}_{}", plain(name)?);
    let up = dir.join(format!("{stem}.sql"));
    let down = dir.join(format!("{stem}.down.sql"));
    if dry_run {
        return Ok([up, down]);
    }
    create_dir_all(dir)?;
    let depends = steps.last().map_or(String::new(), |last| format!("-- depends: {}\n", last.digits));
    publish(&up, format!("-- What this migration does, and why.\n{depends}\n").as_bytes())?;
    publish(&down, b"-- Takes it back.\n\n")?;
    Ok([up, down])
}

/// A name as file names have it.
fn plain(name: &str) -> Result<String, MigrateError> {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let plain = words.collect::<Vec<_>>().join("_").to_lowercase();
    if plain.is_empty() || plain.chars().count() > MAX_NAME_CHARS {
        return Err(MigrateError::FileName { path: PathBuf::from(name) });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_number_and_both_ways() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("schema/migrations");
        let [up, down] = scaffold(&dir, "Create tables!", false).unwrap();
        assert!(up.ends_with("001_create_tables.sql") && down.ends_with("001_create_tables.down.sql"));
        let [second, _] = scaffold(&dir, "add-index", true).unwrap();
        assert!(second.ends_with("002_add_index.sql") && !second.exists());
        scaffold(&dir, "add-index", false).unwrap();
        let steps = read_directory(&dir).unwrap();
        assert_eq!(steps[1].depends, [steps[0].version]);
        assert!(scaffold(&dir, "../..", false).is_err());
    }
}
