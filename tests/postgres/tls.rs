//! TLS with a real server, whose certificate a root of the test's own has signed.

use std::path::PathBuf;

use pannier::postgres::{ConnectSettings, PostgresError, Session, Trouble};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

use crate::replicate::pooler::Pooler;
use crate::support::postgres::{Server, Version, database, run, server};

/// A root of certificates, its file, and what it signs.
struct Root {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Root {
    fn new(directory: &tempfile::TempDir, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = directory.path().join(name);
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A server's certificate and key for these names, PEM.
    fn sign(&self, names: &[&str]) -> (String, String) {
        self.sign_until(names, 4_000)
    }

    /// The same, up to the beginning of a year.
    fn sign_until(&self, names: &[&str], year: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn connect(url: &str) -> Result<(), PostgresError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = Session::connect(&ConnectSettings::from_url(url).unwrap()).await?;
        session.batch("answer", "select 1").await
    })
}

/// The whole text of a refusal.
#[track_caller]
fn refused(url: &str, trouble: Trouble) -> String {
    let error = connect(url).expect_err(url);
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert_eq!(error.trouble(), trouble, "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    text
}

/// What every server with the certificate of `root` for `localhost` answers, and what is wrong is said of.
fn is_checked_as_far_as_the_mode_says(port: u16, database: &str, root: &Root, other: &Root) {
    let url = |host: &str, mode: &str, root: Option<&Root>| {
        let root = root.map(|root| format!("&sslrootcert={}", root.file.display())).unwrap_or_default();
        format!("postgres://postgres:s3cret@{host}:{port}/{database}?sslmode={mode}{root}")
    };
    for (host, mode, root) in [
        ("localhost", "verify-full", Some(root)),
        // The name does not matter here.
        ("127.0.0.1", "verify-ca", Some(root)),
        ("127.0.0.1", "require", Some(root)),
        // Nor does the root here.
        ("127.0.0.1", "require", None),
        ("127.0.0.1", "prefer", None),
    ] {
        connect(&url(host, mode, root)).unwrap_or_else(|error| panic!("{mode}: {error:?}"));
    }
    let name = refused(&url("127.0.0.1", "verify-full", Some(root)), Trouble::Tls);
    assert!(name.contains("is not for this host name") && name.contains("localhost"), "{name}");
    // A root that is named counts, although `require` alone would do without.
    for (mode, root) in [("verify-full", other), ("verify-ca", other), ("require", other)] {
        let unknown = refused(&url("localhost", mode, Some(root)), Trouble::Tls);
        assert!(unknown.contains("no root that is trusted here; name its root by sslrootcert"), "{unknown}");
    }
}

#[test]
fn a_pooler_certificate_is_checked_and_each_fault_has_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let (root, other) = (Root::new(&directory, "root.pem"), Root::new(&directory, "other.pem"));
    let (chain, key) = root.sign(&["localhost"]);
    let database = database();
    let Some(pooler) = Pooler::start_with(&database, Some((&chain, &key))) else { return };
    is_checked_as_far_as_the_mode_says(pooler.port, &database.name, &root, &other);
}

#[test]
fn a_server_certificate_is_checked_and_each_fault_has_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let (root, other) = (Root::new(&directory, "root.pem"), Root::new(&directory, "other.pem"));
    let (chain, key) = root.sign(&["localhost"]);
    let Some(server) = Server::start_with_tls(&chain, &key) else {
        assert!(std::env::var_os("CI").is_none(), "no Postgres with TLS is installed (apt-get install postgresql)");
        eprintln!("NOT TESTED: no Postgres with TLS is installed (apt-get install postgresql)");
        return;
    };
    is_checked_as_far_as_the_mode_says(server.port(), "postgres", &root, &other);
    let file = root.file.display();
    let url =
        format!("postgres://postgres@localhost:{}/postgres?sslmode=verify-full&sslrootcert={file}", server.port());
    let sql = "select coalesce(version, 'none') from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(run(&url, sql).unwrap(), ["TLSv1.3"]);
    // One whose time is over.
    let (chain, key) = root.sign_until(&["localhost"], 2020);
    let server = Server::start_with_tls(&chain, &key).unwrap();
    let url = format!(
        "postgres://postgres:s3cret@localhost:{}/postgres?sslmode=verify-full&sslrootcert={file}",
        server.port()
    );
    assert!(refused(&url, Trouble::Tls).contains("has expired"));
}

#[test]
fn a_server_without_tls_is_said_to_have_none() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::new(&directory, "root.pem");
    let server = server(Version::V16);
    for mode in ["require", "verify-ca", "verify-full"] {
        let (port, file) = (server.port(), root.file.display());
        let url = format!("postgres://postgres:s3cret@localhost:{port}/postgres?sslmode={mode}&sslrootcert={file}");
        let text = refused(&url, Trouble::Tls);
        assert!(text.contains("the server has no TLS; turn ssl on there"), "{text}");
    }
}
