//! Names and numbers that identify things.

use std::fmt;
use std::sync::Arc;

use super::limits::{MAX_DOCUMENT_ID_BYTES, MAX_NAME_BYTES};

/// Position of a change in the log; the first change has seq 1, and 0 means "before any change".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct Seq(pub u64);

impl Seq {
    /// No store counts so far, so that arithmetic on a seq cannot overflow.
    pub const END: Self = Self(1 << 63);

    /// The seq after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a collection, never used twice in one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct CollectionId(pub u32);

impl CollectionId {
    /// No store counts so far, so that arithmetic on a number cannot overflow.
    pub const END: Self = Self(1 << 31);
}

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a segment, never used twice in one store; a later segment has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A row in a segment or memtable, counted from 0.
pub type Ordinal = u32;

/// Why a name or id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// A collection name has a character or a length that is not allowed.
    #[error(
        "collection name {got:?} is not allowed: use 1 to {MAX_NAME_BYTES} of the characters a-z, 0-9, '_' and '-'"
    )]
    Collection {
        /// The name as given, cut to 100 characters.
        got: String,
    },
    /// A document id is empty, too long or holds control characters.
    #[error(
        "document id {got:?} is not allowed: use 1 to {MAX_DOCUMENT_ID_BYTES} bytes of UTF-8 without control characters"
    )]
    Document {
        /// The id as given, cut to 100 characters.
        got: String,
    },
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// A collection's name: `[a-z0-9_-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError::Collection`] when it is not `[a-z0-9_-]{1,64}`.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(allowed) {
            return Err(NameError::Collection { got: cut(name) });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A document's id: 1 to 512 bytes of UTF-8 without control characters, unique in its collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(Arc<str>);

impl DocumentId {
    /// Checks and takes an id.
    ///
    /// # Errors
    /// [`NameError::Document`] when it is empty, longer than 512 bytes or holds a control character.
    pub fn new(id: &str) -> Result<Self, NameError> {
        if id.is_empty() || id.len() > MAX_DOCUMENT_ID_BYTES || id.chars().any(char::is_control) {
            return Err(NameError::Document { got: cut(id) });
        }
        Ok(Self(id.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! encode_as_text {
    ($name:ident) => {
        impl bincode::Encode for $name {
            fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
                self.as_str().encode(encoder)
            }
        }

        impl<C> bincode::Decode<C> for $name {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let text = String::decode(decoder)?;
                Self::new(&text).map_err(|e| bincode::error::DecodeError::OtherString(e.to_string()))
            }
        }

        impl<'de, C> bincode::BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                <Self as bincode::Decode<C>>::decode(decoder)
            }
        }
    };
}

encode_as_text!(CollectionName);
encode_as_text!(DocumentId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_names_are_path_safe() {
        for name in ["a", "a-b_9", &"x".repeat(64)] {
            assert!(CollectionName::new(name).is_ok(), "{name}");
        }
        for name in ["", "..", "a/b", "A", "a b", "é", &"x".repeat(65)] {
            assert!(CollectionName::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn document_ids_take_any_text_but_control_characters() {
        for id in ["1", "../x", "привет", &"x".repeat(512)] {
            assert!(DocumentId::new(id).is_ok(), "{id}");
        }
        for id in ["", "a\nb", "\0", &"x".repeat(513)] {
            assert!(DocumentId::new(id).is_err(), "{id:?}");
        }
    }
}
