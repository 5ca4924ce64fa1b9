//! What a keyword index says of itself in the payload of every commit: whose it is, how far it has read the log, and
//! how much it could not read.

use crate::types::{CollectionId, Language, Seq};

/// Version of the schema and of the analysis. An index of another one is made again.
const VERSION: u32 = 3;

/// Which collection of which store an index is a view of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The store.
    pub store_id: [u8; 16],
    /// Which history of it.
    pub timeline: u32,
    /// The collection.
    pub collection: CollectionId,
    /// How its texts become words.
    pub language: Language,
}

impl Origin {
    /// The payload of a commit that holds every change up to `applied`, but for `unreadable` rows.
    pub(super) fn payload(&self, applied: Seq, unreadable: u64) -> String {
        match unreadable {
            0 => format!("{} {applied}", self.prefix()),
            _ => format!("{} {applied} {unreadable}", self.prefix()),
        }
    }

    /// How far an index with this payload has read, and how many rows it could not read.
    ///
    /// # Errors
    /// A sentence: it belongs to something else, or says nothing.
    pub(super) fn read(&self, payload: Option<&str>) -> Result<(Seq, u64), String> {
        let payload = payload.ok_or("it was never committed")?;
        let numbers = payload.strip_prefix(&self.prefix()).and_then(|rest| rest.strip_prefix(' '));
        let (applied, unreadable) = numbers.map_or(("", "0"), |text| text.split_once(' ').unwrap_or((text, "0")));
        match (applied.parse(), unreadable.parse()) {
            (Ok(applied), Ok(unreadable)) => Ok((Seq(applied), unreadable)),
            _ => Err(format!("it belongs to something else: {payload:?}, expected {:?} and a seq", self.prefix())),
        }
    }

    fn prefix(&self) -> String {
        let language = match self.language {
            Language::English => "english",
            Language::Russian => "russian",
            Language::None => "none",
        };
        let store = u128::from_be_bytes(self.store_id);
        format!("pannier-text {VERSION} {store:032x} {} {} {language}", self.timeline, self.collection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin { store_id: *b"0123456789abcdef", timeline: 2, collection: CollectionId(7), language: Language::Russian }
    }

    #[test]
    fn a_payload_has_this_form_and_comes_back() {
        let payload = origin().payload(Seq(12), 0);
        assert_eq!(payload, "pannier-text 3 30313233343536373839616263646566 2 7 russian 12");
        assert_eq!(origin().read(Some(&payload)), Ok((Seq(12), 0)));
        let payload = origin().payload(Seq(12), 340);
        assert_eq!(payload, "pannier-text 3 30313233343536373839616263646566 2 7 russian 12 340");
        assert_eq!(origin().read(Some(&payload)), Ok((Seq(12), 340)));
    }

    #[test]
    fn another_origin_is_refused() {
        let payload = origin().payload(Seq(12), 0);
        let others = [
            Origin { store_id: [0; 16], ..origin() },
            Origin { timeline: 1, ..origin() },
            Origin { collection: CollectionId(70), ..origin() },
            Origin { language: Language::None, ..origin() },
        ];
        for other in others {
            assert!(other.read(Some(&payload)).is_err(), "{other:?}");
        }
        for damaged in [None, Some(""), Some("pannier-text 3 30313233343536373839616263646566 2 7 russian")] {
            assert!(origin().read(damaged).is_err(), "{damaged:?}");
        }
        for numbers in [" -1", " 12 ", " 12 -1", " 12 3 4"] {
            assert!(origin().read(Some(&payload.replace(" 12", numbers))).is_err(), "{numbers:?}");
        }
    }
}
