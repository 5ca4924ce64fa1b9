//! A JSON array of objects, element by element.

use std::io::BufRead;

use super::{MAX_RECORD_BYTES, Record, parse_object, too_long};
use crate::cli::CliError;

/// Reads the elements of an array; holds one element.
pub(super) struct JsonArray<R> {
    input: R,
    position: u64,
    is_done: bool,
}

/// Begins to read an array.
///
/// # Errors
/// [`CliError::Refused`] when the input is something else, [`CliError::Io`].
pub(super) fn read<R: BufRead>(mut input: R) -> Result<JsonArray<R>, CliError> {
    match next_token(&mut input)? {
        Some(b'[') => {}
        Some(b'{') => {
            return Err(refuse("begins with an object, not an array; for an object a line use --format jsonl"));
        }
        Some(_) => return Err(refuse("is no JSON array")),
        None => return Err(refuse("is empty; a JSON array without elements is []")),
    }
    input.consume(1);
    let is_done = next_token(&mut input)? == Some(b']');
    Ok(JsonArray { input, position: 0, is_done })
}

fn refuse(what: &str) -> CliError {
    CliError::Refused(format!("the input {what}"))
}

/// The next byte that is no space, left in the input.
fn next_token(input: &mut impl BufRead) -> Result<Option<u8>, CliError> {
    loop {
        let available = input.fill_buf().map_err(|e| CliError::io("read the input", e))?;
        let spaces = available.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let token = available.get(spaces).copied();
        let is_end = available.is_empty();
        input.consume(spaces);
        if token.is_some() || is_end {
            return Ok(token);
        }
    }
}

/// Finds where an element ends without understanding it: at a comma or a bracket outside strings and braces.
#[derive(Default)]
struct Extent {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Extent {
    /// Whether the element ended before this byte.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

impl<R: BufRead> JsonArray<R> {
    /// The bytes of the next element, of which no more than the limit are kept, and its length.
    fn element(&mut self) -> Result<(Vec<u8>, usize), CliError> {
        let mut extent = Extent::default();
        let mut element = Vec::new();
        let mut len = 0;
        loop {
            let available = self.input.fill_buf().map_err(|e| CliError::io("read the input", e))?;
            if available.is_empty() {
                return Err(refuse("ends within the array; its last \"]\" is missing"));
            }
            let end = available.iter().position(|&byte| extent.ends_before(byte));
            let part = &available[..end.unwrap_or(available.len())];
            len += part.len();
            if len <= MAX_RECORD_BYTES {
                element.extend_from_slice(part);
            }
            let used = part.len();
            self.input.consume(used);
            if end.is_some() {
                return Ok((element, len));
            }
        }
    }

    /// Steps over the comma after an element, or over the array's end, behind which nothing may stand.
    fn step(&mut self) -> Result<(), CliError> {
        let separator = next_token(&mut self.input)?;
        self.input.consume(1);
        if separator == Some(b']') {
            self.is_done = true;
            if next_token(&mut self.input)?.is_some() {
                return Err(refuse("goes on after the array's end; one file holds one array"));
            }
        }
        Ok(())
    }
}

impl<R: BufRead> Iterator for JsonArray<R> {
    type Item = Result<Record, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        self.position += 1;
        let read = self.element().and_then(|element| self.step().map(|()| element));
        let (element, len) = match read {
            Ok(element) => element,
            Err(error) => {
                self.is_done = true;
                return Some(Err(error));
            }
        };
        let content = match len > MAX_RECORD_BYTES {
            true => Err(too_long(len, MAX_RECORD_BYTES, "element")),
            false => parse_object(&element, "element"),
        };
        Some(Ok(Record { position: self.position, content, columns: None }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// What each element is: an id, a code, or `!` where reading ended with an error.
    fn ids(text: &str, capacity: usize) -> Result<Vec<String>, String> {
        let array = read(BufReader::with_capacity(capacity, text.as_bytes())).map_err(|e| e.to_string())?;
        let records = array.map(|record| match record {
            Ok(Record { content: Ok(object), .. }) => format!("{:?}", object["id"]),
            Ok(Record { content: Err(error), .. }) => error.code,
            Err(error) => format!("!{error}"),
        });
        Ok(records.collect())
    }

    #[test]
    fn elements_do_not_depend_on_the_buffer() {
        let text = r#" [ {"id":"a,]}","n":{"x":[1,2]}} , {"id":"\"\\"},{"id":"b"} ] "#;
        let wanted = [r#"String("a,]}")"#, r#"String("\"\\")"#, r#"String("b")"#];
        for capacity in 1..80 {
            assert_eq!(ids(text, capacity).unwrap(), wanted, "{capacity}");
        }
    }

    #[test]
    fn empty_arrays_have_no_elements() {
        assert_eq!(ids("[]", 8), Ok(vec![]));
        assert_eq!(ids(" [ ] ", 8), Ok(vec![]));
    }

    #[test]
    fn a_bad_element_is_named_and_the_next_is_read() {
        let found = ids(r#"[1,{"id":"a"},{"id":},,{"id":"b"}]"#, 8).unwrap();
        assert_eq!(found, ["invalid_value", "String(\"a\")", "invalid_json", "invalid_json", "String(\"b\")"]);
    }

    #[test]
    fn what_is_no_array_is_refused() {
        assert!(ids("{\"id\":\"a\"}", 8).unwrap_err().contains("--format jsonl"));
        assert!(ids("x", 8).unwrap_err().contains("no JSON array"));
        assert!(ids("  ", 8).unwrap_err().contains("empty"));
        assert_eq!(ids(r#"[{"id":"a"}"#, 8).unwrap(), ["!the input ends within the array; its last \"]\" is missing"]);
        assert!(ids(r#"[{"id":"a"}] x"#, 8).unwrap()[0].contains("after the array's end"));
    }

    #[test]
    fn every_truncation_ends_with_an_error() {
        let text = r#"[{"id":"a"},{"id":"b"}]"#;
        for len in 1..text.len() {
            let found = ids(&text[..len], 8).unwrap();
            assert!(found.last().is_some_and(|last| last.starts_with('!')), "{len}: {found:?}");
        }
    }
}
