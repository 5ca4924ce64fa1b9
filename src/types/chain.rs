//! An error and its causes, on one line.

use std::error::Error;
use std::fmt::{Display, Formatter, Result};

/// Shows an error and its causes, joined by colons.
pub struct Chain<'a>(pub &'a dyn Error);

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_named_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner(#[source] std::fmt::Error);
        let (one, all) = (Inner(std::fmt::Error), Outer(Inner(std::fmt::Error)));
        assert_eq!(Chain(&one.0).to_string(), std::fmt::Error.to_string());
        assert_eq!(Chain(&all).to_string(), format!("outer: inner: {}", std::fmt::Error));
    }
}
