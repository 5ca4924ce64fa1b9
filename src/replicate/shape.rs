//! What a sink's rows hold, as its state keeps it: whether a cursor says anything about them.

/// What stands in the rows of a sink: a cursor of another shape says nothing about them. Kept as a text of its three
/// parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The number of the collection, which one of the same name that is made later has not.
    pub(super) collection: u32,
    /// Tells columns and what is mapped to them.
    pub(super) columns: u64,
    /// Tells table and scope.
    pub(super) place: u64,
}

impl Shape {
    /// As the state keeps it.
    pub(super) fn to_text(&self) -> String {
        format!("{} {:016x} {:016x}", self.collection, self.columns, self.place)
    }

    /// `None` for what another version wrote.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [collection, columns, place] = parts[..] else { return None };
        let number = |part| u64::from_str_radix(part, 16).ok();
        Some(Self { collection: collection.parse().ok()?, columns: number(columns)?, place: number(place)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_survives_as_text() {
        let shape = Shape { collection: 7, columns: u64::MAX, place: 1 };
        assert_eq!(shape.to_text(), "7 ffffffffffffffff 0000000000000001");
        assert_eq!(Shape::from_text(&shape.to_text()), Some(shape));
        for other in ["", "7", "7 1 2 3", "x 1 2", "7 g 2"] {
            assert_eq!(Shape::from_text(other), None, "{other}");
        }
    }
}
