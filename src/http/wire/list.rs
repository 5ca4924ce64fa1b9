//! Arrays that a request may not make long.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// An array of at most `N` items. Of a longer one as many are kept and one more; the rest are only counted, so that a
/// body of millions of them costs no memory before it is refused.
#[derive(Debug)]
pub(crate) struct AtMost<T, const N: usize> {
    items: Vec<T>,
    count: usize,
}

impl<T, const N: usize> AtMost<T, N> {
    /// How many were sent.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The items; `N` + 1 of them where more than `N` were sent.
    pub(crate) fn into_items(self) -> Vec<T> {
        self.items
    }
}

// serde's derive would ask for a default of the items.
impl<T, const N: usize> Default for AtMost<T, N> {
    fn default() -> Self {
        Self { items: Vec::new(), count: 0 }
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for ListVisitor<T, N> {
    type Value = AtMost<T, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AtMost<T, N>, A::Error> {
        let mut items = Vec::new();
        while items.len() <= N {
            match seq.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(AtMost { count: items.len(), items }),
            }
        }
        let mut count = items.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(AtMost { items, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_and_not_kept() {
        let read = |text: &str| {
            let list: AtMost<u8, 2> = serde_json::from_str(text).unwrap();
            (list.count(), list.into_items())
        };
        assert_eq!(read("[]"), (0, vec![]));
        assert_eq!(read("[1,2]"), (2, vec![1, 2]));
        assert_eq!(read("[1,2,3,\"x\",{},6]"), (6, vec![1, 2, 3]));
        assert!(serde_json::from_str::<AtMost<u8, 2>>("[1,\"x\"]").is_err());
        assert!(serde_json::from_str::<AtMost<u8, 1>>("[1,2,3").is_err());
    }
}
