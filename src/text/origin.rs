//! What a keyword index says of itself in the payload of every commit: whose it is, and how far it has read the log.

use crate::types::{CollectionId, Language, Seq};

/// Version of the schema and of the analysis. An index of another one is made again.
const VERSION: u32 = 2;

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
    /// The payload of a commit that holds every change up to `applied`.
    pub(super) fn payload(&self, applied: Seq) -> String {
        format!("{} {applied}", self.prefix())
    }

    /// How far an index with this payload has read.
    ///
    /// # Errors
    /// A sentence: it belongs to something else, or says nothing.
    pub(super) fn applied(&self, payload: Option<&str>) -> Result<Seq, String> {
        let payload = payload.ok_or("it was never committed")?;
        let seq = payload.strip_prefix(&self.prefix()).and_then(|rest| rest.strip_prefix(' '));
        match seq.map(str::parse) {
            Some(Ok(seq)) => Ok(Seq(seq)),
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
        let payload = origin().payload(Seq(12));
        assert_eq!(payload, "pannier-text 2 30313233343536373839616263646566 2 7 russian 12");
        assert_eq!(origin().applied(Some(&payload)), Ok(Seq(12)));
    }

    #[test]
    fn another_origin_is_refused() {
        let payload = origin().payload(Seq(12));
        let others = [
            Origin { store_id: [0; 16], ..origin() },
            Origin { timeline: 1, ..origin() },
            Origin { collection: CollectionId(70), ..origin() },
            Origin { language: Language::None, ..origin() },
        ];
        for other in others {
            assert!(other.applied(Some(&payload)).is_err(), "{other:?}");
        }
        for damaged in [None, Some(""), Some("pannier-text 2 30313233343536373839616263646566 2 7 russian")] {
            assert!(origin().applied(damaged).is_err(), "{damaged:?}");
        }
        assert!(origin().applied(Some(&payload.replace(" 12", " -1"))).is_err());
    }
}
