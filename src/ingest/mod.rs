//! What happens to a document before it is embedded: personal data are kept out, and its fields become its text.

mod guard;
mod template;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use template::fuzz;

pub use guard::{GuardError, inspect, inspect_made};
pub use template::{Part, Rendered, TemplateError, Templater, weighted_sum};
