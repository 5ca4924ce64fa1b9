//! The guard: finds personal data in documents, and refuses them or puts a mark in their place.
//!
//! It finds what has a form: addresses, numbers with check digits. It does not know names of people. An error never
//! repeats what was found.

mod account;
mod address;
mod number;
mod scan;

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::Range;

use crate::types::{ChunkSpan, GuardAction, GuardDefinition, Metadata, NewDocument, PersonalData, Value};

use scan::{Finding, find, of_each};

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
/// `[email]`, and numbers become null; ids and field names cannot be marked. The places of chunks move with the text.
/// `is_made`: a template makes the text, in which what allowed fields hold may stand.
///
/// # Errors
/// [`GuardError`] for the first finding that stays.
pub fn inspect(guard: &GuardDefinition, document: &mut NewDocument, is_made: bool) -> Result<(), GuardError> {
    let refuse = |place: &str, finding: Option<Finding>| match finding {
        Some(Finding { kind, .. }) => Err(GuardError { place: place.to_owned(), kind, can_redact: false }),
        None => Ok(()),
    };
    refuse("the id", first(guard, document.id.as_str()))?;
    if let Some(text) = &mut document.text {
        let allowed = if is_made { Allowed::of(guard, &document.metadata) } else { Allowed::default() };
        let rounds = inspect_text(guard, text, || "the text".to_owned(), &allowed)?;
        for span in document.chunks.iter_mut().filter_map(|chunk| chunk.span.as_mut()) {
            *span = rounds.iter().fold(*span, |span, marks| moved(span, marks));
        }
    }
    inspect_object(guard, "", &mut document.metadata)
}

/// Looks through texts that were made of a document's metadata, each field of which was looked into: together they may
/// be what none is alone. What allowed fields hold may stand in them.
///
/// # Errors
/// [`GuardError`] for the first finding that stays.
pub fn inspect_made<'a>(
    guard: &GuardDefinition,
    metadata: &Metadata,
    texts: impl IntoIterator<Item = &'a mut String>,
) -> Result<(), GuardError> {
    let allowed = Allowed::of(guard, metadata);
    let place = || "the text that the template makes".to_owned();
    texts.into_iter().try_for_each(|text| inspect_text(guard, text, place, &allowed).map(drop))
}

/// What the fields that are allowed hold, as a text that is made of them may say it: in small letters, as templates
/// change those.
#[derive(Default)]
struct Allowed {
    texts: Vec<String>,
    /// What is found in them, so that they are not read to the end for each thing that is found in the text.
    found: OnceCell<HashSet<String>>,
}

impl Allowed {
    fn of(guard: &GuardDefinition, metadata: &Metadata) -> Self {
        let mut allowed = Self::default();
        if !guard.allow.is_empty() {
            allowed.find(guard, "", metadata);
        }
        allowed
    }

    /// Goes where [`inspect_object`] goes, and takes what that passes over.
    fn find(&mut self, guard: &GuardDefinition, path: &str, object: &Metadata) {
        for (name, value) in object {
            let path = below(path, name);
            match guard.allow.contains(&path) {
                true => self.take(value),
                false => self.find_within(guard, &path, value),
            }
        }
    }

    fn find_within(&mut self, guard: &GuardDefinition, path: &str, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.find_within(guard, path, item)),
            Value::Object(inner) => self.find(guard, path, inner),
            _ => {}
        }
    }

    fn take(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.texts.push(text.to_lowercase()),
            Value::Int(number) => self.texts.push(number.to_string()),
            Value::Float(number) => self.texts.push(number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.take(item)),
            Value::Object(inner) => {
                self.texts.extend(inner.keys().map(|name| name.to_lowercase()));
                inner.values().for_each(|value| self.take(value));
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn holds(&self, guard: &GuardDefinition, found: &str) -> bool {
        let found = found.to_lowercase();
        let all = self.found.get_or_init(|| {
            let of = |text: &String| {
                let all = of_each(text, &guard.kinds);
                all.into_iter().map(|found| text[found.start..found.end].to_owned()).collect::<Vec<_>>()
            };
            self.texts.iter().flat_map(of).collect()
        });
        all.contains(&found) || self.texts.iter().any(|text| text.contains(&found))
    }
}

/// The path of a field below another, or of one at the top below nothing.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn inspect_object(guard: &GuardDefinition, path: &str, object: &mut Metadata) -> Result<(), GuardError> {
    if let Some(Finding { kind, .. }) = object.keys().find_map(|name| first(guard, name)) {
        return Err(GuardError { place: "the name of a field".to_owned(), kind, can_redact: false });
    }
    for (name, value) in object {
        let path = below(path, name);
        if !guard.allow.contains(&path) {
            inspect_value(guard, &path, value)?;
        }
    }
    Ok(())
}

fn inspect_value(guard: &GuardDefinition, path: &str, value: &mut Value) -> Result<(), GuardError> {
    match value {
        Value::String(text) => inspect_text(guard, text, || format!("field {path:?}"), &Allowed::default()).map(drop),
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
        // Programs that know no whole numbers write one so.
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e19 => {
            let mut whole = Value::Int(*number as i64);
            inspect_value(guard, path, &mut whole)?;
            if whole == Value::Null {
                *value = whole;
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Float(_) => Ok(()),
    }
}

/// A mark in a text, in characters.
struct Mark {
    /// What it stands for, in the text before.
    was: Range<u32>,
    is: Range<u32>,
}

/// Returns the marks that were set, round after round, each from left to right.
fn inspect_text(
    guard: &GuardDefinition,
    text: &mut String,
    place: impl Fn() -> String,
    allowed: &Allowed,
) -> Result<Vec<Vec<Mark>>, GuardError> {
    let mut rounds = Vec::new();
    // Once a mark stands in a place, what is beside it may have a form that it had not together with that. Marks have
    // none, so this ends.
    loop {
        let findings = find(text, &guard.kinds, |found| allowed.holds(guard, found));
        match (guard.action, findings.first()) {
            (_, None) => return Ok(rounds),
            (GuardAction::Refuse, Some(finding)) => {
                return Err(GuardError { place: place(), kind: finding.kind, can_redact: true });
            }
            (GuardAction::Redact, Some(_)) => rounds.push(redact(text, &findings)),
        }
    }
}

/// Puts marks in the place of what was found from left to right.
fn redact(text: &mut String, findings: &[Finding]) -> Vec<Mark> {
    let characters = |part: &str| part.chars().count() as u32;
    let mut redacted = String::with_capacity(text.len());
    let mut marks: Vec<Mark> = Vec::with_capacity(findings.len());
    let mut from = 0;
    for &Finding { kind, start, end } in findings {
        let mark = format!("[{}]", kind.name());
        let between = characters(&text[from..start]);
        let (was, is) = marks.last().map_or((0, 0), |last| (last.was.end, last.is.end));
        let (was, is) = (was + between, is + between);
        marks.push(Mark { was: was..was + characters(&text[start..end]), is: is..is + characters(&mark) });
        redacted.push_str(&text[from..start]);
        redacted.push_str(&mark);
        from = end;
    }
    redacted.push_str(&text[from..]);
    *text = redacted;
    marks
}

/// Where a place is after its text was marked. One that begins or ends within a mark takes in all of it.
fn moved(span: ChunkSpan, marks: &[Mark]) -> ChunkSpan {
    let place = |at: u32, within: fn(&Range<u32>) -> u32| {
        let before = marks.partition_point(|mark| mark.was.end <= at);
        match marks.get(before).filter(|mark| mark.was.start < at) {
            Some(mark) => within(&mark.is),
            None => marks[..before].last().map_or(at, |last| (at - last.was.end).saturating_add(last.is.end)),
        }
    };
    ChunkSpan { start: place(span.start, |mark| mark.start), end: place(span.end, |mark| mark.end) }
}

fn first(guard: &GuardDefinition, text: &str) -> Option<Finding> {
    find(text, &guard.kinds, |_| false).into_iter().next()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::types::{Chunk, DocumentId};

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
            let error = inspect(&guard(GuardAction::Refuse), &mut document, false).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
            assert!(!error.contains("bob") && !error.contains("555") && !error.contains("4111"), "{error}");
        }
        let mut named = document("", &[]);
        named.id = DocumentId::new("bob@example.com").unwrap();
        assert_eq!(inspect(&guard(GuardAction::Redact), &mut named, false).unwrap_err().place, "the id");
    }

    #[test]
    fn marks_take_the_place_of_what_was_found() {
        let mut found = document(
            "Mail bob@example.com or x.y@z.org, pay 4111 1111 1111 1111.",
            &[("card", Value::Int(4111111111111111)), ("n", Value::Int(5)), ("s", string("10.0.0.7"))],
        );
        inspect(&guard(GuardAction::Redact), &mut found, false).unwrap();
        assert_eq!(found.text.as_deref(), Some("Mail [email] or [email], pay [card]."));
        assert_eq!(
            found.metadata,
            document("", &[("card", Value::Null), ("n", Value::Int(5)), ("s", string("[ip]"))]).metadata
        );
        let again = found.clone();
        inspect(&guard(GuardAction::Redact), &mut found, false).unwrap();
        assert_eq!(found, again, "marks hold nothing to find");
    }

    #[test]
    fn of_numbers_that_share_digits_none_is_left() {
        let cases = [
            ("call +49 30 123456 4111 1111 1111 1111", "call [phone]"),
            ("415-555-2028 4111 1111 1111 1111", "[phone]"),
            ("+49 30 123456 415-555-2671.", "[phone]."),
            ("AT59 3200 0000 1234 0040 DE89 3704 0044 0532 0130 00", "[iban]"),
            // A card only where no other groups stand beside it.
            ("415-555-2671 411111 1111111111", "[phone] [card]"),
        ];
        for (text, wanted) in cases {
            let mut found = document(text, &[("n", string(text))]);
            inspect(&guard(GuardAction::Redact), &mut found, false).unwrap();
            assert_eq!((found.text.as_deref(), &found.metadata["n"]), (Some(wanted), &string(wanted)), "{text}");
        }
        let mut card = document("2028 4111 1111 1111 1111", &[]);
        let cards = GuardDefinition { kinds: [PersonalData::Card].into(), ..guard(GuardAction::Redact) };
        inspect(&cards, &mut card, false).unwrap();
        assert_eq!(card.text.as_deref(), Some("[card]"));
    }

    #[test]
    fn places_of_chunks_move_with_the_text() {
        let text = "é: ann@example.com, bob@example.com. End";
        let places =
            [(0, 40), (0, 3), (3, 18), (0, 10), (10, 19), (3, 35), (20, 35), (35, 40), (37, 40), (5, 5), (40, 40)];
        let mut found = document(text, &[]);
        let chunk = |(start, end)| Chunk { span: Some(ChunkSpan { start, end }), vector: vec![1.0] };
        found.chunks = places.map(chunk).into();
        found.chunks.push(Chunk { span: None, vector: vec![1.0] });
        inspect(&guard(GuardAction::Redact), &mut found, false).unwrap();
        let text = found.text.unwrap();
        assert_eq!(text, "é: [email], [email]. End");
        let spans: Vec<_> = found.chunks.iter().filter_map(|chunk| chunk.span).collect();
        let parts: Vec<_> = spans.iter().map(|span| span.of(&text).unwrap()).collect();
        let wanted = [
            text.as_str(),
            "é: ",
            "[email]",
            "é: [email]",
            "[email],",
            "[email], [email]",
            "[email]",
            ". End",
            "End",
            "[email]",
            "",
        ];
        assert_eq!(parts, wanted);
        assert_eq!((spans.len(), found.chunks.len()), (places.len(), places.len() + 1));
    }

    #[test]
    fn what_fields_hold_together_is_found_in_the_text_made_of_them() {
        let public = Metadata::from([("public".to_owned(), string("write to info@example.com"))]);
        let metadata = document("", &[("contact", Value::Object(public)), ("a", string("bob"))]).metadata;
        let text = || "info@example.com bob@example.com 4111111111111111".to_owned();
        let error = inspect_made(&guard(GuardAction::Refuse), &metadata, [&mut text()]).unwrap_err();
        assert_eq!((error.place.as_str(), error.kind), ("the text that the template makes", PersonalData::Email));
        let mut redacted = text();
        inspect_made(&guard(GuardAction::Redact), &metadata, [&mut redacted]).unwrap();
        assert_eq!(redacted, "info@example.com [email] [card]");

        let public = Metadata::from([("public".to_owned(), string("415-555-2028"))]);
        let metadata = document("", &[("contact", Value::Object(public))]).metadata;
        let mut beside = "415-555-2028 or 415-555-2028 4111 1111 1111 1111".to_owned();
        inspect_made(&guard(GuardAction::Redact), &metadata, [&mut beside]).unwrap();
        assert_eq!(beside, "415-555-2028 or 415-555-[card]");
    }

    #[test]
    fn whole_numbers_are_found_however_they_are_written() {
        let float = |number: f64| document("", &[("n", Value::Float(number))]);
        let mut card = float(4111111111111111.0);
        assert!(inspect(&guard(GuardAction::Refuse), &mut card.clone(), false).is_err());
        inspect(&guard(GuardAction::Redact), &mut card, false).unwrap();
        assert_eq!(card.metadata["n"], Value::Null);
        for number in [0.5, 4111111111111112.0, f64::MAX, -1e300] {
            let mut other = float(number);
            inspect(&guard(GuardAction::Refuse), &mut other, false).unwrap();
            assert_eq!(other, float(number));
        }
    }

    #[test]
    fn allowed_fields_are_not_looked_into() {
        let public = Metadata::from([("public".to_owned(), string("info@example.com"))]);
        let mut allowed = document("", &[("contact", Value::Object(public))]);
        assert_eq!(inspect(&guard(GuardAction::Refuse), &mut allowed, false), Ok(()));
    }

    /// Where all of the field is read for each of its addresses, this takes a minute.
    #[test]
    fn an_allowed_field_of_many_addresses_is_read_once() {
        let all: String = (0..40_000).map(|n| format!("a{n:06}@mail.example.com ")).collect();
        let public = Metadata::from([("public".to_owned(), string(&all))]);
        let metadata = document("", &[("contact", Value::Object(public))]).metadata;
        let mut made = all.to_uppercase();
        inspect_made(&guard(GuardAction::Refuse), &metadata, [&mut made]).unwrap();
        assert_eq!(made, all.to_uppercase());
        // Also where it is a part of what is found there.
        inspect_made(&guard(GuardAction::Refuse), &metadata, [&mut "000007@mail.example.com".to_owned()]).unwrap();
    }

    #[test]
    fn what_allowed_fields_hold_may_stand_in_a_text_that_a_template_makes() {
        let object = |fields: &[(&str, Value)]| document("", fields).metadata;
        let allow = ["order", "contacts.email", "a.b"].map(str::to_owned).into();
        let contact = |mail: &str| Value::Object(object(&[("email", string(mail)), ("k", Value::Int(1))]));
        let fields = [
            ("order", Value::Array(vec![Value::Int(4111111111111111), Value::Float(5500000000000004.0)])),
            ("contacts", Value::Array(vec![contact("Ann@example.com"), contact("bob@example.com")])),
            ("a.b", string("c@example.com")),
            ("a", Value::Object(object(&[("b", Value::Object(object(&[("d@example.com", string("10.0.0.7"))])))]))),
        ];
        let said =
            "4111111111111111, 5500000000000004. ann@example.com bob@example.com c@example.com d@example.com 10.0.0.7";
        for action in [GuardAction::Refuse, GuardAction::Redact] {
            let guard = GuardDefinition { allow: Clone::clone(&allow), ..guard(action) };
            let mut made = said.to_owned();
            inspect_made(&guard, &object(&fields), [&mut made]).unwrap();
            assert_eq!(made, said);
            // As it was read, it can be written.
            let mut read = document(said, &fields);
            inspect(&guard, &mut read, true).unwrap();
            assert_eq!(read, document(said, &fields));
        }
        let guard = GuardDefinition { allow, ..guard(GuardAction::Refuse) };
        for beside in ["e@example.com", "4111111111111129"] {
            inspect_made(&guard, &object(&fields), [&mut beside.to_owned()]).unwrap_err();
        }
        inspect(&guard, &mut document(said, &fields), false).unwrap_err();
    }
}
