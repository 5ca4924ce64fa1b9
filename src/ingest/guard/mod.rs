//! The guard: finds personal data in documents, and refuses them or puts a mark in their place.
//!
//! It finds what has a form: addresses, numbers with check digits. It does not know names of people. An error never
//! repeats what was found.

mod account;
mod address;
mod number;
mod scan;

use crate::types::{GuardAction, GuardDefinition, Metadata, NewDocument, PersonalData, Value};

use scan::{Finding, find};

/// A document carries personal data, and may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place} holds {kind}, which the collection's guard keeps out; take it out{}",
    if *.can_redact { ", or let the guard redact it (\"guard\": {\"action\": \"redact\"})" } else { "" }
)]
pub struct GuardError {
    /// Where it is: the text, a field by its path, the id.
    pub place: String,
    /// What it is.
    pub kind: PersonalData,
    /// Whether a guard that redacts could have let the document in.
    pub can_redact: bool,
}

/// Looks through a document. With [`GuardAction::Redact`], what is found in texts and strings is marked, such as
/// `[email]`, and numbers become null; ids and field names cannot be marked.
///
/// # Errors
/// [`GuardError`] for the first finding that stays.
pub fn inspect(guard: &GuardDefinition, document: &mut NewDocument) -> Result<(), GuardError> {
    let refuse = |place: &str, finding: Option<Finding>| match finding {
        Some(Finding { kind, .. }) => Err(GuardError { place: place.to_owned(), kind, can_redact: false }),
        None => Ok(()),
    };
    refuse("the id", first(guard, document.id.as_str()))?;
    if let Some(text) = &mut document.text {
        inspect_text(guard, text, || "the text".to_owned())?;
    }
    inspect_object(guard, "", &mut document.metadata)
}

fn inspect_object(guard: &GuardDefinition, path: &str, object: &mut Metadata) -> Result<(), GuardError> {
    if let Some(Finding { kind, .. }) = object.keys().find_map(|name| first(guard, name)) {
        return Err(GuardError { place: "the name of a field".to_owned(), kind, can_redact: false });
    }
    for (name, value) in object {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if !guard.allow.contains(&path) {
            inspect_value(guard, &path, value)?;
        }
    }
    Ok(())
}

fn inspect_value(guard: &GuardDefinition, path: &str, value: &mut Value) -> Result<(), GuardError> {
    match value {
        Value::String(text) => inspect_text(guard, text, || format!("field {path:?}")),
        Value::Array(items) => items.iter_mut().try_for_each(|item| inspect_value(guard, path, item)),
        Value::Object(inner) => inspect_object(guard, path, inner),
        Value::Int(number) => {
            // Of what a whole number can be, only a card's carries its own proof.
            match first(guard, &number.to_string()).filter(|finding| finding.kind == PersonalData::Card) {
                None => Ok(()),
                Some(_) if guard.action == GuardAction::Redact => {
                    *value = Value::Null;
                    Ok(())
                }
                Some(Finding { kind, .. }) => {
                    Err(GuardError { place: format!("field {path:?}"), kind, can_redact: true })
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Float(_) => Ok(()),
    }
}

fn inspect_text(guard: &GuardDefinition, text: &mut String, place: impl Fn() -> String) -> Result<(), GuardError> {
    let findings = find(text, &guard.kinds);
    match (guard.action, findings.first()) {
        (_, None) => Ok(()),
        (GuardAction::Refuse, Some(finding)) => {
            Err(GuardError { place: place(), kind: finding.kind, can_redact: true })
        }
        (GuardAction::Redact, Some(_)) => {
            for Finding { kind, start, end } in findings.into_iter().rev() {
                text.replace_range(start..end, &format!("[{}]", kind.name()));
            }
            Ok(())
        }
    }
}

fn first(guard: &GuardDefinition, text: &str) -> Option<Finding> {
    find(text, &guard.kinds).into_iter().next()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::types::DocumentId;

    fn guard(action: GuardAction) -> GuardDefinition {
        GuardDefinition {
            action,
            kinds: PersonalData::ALL.into(),
            allow: BTreeSet::from(["contact.public".to_owned()]),
        }
    }

    fn document(text: &str, fields: &[(&str, Value)]) -> NewDocument {
        let metadata = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        NewDocument { metadata, ..NewDocument::from_text(DocumentId::new("a").unwrap(), text) }
    }

    fn string(text: &str) -> Value {
        Value::String(text.into())
    }

    #[test]
    fn an_error_names_the_place_and_the_kind_and_never_the_value() {
        let inner = Metadata::from([("mail".to_owned(), string("bob@example.com"))]);
        let cases = [
            (document("call +1 415 555 2671", &[]), "the text holds a telephone number"),
            (document("", &[("contact", Value::Object(inner))]), "field \"contact.mail\" holds an email address"),
            (document("", &[("n", Value::Array(vec![Value::Int(4111111111111111)]))]), "field \"n\" holds a payment"),
            (document("", &[("bob@example.com", Value::Null)]), "the name of a field holds an email"),
        ];
        for (mut document, wanted) in cases {
            let error = inspect(&guard(GuardAction::Refuse), &mut document).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
            assert!(!error.contains("bob") && !error.contains("555") && !error.contains("4111"), "{error}");
        }
        let mut named = document("", &[]);
        named.id = DocumentId::new("bob@example.com").unwrap();
        assert_eq!(inspect(&guard(GuardAction::Redact), &mut named).unwrap_err().place, "the id");
    }

    #[test]
    fn marks_take_the_place_of_what_was_found() {
        let mut found = document(
            "Mail bob@example.com or x.y@z.org, pay 4111 1111 1111 1111.",
            &[("card", Value::Int(4111111111111111)), ("n", Value::Int(5)), ("s", string("10.0.0.7"))],
        );
        inspect(&guard(GuardAction::Redact), &mut found).unwrap();
        assert_eq!(found.text.as_deref(), Some("Mail [email] or [email], pay [card]."));
        assert_eq!(
            found.metadata,
            document("", &[("card", Value::Null), ("n", Value::Int(5)), ("s", string("[ip]"))]).metadata
        );
        let again = found.clone();
        inspect(&guard(GuardAction::Redact), &mut found).unwrap();
        assert_eq!(found, again, "marks hold nothing to find");
    }

    #[test]
    fn allowed_fields_are_not_looked_into() {
        let public = Metadata::from([("public".to_owned(), string("info@example.com"))]);
        let mut allowed = document("", &[("contact", Value::Object(public))]);
        assert_eq!(inspect(&guard(GuardAction::Refuse), &mut allowed), Ok(()));
    }
}
