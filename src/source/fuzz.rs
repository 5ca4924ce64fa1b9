//! The reader of change events over any bytes.

use super::Events;

/// A change event, of rows that one column names and of rows that two do. Whether it is one of either.
pub fn event(bytes: &[u8]) -> bool {
    let line = String::from_utf8_lossy(bytes);
    let keys = [vec!["id".to_owned()], vec!["tenant".to_owned(), "id".to_owned()]];
    let read = keys.map(|key| Events { key, exclude: vec!["secret".to_owned()] }.read(&line).is_ok());
    read.contains(&true)
}
