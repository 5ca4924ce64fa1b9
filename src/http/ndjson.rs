//! Splits a stream of bytes into lines, whatever its chunks are.

/// Collects chunks and gives lines out; holds no more than one line of the longest length.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
    /// Length of the line being skipped because it is too long; 0 when none is.
    skipped_bytes: usize,
    /// Number of the line that begins next, counted from 1.
    number: u64,
    max_line_bytes: usize,
}

/// One line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Position in the stream, counted from 1.
    pub(crate) number: u64,
    pub(crate) content: LineContent,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LineContent {
    Text(Vec<u8>),
    /// Longer than allowed; its bytes are gone.
    TooLong {
        length_bytes: usize,
    },
}

impl LineSplitter {
    pub(crate) fn new(max_line_bytes: usize) -> Self {
        Self { partial: Vec::new(), skipped_bytes: 0, number: 1, max_line_bytes }
    }

    /// Takes the front of `chunk` up to the end of the line, which it returns when the line ends in the chunk.
    pub(crate) fn next_line(&mut self, chunk: &mut &[u8]) -> Option<Line> {
        let end = chunk.iter().position(|&b| b == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        *chunk = end.map_or(&[], |end| &chunk[end + 1..]);
        self.push(part);
        end.map(|_| self.take())
    }

    /// Bytes that are held of the line that has begun.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    /// The last line where the stream does not end with a line's end.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        (self.skipped_bytes > 0 || !self.partial.is_empty()).then(|| self.take())
    }

    fn push(&mut self, part: &[u8]) {
        if self.skipped_bytes > 0 {
            self.skipped_bytes += part.len();
        } else if self.partial.len() + part.len() > self.max_line_bytes {
            self.skipped_bytes = self.partial.len() + part.len();
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(part);
        }
    }

    fn take(&mut self) -> Line {
        let number = self.number;
        self.number += 1;
        let length_bytes = std::mem::take(&mut self.skipped_bytes);
        if length_bytes > 0 {
            return Line { number, content: LineContent::TooLong { length_bytes } };
        }
        let mut text = std::mem::take(&mut self.partial);
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        Line { number, content: LineContent::Text(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]], max: usize) -> Vec<Line> {
        let mut splitter = LineSplitter::new(max);
        let mut lines = Vec::new();
        for mut chunk in chunks.iter().copied() {
            while !chunk.is_empty() {
                lines.extend(splitter.next_line(&mut chunk));
            }
        }
        lines.extend(splitter.finish());
        assert_eq!(splitter.finish(), None);
        lines
    }

    fn text(number: u64, text: &str) -> Line {
        Line { number, content: LineContent::Text(text.as_bytes().to_vec()) }
    }

    #[test]
    fn lines_do_not_depend_on_where_chunks_end() {
        let stream = "one\r\n\ntwo, дом\nthis line is too long\nthree";
        let too_long = Line { number: 4, content: LineContent::TooLong { length_bytes: 21 } };
        let wanted = [text(1, "one"), text(2, ""), text(3, "two, дом"), too_long, text(5, "three")];
        let bytes = stream.as_bytes();
        assert_eq!(split(&[bytes], 12), wanted);
        for size in 1..bytes.len() {
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(split(&chunks, 12), wanted, "chunks of {size}");
        }
        for cut in 0..=bytes.len() {
            assert_eq!(split(&[&bytes[..cut], &bytes[cut..]], 12), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn the_last_line_needs_no_end_and_an_end_makes_no_line() {
        assert_eq!(split(&[], 9), []);
        assert_eq!(split(&[b"a\n"], 9), [text(1, "a")]);
        assert_eq!(split(&[b"a"], 9), [text(1, "a")]);
        assert_eq!(split(&[b"\n\n"], 9), [text(1, ""), text(2, "")]);
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_memory_stays_below_it() {
        assert_eq!(split(&[b"12345\n6"], 5), [text(1, "12345"), text(2, "6")]);
        let mut splitter = LineSplitter::new(5);
        for _ in 0..1_000 {
            assert_eq!(splitter.next_line(&mut &b"xxxx"[..]), None);
            assert!(splitter.partial.capacity() <= 16);
        }
        let line = splitter.finish().unwrap();
        assert_eq!(line.content, LineContent::TooLong { length_bytes: 4_000 });
    }
}
