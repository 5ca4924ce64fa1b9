//! Where a collection's documents stand, on the wire.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::backend::{Placement, UrlFrom};
use crate::http::error::{ApiError, Code};
use crate::types::CollectionName;

/// What has the documents of a collection, where this store has not.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BackendType)]
pub(crate) enum WireBackend {
    /// A table of Postgres with pgvector, which any number of servers share.
    Postgres,
}

/// Where the documents of a new collection are to stand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendObject {
    #[serde(rename = "type")]
    #[expect(dead_code, reason = "there is one type so far; reading it refuses others")]
    kind: WireBackend,
    /// The environment variable of the server that holds the connection URL; `DATABASE_URL` where neither is given.
    #[schema(example = "DATABASE_URL")]
    url_variable: Option<String>,
    /// The file on the server that holds the connection URL.
    url_file: Option<String>,
    /// The table's schema, which is made where it is missing; `pannier` where it is left out.
    schema: Option<String>,
    /// The table: made, or taken over where another server made it with the same definition. The collection's name
    /// where it is left out.
    table: Option<String>,
}

/// A [`BackendObject`], or the type alone as a string.
#[derive(Debug)]
pub(crate) struct BackendBody(BackendObject);

impl<'de> Deserialize<'de> for BackendBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BackendVisitor;

        impl<'de> Visitor<'de> for BackendVisitor {
            type Value = BackendBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"postgres\" or an object")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<BackendBody, E> {
                match text {
                    "postgres" => Ok(BackendBody(BackendObject {
                        kind: WireBackend::Postgres,
                        url_variable: None,
                        url_file: None,
                        schema: None,
                        table: None,
                    })),
                    // Not repeated: it may be a URL with its password.
                    _ => {
                        Err(E::custom("the word for a backend is \"postgres\"; its URL stands in a variable or a file"))
                    }
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendBody, A::Error> {
                BackendObject::deserialize(MapAccessDeserializer::new(map)).map(BackendBody)
            }
        }

        deserializer.deserialize_any(BackendVisitor)
    }
}

impl BackendBody {
    /// # Errors
    /// [`Code::InvalidValue`] for a URL from two places.
    pub(crate) fn into_placement(self, name: &CollectionName) -> Result<Placement, ApiError> {
        let BackendObject { url_variable, url_file, schema, table, .. } = self.0;
        let url = match (url_variable, url_file) {
            (Some(_), Some(_)) => {
                let detail = "\"backend\" has both \"url_variable\" and \"url_file\"; the URL is read from one of them";
                return Err(ApiError::new(Code::InvalidValue, detail));
            }
            (Some(variable), None) => Some(UrlFrom::Variable(variable)),
            (None, file) => file.map(|path| UrlFrom::File(path.into())),
        };
        Ok(Placement::new(name, url, schema, table))
    }
}

/// Where the documents of a collection stand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backend)]
pub(crate) struct BackendView {
    #[serde(rename = "type")]
    kind: WireBackend,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_variable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_file: Option<String>,
    schema: String,
    table: String,
}

impl BackendView {
    pub(crate) fn of(placement: &Placement) -> Self {
        let (url_variable, url_file) = match &placement.url {
            UrlFrom::Variable(name) => (Some(name.clone()), None),
            UrlFrom::File(path) => (None, Some(path.display().to_string())),
        };
        let Placement { schema, table, .. } = placement.clone();
        Self { kind: WireBackend::Postgres, url_variable, url_file, schema, table }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::json;

    #[derive(Debug, Deserialize)]
    struct Body {
        backend: BackendBody,
    }

    fn read(text: &str) -> Result<Placement, ApiError> {
        let body = json::parse::<Body>(format!("{{\"backend\": {text}}}").as_bytes())?;
        body.backend.into_placement(&CollectionName::new("c")?)
    }

    #[test]
    fn a_word_stands_for_all_defaults() {
        let short = read(r#""postgres""#).unwrap();
        assert_eq!(short, read(r#"{"type":"postgres"}"#).unwrap());
        assert_eq!(short.url, UrlFrom::Variable("DATABASE_URL".into()));
        let full = read(r#"{"type":"postgres","url_file":"/run/url","schema":"s","table":"t"}"#).unwrap();
        assert_eq!((full.schema.as_str(), full.table.as_str()), ("s", "t"));
        assert_eq!(full.url, UrlFrom::File("/run/url".into()));
    }

    #[test]
    fn a_url_in_place_of_the_word_is_not_repeated() {
        let error = read(r#""postgres://me:s3cret@h/x""#).unwrap_err();
        assert_eq!(error.code, Code::InvalidValue);
        assert!(error.detail.contains("variable or a file") && !error.detail.contains("s3cret"), "{}", error.detail);
    }

    #[test]
    fn others_are_refused() {
        let cases = [
            (r#""mysql""#, Code::InvalidValue),
            (r#"{"type":"mysql"}"#, Code::InvalidValue),
            (r#"{"type":"postgres","url":"postgres://me:s3cret@h/x"}"#, Code::UnknownField),
            (r#"{"type":"postgres","url_variable":"A","url_file":"B"}"#, Code::InvalidValue),
            ("{}", Code::MissingField),
            ("7", Code::InvalidValue),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text).err().map(|error| error.code), Some(wanted), "{text}");
        }
    }
}
