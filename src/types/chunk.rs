//! Chunks: the parts of a long text, each with a vector of its own.

/// How a collection splits its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct ChunkDefinition {
    /// Most tokens of a chunk, special tokens left out.
    pub max_tokens: u32,
    /// Tokens that a chunk shares with the one before it, about; at most half of `max_tokens`.
    pub overlap_tokens: u32,
}

/// Where a chunk stands in its document's text, in characters (Unicode scalar values), end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSpan {
    /// First character.
    pub start: u32,
    /// After the last character.
    pub end: u32,
}

impl ChunkSpan {
    /// Of a chunk whose vector was given without a place in a text.
    pub const NOWHERE: Self = Self { start: u32::MAX, end: u32::MAX };

    /// The span, unless it is [`ChunkSpan::NOWHERE`].
    pub fn place(self) -> Option<Self> {
        (self != Self::NOWHERE).then_some(self)
    }

    /// The part of `text` that it names; `None` where the text is shorter, or the span names none.
    pub fn of(self, text: &str) -> Option<&str> {
        let Self { start, end } = self.place()?;
        let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        let first = places.nth(start as usize)?;
        let last = match end.checked_sub(start)? {
            0 => first,
            length => places.nth(length as usize - 1)?,
        };
        text.get(first..last)
    }
}

/// A chunk as given or as returned: its vector, and where it stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// `None` where nobody said.
    pub span: Option<ChunkSpan>,
    /// f32, shape `[dim]`.
    pub vector: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_count_characters() {
        let span = |start, end| ChunkSpan { start, end };
        assert_eq!(span(1, 3).of("äöü"), Some("öü"));
        assert_eq!(span(0, 3).of("äöü"), Some("äöü"));
        assert_eq!(span(3, 3).of("äöü"), Some(""));
        for beyond in [span(2, 4), span(4, 4), span(2, 1), ChunkSpan::NOWHERE] {
            assert_eq!(beyond.of("äöü"), None, "{beyond:?}");
        }
    }
}
