//! What can go wrong between us and Postgres, told apart by what is to be done about it.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::tls;
use crate::types::Chain;

/// What kind of trouble a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server cannot be reached, went away, or is starting or stopping: try again.
    Unreachable,
    /// Two transactions met: try again.
    Conflict,
    /// A statement took longer than it may.
    Timeout,
    /// The user or the password is wrong.
    Authentication,
    /// TLS could not be agreed on, or the certificate is not the right one.
    Tls,
    /// A right is missing.
    Rights,
    /// A table, a column, a type or a function is missing or another than expected.
    Schema,
    /// A value cannot be stored: the row is at fault, and others can be.
    Row,
    /// The settings are wrong.
    Settings,
    /// Anything else.
    Other,
}

impl Trouble {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::Authentication => "authentication",
            Self::Tls => "tls",
            Self::Rights => "missing_rights",
            Self::Schema => "schema",
            Self::Row => "row",
            Self::Settings => "settings",
            Self::Other => "other",
        }
    }
}

/// A failure of a connection or a statement. No message holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The connection could not be made.
    #[error("cannot connect to {place}{advice}")]
    Connect {
        /// User, host, port and database.
        place: String,
        /// What kind of failure it is.
        trouble: Trouble,
        /// What is at fault and what to do, after a colon; empty where that is plain.
        advice: &'static str,
        /// What the server or the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server refused a statement.
    #[error("Postgres refused to {doing}: {message}{detail} (SQLSTATE {code})")]
    Statement {
        /// What the statement was for.
        doing: &'static str,
        /// Its five characters.
        code: String,
        /// What the server said.
        message: String,
        /// Its detail after a semicolon, which may hold what a row holds; empty where it gave none.
        detail: String,
        /// The column that it named apart from its message.
        column: Option<String>,
        /// What kind of failure it is.
        trouble: Trouble,
    },
    /// The connection broke while a statement ran: whether it took effect is not known.
    #[error("the connection to Postgres broke while it was to {doing}")]
    Broken {
        /// What the statement was for.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// No answer came in time: whether the statement took effect is not known.
    #[error("Postgres did not {doing} within {} s", limit.as_secs())]
    Timeout {
        /// What the statement was for.
        doing: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A column of an answer holds no value of the kind that was asked for.
    #[error("Postgres answered with another value than was asked for in column {column}")]
    Answer {
        /// The column, from 0.
        column: usize,
        /// In what it is another.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The settings of the connection are wrong.
    #[error("the settings of the Postgres connection are wrong: {reason}")]
    Settings {
        /// What is wrong with them; never holds a password.
        reason: String,
    },
}

impl PostgresError {
    /// What kind of trouble this is.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Connect { trouble, .. } | Self::Statement { trouble, .. } => *trouble,
            Self::Broken { .. } => Trouble::Unreachable,
            Self::Timeout { .. } => Trouble::Timeout,
            Self::Answer { .. } => Trouble::Other,
            Self::Settings { .. } => Trouble::Settings,
        }
    }

    /// The SQLSTATE, where the server gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Statement { code, .. } => Some(code),
            _ => None,
        }
    }

    /// What may be kept of it for others to read: without its detail, and without the values that a message about a
    /// value quotes.
    pub fn without_values(&self) -> String {
        match self {
            Self::Statement { code, message, .. } if code.starts_with("22") => unquoted(message),
            // The words of somebody's trigger may hold anything.
            Self::Statement { code, .. } if code.starts_with("P0") => {
                "a trigger or a function of the database refused it; the log of Postgres has its words".to_owned()
            }
            Self::Statement { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the session can be used no more.
    pub fn ends_session(&self) -> bool {
        !matches!(self, Self::Statement { .. }) || self.trouble() == Trouble::Unreachable
    }

    pub(super) fn connecting(place: String, error: tokio_postgres::Error) -> Self {
        let (trouble, advice) = match (error.as_db_error(), tls::fault_of(&error)) {
            (Some(db), _) => (trouble_of(db.code()), ""),
            (None, Some(advice)) => (Trouble::Tls, advice),
            (None, None) => (Trouble::Unreachable, ""),
        };
        let advice = match trouble {
            Trouble::Authentication => ": the user, the password or pg_hba.conf does not let us in",
            _ => advice,
        };
        // The driver's own words before those of the server are "db error".
        let source = match error.as_db_error().cloned() {
            Some(said) => said.into(),
            None => error.into(),
        };
        Self::Connect { place, trouble, advice, source }
    }

    /// Nobody answered within `limit`.
    pub(super) fn no_connection(place: String, limit: Duration) -> Self {
        let source =
            std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs_f64()));
        Self::Connect { place, trouble: Trouble::Unreachable, advice: "", source: Box::new(source) }
    }

    pub(super) fn statement(doing: &'static str, error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // A parameter that cannot be encoded is refused before anything is sent.
            if !error.is_closed() && is_encoding(&error) {
                let message = Chain(&error).to_string();
                let (code, detail) = ("22000".to_owned(), String::new());
                return Self::Statement { doing, code, message, detail, column: None, trouble: Trouble::Row };
            }
            return Self::Broken { doing, source: error };
        };
        let detail = db.detail().map(|detail| format!("; {detail}")).unwrap_or_default();
        let (code, message, column) = (db.code().code().to_owned(), db.message().to_owned(), db.column());
        let column = column.map(str::to_owned);
        let trouble = match db.code() {
            code if breaks_a_policy(code, db.routine(), &message) => Trouble::Row,
            code if lost_a_worker(code, db.routine(), &message) => Trouble::Unreachable,
            code if lost_a_type(code, &message) => Trouble::Schema,
            code => trouble_of(code),
        };
        Self::Statement { doing, code, message, detail, column, trouble }
    }
}

/// A message without what stands between its first and its last quote.
fn unquoted(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}..{}", &message[..=first], &message[last..]),
        _ => message.to_owned(),
    }
}

fn is_encoding(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    text.starts_with("error serializing parameter") || text.starts_with("error encoding message")
}

/// Whether a row breaks a policy of row-level security, which has the code of a missing right. The message may be in
/// any language; the routine's name is not.
fn breaks_a_policy(code: &SqlState, routine: Option<&str>, message: &str) -> bool {
    let is_check = routine == Some("ExecWithCheckOptions") || message.contains("violates row-level security policy");
    code.code() == "42501" && is_check
}

/// Whether the server lost a process that worked on a part of the statement, which has the code of a wrong state of an
/// object.
fn lost_a_worker(code: &SqlState, routine: Option<&str>, message: &str) -> bool {
    let is_of_workers = routine.is_some_and(|routine| routine.contains("Parallel"));
    code.code() == "55000" && (is_of_workers || message.contains("parallel worker"))
}

/// Whether a type is gone that the session knows by its number, as after DROP EXTENSION, which has the code of an
/// internal error. Its message is in no other language.
fn lost_a_type(code: &SqlState, message: &str) -> bool {
    code.code() == "XX000" && message.starts_with("cache lookup failed for type")
}

/// Classes and codes of the manual's appendix A.
fn trouble_of(code: &SqlState) -> Trouble {
    let text = code.code();
    match text {
        "57014" => Trouble::Timeout,
        "42501" => Trouble::Rights,
        "40001" | "40P01" | "55P03" => Trouble::Conflict,
        "25006" => Trouble::Unreachable,
        // What the schema lacks or has otherwise.
        "42P01" | "42703" | "42704" | "42883" | "3F000" | "42804" | "42P10" | "42846" | "3D000" => Trouble::Schema,
        _ => match text.get(..2) {
            Some("28") => Trouble::Authentication,
            Some("08" | "53") => Trouble::Unreachable,
            Some("57") => Trouble::Unreachable,
            // P0: what a function or a trigger in PL/pgSQL raises.
            Some("22" | "23" | "54" | "21" | "44" | "P0") => Trouble::Row,
            Some("0A") => Trouble::Schema,
            _ => Trouble::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_message_quotes_no_value() {
        let kept = |code: &str, message: &str| {
            let (code, message, detail) =
                (code.to_owned(), message.to_owned(), "; Failing row contains (x)".to_owned());
            let trouble = Trouble::Row;
            PostgresError::Statement { doing: "write rows", code, message, detail, column: None, trouble }
                .without_values()
        };
        assert_eq!(
            kept("22P02", "invalid input syntax for type uuid: \"a \"b\" c\""),
            "invalid input syntax for type uuid: \"..\""
        );
        assert_eq!(kept("22003", "value \"99\" is out of range"), "value \"..\" is out of range");
        assert_eq!(
            kept("22001", "value too long for type character varying(5)"),
            "value too long for type character varying(5)"
        );
        let check = "new row for relation \"c\" violates check constraint \"c_check\"";
        assert_eq!(kept("23514", check), check);
        assert!(!kept("P0001", "no row for Ann").contains("Ann"));
    }

    #[test]
    fn a_row_that_breaks_a_policy_is_told_from_a_missing_right() {
        let code = |text: &str| SqlState::from_code(text);
        let policy = "new row violates row-level security policy for table \"c\"";
        assert!(breaks_a_policy(&code("42501"), None, policy));
        assert!(breaks_a_policy(&code("42501"), Some("ExecWithCheckOptions"), "in another language"));
        assert!(!breaks_a_policy(&code("42501"), Some("aclcheck_error"), "permission denied for table c"));
        assert!(!breaks_a_policy(&code("44000"), Some("ExecWithCheckOptions"), "new row violates check option"));
    }

    #[test]
    fn a_type_that_is_gone_is_told_from_other_internal_errors() {
        let internal = SqlState::from_code("XX000");
        assert!(lost_a_type(&internal, "cache lookup failed for type 16395"));
        assert!(!lost_a_type(&internal, "cache lookup failed for relation 16395"));
        assert!(!lost_a_type(&SqlState::from_code("42704"), "cache lookup failed for type 16395"));
    }

    #[test]
    fn states_are_told_apart_by_what_is_to_be_done() {
        let cases = [
            ("28P01", Trouble::Authentication),
            ("57P01", Trouble::Unreachable),
            ("53300", Trouble::Unreachable),
            ("57014", Trouble::Timeout),
            ("42703", Trouble::Schema),
            ("42501", Trouble::Rights),
            ("22021", Trouble::Row),
            ("22P05", Trouble::Row),
            ("23502", Trouble::Row),
            ("54000", Trouble::Row),
            ("P0001", Trouble::Row),
            ("40P01", Trouble::Conflict),
            ("XX000", Trouble::Other),
        ];
        for (code, trouble) in cases {
            assert_eq!(trouble_of(&SqlState::from_code(code)), trouble, "{code}");
        }
    }
}
