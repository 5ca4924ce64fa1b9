//! Templates: the fields of a document as the text that is embedded and searched for words.

mod fields;
mod filters;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod jinja;
mod joins;
mod names;
mod syntax;
#[cfg(test)]
mod tests;

use crate::types::{DocumentId, Metadata, TemplateDefinition, VectorError, Weight, check_vector, normalise};

use jinja::Jinja;

/// Why a template makes no text of a document, or of none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It cannot be parsed.
    #[error("the template cannot be read, line {line}: {reason}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// It uses what templates here have not.
    #[error("the template's line {line} uses {what}; {instead}")]
    NotAllowed {
        /// Counted from 1.
        line: usize,
        /// The tag or the sign.
        what: String,
        /// What there is.
        instead: &'static str,
    },
    /// It names a filter, a test or a function that there is not, so that it would fail on every document.
    #[error("the template's line {line} uses the {what}, which there is not; there are {there}")]
    Unknown {
        /// Counted from 1.
        line: usize,
        /// Its kind and its name.
        what: String,
        /// What there is of the kind.
        there: String,
    },
    /// It joins texts too often in one expression.
    #[error("the template has {got} of the signs +, * and ~, at most {max} are allowed; put texts beside each other")]
    TooManyOperators {
        /// Signs found.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// A document made it fail.
    #[error("the template fails at line {line}: {reason}")]
    Failed {
        /// Counted from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// It goes round too often.
    #[error("the template takes more than {max} steps; loop over less")]
    TooSlow {
        /// The limit.
        max: u64,
    },
    /// The text it makes is longer than a text may be.
    #[error("the template makes a text of more than {max} bytes; name fewer fields")]
    TooLong {
        /// The limit.
        max: usize,
    },
}

/// What a template makes of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text, as it is stored and searched for words. Empty where every field is.
    pub text: String,
    /// What is embedded apart and summed; empty where the text is embedded as one.
    pub parts: Vec<Part>,
}

/// A part of a text that is embedded apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Not empty.
    pub text: String,
    /// How much its vector counts.
    pub weight: Weight,
}

/// A template that was read, ready to render.
pub struct Templater<'a> {
    kind: Kind<'a>,
}

enum Kind<'a> {
    Jinja(Box<Jinja>),
    Fields(&'a crate::types::FieldsTemplate),
}

impl<'a> Templater<'a> {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] that names the line.
    pub fn new(definition: &'a TemplateDefinition) -> Result<Self, TemplateError> {
        let kind = match definition {
            TemplateDefinition::Jinja(source) => Kind::Jinja(Box::new(Jinja::new(source)?)),
            TemplateDefinition::Fields(fields) => Kind::Fields(fields),
        };
        Ok(Self { kind })
    }

    /// The text of a document with these fields.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn render(&self, id: &DocumentId, metadata: &Metadata) -> Result<Rendered, TemplateError> {
        match &self.kind {
            Kind::Jinja(jinja) => Ok(Rendered { text: jinja.render(id, metadata)?, parts: Vec::new() }),
            Kind::Fields(definition) => fields::render(definition, metadata),
        }
    }
}

/// The sum of vectors, each scaled to length 1, by their weights, of length 1. All have the same number of components,
/// and there is one at least.
///
/// # Errors
/// [`VectorError`] where one has no direction, or they cancel each other out.
pub fn weighted_sum(vectors: &[(Weight, Vec<f32>)]) -> Result<Vec<f32>, VectorError> {
    let dim = vectors.first().map_or(0, |(_, vector)| vector.len());
    let mut sum = vec![0f64; dim];
    for (weight, vector) in vectors {
        let scale = weight.as_f64() / check_vector(vector, dim)?;
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += scale * f64::from(*x));
    }
    let mut sum: Vec<f32> = sum.into_iter().map(|x| x as f32).collect();
    normalise(&mut sum, dim)?;
    Ok(sum)
}
