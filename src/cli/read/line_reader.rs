//! Lines of an input, each of a limited length.

use std::io::{self, BufRead};

use super::{LineError, too_long};

/// Reads line by line; holds one line.
pub(in crate::cli) struct LineReader<R> {
    input: R,
    max_bytes: usize,
    line: Vec<u8>,
}

impl<R: BufRead> LineReader<R> {
    /// `max_bytes`: of a line without its end.
    pub(in crate::cli) fn new(input: R, max_bytes: usize) -> Self {
        Self { input, max_bytes, line: Vec::new() }
    }

    /// The next line without its end, `None` after the last, or how long it is where that is too long.
    ///
    /// # Errors
    /// Those of the input.
    pub(in crate::cli) fn next_line(&mut self) -> io::Result<Option<Result<&[u8], LineError>>> {
        self.line.clear();
        let mut len = 0;
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok((len > 0).then(|| self.checked(len)));
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            len += part.len();
            if len <= self.max_bytes {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(part.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() {
                return Ok(Some(self.checked(len)));
            }
        }
    }

    fn checked(&self, len_bytes: usize) -> Result<&[u8], LineError> {
        if len_bytes > self.max_bytes { Err(too_long(len_bytes, self.max_bytes, "line")) } else { Ok(&self.line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_any_length_costs_no_more_memory_than_the_limit() {
        const LIMIT: usize = 1 << 20;
        let text = [&vec![b' '; LIMIT + 1][..], b"\nthe next"].concat();
        let mut lines = LineReader::new(text.as_slice(), LIMIT);
        assert_eq!(lines.next_line().unwrap().unwrap().unwrap_err().code, "too_long");
        assert!(lines.line.capacity() <= 2 * LIMIT);
        assert_eq!(lines.next_line().unwrap(), Some(Ok(&b"the next"[..])));
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
