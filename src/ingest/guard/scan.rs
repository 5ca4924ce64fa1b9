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

/// What of the wanted kinds stands in a text and is not allowed, from left to right, no two of them overlapping. What
/// overlaps is one finding, so that no part of either is left: of the kind that begins first, and of those the longest.
pub(super) fn find(text: &str, kinds: &BTreeSet<PersonalData>, is_allowed: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut all = of_each(text, kinds);
    all.retain(|finding| !is_allowed(&text[finding.start..finding.end]));
    all.sort_by_key(|finding| (finding.start, usize::MAX - finding.end));
    all.dedup_by(|next, last| {
        let overlaps = next.start < last.end;
        if overlaps {
            last.end = last.end.max(next.end);
        }
        overlaps
    });
    all
}

/// What is found of each kind by itself.
pub(super) fn of_each(text: &str, kinds: &BTreeSet<PersonalData>) -> Vec<Finding> {
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
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any text is searched without a panic, what is found can be cut out, and nothing that was found of a kind is
        /// left then.
        #[test]
        fn findings_are_ranges_of_characters_and_leave_nothing_out(
            text in "[ -~äд\\n]{0,60}|[0-9 .()+:-]{0,40}|[A-Za-z0-9@.: ]{0,50}|\\+?([2-6][0-9]{3} ){1,8}[0-9]{1,4}",
        ) {
            let kinds = PersonalData::ALL.into();
            let findings = find(&text, &kinds, |_| false);
            let mut end = 0;
            for finding in &findings {
                prop_assert!(finding.start >= end && finding.end > finding.start);
                prop_assert!(text.get(finding.start..finding.end).is_some());
                end = finding.end;
            }
            for part in of_each(&text, &kinds) {
                let holds = |finding: &Finding| finding.start <= part.start && part.end <= finding.end;
                prop_assert!(findings.iter().any(holds), "{part:?} of {text:?}: {findings:?}");
            }
        }
    }
}
