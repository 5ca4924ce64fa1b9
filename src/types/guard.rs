//! What a collection does about personal data in its documents, as a definition says it.

use std::collections::BTreeSet;
use std::fmt;

use super::DefinitionError;
use super::limits::{MAX_DECLARED_FIELDS, MAX_FIELD_BYTES};

/// Which personal data documents may not carry, and what happens to a document that does.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct GuardDefinition {
    /// What happens.
    pub action: GuardAction,
    /// What is looked for.
    pub kinds: BTreeSet<PersonalData>,
    /// Metadata fields that are not looked into, nested ones by their path.
    pub allow: BTreeSet<String>,
}

impl GuardDefinition {
    /// Checks the numbers of its kinds and of the fields that it allows, and their names.
    ///
    /// # Errors
    /// [`DefinitionError::OutOfRange`], [`DefinitionError::FieldName`].
    pub(super) fn check(&self) -> Result<(), DefinitionError> {
        // With none it would let everything in.
        if self.kinds.is_empty() {
            let (name, max) = ("the number of a guard's kinds", PersonalData::ALL.len() as u64);
            return Err(DefinitionError::OutOfRange { name, got: 0, min: 1, max });
        }
        let (got, max) = (self.allow.len() as u64, MAX_DECLARED_FIELDS as u64);
        if got > max {
            return Err(DefinitionError::OutOfRange {
                name: "the number of a guard's allowed fields",
                got,
                min: 0,
                max,
            });
        }
        match self.allow.iter().find(|name| name.is_empty() || name.len() > MAX_FIELD_BYTES) {
            Some(field) => Err(DefinitionError::field_name(field)),
            None => Ok(()),
        }
    }
}

/// What happens to a document with personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum GuardAction {
    /// The request is refused.
    Refuse,
    /// A mark such as `[email]` takes the place of what was found, before anything is embedded or stored.
    Redact,
}

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub enum PersonalData {
    /// An address of electronic mail.
    Email,
    /// A telephone number, with its country code or in North American groups.
    Phone,
    /// A payment card's number: 13 to 19 digits with a right check digit (Luhn, ISO/IEC 7812-1).
    Card,
    /// An international bank account number with right check digits (ISO 13616).
    Iban,
    /// A social security number of the United States, with its dashes.
    SocialSecurity,
    /// An address of the internet protocol, version 4 or 6.
    IpAddress,
}

impl PersonalData {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Email, Self::Phone, Self::Card, Self::Iban, Self::SocialSecurity, Self::IpAddress];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Card => "card",
            Self::Iban => "iban",
            Self::SocialSecurity => "ssn",
            Self::IpAddress => "ip",
        }
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for PersonalData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Email => "an email address",
            Self::Phone => "a telephone number",
            Self::Card => "a payment card's number",
            Self::Iban => "a bank account's number (IBAN)",
            Self::SocialSecurity => "a social security number",
            Self::IpAddress => "an IP address",
        })
    }
}
