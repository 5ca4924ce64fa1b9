//! Everything of the wanted kinds in a text.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{account, address, number};
use crate::types::PersonalData;

/// Something personal in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub kind: PersonalData,
    /// Bytes of the text, `start..end`, at borders of characters.
    pub start: usize,
    pub end: usize,
}

/// What of the wanted kinds stands in a text, from left to right, no two of them overlapping. Where two kinds claim
/// the same place, the one that begins first stands, and of those the longer one.
pub(super) fn find(text: &str, kinds: &BTreeSet<PersonalData>) -> Vec<Finding> {
    let mut all = Vec::new();
    for &kind in kinds {
        let ranges = match kind {
            PersonalData::Email => address::emails(text),
            PersonalData::IpAddress => address::ip_addresses(text),
            PersonalData::Phone => number::phones(text),
            PersonalData::Card => number::cards(text),
            PersonalData::SocialSecurity => number::social_security(text),
            PersonalData::Iban => account::ibans(text),
        };
        all.extend(ranges.into_iter().map(|Range { start, end }| Finding { kind, start, end }));
    }
    all.sort_by_key(|finding| (finding.start, usize::MAX - finding.end));
    let mut end = 0;
    all.retain(|finding| {
        let is_free = finding.start >= end;
        if is_free {
            end = finding.end;
        }
        is_free
    });
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any text is searched without a panic, and what is found can be cut out.
        #[test]
        fn findings_are_ranges_of_characters(text in "[ -~äд\\n]{0,60}|[0-9 .()+:-]{0,40}|[A-Za-z0-9@.: ]{0,50}") {
            let mut end = 0;
            for finding in find(&text, &PersonalData::ALL.into()) {
                prop_assert!(finding.start >= end && finding.end > finding.start);
                prop_assert!(text.get(finding.start..finding.end).is_some());
                end = finding.end;
            }
        }
    }
}
