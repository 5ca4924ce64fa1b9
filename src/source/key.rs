//! A row's key as a document's id.

/// The values of a key as one text. One value stands as it is; several are joined by colons, and a colon or a backslash
/// within one of them gets a backslash before it, so that no two keys are the same text.
pub(super) fn id_of(values: &[String]) -> String {
    match values {
        [value] => value.clone(),
        values => values.iter().map(|value| escaped(value)).collect::<Vec<_>>().join(":"),
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace(':', r"\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_the_same_id() {
        let id = |values: &[&str]| id_of(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>());
        assert_eq!(id(&["1", "x"]), "1:x");
        assert_eq!(id(&[r"urn:a\b"]), r"urn:a\b");
        assert_eq!(id(&["a:b", "c"]), r"a\:b:c");
        assert_eq!(id(&["a", "b:c"]), r"a:b\:c");
        assert_eq!(id(&[r"a\", "b"]), r"a\\:b");
        assert_ne!(id(&[r"a\", "b"]), id(&["a", r"\b"]));
        assert_ne!(id(&[r"a\", ":b"]), id(&[r"a\:", "b"]));
    }
}
