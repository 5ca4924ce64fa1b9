//! Which effort of a walk reaches which recall on a segment's graph, as measured when the graph was built.

/// Efforts that are measured.
pub const CALIBRATED_EF: [usize; 12] = [10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384];
/// Results that recall is measured over.
pub const CALIBRATED_TOP_K: usize = 10;
/// Of stored recalls: 10,000 is 1.
const PARTS: f64 = 10_000.0;

/// Recall@10 for each of [`CALIBRATED_EF`], in parts of 10,000; all 0 where it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calibration(pub(super) [u16; CALIBRATED_EF.len()]);

impl Calibration {
    /// From recalls between 0 and 1, one for each of [`CALIBRATED_EF`]. More effort never counts as less recall.
    pub fn measured(recalls: [f64; CALIBRATED_EF.len()]) -> Self {
        let mut best = 0;
        // A measured recall of 0 is stored as the smallest above it, since all 0 says that nothing was measured.
        Self(recalls.map(|recall| {
            best = best.max((recall.clamp(0.0, 1.0) * PARTS).floor() as u16).max(1);
            best
        }))
    }

    /// As if efforts below `ef` had reached next to nothing.
    pub fn only_from(mut self, ef: usize) -> Self {
        if self != Self::default() {
            let below = CALIBRATED_EF.iter().zip(&mut self.0).filter(|&(&effort, _)| effort < ef);
            below.for_each(|(_, recall)| *recall = 1);
        }
        self
    }

    /// Whether these numbers can be a calibration: they never fall, and none exceeds 1.
    pub(super) fn is_sound(&self) -> bool {
        self.0.is_sorted() && self.0.iter().all(|&recall| f64::from(recall) <= PARTS)
    }

    /// Whether some measured effort reaches `recall`.
    pub fn reaches(&self, recall: f64) -> bool {
        self.0.iter().any(|&reached| f64::from(reached) >= recall * PARTS)
    }

    /// The least effort that reaches `recall`, between measured efforts on a straight line; the greatest measured where
    /// none does, and `None` where nothing was measured.
    pub fn ef_for(&self, recall: f64) -> Option<usize> {
        let [.., last] = self.0;
        if last == 0 {
            return None;
        }
        let wanted = recall * PARTS;
        let Some(at) = self.0.iter().position(|&reached| f64::from(reached) >= wanted) else {
            return CALIBRATED_EF.last().copied();
        };
        let Some(before) = at.checked_sub(1) else { return Some(CALIBRATED_EF[at]) };
        let (low, high) = (f64::from(self.0[before]), f64::from(self.0[at]));
        let (from, to) = (CALIBRATED_EF[before], CALIBRATED_EF[at]);
        Some(from + ((to - from) as f64 * (wanted - low) / (high - low)).ceil() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_effort_that_suffices_is_taken() {
        let mut recalls = [1.0; 12];
        recalls[..4].copy_from_slice(&[0.90, 0.92, 0.96, 0.98]);
        let calibration = Calibration::measured(recalls);
        assert!(calibration.is_sound());
        let expected = [(0.5, 10), (0.90, 10), (0.92, 12), (0.94, 14), (0.95, 15), (0.96, 16), (0.97, 20), (1.0, 32)];
        for (recall, ef) in expected {
            assert_eq!(calibration.ef_for(recall), Some(ef), "{recall}");
        }
    }

    #[test]
    fn what_no_effort_reaches_gets_the_greatest() {
        assert_eq!(Calibration::measured([0.5; 12]).ef_for(0.95), Some(384));
        assert_eq!(Calibration::measured([0.0; 12]).ef_for(0.95), Some(384));
        assert_eq!(Calibration::default().ef_for(0.95), None);
    }

    #[test]
    fn efforts_can_be_left_out() {
        let calibration = Calibration::measured([0.99; 12]).only_from(24);
        assert!(calibration.is_sound());
        assert_eq!(calibration.ef_for(0.95), Some(24));
        assert_eq!(calibration.only_from(10), calibration);
        assert_eq!(Calibration::default().only_from(24), Calibration::default());
    }

    #[test]
    fn noise_does_not_make_recall_fall() {
        let mut recalls = [0.99; 12];
        recalls[3] = 1.0;
        assert_eq!(
            Calibration::measured(recalls).0,
            [9_900, 9_900, 9_900, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000]
        );
        assert!(Calibration::default().is_sound());
        assert!(!Calibration([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 10]).is_sound());
        assert!(!Calibration([10_001; 12]).is_sound());
    }
}
