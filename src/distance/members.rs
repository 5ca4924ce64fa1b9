//! Which of a list of rows are in a set: sixteen at a time where the machine can.

#[cfg(target_arch = "x86_64")]
use super::avx512;

/// Bits of a word.
const WORD: u32 = u64::BITS;

/// Adds those of `list` that are in the set (`IN`) or not in it to `out`, in their order, up to the first that is not
/// below `rows`. Returns how many come before that.
///
/// `words`: the set, a bit a row, those of a word from its lowest on.
///
/// # Panics
/// When the set has fewer bits than `rows`.
#[inline]
pub fn select_members<const IN: bool>(words: &[u64], rows: u32, list: &[u32], out: &mut Vec<u32>) -> usize {
    assert!(rows.div_ceil(WORD) as usize <= words.len(), "{rows} rows, {} words", words.len());
    #[cfg(target_arch = "x86_64")]
    if avx512::is_available() {
        // SAFETY: the instructions are there, and the set has a bit for each row.
        return unsafe { avx512::select_members::<IN>(words, rows, list, out) };
    }
    select_by_one::<IN>(words, rows, list, out)
}

/// Mostly few are chosen, unpredictably: each is written down, and kept by the count alone.
fn select_by_one<const IN: bool>(words: &[u64], rows: u32, list: &[u32], out: &mut Vec<u32>) -> usize {
    let start = out.len();
    out.resize(start + list.len(), 0);
    let (mut end, mut before) = (start, 0);
    for &row in list.iter().take_while(|&&row| row < rows) {
        out[end] = row;
        let is_in = words[(row / WORD) as usize] >> (row % WORD) & 1 == 1;
        end += usize::from(is_in == IN);
        before += 1;
    }
    out.truncate(end);
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_are_as_one_by_one() {
        let words: Vec<u64> = (1..=40u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let rows = 64 * 40 - 9;
        for len in 0..70usize {
            for bad in [None, Some(0), Some(len / 2), Some(len.saturating_sub(1))] {
                let mut list: Vec<u32> = (0..len as u32).map(|n| n.wrapping_mul(2_654_435_761) % rows).collect();
                for (at, beyond) in bad.into_iter().zip([rows]).chain(bad.map(|at| (at + 3, u32::MAX))) {
                    if let Some(row) = list.get_mut(at) {
                        *row = beyond;
                    }
                }
                let (mut got, mut wanted) = (vec![7], vec![7]);
                let before = select_members::<true>(&words, rows, &list, &mut got);
                assert_eq!(before, select_by_one::<true>(&words, rows, &list, &mut wanted), "{list:?}");
                assert_eq!(got, wanted);
                assert_eq!(before, bad.filter(|&at| at < len).unwrap_or(len));
                let inside = got.len() - 1;
                assert_eq!(select_members::<false>(&words, rows, &list, &mut got), before);
                select_by_one::<false>(&words, rows, &list, &mut wanted);
                assert_eq!(got, wanted);
                assert_eq!(got.len() - 1, before, "{inside} inside, the others outside");
            }
        }
    }

    #[test]
    #[should_panic(expected = "65 rows, 1 words")]
    fn a_set_of_fewer_rows_is_refused() {
        select_members::<true>(&[0], 65, &[64], &mut Vec::new());
    }
}
