//! Panics of libraries that are given files which may be damaged: errors, not the end of a thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `act` in this thread. What it was working on must not be used again after a panic.
///
/// # Errors
/// Its own, and what a panic said.
pub fn guarded<T, E: From<String>>(act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| Err(panic_message(panic.as_ref()).into()))
}

/// What a caught panic said.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(guarded::<_, String>(|| Ok(1)), Ok(1));
        assert_eq!(guarded::<u8, String>(|| Err("no".to_owned())), Err("no".to_owned()));
        let number = 7;
        assert_eq!(guarded::<u8, String>(|| panic!("at {number}")), Err("it panicked: at 7".to_owned()));
        assert_eq!(guarded::<u8, String>(|| panic!("here")), Err("it panicked: here".to_owned()));
    }
}
