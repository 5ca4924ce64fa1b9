//! Templates and guards on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::document::DocumentBody;
use super::json::Object;
use super::list::AtMost;
use super::unique;
use crate::collection::{CollectionError, Preview};
use crate::http::error::{ApiError, Code};
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;
use crate::types::{
    FieldsTemplate, GuardAction, GuardDefinition, NewDocument, PersonalData, TemplateDefinition, Weight,
};

/// How a document's fields become the text that is embedded and searched for words: a Jinja template over the metadata
/// fields, or `name: value. ` for every field.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Template)]
pub(crate) enum WireTemplate {
    /// A Jinja template.
    #[schema(example = "{{title}} {{features.total_jobs}} jobs")]
    Jinja(String),
    /// Fields in their order.
    Fields(WireFields),
}

/// `name: value. ` for every field: numbers plain, booleans yes or no, nulls left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TemplateFields)]
pub(crate) struct WireFields {
    /// These fields, in this order; every field, by name, when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fields: Vec<String>,
    /// Fields that are left out. When this is left out: product_id, updated_at, created_at and deleted, unless `fields`
    /// names them.
    exclude: Option<Vec<String>>,
    /// Fields that are embedded apart, and how much each counts in the sum: 0.001 to 1000. All others together count 1.
    #[serde(default, deserialize_with = "unique::read", skip_serializing_if = "BTreeMap::is_empty")]
    weights: BTreeMap<String, f64>,
}

impl<'de> Deserialize<'de> for WireTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TemplateVisitor;

        impl<'de> Visitor<'de> for TemplateVisitor {
            type Value = WireTemplate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a Jinja template as a string, or an object such as {\"fields\": [\"title\"]}")
            }

            fn visit_str<E: Error>(self, source: &str) -> Result<WireTemplate, E> {
                Ok(WireTemplate::Jinja(source.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WireTemplate, A::Error> {
                WireFields::deserialize(MapAccessDeserializer::new(map)).map(WireTemplate::Fields)
            }
        }

        deserializer.deserialize_any(TemplateVisitor)
    }
}

impl WireTemplate {
    /// # Errors
    /// A weight or a number of fields outside its range; fields that contradict one another.
    pub(crate) fn into_definition(self) -> Result<TemplateDefinition, ApiError> {
        let WireFields { fields, exclude, weights } = match self {
            Self::Jinja(source) => return Ok(TemplateDefinition::Jinja(source)),
            Self::Fields(fields) => fields,
        };
        let weight = |(name, number): (String, f64)| match Weight::of(number) {
            Some(weight) => Ok((name, weight)),
            None => {
                let detail = format!("the weight of field {name:?} is {number}, allowed are 0.001 to 1000");
                Err(ApiError::new(Code::InvalidDefinition, detail))
            }
        };
        let template = FieldsTemplate {
            exclude: exclude.unwrap_or_else(|| FieldsTemplate::default_exclude(&fields)),
            only: fields,
            weights: weights.into_iter().map(weight).collect::<Result<_, _>>()?,
        };
        // The counts come first: contradictions are looked for in every pair of names.
        template.check().map_err(CollectionError::from)?;
        match template.contradiction() {
            Some(detail) => Err(ApiError::new(Code::InvalidTemplate, detail)),
            None => Ok(TemplateDefinition::Fields(template)),
        }
    }

    pub(crate) fn of(definition: &TemplateDefinition) -> Self {
        match definition {
            TemplateDefinition::Jinja(source) => Self::Jinja(source.clone()),
            TemplateDefinition::Fields(FieldsTemplate { only, exclude, weights }) => Self::Fields(WireFields {
                fields: only.clone(),
                exclude: Some(exclude.clone()),
                weights: weights.iter().map(|(name, weight)| (name.clone(), weight.as_f64())).collect(),
            }),
        }
    }
}

/// What happens to a document that carries personal data.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GuardAction)]
pub(crate) enum WireGuardAction {
    /// The request is refused.
    Refuse,
    /// A mark such as `[email]` takes its place.
    Redact,
}

/// A kind of personal data.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PersonalData)]
pub(crate) enum WirePersonalData {
    /// Addresses of electronic mail.
    Email,
    /// Telephone numbers.
    Phone,
    /// Numbers of payment cards.
    Card,
    /// Numbers of bank accounts.
    Iban,
    /// Social security numbers of the United States.
    Ssn,
    /// Addresses of the internet protocol.
    Ip,
}

/// Which personal data documents may not carry.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Guard)]
pub(crate) struct WireGuard {
    action: WireGuardAction,
    /// What is looked for; all kinds when left out.
    kinds: Option<BTreeSet<WirePersonalData>>,
    /// Metadata fields that are not looked into, nested ones by their path; at most 128.
    #[serde(default)]
    allow: BTreeSet<String>,
}

const KINDS: [(WirePersonalData, PersonalData); 6] = [
    (WirePersonalData::Email, PersonalData::Email),
    (WirePersonalData::Phone, PersonalData::Phone),
    (WirePersonalData::Card, PersonalData::Card),
    (WirePersonalData::Iban, PersonalData::Iban),
    (WirePersonalData::Ssn, PersonalData::SocialSecurity),
    (WirePersonalData::Ip, PersonalData::IpAddress),
];

impl WireGuard {
    pub(crate) fn into_definition(self) -> GuardDefinition {
        let wanted = |wire: &WirePersonalData| self.kinds.as_ref().is_none_or(|kinds| kinds.contains(wire));
        GuardDefinition {
            action: match self.action {
                WireGuardAction::Refuse => GuardAction::Refuse,
                WireGuardAction::Redact => GuardAction::Redact,
            },
            kinds: KINDS.iter().filter(|(wire, _)| wanted(wire)).map(|(_, kind)| *kind).collect(),
            allow: self.allow,
        }
    }

    pub(crate) fn of(definition: &GuardDefinition) -> Self {
        let stands = |kind: &PersonalData| definition.kinds.contains(kind);
        Self {
            action: match definition.action {
                GuardAction::Refuse => WireGuardAction::Refuse,
                GuardAction::Redact => WireGuardAction::Redact,
            },
            kinds: Some(KINDS.iter().filter(|(_, kind)| stands(kind)).map(|(wire, _)| *wire).collect()),
            allow: definition.allow.clone(),
        }
    }
}

/// Documents to try a template on; nothing is written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreviewBody {
    /// 1 to 1,000 documents.
    #[schema(value_type = Vec<DocumentBody>, min_items = 1, max_items = 1000)]
    documents: AtMost<Object<DocumentBody>, MAX_DOCUMENTS_PER_REQUEST>,
    /// Another template than the collection's.
    template: Option<WireTemplate>,
}

impl PreviewBody {
    /// # Errors
    /// An empty or overlong list, an id that is not allowed, a weight outside its range.
    pub(crate) fn into_parts(self) -> Result<(Vec<NewDocument>, Option<TemplateDefinition>), ApiError> {
        super::document::check_count("documents", self.documents.count())?;
        let documents = self.documents.into_items().into_iter().map(|Object(document)| document.into_document());
        let template = self.template.map(WireTemplate::into_definition).transpose()?;
        Ok((documents.collect::<Result<_, _>>()?, template))
    }
}

/// The texts that documents would have, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PreviewsView {
    pub(crate) previews: Vec<PreviewView>,
}

/// The text that a document would have.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PreviewView {
    id: String,
    /// What would be stored, embedded and searched for words.
    #[schema(required)]
    text: Option<String>,
    /// Parts that would be embedded apart; empty where the text is embedded as one.
    parts: Vec<PartView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PartView {
    text: String,
    /// How much its vector counts.
    weight: f64,
}

impl PreviewView {
    pub(crate) fn of(id: String, preview: Preview) -> Self {
        let parts = preview.parts.into_iter().map(|(text, weight)| PartView { text, weight }).collect();
        Self { id, text: preview.text, parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(json: &str) -> Result<TemplateDefinition, String> {
        let wire: WireTemplate = serde_json::from_str(json).map_err(|error| error.to_string())?;
        wire.into_definition().map_err(|error| error.detail.into_owned())
    }

    #[test]
    fn a_template_is_a_string_or_an_object() {
        assert_eq!(template("\"{{a}}\""), Ok(TemplateDefinition::Jinja("{{a}}".into())));
        let Ok(TemplateDefinition::Fields(fields)) = template("{}") else { panic!() };
        assert_eq!(fields.exclude, crate::types::DEFAULT_EXCLUDED_FIELDS);
        let Ok(TemplateDefinition::Fields(fields)) = template(r#"{"fields":["deleted","a"]}"#) else { panic!() };
        assert_eq!(fields.exclude, ["product_id", "updated_at", "created_at"], "what is asked for is not left out");
        let full = r#"{"fields":["b","a"],"exclude":[],"weights":{"a":2.5}}"#;
        let definition = template(full).unwrap();
        assert_eq!(serde_json::to_string(&WireTemplate::of(&definition)).unwrap(), full);
        assert!(template("5").unwrap_err().contains("a Jinja template as a string"));
        assert!(template(r#"{"field":[]}"#).unwrap_err().contains("unknown field"));
        assert!(template(r#"{"weights":{"a":0}}"#).unwrap_err().contains("0.001"));
        for (contradicting, said) in [
            (r#"{"fields":["a"],"exclude":["a"]}"#, "in fields and in exclude"),
            (r#"{"exclude":["a"],"weights":{"a":2}}"#, "is excluded"),
            (r#"{"weights":{"deleted":2}}"#, "is excluded"),
            (r#"{"fields":["a"],"weights":{"b":2}}"#, "not among the fields"),
        ] {
            assert!(template(contradicting).unwrap_err().contains(said), "{contradicting}");
        }
        // However many contradict one another, they are counted first.
        let many = format!(r#"{{"fields":[{0}],"exclude":[{0}]}}"#, vec!["\"a\""; 129].join(","));
        assert!(template(&many).unwrap_err().contains("is 129, allowed are 0 to 128"), "{many}");
    }

    #[test]
    fn a_guard_looks_for_everything_unless_told() {
        let guard = |json: &str| serde_json::from_str::<WireGuard>(json).map(WireGuard::into_definition);
        assert_eq!(guard(r#"{"action":"refuse"}"#).unwrap().kinds.len(), PersonalData::ALL.len());
        let text = r#"{"action":"redact","kinds":["email","ssn"],"allow":["a.b"]}"#;
        assert_eq!(serde_json::to_string(&WireGuard::of(&guard(text).unwrap())).unwrap(), text);
        assert!(guard(r#"{"kinds":["email"]}"#).is_err());
        assert!(guard(r#"{"action":"refuse","kinds":["name"]}"#).is_err());
    }

    #[test]
    fn names_on_the_wire_are_those_of_the_marks() {
        for (wire, kind) in KINDS {
            assert_eq!(serde_json::to_string(&wire).unwrap(), format!("\"{}\"", kind.name()));
            assert_eq!(PersonalData::from_name(kind.name()), Some(kind));
        }
    }
}
