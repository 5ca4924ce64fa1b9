//! Times as RFC 3339 in UTC with milliseconds.

use jiff::Timestamp;

/// `milliseconds`: since the Unix epoch. A time outside the years -9999 to 9999 is written as the nearest of them.
pub(crate) fn rfc3339(milliseconds: i64) -> String {
    let nearest = if milliseconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or(nearest);
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_always_stand_there() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert!(rfc3339(i64::MAX).starts_with("9999-12-30T") && rfc3339(i64::MIN).starts_with("-"));
    }
}
