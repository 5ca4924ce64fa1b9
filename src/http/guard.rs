//! Which hosts and origins may be named: what keeps a web page from reaching a server on its visitor's machine.
//!
//! A page of `evil.example` can point its own name at 127.0.0.1 (DNS rebinding) and then talks to us as its own origin:
//! the `Host` header gives it away. A page that calls us by our own name sends its `Origin`.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, Uri, header};

use super::auth::AuthPolicy;
use super::cors;
use super::error::{ApiError, Code};
use super::state::HttpConfig;

/// The rules of one server.
#[derive(Debug)]
pub(crate) struct Guard {
    bound: Option<IpAddr>,
    hosts: Vec<String>,
    origins: Vec<String>,
    auth: AuthPolicy,
}

/// What to do with a request that may pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// No browser, or a page of our own.
    Plain,
    /// A page of a configured origin: its answer needs CORS headers.
    CrossOrigin(String),
    /// A browser's question before such a call, to answer at once.
    Preflight(String),
}

impl Guard {
    /// `bound`: where the listener listens, when there is one.
    pub(crate) fn new(config: &HttpConfig, bound: Option<SocketAddr>) -> Self {
        Self {
            bound: bound.map(|address| address.ip()),
            hosts: config.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            origins: config.allowed_origins.iter().map(|origin| as_sent(origin)).collect(),
            auth: config.auth.clone(),
        }
    }

    /// Checks the API key, where there is one.
    pub(crate) fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        self.auth.check(headers)
    }

    /// Checks `Host` and `Origin`.
    pub(crate) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Passage, ApiError> {
        let host = host_of(uri, headers)?;
        if !self.allows_host(&host) {
            let detail = format!(
                "this server does not answer for host {host:?}; call it by localhost or its address, or start it with \
                 `pannier serve --allow-host NAME`"
            );
            return Err(ApiError::new(Code::HostNotAllowed, detail));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(Passage::Plain) };
        let origin = String::from_utf8_lossy(origin.as_bytes()).to_ascii_lowercase();
        if self.origins.contains(&origin) {
            let preflight = method == Method::OPTIONS && headers.contains_key(cors::REQUEST_METHOD);
            return Ok(if preflight { Passage::Preflight(origin) } else { Passage::CrossOrigin(origin) });
        }
        if is_same_origin(&origin, &host) {
            return Ok(Passage::Plain);
        }
        let detail = format!(
            "web pages of {origin:?} may not call this server; to let them, start it with `pannier serve --allow-origin \
             ORIGIN`"
        );
        Err(ApiError::new(Code::OriginNotAllowed, detail))
    }

    /// `host`: lower case, with or without a port.
    fn allows_host(&self, host: &str) -> bool {
        let name = without_port(host);
        // The root of all names may stand behind one.
        let name = name.strip_suffix('.').unwrap_or(name);
        if name == "localhost" || self.hosts.iter().any(|allowed| allowed == host || allowed == name) {
            return true;
        }
        let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() else { return false };
        // Rebinding needs a name. Where every address of the machine is bound, any address is one of ours.
        let address = address.to_canonical();
        address.is_loopback()
            || self.bound.is_some_and(|bound| bound.to_canonical() == address || bound.is_unspecified())
    }
}

/// The host that a request names, in lower case: of an absolute URI and of the header, which must agree.
fn host_of(uri: &Uri, headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(header::HOST).iter();
    let header = values.next().and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase);
    let authority = uri.authority().map(|authority| authority.as_str().to_ascii_lowercase());
    match (header, authority) {
        (Some(host), None) if values.next().is_none() => Ok(host),
        (Some(host), Some(authority)) if host == authority && values.next().is_none() => Ok(host),
        _ => Err(ApiError::new(Code::HostNotAllowed, "send one Host header that names this server")),
    }
}

/// `name:port` without the port; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// An origin as browsers send it: in lower case, without the port that its scheme has anyway.
fn as_sent(origin: &str) -> String {
    let origin = origin.trim_end_matches('/').to_ascii_lowercase();
    let default_port = if origin.starts_with("https://") { ":443" } else { ":80" };
    let is_web = origin.starts_with("https://") || origin.starts_with("http://");
    match origin.strip_suffix(default_port) {
        Some(without) if is_web => without.to_owned(),
        _ => origin,
    }
}

/// Whether a page of `origin` was served by `host` itself. `host` has passed [`Guard::allows_host`].
fn is_same_origin(origin: &str, host: &str) -> bool {
    match origin.split_once("://") {
        Some(("http", rest)) => rest == host || Some(rest) == host.strip_suffix(":80"),
        // A proxy in front of us may speak TLS.
        Some(("https", rest)) => rest == host || Some(rest) == host.strip_suffix(":443"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn guard(bound: &str) -> Guard {
        let config = HttpConfig {
            allowed_hosts: vec!["Search.Example".into(), "proxy:8080".into()],
            allowed_origins: vec!["https://App.example/".into()],
            ..HttpConfig::default()
        };
        Guard::new(&config, Some(bound.parse().unwrap()))
    }

    fn check(guard: &Guard, host: &str, origin: Option<&str>) -> Result<Passage, Code> {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert("origin", HeaderValue::from_str(origin).unwrap());
        }
        guard.check(&Method::GET, &Uri::from_static("/"), &headers).map_err(|e| e.code)
    }

    #[test]
    fn loopback_and_configured_hosts_pass() {
        let guard = guard("127.0.0.1:7117");
        for host in [
            "localhost",
            "LOCALHOST:7117",
            "localhost.",
            "localhost.:7117",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:7117",
            "[::1]",
            "[::ffff:127.0.0.1]:7117",
            "search.example:9",
            "proxy:8080",
        ] {
            assert_eq!(check(&guard, host, None), Ok(Passage::Plain), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "192.168.1.5",
            "[::ffff:192.168.1.5]",
            "proxy",
            "proxy:81",
            "",
            ".",
            "127.0.0.1.nip.io:7117",
        ] {
            assert_eq!(check(&guard, host, None), Err(Code::HostNotAllowed), "{host}");
        }
    }

    #[test]
    fn the_bound_address_passes_and_any_address_where_all_are_bound() {
        assert_eq!(check(&guard("192.168.1.5:7117"), "192.168.1.5:7117", None), Ok(Passage::Plain));
        assert_eq!(check(&guard("192.168.1.5:7117"), "192.168.1.6", None), Err(Code::HostNotAllowed));
        assert_eq!(check(&guard("0.0.0.0:7117"), "192.168.1.6:7117", None), Ok(Passage::Plain));
        assert_eq!(check(&guard("0.0.0.0:7117"), "evil.example:7117", None), Err(Code::HostNotAllowed));
    }

    #[test]
    fn pages_of_others_are_refused_unless_configured() {
        let guard = guard("127.0.0.1:7117");
        assert_eq!(check(&guard, "localhost:7117", Some("http://localhost:7117")), Ok(Passage::Plain));
        let configured = Ok(Passage::CrossOrigin("https://app.example".into()));
        assert_eq!(check(&guard, "localhost:7117", Some("https://app.example")), configured);
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "http://127.0.0.1:7117",
            "https://app.example.evil",
        ] {
            assert_eq!(check(&guard, "localhost:7117", Some(origin)), Err(Code::OriginNotAllowed), "{origin}");
        }
    }

    #[test]
    fn the_port_that_a_scheme_has_anyway_may_be_written() {
        for (written, sent) in [
            ("https://App.example:443/", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("http://[::1]:80", "http://[::1]"),
            ("https://app.example:80", "https://app.example:80"),
            ("http://app.example:443", "http://app.example:443"),
            ("chrome-extension://abc:80", "chrome-extension://abc:80"),
        ] {
            let config = HttpConfig { allowed_origins: vec![written.into()], ..HttpConfig::default() };
            let guard = Guard::new(&config, None);
            assert_eq!(check(&guard, "localhost", Some(sent)), Ok(Passage::CrossOrigin(sent.into())), "{written}");
        }
    }

    #[test]
    fn a_refusal_names_the_flag() {
        let guard = guard("127.0.0.1:7117");
        let detail = |host: &'static str, origin: &'static str| {
            let headers = [(header::HOST, host), (header::ORIGIN, origin)];
            let headers = HeaderMap::from_iter(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
            guard.check(&Method::GET, &Uri::from_static("/"), &headers).unwrap_err().detail
        };
        assert!(detail("pannier:7117", "null").contains("--allow-host"));
        assert!(detail("localhost", "http://localhost:3000").contains("--allow-origin"));
    }

    #[test]
    fn a_missing_or_contradicting_host_is_refused() {
        let guard = guard("127.0.0.1:7117");
        let refused = |uri: &'static str, headers: &HeaderMap| {
            guard.check(&Method::GET, &Uri::from_static(uri), headers).map_err(|e| e.code) == Err(Code::HostNotAllowed)
        };
        assert!(refused("/", &HeaderMap::new()));
        let mut headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        assert!(refused("http://evil.example/", &headers));
        headers.append("host", HeaderValue::from_static("localhost"));
        assert!(refused("/", &headers));
    }

    #[test]
    fn a_preflight_is_told_apart() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        headers.insert("origin", HeaderValue::from_static("https://app.example"));
        headers.insert(cors::REQUEST_METHOD, HeaderValue::from_static("PUT"));
        let passage = guard("127.0.0.1:1").check(&Method::OPTIONS, &Uri::from_static("/x"), &headers).unwrap();
        assert_eq!(passage, Passage::Preflight("https://app.example".into()));
    }
}
