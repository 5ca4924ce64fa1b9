//! How to reach a Postgres: from a URL or from parts, with nothing secret in what is printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};

use super::PostgresError;
use crate::storage::read_small;
use crate::types::Chain;

/// Most bytes of a file that holds a URL.
const MAX_URL_BYTES: u64 = 64 << 10;
/// Longest time that making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An address has this part of that time to answer, so that the next one is tried where it does not.
const ADDRESSES: u32 = 4;
/// Longest time that a statement may take, where the settings name none.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// The shortest and the longest that they may name.
const MIN_STATEMENT_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_STATEMENT_TIMEOUT: Duration = Duration::from_secs(3_600);
/// A server that has sent nothing for so long is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// How a connection is protected, in libpq's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Where the server offers it; the certificate is not looked at.
    #[default]
    Prefer,
    /// Always; the certificate is looked at only where a root is given.
    Require,
    /// Always, and the certificate must come from a trusted root.
    VerifyCa,
    /// Always, and the certificate must also be for the host's name.
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = PostgresError;

    fn from_str(text: &str) -> Result<Self, PostgresError> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            other => {
                let reason = format!("sslmode {other:?}: use disable, prefer, require, verify-ca or verify-full");
                return Err(PostgresError::Settings { reason });
            }
        })
    }
}

/// A connection as single values, as programs keep them in variables.
#[derive(Clone, Default)]
pub struct ConnectParts {
    /// A name, an address or a directory with a socket.
    pub host: String,
    /// 5432 where it is `None`.
    pub port: Option<u16>,
    /// Who logs in.
    pub user: String,
    /// Their password.
    pub password: Option<String>,
    /// The database; the user's name where it is `None`.
    pub database: Option<String>,
    /// How the connection is protected; where it is `None`, by [`SslMode::Prefer`], or by [`SslMode::VerifyFull`] with
    /// the roots `system`.
    pub ssl_mode: Option<SslMode>,
    /// Roots to trust, PEM; the system's where it is `None` or `system`.
    pub ssl_root_cert: Option<PathBuf>,
}

/// How to reach one database.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectSettings {
    pub(super) config: Config,
    pub(super) ssl_mode: SslMode,
    pub(super) ssl_root_cert: Option<PathBuf>,
    /// Longest time that all of connecting may take, whatever the number of addresses.
    pub(super) connect_timeout: Duration,
    /// Where somebody said it.
    statement_timeout: Option<Duration>,
    /// Whether somebody said which servers will do.
    names_servers: bool,
}

impl ConnectSettings {
    /// Reads a URL, `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=FILE`, or libpq's
    /// `key=value` text. `statement_timeout` is how long a statement may take, in milliseconds; `connect_timeout` how
    /// long connecting may take, in seconds, a quarter of it for each address; `target_session_attrs` which servers
    /// will do, `any`, `read-write` or `read-only`. Parameters that only name a pooler's mode (`pgbouncer`,
    /// `pool_mode`, `schema`, `connection_limit`) are passed over. `sslrootcert=system` is `sslmode=verify-full`, and
    /// goes with no other.
    ///
    /// # Errors
    /// [`PostgresError::Settings`], without the URL.
    pub fn from_url(url: &str) -> Result<Self, PostgresError> {
        let url = url.trim();
        let (plain, own) = match url.starts_with("postgres://") || url.starts_with("postgresql://") {
            true => split_url(url)?,
            false => split_words(url),
        };
        // The parser's own message may quote a part of the text, and so a password.
        let config = Config::from_str(&plain).map_err(|_| settings("the connection URL cannot be read"))?;
        let (mut ssl_mode, mut ssl_root_cert) = (None, None);
        let (mut limit, mut servers) = (None, None);
        for (key, value) in own {
            match key.as_str() {
                "sslmode" => ssl_mode = Some(value.parse()?),
                "sslrootcert" => ssl_root_cert = Some(PathBuf::from(value)),
                "statement_timeout" => limit = Some(statement_timeout(&value)?),
                "target_session_attrs" => servers = Some(target_session_attrs(&value)?),
                _ => {}
            }
        }
        let (ssl_mode, ssl_root_cert) = of_system(ssl_mode, ssl_root_cert)?;
        let mut made = Self::checked(config, ssl_mode.unwrap_or_default(), ssl_root_cert)?;
        made.config.target_session_attrs(servers.unwrap_or(TargetSessionAttrs::Any));
        Ok(Self { statement_timeout: limit, names_servers: servers.is_some(), ..made })
    }

    /// Reads a URL, as [`ConnectSettings::from_url`], from a file that a client may have named.
    ///
    /// # Errors
    /// [`PostgresError::Settings`] that names the file, never what is in it; also for what is no regular file and for
    /// one of more than 64 KiB.
    pub fn from_file(path: &Path) -> Result<Self, PostgresError> {
        let bytes = read_small(path, MAX_URL_BYTES).map_err(|error| settings(Chain(&error).to_string()))?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| settings(format!("the file {} is missing or not UTF-8", path.display())))?;
        Self::from_url(&text)
    }

    /// From single values.
    ///
    /// # Errors
    /// [`PostgresError::Settings`].
    pub fn from_parts(parts: &ConnectParts) -> Result<Self, PostgresError> {
        let mut config = Config::new();
        config.host(&parts.host).user(&parts.user).port(parts.port.unwrap_or(5432));
        config.dbname(parts.database.as_ref().unwrap_or(&parts.user));
        if let Some(password) = &parts.password {
            config.password(password);
        }
        let (ssl_mode, ssl_root_cert) = of_system(parts.ssl_mode, parts.ssl_root_cert.clone())?;
        Self::checked(config, ssl_mode.unwrap_or_default(), ssl_root_cert)
    }

    fn checked(mut config: Config, ssl_mode: SslMode, ssl_root_cert: Option<PathBuf>) -> Result<Self, PostgresError> {
        if config.get_hosts().is_empty() {
            return Err(settings("no host is given"));
        }
        // What stands before the last '@' is a part of a password: it must not be looked up as a name, nor printed.
        let has_at = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if config.get_hosts().iter().any(has_at) {
            return Err(settings("an '@' in a user or password of a URL is written %40"));
        }
        if config.get_user().is_none() {
            return Err(settings("no user is given"));
        }
        config.ssl_mode(match ssl_mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            _ => tokio_postgres::config::SslMode::Require,
        });
        let connect_timeout = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        config.connect_timeout(connect_timeout / ADDRESSES);
        if config.get_application_name().is_none() {
            config.application_name("pannier");
        }
        config.keepalives_idle(KEEPALIVE_IDLE);
        let (statement_timeout, names_servers) = (None, false);
        Ok(Self { config, ssl_mode, ssl_root_cert, connect_timeout, statement_timeout, names_servers })
    }

    /// The same, but a statement may take `limit`.
    #[must_use]
    pub fn with_statement_timeout(mut self, limit: Duration) -> Self {
        self.statement_timeout = Some(limit);
        self
    }

    /// The same for statements of collections: each may take `limit`, or what the URL says where that is less. Where
    /// the URL does not name others with `target_session_attrs`, only a server that takes writes will do: a standby may
    /// not have what was written a moment ago.
    #[must_use]
    pub fn for_collections(mut self, limit: Duration) -> Self {
        self.statement_timeout = Some(self.statement_timeout.map_or(limit, |own| own.min(limit)));
        if !self.names_servers {
            self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        self
    }

    /// How long a statement may take.
    pub(super) fn statement_timeout(&self) -> Duration {
        self.statement_timeout.unwrap_or(STATEMENT_TIMEOUT)
    }

    /// User, host, port and database: what may be printed.
    pub fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let user = self.config.get_user().unwrap_or_default();
        format!("{user}@{host}:{port}/{}", self.config.get_dbname().unwrap_or(user))
    }

    /// Host, port and database: the same for every user.
    pub fn database(&self) -> String {
        let place = self.place();
        let user = self.config.get_user().unwrap_or_default();
        place[user.len() + 1..].to_owned()
    }
}

impl fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectSettings({}, {:?})", self.place(), self.ssl_mode)
    }
}

impl fmt::Debug for ConnectParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectParts({}@{}, {:?})", self.user, self.host, self.ssl_mode)
    }
}

fn settings(reason: impl Into<String>) -> PostgresError {
    PostgresError::Settings { reason: reason.into() }
}

/// As libpq takes the root `system`: with it the certificate is looked at and must be for the host's name, since
/// everybody can have one from such a root.
fn of_system(
    mode: Option<SslMode>,
    root: Option<PathBuf>,
) -> Result<(Option<SslMode>, Option<PathBuf>), PostgresError> {
    match (mode, root) {
        (None | Some(SslMode::VerifyFull), Some(root)) if root.as_os_str() == "system" => {
            Ok((Some(SslMode::VerifyFull), None))
        }
        (Some(_), Some(root)) if root.as_os_str() == "system" => Err(settings(
            "sslrootcert=system goes with sslmode=verify-full only, since weaker modes would not check the name",
        )),
        others => Ok(others),
    }
}

/// Parameters that we read ourselves, or that mean nothing to us.
const OWN: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "statement_timeout",
    "target_session_attrs",
    "pgbouncer",
    "pool_mode",
    "schema",
    "connection_limit",
    "sslnegotiation",
    "supa",
    "pool_timeout",
];

type Own = Vec<(String, String)>;

/// Takes our own parameters out of a URL. As for libpq, what stands before an '@' is user and password, whatever else
/// it holds.
fn split_url(url: &str) -> Result<(String, Own), PostgresError> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let server = url[start..].find('@').map_or(start, |at| start + at + 1);
    let credentials = &url[start..server];
    // The '@' of a parameter would make all before it a user.
    if credentials.contains('/') && credentials.contains('?') {
        return Err(settings(
            "a '/' or '?' in a user or password of a URL is written %2F or %3F, and an '@' in a parameter %40",
        ));
    }
    let Some((place, query)) = url[server..].split_once('?') else { return Ok((url.to_owned(), Vec::new())) };
    let base = &url[..server + place.len()];
    let (mut kept, mut own) = (Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = percent_decoded(key)?;
        match OWN.contains(&key.as_str()) {
            true => own.push((key, percent_decoded(value)?)),
            false => kept.push(pair),
        }
    }
    let plain = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    Ok((plain, own))
}

/// Takes our own parameters out of `key=value` text; the others stay as they are written.
fn split_words(text: &str) -> (String, Own) {
    let (mut kept, mut own) = (Vec::new(), Vec::new());
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_end();
        let (value, after) = word_value(after.trim_start());
        let written = &rest[..rest.len() - after.len()];
        match OWN.contains(&key) {
            true => own.push((key.to_owned(), value)),
            false => kept.push(written),
        }
        rest = after.trim_start();
    }
    // What is no pair is for the parser to refuse.
    kept.push(rest);
    (kept.join(" "), own)
}

/// The value at the beginning of a text, in libpq's grammar, and what comes after it: it ends at a blank, or at the
/// second of two quotes; a backslash takes the character after it as it is.
fn word_value(text: &str) -> (String, &str) {
    let (is_quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let (mut value, mut characters) = (String::new(), body.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return (value, &body[at + 1..]),
            blank if !is_quoted && blank.is_whitespace() => return (value, &body[at..]),
            other => value.push(other),
        }
    }
    (value, "")
}

fn statement_timeout(text: &str) -> Result<Duration, PostgresError> {
    let (least, most) = (MIN_STATEMENT_TIMEOUT, MAX_STATEMENT_TIMEOUT);
    let limit = text.parse().ok().map(Duration::from_millis).filter(|limit| (least..=most).contains(limit));
    limit.ok_or_else(|| {
        let (least, most) = (least.as_millis(), most.as_millis());
        settings(format!("statement_timeout is a number of milliseconds from {least} to {most}"))
    })
}

fn target_session_attrs(text: &str) -> Result<TargetSessionAttrs, PostgresError> {
    match text {
        "any" => Ok(TargetSessionAttrs::Any),
        "read-write" => Ok(TargetSessionAttrs::ReadWrite),
        "read-only" => Ok(TargetSessionAttrs::ReadOnly),
        other => Err(settings(format!("target_session_attrs {other:?}: use any, read-write or read-only"))),
    }
}

fn percent_decoded(text: &str) -> Result<String, PostgresError> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| settings("a parameter of the connection URL is not UTF-8"))?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_how_and_keep_their_secret() {
        let url =
            "postgres://me:s3cret@db.example:6543/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&pgbouncer=true";
        let settings = ConnectSettings::from_url(url).unwrap();
        assert_eq!(settings.place(), "me@db.example:6543/app");
        assert_eq!(settings.ssl_mode, SslMode::VerifyFull);
        assert_eq!(settings.ssl_root_cert.as_deref(), Some(std::path::Path::new("/etc/ca.pem")));
        assert!(!format!("{settings:?}").contains("s3cret"));
        let words = ConnectSettings::from_url("host=/tmp user=me sslmode=disable").unwrap();
        assert_eq!((words.place().as_str(), words.ssl_mode), ("me@/tmp:5432/me", SslMode::Disable));
        assert_eq!(words.statement_timeout(), STATEMENT_TIMEOUT);
        let limited = ConnectSettings::from_url("postgres://me@h/x?statement_timeout=2500").unwrap();
        assert_eq!(limited.statement_timeout(), Duration::from_millis(2_500));
    }

    #[test]
    fn collections_keep_to_the_limit_of_the_url_and_to_servers_that_take_writes() {
        let limit = Duration::from_secs(25);
        for (own, wanted) in [("", 25_000), ("statement_timeout=2000", 2_000), ("statement_timeout=60000", 25_000)] {
            let settings = ConnectSettings::from_url(&format!("postgres://me@h/x?{own}")).unwrap();
            assert_eq!(settings.for_collections(limit).statement_timeout(), Duration::from_millis(wanted), "{own}");
        }
        for (own, plain, of_collections) in [
            ("", TargetSessionAttrs::Any, TargetSessionAttrs::ReadWrite),
            ("target_session_attrs=any", TargetSessionAttrs::Any, TargetSessionAttrs::Any),
            ("target_session_attrs=read-only", TargetSessionAttrs::ReadOnly, TargetSessionAttrs::ReadOnly),
            ("target_session_attrs=read-write", TargetSessionAttrs::ReadWrite, TargetSessionAttrs::ReadWrite),
        ] {
            let settings = ConnectSettings::from_url(&format!("postgres://me@a,b/x?{own}")).unwrap();
            assert_eq!(settings.config.get_target_session_attrs(), plain, "{own}");
            let settings = settings.for_collections(limit);
            assert_eq!(settings.config.get_target_session_attrs(), of_collections, "{own}");
        }
    }

    #[test]
    fn what_is_asked_of_tls_is_read_however_it_is_written() {
        for (text, root) in [
            ("postgres://u:p?w@h/d?sslmode=require", None),
            ("postgres://u:p?w@h/d?sslmode=require&sslrootcert=/ca.pem", Some("/ca.pem")),
            ("postgres://u:p/w@h/d?ssl%6dode=require", None),
            ("host=h user=u sslmode = require", None),
            ("host=h user=u sslmode =require sslrootcert= '/a b.pem'", Some("/a b.pem")),
            (r"host=h user=u sslmode='require' sslrootcert=/a\ b.pem", Some("/a b.pem")),
        ] {
            let settings = ConnectSettings::from_url(text).unwrap();
            assert_eq!(settings.ssl_mode, SslMode::Require, "{text}");
            assert_eq!(settings.ssl_root_cert.as_deref(), root.map(Path::new), "{text}");
            assert!(settings.place().starts_with("u@h:5432/"), "{text}: {}", settings.place());
        }
        let words = ConnectSettings::from_url("host=h user=u password='a  b' sslmode=require").unwrap();
        assert_eq!(words.config.get_password(), Some(&b"a  b"[..]));
        let url = ConnectSettings::from_url("postgres://u:p?w@h/d?sslmode=require").unwrap();
        assert_eq!(url.config.get_password(), Some(&b"p?w"[..]));
    }

    #[test]
    fn an_address_that_does_not_answer_leaves_time_for_the_next() {
        for (url, whole) in [("postgres://me@a,b/x", 10), ("postgres://me@a,b/x?connect_timeout=2", 2)] {
            let settings = ConnectSettings::from_url(url).unwrap();
            assert_eq!(settings.connect_timeout, Duration::from_secs(whole), "{url}");
            let of_each = *settings.config.get_connect_timeout().unwrap();
            assert!(of_each * 2 < settings.connect_timeout, "{url}: {of_each:?}");
        }
    }

    #[test]
    fn the_roots_of_the_system_come_with_a_check_of_the_name() {
        for url in ["postgres://me@h/x?sslrootcert=system", "host=h user=me sslrootcert=system sslmode=verify-full"] {
            let settings = ConnectSettings::from_url(url).unwrap();
            assert_eq!((settings.ssl_mode, settings.ssl_root_cert), (SslMode::VerifyFull, None), "{url}");
        }
        let parts = |ssl_mode| ConnectParts {
            host: "h".into(),
            user: "me".into(),
            ssl_mode,
            ssl_root_cert: Some("system".into()),
            ..ConnectParts::default()
        };
        assert_eq!(ConnectSettings::from_parts(&parts(None)).unwrap().ssl_mode, SslMode::VerifyFull);
        for mode in ["disable", "prefer", "require", "verify-ca"] {
            let url = format!("postgres://me@h/x?sslrootcert=system&sslmode={mode}");
            let of_parts = ConnectSettings::from_parts(&parts(Some(mode.parse().unwrap())));
            for refused in [ConnectSettings::from_url(&url), of_parts] {
                assert!(refused.unwrap_err().to_string().contains("verify-full only"), "{mode}");
            }
        }
    }

    #[test]
    fn a_url_in_a_file_is_no_longer_than_urls_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        std::fs::write(&file, "postgres://me:s3cret@h/x\n").unwrap();
        assert_eq!(ConnectSettings::from_file(&file).unwrap().place(), "me@h:5432/x");
        let padded = format!("postgres://me:s3cret@h/x{}", " ".repeat(64 << 10));
        std::fs::write(&file, padded).unwrap();
        let error = ConnectSettings::from_file(&file).unwrap_err().to_string();
        assert!(error.contains("more than 65536 bytes") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn wrong_settings_are_named_without_the_url() {
        let odd = "postgres://me:s3cret@h/x?statement_timeout=1min";
        for url in [
            odd,
            "postgres://me:s3cret@h:port/x",
            "postgres://me:s3cret@h/x?sslmode=maybe",
            "postgres://me:s3cret@h/x?target_session_attrs=primary",
            "nonsense s3cret",
            "",
            "postgres://me:x@s3cret@h/x",
            "postgres://h/x?user=me&password=a@s3cret&sslmode=require",
            "host=h user=me password='s3cret",
        ] {
            let error = ConnectSettings::from_url(url).unwrap_err().to_string();
            assert!(error.contains("settings") && !error.contains("s3cret"), "{error}");
        }
        let parts = ConnectParts { host: "h".into(), password: Some("s3cret".into()), ..ConnectParts::default() };
        assert!(!format!("{parts:?}").contains("s3cret"));
    }
}
