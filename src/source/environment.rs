//! Settings in variables, under the names that programs beside us use for them.

use std::path::{Path, PathBuf};

use super::SourceError;
use crate::postgres::{ConnectParts, ConnectSettings, SslMode};

/// Where a variable's value comes from; a test has its own.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// First parts of variables, in the order in which they are asked.
const PREFIXES: [&str; 3] = ["PGVECTOR", "STAGING_DB", "SUPABASE"];
/// Names of a whole URL after a first part.
const URLS: [&str; 5] = ["URL", "DATABASE_URL", "DB_URL", "CONNECTION_STRING", "DSN"];

/// A connection that variables describe.
#[derive(Clone, Debug)]
pub struct Found {
    /// How to connect.
    pub settings: ConnectSettings,
    /// Which variable said so, for messages.
    pub from: String,
}

/// What variables say about embedding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddingVariables {
    /// `EMBEDDING_MODEL`.
    pub model: Option<String>,
    /// `EMBEDDING_DIM`, `EMBEDDING_DIMENSION` or `EMBEDDING_DIMENSIONS`.
    pub dim: Option<u32>,
    /// `EMBEDDING_BATCH_SIZE`.
    pub batch: Option<usize>,
}

/// The connection that variables describe: `DATABASE_URL`, else those that begin with `PGVECTOR_`, `STAGING_DB_` or
/// `SUPABASE_`; with `prefix`, only those that begin with it.
///
/// # Errors
/// [`SourceError::NoConnection`], [`SourceError::Variable`], [`SourceError::Postgres`].
pub fn connection(lookup: Lookup, prefix: Option<&str>) -> Result<Found, SourceError> {
    let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
    let from_url = |name: String, url: String| -> Result<Found, SourceError> {
        Ok(Found { settings: ConnectSettings::from_url(&url)?, from: name })
    };
    if prefix.is_none()
        && let Some(url) = get("DATABASE_URL")
    {
        return from_url("DATABASE_URL".to_owned(), url);
    }
    let wanted = prefix.map(|prefix| prefix.trim_end_matches('_').to_uppercase());
    let prefixes: Vec<String> = match &wanted {
        Some(prefix) => vec![prefix.clone()],
        None => PREFIXES.map(str::to_owned).to_vec(),
    };
    for prefix in &prefixes {
        for name in URLS.map(|url| format!("{prefix}_{url}")) {
            // SUPABASE_URL is the address of an HTTP service.
            if let Some(url) = get(&name).filter(|url| !url.starts_with("http")) {
                return from_url(name, url);
            }
        }
        if let Some(found) = of_parts(&get, prefix)? {
            return Ok(found);
        }
    }
    Err(SourceError::NoConnection { prefix: wanted.unwrap_or_else(|| "PGVECTOR".to_owned()) })
}

/// A connection of single values, if the variables have a host.
fn of_parts(get: &dyn Fn(&str) -> Option<String>, prefix: &str) -> Result<Option<Found>, SourceError> {
    let any = |suffixes: &[&str]| {
        let names = suffixes.iter().flat_map(|suffix| [format!("{prefix}_{suffix}"), format!("{prefix}_DB_{suffix}")]);
        names.into_iter().find_map(|name| get(&name).map(|value| (name, value)))
    };
    let value = |suffixes: &[&str]| any(suffixes).map(|(_, value)| value);
    let project = value(&["PROJECT_REF", "PROJECT_ID"]).or_else(|| project_of(&value(&["URL"])?));
    let (from, host) = match (any(&["HOST", "HOSTNAME", "SERVER"]), project) {
        (Some(found), _) => found,
        // Supabase's database stands at a host of the project's name, behind TLS.
        (None, Some(project)) if prefix == "SUPABASE" => (format!("{prefix}_URL"), format!("db.{project}.supabase.co")),
        _ => return Ok(None),
    };
    let is_supabase = host.ends_with(".supabase.co") || host.ends_with(".supabase.com");
    let port = match any(&["PORT"]) {
        Some((name, text)) => Some(text.trim().parse().map_err(|_| SourceError::Variable {
            name,
            reason: "is no port; write a number such as 5432".to_owned(),
        })?),
        None => None,
    };
    let ssl_root_cert = value(&["SSLROOTCERT", "SSL_ROOT_CERT"]).map(PathBuf::from);
    let ssl_mode = match value(&["SSLMODE", "SSL_MODE"]) {
        Some(text) => Some(text.trim().parse()?),
        None if is_supabase && ssl_root_cert.as_deref() != Some(Path::new("system")) => Some(SslMode::Require),
        None => None,
    };
    let parts = ConnectParts {
        host,
        port,
        user: value(&["USER", "USERNAME"]).unwrap_or_else(|| "postgres".to_owned()),
        password: value(&["PASSWORD", "PASS"]),
        database: value(&["NAME", "DATABASE", "DBNAME"])
            .or_else(|| value(&["DB"]))
            .or_else(|| Some("postgres".to_owned())),
        ssl_mode,
        ssl_root_cert,
    };
    Ok(Some(Found { settings: ConnectSettings::from_parts(&parts)?, from }))
}

/// The project of `https://PROJECT.supabase.co`.
fn project_of(url: &str) -> Option<String> {
    let host = url.strip_prefix("https://")?.split(['/', ':']).next()?;
    host.strip_suffix(".supabase.co").filter(|project| !project.is_empty()).map(str::to_owned)
}

/// What the variables that begin with `EMBEDDING_` say.
///
/// # Errors
/// [`SourceError::Variable`] for what is no number.
pub fn embedding(lookup: Lookup) -> Result<EmbeddingVariables, SourceError> {
    let get = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
    let number = |names: &[&str]| -> Result<Option<u32>, SourceError> {
        let Some((name, text)) = names.iter().find_map(|name| Some((*name, get(name)?))) else { return Ok(None) };
        let wrong = |_| SourceError::Variable { name: name.to_owned(), reason: "is no whole number".to_owned() };
        text.trim().parse().map(Some).map_err(wrong)
    };
    Ok(EmbeddingVariables {
        model: get("EMBEDDING_MODEL").or_else(|| get("EMBEDDING_MODEL_NAME")),
        dim: number(&["EMBEDDING_DIM", "EMBEDDING_DIMENSION", "EMBEDDING_DIMENSIONS"])?,
        batch: number(&["EMBEDDING_BATCH_SIZE"])?.map(|batch| batch as usize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], prefix: Option<&str>) -> Result<(String, String), String> {
        let lookup = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        let found = connection(&lookup, prefix).map_err(|error| error.to_string())?;
        Ok((found.settings.place(), found.from))
    }

    #[test]
    fn every_family_of_names_is_known() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
        let cases: [Case<'_>; 7] = [
            (&[("DATABASE_URL", "postgres://u:p@h/d"), ("PGVECTOR_HOST", "x")], "u@h:5432/d", "DATABASE_URL"),
            (
                &[
                    ("PGVECTOR_HOST", "h"),
                    ("PGVECTOR_PORT", "6543"),
                    ("PGVECTOR_USER", "u"),
                    ("PGVECTOR_DATABASE", "d"),
                ],
                "u@h:6543/d",
                "PGVECTOR_HOST",
            ),
            (&[("PGVECTOR_CONNECTION_STRING", "postgres://u@h/d")], "u@h:5432/d", "PGVECTOR_CONNECTION_STRING"),
            (
                &[
                    ("STAGING_DB_HOST", "h"),
                    ("STAGING_DB_NAME", "n"),
                    ("STAGING_DB_USER", "u"),
                    ("STAGING_DB_PASSWORD", "p"),
                ],
                "u@h:5432/n",
                "STAGING_DB_HOST",
            ),
            (
                &[("SUPABASE_DB_URL", "postgresql://u@h:6543/d"), ("SUPABASE_URL", "https://abc.supabase.co")],
                "u@h:6543/d",
                "SUPABASE_DB_URL",
            ),
            (
                &[("SUPABASE_URL", "https://abc.supabase.co"), ("SUPABASE_DB_PASSWORD", "p")],
                "postgres@db.abc.supabase.co:5432/postgres",
                "SUPABASE_URL",
            ),
            (&[("PGVECTOR_HOST", ""), ("SUPABASE_DB_HOST", "h")], "postgres@h:5432/postgres", "SUPABASE_DB_HOST"),
        ];
        for (variables, place, from) in cases {
            assert_eq!(found(variables, None), Ok((place.to_owned(), from.to_owned())), "{variables:?}");
        }
        let both = [("DATABASE_URL", "postgres://u@a/d"), ("STAGING_DB_URL", "postgres://u@b/d")];
        assert_eq!(found(&both, Some("staging_db")).unwrap().0, "u@b:5432/d");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        assert!(found(&[], None).unwrap_err().contains("DATABASE_URL"));
        let port = found(&[("PGVECTOR_HOST", "h"), ("PGVECTOR_PORT", "s3cret")], None).unwrap_err();
        assert!(port.contains("PGVECTOR_PORT") && !port.contains("s3cret"), "{port}");
        let url = found(&[("DATABASE_URL", "postgres://u:s3cret@:x/d")], None).unwrap_err();
        assert!(!url.contains("s3cret"), "{url}");
    }

    #[test]
    fn embedding_has_its_variables() {
        let lookup = |name: &str| match name {
            "EMBEDDING_MODEL" => Some("m".to_owned()),
            "EMBEDDING_DIMENSIONS" => Some("384".to_owned()),
            _ => None,
        };
        let wanted = EmbeddingVariables { model: Some("m".into()), dim: Some(384), batch: None };
        assert_eq!(embedding(&lookup).unwrap(), wanted);
        assert!(embedding(&|name| (name == "EMBEDDING_DIM").then(|| "many".to_owned())).is_err());
    }
}
