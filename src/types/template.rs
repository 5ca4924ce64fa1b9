//! How the documents of a collection become the text that is embedded, as a definition says it.

use std::collections::BTreeMap;

use super::DefinitionError;
use super::limits::{MAX_DECLARED_FIELDS, MAX_FIELD_BYTES, MAX_TEMPLATE_BYTES};

/// Fields that [`FieldsTemplate`] leaves out unless it is told which to leave out.
pub const DEFAULT_EXCLUDED_FIELDS: [&str; 4] = ["product_id", "updated_at", "created_at", "deleted"];

/// How a document's fields become its text.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum TemplateDefinition {
    /// A Jinja template over the metadata fields.
    Jinja(String),
    /// `name: value. ` for every field.
    Fields(FieldsTemplate),
}

/// `name: value. ` for every field.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct FieldsTemplate {
    /// These fields, in this order; every field, by name, where it is empty.
    pub only: Vec<String>,
    /// Fields that are left out.
    pub exclude: Vec<String>,
    /// Fields that are embedded apart and count so much in the sum. All others are embedded together and count 1.
    pub weights: BTreeMap<String, Weight>,
}

/// How much a field counts: thousandths, so that definitions compare exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub struct Weight {
    /// 1 to 1,000,000.
    pub thousandths: u32,
}

impl Weight {
    /// What a field counts that has no weight.
    pub const ONE: Self = Self { thousandths: 1_000 };

    /// The nearest weight, or `None` outside 0.001 to 1,000.
    pub fn of(number: f64) -> Option<Self> {
        (0.001..=1_000.0).contains(&number).then(|| Self { thousandths: (number * 1_000.0).round() as u32 })
    }

    /// The weight as a number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.thousandths) / 1_000.0
    }
}

impl FieldsTemplate {
    /// Checks counts and the lengths of names.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub fn check(&self) -> Result<(), DefinitionError> {
        let Self { only, exclude, weights } = self;
        for names in [only, exclude] {
            within("the number of a template's fields", names.len(), 0, MAX_DECLARED_FIELDS)?;
        }
        within("the number of a template's weights", weights.len(), 0, MAX_TEMPLATE_WEIGHTS)?;
        let mut names = only.iter().chain(exclude).chain(weights.keys());
        match names.find(|name| name.is_empty() || name.len() > MAX_FIELD_BYTES) {
            Some(field) => Err(DefinitionError::field_name(field)),
            None => Ok(()),
        }
    }

    /// The fields that are left out where nothing says which: of [`DEFAULT_EXCLUDED_FIELDS`] those that are not asked
    /// for.
    pub fn default_exclude(only: &[String]) -> Vec<String> {
        let is_asked = |field: &&str| only.iter().any(|name| name == field);
        DEFAULT_EXCLUDED_FIELDS.iter().filter(|field| !is_asked(field)).map(|field| (*field).to_owned()).collect()
    }

    /// What cannot all be meant, as a sentence. Not part of [`TemplateDefinition::check`]: stored definitions may have
    /// it. It compares every pair of names.
    pub fn contradiction(&self) -> Option<String> {
        let Self { only, exclude, weights } = self;
        if let Some(field) = only.iter().find(|field| exclude.contains(field)) {
            return Some(format!("field {field:?} is in fields and in exclude"));
        }
        if let Some(field) = weights.keys().find(|field| exclude.contains(field)) {
            return Some(format!("field {field:?} has a weight and is excluded"));
        }
        let unnamed = weights.keys().find(|field| !only.is_empty() && !only.contains(field))?;
        Some(format!("field {unnamed:?} has a weight and is not among the fields"))
    }
}

impl TemplateDefinition {
    /// Whether fields are embedded apart.
    pub fn has_weights(&self) -> bool {
        match self {
            Self::Jinja(_) => false,
            Self::Fields(fields) => !fields.weights.is_empty(),
        }
    }

    /// Checks lengths and counts; whether a Jinja template can be parsed is for whoever renders it.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub fn check(&self) -> Result<(), DefinitionError> {
        match self {
            Self::Jinja(source) => within("the template's length in bytes", source.len(), 1, MAX_TEMPLATE_BYTES),
            Self::Fields(fields) => fields.check(),
        }
    }
}

fn within(name: &'static str, got: usize, min: usize, max: usize) -> Result<(), DefinitionError> {
    let [got, min, max] = [got, min, max].map(|number| number as u64);
    match (min..=max).contains(&got) {
        true => Ok(()),
        false => Err(DefinitionError::OutOfRange { name, got, min, max }),
    }
}

/// Most fields that a template embeds apart: each costs a text more to embed.
const MAX_TEMPLATE_WEIGHTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_thousandths() {
        assert_eq!(Weight::of(1.0), Some(Weight::ONE));
        assert_eq!(Weight::of(0.0005), None);
        assert_eq!(Weight::of(f64::NAN), None);
        assert_eq!(Weight::of(2.5).unwrap().as_f64(), 2.5);
    }

    #[test]
    fn lengths_and_names_are_checked() {
        let long = TemplateDefinition::Jinja("a".repeat(MAX_TEMPLATE_BYTES + 1));
        assert!(matches!(long.check(), Err(DefinitionError::OutOfRange { .. })));
        assert!(TemplateDefinition::Jinja(String::new()).check().is_err());
        let weights: BTreeMap<_, _> = (0..9).map(|i| (i.to_string(), Weight::ONE)).collect();
        let many = TemplateDefinition::Fields(FieldsTemplate { weights, ..FieldsTemplate::default() });
        assert!(matches!(many.check(), Err(DefinitionError::OutOfRange { .. })));
        let unnamed = FieldsTemplate { only: vec![String::new()], ..FieldsTemplate::default() };
        assert!(matches!(TemplateDefinition::Fields(unnamed).check(), Err(DefinitionError::FieldName { .. })));
        assert_eq!(TemplateDefinition::Fields(FieldsTemplate::default()).check(), Ok(()));
    }
}
