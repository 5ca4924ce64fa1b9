//! Through pgbouncer in transaction mode: each transaction may get another server.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pannier::replicate::LayoutKind;

use super::{LIMIT, Setup, Store, settings};
use crate::support::Random;
use crate::support::postgres::{TestDatabase, as_other_user, database, own, write_key};

/// A pooler before one database.
pub struct Pooler {
    pub port: u16,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Pooler {
    /// `None`, loudly, where pgbouncer is not installed; in CI it is.
    pub fn start(postgres: &TestDatabase) -> Option<Self> {
        Self::start_with(postgres, None)
    }

    /// As [`Pooler::start`]; with a certificate, chain and key in PEM, it speaks nothing but TLS.
    pub fn start_with(postgres: &TestDatabase, certificate: Option<(&str, &str)>) -> Option<Self> {
        if Command::new("pgbouncer").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "pgbouncer is not installed (apt-get install pgbouncer)");
            eprintln!("NOT TESTED: pgbouncer is not installed (apt-get install pgbouncer)");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("users"), "\"postgres\" \"\"\n").unwrap();
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = any\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 3\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\nserver_reset_query_always = 0\n",
            postgres.port,
            at("users").display()
        );
        let config = match certificate {
            None => config,
            Some((chain, key)) => {
                std::fs::write(at("crt"), chain).unwrap();
                write_key(&at("key"), key);
                let (chain, key) = (at("crt"), at("key"));
                format!(
                    "{config}client_tls_sslmode = require\nclient_tls_cert_file = {}\nclient_tls_key_file = {}\n",
                    chain.display(),
                    key.display()
                )
            }
        };
        let config = config.replace("* = host", &format!("{} = user=postgres host", postgres.name));
        std::fs::write(at("ini"), config).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        own(directory.path()).unwrap();
        // The shell ends the pooler when its pipe closes, whoever runs it.
        let mut command = as_other_user("sh");
        command.arg("-c").arg("pgbouncer -q \"$0\" & pid=$!; cat >/dev/null; kill $pid").arg(at("ini"));
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let pooler = Self { port, child, _directory: directory };
        let deadline = Instant::now() + LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "pgbouncer does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(pooler)
    }

    pub fn url(&self, postgres: &TestDatabase) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable&pgbouncer=true", self.port, postgres.name)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn copies_compare_and_mend_through_a_transaction_pooler() {
    let postgres = database();
    let Some(pooler) = Pooler::start(&postgres) else { return };
    let url = pooler.url(&postgres);
    let setup = Setup { postgres, store: Store::new() };
    let store = &setup.store;
    store.write(0..1_500, 1);
    store.add(settings(&url));
    store.wait_until_copied();
    // Others use the pooler's servers between our transactions.
    let mut random = Random(3);
    for round in 2..12 {
        let first = random.below(1_500);
        store.write(first..first + 40, round);
        store.delete([random.below(1_500)]);
        crate::support::postgres::run(&url, "select pg_backend_pid()").unwrap();
    }
    store.wait_until_copied();
    store.assert_equal();
    setup.postgres.run("delete from pannier.c where id in (select id from pannier.c limit 5)");
    super::block_on(store.replicator.repair("s", false)).unwrap();
    store.assert_equal();
    assert_eq!(setup.postgres.value("select count(*) from pg_indexes where indexdef like '%hnsw%'"), "1");
    assert_eq!(store.status().connections, 1, "{:?}", store.status());
}

#[test]
fn tenants_are_set_within_each_transaction() {
    let postgres = database();
    let Some(pooler) = Pooler::start(&postgres) else { return };
    let store = Store::new();
    store.write(0..200, 1);
    let mut settings = settings(&pooler.url(&postgres));
    settings.layout = LayoutKind::Embeddings;
    settings.tenant = Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff".to_owned());
    store.add(settings);
    store.wait_until_copied();
    store.assert_equal();
    let left =
        crate::support::postgres::run(&pooler.url(&postgres), "select current_setting('app.tenant_id', true)").unwrap();
    assert!(left == ["NULL"] || left == [""], "{left:?}");
}
