//! A directory of migrations: `NNN_name.sql`, `NNN_name.down.sql`, and what their first comments say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::MigrateError;
use super::kinds::{Fit, fit};
use super::lexer::{Kind, tokens};
use super::split::{Statement, split};

/// The line that lets a migration run without a transaction.
const NO_TRANSACTION: &str = "no-transaction";
const DEPENDS: &str = "depends:";

/// The number of a migration; leading zeros do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// One migration, read and checked.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its number.
    pub version: Version,
    /// The number as the file's name has it.
    pub digits: String,
    /// The rest of the file's name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file, in hex.
    pub checksum: String,
    /// What must be applied before.
    pub depends: Vec<Version>,
    /// Whether it runs without a transaction.
    pub is_alone: bool,
    /// Whether there is a way back.
    pub has_down: bool,
    pub(super) up: Vec<Statement>,
    pub(super) down: Option<Script>,
}

/// A file's statements.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub path: PathBuf,
    pub is_alone: bool,
    pub statements: Vec<Statement>,
}

impl Step {
    /// From the text of its file.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, MigrateError> {
        let (version, digits, name) = parse_name(path)?;
        let script = Script::read(path, text)?;
        Ok(Self {
            version,
            digits,
            name,
            path: path.to_owned(),
            checksum: checksum(text),
            depends: depends(path, text)?,
            is_alone: script.is_alone,
            has_down: false,
            up: script.statements,
            down: None,
        })
    }

    pub(super) fn with_down(mut self, path: &Path, text: &str) -> Result<Self, MigrateError> {
        self.down = Some(Script::read(path, text)?);
        self.has_down = true;
        Ok(self)
    }
}

impl Script {
    fn read(path: &Path, text: &str) -> Result<Self, MigrateError> {
        let statements = split(text).map_err(|unclosed| {
            let reason = format!("line {}: a string, a quoted name or a comment does not end", unclosed.line);
            MigrateError::File { path: path.to_owned(), reason }
        })?;
        let statements: Vec<Statement> = statements.into_iter().filter(|statement| !statement.is_empty()).collect();
        let is_alone = notes(text).any(|note| note == NO_TRANSACTION);
        for statement in &statements {
            let reason = match fit(statement) {
                Fit::Within => continue,
                Fit::Outside if is_alone => continue,
                Fit::Outside => {
                    "cannot run in a transaction; put it in a migration of its own whose first line is `-- no-transaction`"
                }
                Fit::EndsIt => "is for whoever runs the file; every migration has its own transaction, leave it out",
                Fit::NeedsInput => "waits for lines that a migration cannot send; write INSERT statements",
            };
            let (path, statement_head) = (path.to_owned(), statement.head());
            return Err(MigrateError::Statement { path, line: statement.line, statement: statement_head, reason });
        }
        Ok(Self { path: path.to_owned(), is_alone, statements })
    }
}

/// Reads a directory. Other files than `.sql` are passed over.
///
/// # Errors
/// [`MigrateError`] of the first group, for the first file that cannot be run as it stands.
pub fn read_directory(dir: &Path) -> Result<Vec<Step>, MigrateError> {
    let io = |source| MigrateError::Io { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "sql") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let (downs, ups): (Vec<PathBuf>, Vec<PathBuf>) = paths.into_iter().partition(|path| is_down(path));
    let mut steps: BTreeMap<Version, Step> = BTreeMap::new();
    for path in ups {
        let step = Step::read(&path, &read_text(&path)?)?;
        if let Some(other) = steps.get(&step.version) {
            let reason = format!("{} has the version {} too", other.path.display(), step.version);
            return Err(MigrateError::File { path, reason });
        }
        steps.insert(step.version, step);
    }
    for path in downs {
        let there = path.with_extension("").with_extension("sql");
        let found = steps.values().find(|step| step.path == there).map(|step| step.version);
        let Some(step) = found.and_then(|version| steps.remove(&version)) else {
            let reason = format!("there is no {}", there.display());
            return Err(MigrateError::File { path, reason });
        };
        steps.insert(step.version, step.with_down(&path, &read_text(&path)?)?);
    }
    ordered(steps)
}

fn read_text(path: &Path) -> Result<String, MigrateError> {
    let text = std::fs::read_to_string(path).map_err(|source| MigrateError::Io { path: path.to_owned(), source })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn is_down(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(".down"))
}

fn parse_name(path: &Path) -> Result<(Version, String, String), MigrateError> {
    let refuse = || MigrateError::FileName { path: path.to_owned() };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(refuse)?;
    let (digits, name) = stem.split_once(['_', '-']).ok_or_else(refuse)?;
    let number = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit())).ok_or_else(refuse)?;
    if name.is_empty() {
        return Err(refuse());
    }
    Ok((Version(number), digits.to_owned(), name.to_owned()))
}

/// What the line comments before the first statement say. Comments of the other kind may stand among them.
fn notes(text: &str) -> impl Iterator<Item = &str> {
    let head = tokens(text).into_iter().take_while(|token| matches!(token.kind, Kind::Space | Kind::Comment));
    let comments = head.filter_map(|token| text[token.start..token.end].strip_prefix("--"));
    comments.map(|comment| comment.trim_start_matches('-').trim())
}

fn depends(path: &Path, text: &str) -> Result<Vec<Version>, MigrateError> {
    let mut found = Vec::new();
    for list in notes(text).filter_map(|note| note.strip_prefix(DEPENDS)) {
        for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
            let digits = word.split('_').next().unwrap_or_default();
            let version = digits.parse().map(Version).map_err(|_| {
                let reason = format!("`-- depends: {word}` names no version; write numbers, joined by commas");
                MigrateError::File { path: path.to_owned(), reason }
            })?;
            found.push(version);
        }
    }
    Ok(found)
}

pub(super) fn checksum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The steps in order of version, each after its dependencies. A dependency without a file is taken as met here; the
/// caller looks it up in the database.
fn ordered(mut waiting: BTreeMap<Version, Step>) -> Result<Vec<Step>, MigrateError> {
    let there: BTreeSet<Version> = waiting.keys().copied().collect();
    let mut done: Vec<Step> = Vec::with_capacity(waiting.len());
    while let Some(first) = waiting.values().next() {
        let is_done = |version: &Version| !there.contains(version) || done.iter().any(|step| step.version == *version);
        let is_ready = |step: &&Step| step.depends.iter().all(is_done);
        let Some(ready) = waiting.values().find(is_ready).map(|step| step.version) else {
            let version = first.depends.iter().find(|version| !is_done(version)).copied().unwrap_or(first.version);
            let reason = "which depends on it in turn";
            return Err(MigrateError::Dependency { path: first.path.clone(), version, reason });
        };
        done.extend(waiting.remove(&ready));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    fn read(files: &[(&str, &str)]) -> Result<Vec<Step>, String> {
        let dir = directory(files);
        read_directory(dir.path()).map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
    }

    #[test]
    fn files_are_steps_in_the_order_of_versions_and_dependencies() {
        let files = [
            ("010_c.sql", "select 3"),
            ("2_b.sql", "/* Licence\n-- depends: 001 */\n-- a comment\n/**/ -- depends: 010, 007\nselect 2; select 2;"),
            ("001_a.sql", "select 1"),
            ("001_a.down.sql", "select 0"),
            ("README.md", "not sql"),
        ];
        let steps = read(&files).unwrap();
        let order: Vec<_> = steps.iter().map(|step| (step.version.0, step.name.as_str(), step.up.len())).collect();
        assert_eq!(order, [(1, "a", 1), (10, "c", 1), (2, "b", 2)]);
        assert!(steps[0].has_down && !steps[1].has_down);
        assert_eq!(steps[2].depends, [Version(10), Version(7)], "one without a file may have been applied");
        assert_eq!(steps[0].checksum, checksum("select 1"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("first.sql", "")], "first.sql: name it NNN_name.sql"),
            (&[("001_.sql", "")], "name it NNN_name.sql"),
            (&[("1_a.sql", ""), ("001_b.sql", "")], "has the version 001 too"),
            (&[("001_a.down.sql", "")], "there is no"),
            (&[("1_a.sql", "-- depends: 2\n"), ("2_b.sql", "-- depends: 1\n")], "in turn"),
            (&[("1_a.sql", "select 1;\n\nvacuum t;")], "1_a.sql:3: vacuum t cannot run in a transaction"),
            (&[("1_a.sql", "begin; select 1;")], "1_a.sql:1: begin is for whoever runs"),
            (&[("1_a.sql", "select 'a")], "line 1: a string"),
        ];
        for (files, wanted) in cases {
            let error = read(files).unwrap_err();
            assert!(error.contains(wanted), "{error} does not say {wanted}");
        }
    }

    #[test]
    fn a_migration_may_say_that_it_needs_no_transaction() {
        let steps = read(&[("1_a.sql", "-- no-transaction\ncreate index concurrently i on t (a);")]).unwrap();
        assert!(steps[0].is_alone);
        assert!(read(&[("1_a.sql", "-- no-transaction\nbegin;")]).is_err());
        let steps = read(&[("1_a.sql", "-- a note\r-- no-transaction\rvacuum t;")]).unwrap();
        assert!(steps[0].is_alone && steps[0].up.len() == 1, "lines may end with a carriage return alone");
    }
}
