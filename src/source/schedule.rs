//! When a source is read again: after a time, or when a pattern of times says so.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::SourceError;

/// When to read again.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// This long after the last run began.
    Every(Duration),
    /// At the times of a pattern, in UTC.
    Cron(Box<Cron>),
}

impl Schedule {
    /// Reads `90s`, `5m`, `2h` or `1d`.
    ///
    /// # Errors
    /// [`SourceError::Schedule`].
    pub fn every(text: &str) -> Result<Self, SourceError> {
        duration(text).filter(|duration| !duration.is_zero()).map(Self::Every).ok_or_else(|| SourceError::Schedule {
            text: text.to_owned(),
            what: "time between two runs",
            example: "30s, 5m, 2h or 1d",
        })
    }

    /// Reads five fields: minute, hour, day of the month, month, day of the week.
    ///
    /// # Errors
    /// [`SourceError::Schedule`].
    pub fn cron(text: &str) -> Result<Self, SourceError> {
        Cron::from_str(text).map(|cron| Self::Cron(Box::new(cron))).map_err(|_| SourceError::Schedule {
            text: text.to_owned(),
            what: "pattern of times",
            example: "minute, hour, day, month and day of the week, such as \"*/15 * * * *\"",
        })
    }

    /// How long to wait at `now` for the next run, when the last one began at `began`. `None` where there is none.
    pub fn wait(&self, began: Timestamp, now: Timestamp) -> Option<Duration> {
        match self {
            Self::Every(every) => {
                let passed = Duration::try_from(now.duration_since(began)).unwrap_or_default();
                Some(every.saturating_sub(passed))
            }
            Self::Cron(cron) => {
                let next = cron.find_next_occurrence(&now.to_zoned(TimeZone::UTC), false).ok()?;
                Duration::try_from(next.timestamp().duration_since(now)).ok()
            }
        }
    }
}

/// Reads a number and its unit: s, m or min, h, d.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..at].parse().ok()?;
    let unit = match text[at..].trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_have_units() {
        let wait =
            |text: &str| Schedule::every(text).unwrap().wait(at("2024-01-01T00:00:00Z"), at("2024-01-01T00:00:10Z"));
        assert_eq!(wait("5m"), Some(Duration::from_secs(290)));
        assert_eq!(wait("5s"), Some(Duration::ZERO), "a run that took longer is followed at once");
        for text in ["", "5", "m", "5 weeks", "0s", "-5m", "99999999999999999999s"] {
            assert!(Schedule::every(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_are_in_utc() {
        let cron = Schedule::cron("30 4 * * *").unwrap();
        let now = at("2024-02-28T04:30:00Z");
        assert_eq!(cron.wait(now, now), Some(Duration::from_secs(86_400)));
        assert_eq!(cron.wait(now, at("2024-02-28T04:29:00Z")), Some(Duration::from_secs(60)));
        for text in ["", "x", "61 * * * *", "* * *"] {
            assert!(Schedule::cron(text).is_err(), "{text}");
        }
    }
}
