//! A snapshot's name, which is its directory's.

use std::fmt;

use jiff::Timestamp;

use super::SnapshotError;

const MAX_BYTES: usize = 64;
/// Begins the names of snapshots that the schedule takes, and that retention may remove.
const SCHEDULED: &str = "auto-";

/// A snapshot's name: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`SnapshotError::Name`].
    pub fn new(name: &str) -> Result<Self, SnapshotError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !begins || name.len() > MAX_BYTES || !name.bytes().all(allowed) {
            return Err(SnapshotError::Name { got: name.chars().take(100).collect() });
        }
        Ok(Self(name.to_owned()))
    }

    /// Takes a name that somebody chose for a new snapshot.
    ///
    /// # Errors
    /// As [`SnapshotName::new`]; [`SnapshotError::Scheduled`] for what retention would take for the schedule's.
    pub fn chosen(name: &str) -> Result<Self, SnapshotError> {
        let name = Self::new(name)?;
        if name.is_scheduled() { Err(SnapshotError::Scheduled) } else { Ok(name) }
    }

    /// The name of a snapshot that was asked for without one: its time, in UTC, to the millisecond.
    pub fn of_time(time: Timestamp) -> Self {
        Self(time_text(time))
    }

    /// The name of a snapshot that the schedule takes.
    pub fn scheduled(time: Timestamp) -> Self {
        Self(format!("{SCHEDULED}{}", time_text(time)))
    }

    /// Whether the schedule took it.
    pub fn is_scheduled(&self) -> bool {
        self.0.starts_with(SCHEDULED)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn time_text(time: Timestamp) -> String {
    format!("{time:.3}").chars().filter(char::is_ascii_digit).fold(String::new(), |mut text, digit| {
        if [8, 15].contains(&text.len()) {
            text.push('-');
        }
        text.push(digit);
        text
    })
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_directories() {
        for name in ["a", "before-import", "20261121-103000-123", "0_x"] {
            assert_eq!(SnapshotName::new(name).unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "a/b", "a.tmp", "-a", "_a", "A", "é", &"a".repeat(65)] {
            assert!(matches!(SnapshotName::new(name), Err(SnapshotError::Name { .. })), "{name}");
        }
    }

    #[test]
    fn times_sort_as_names() {
        let time = Timestamp::from_millisecond(1_700_000_000_120).unwrap();
        assert_eq!(SnapshotName::of_time(time).as_str(), "20231114-221320-120");
        let scheduled = SnapshotName::scheduled(time);
        assert_eq!((scheduled.as_str(), scheduled.is_scheduled()), ("auto-20231114-221320-120", true));
        assert!(SnapshotName::new(scheduled.as_str()).is_ok());
    }
}
