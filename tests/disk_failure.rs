//! A real server on a disk that fails: full, refusing writes, refusing to sync.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::comes_true;
use crate::support::process::{DiskFaults, ServerProcess};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// As `pannier --help` documents it.
const DISK_FAILED: i32 = 5;

/// A client that knows what it was told.
struct Client {
    agent: ureq::Agent,
    url: String,
    acknowledged: Vec<String>,
    next: usize,
    /// The first of those that are written again next.
    oldest: usize,
}

impl Client {
    fn new(server: &ServerProcess) -> Self {
        let agent = ureq::AgentBuilder::new().timeout(Duration::from_secs(30)).build();
        let client = Self { agent, url: server.url.clone(), acknowledged: Vec::new(), next: 0, oldest: 0 };
        client.agent.put(&format!("{}/v1/collections/things", client.url)).send_json(json!({"dim": 4})).unwrap();
        client
    }

    fn follow(&mut self, server: &ServerProcess) {
        self.url.clone_from(&server.url);
    }

    /// Writes documents of about `bytes` each; the status and the problem's code.
    fn write(&mut self, count: usize, bytes: usize) -> (u16, String) {
        let ids: Vec<_> = (self.next..self.next + count).map(|n| format!("d{n:06}")).collect();
        self.next += count;
        let documents: Vec<_> =
            ids.iter().map(|id| json!({"id": id, "text": "x".repeat(bytes), "vector": [1, 2, 3, ids.len()]})).collect();
        let url = format!("{}/v1/collections/things/documents", self.url);
        match self.agent.post(&url).send_json(json!({"documents": documents})) {
            Ok(answer) => {
                self.acknowledged.extend(ids);
                (answer.status(), String::new())
            }
            Err(ureq::Error::Status(status, answer)) => {
                let problem: Value = answer.into_json().unwrap();
                (status, problem["code"].as_str().unwrap_or_default().to_owned())
            }
            Err(ureq::Error::Transport(error)) => (0, error.to_string()),
        }
    }

    /// Writes the oldest documents again, which have been in a segment for long.
    fn write_again(&mut self, count: usize) -> (u16, String) {
        let reached = std::mem::replace(&mut self.next, self.oldest);
        let answer = self.write(count, 10);
        self.oldest = std::mem::replace(&mut self.next, reached);
        answer
    }

    /// What a health check is told: the status, the reason, and whether the server counts itself as taking writes.
    fn health(&self) -> (u16, String, f64) {
        let get = |path: &str| match self.agent.get(&format!("{}{path}", self.url)).call() {
            Ok(answer) | Err(ureq::Error::Status(_, answer)) => answer,
            Err(error) => panic!("{path}: {error}"),
        };
        assert_eq!((get("/livez").status(), get("/healthz").status()), (200, get("/readyz").status()));
        let ready = get("/readyz");
        let status = ready.status();
        let view: Value = ready.into_json().unwrap();
        let metrics = get("/metrics").into_string().unwrap();
        let accepting = metrics.lines().find_map(|line| line.strip_prefix("pannier_accepting_writes "));
        (status, view["reason"].as_str().unwrap_or_default().to_owned(), accepting.unwrap().parse().unwrap())
    }

    /// Every id that the server holds, by listing, while a search and a look-up answer too.
    fn read(&self) -> Vec<String> {
        let base = format!("{}/v1/collections/things", self.url);
        let search = json!({"vector": [1, 2, 3, 4], "top_k": 1});
        let hits: Value = self.agent.post(&format!("{base}/search")).send_json(search).unwrap().into_json().unwrap();
        assert_eq!(hits["hits"].as_array().unwrap().len(), 1);
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let url = format!("{base}/documents?limit=1000{cursor}");
            let page: Value = self.agent.get(&url).call().unwrap().into_json().unwrap();
            found.extend(page["documents"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    }

    fn assert_nothing_is_lost(&self) {
        let found = self.read();
        let lost: Vec<_> = self.acknowledged.iter().filter(|id| found.binary_search(id).is_err()).collect();
        assert!(lost.is_empty(), "{lost:?} of {}", self.acknowledged.len());
    }
}

/// A server whose disk can be told to fail, with some documents in it.
fn start(directory: &Path) -> (DiskFaults, ServerProcess, Client) {
    let faults = DiskFaults::new(directory);
    let server = ServerProcess::start_on(&directory.join("data"), Some(&faults));
    let mut client = Client::new(&server);
    for _ in 0..5 {
        assert_eq!(client.write(10, 10).0, 200);
    }
    (faults, server, client)
}

#[test]
fn a_failed_sync_anywhere_ends_the_server_with_its_own_code() {
    for site in ["/log/", ".seg.", "/segments/1/1$", "MANIFEST", "/data$", ".dead.", "/snapshots", "/sources"] {
        let directory = tempfile::tempdir().unwrap();
        let (faults, server, mut client) = start(directory.path());
        if site == ".dead." {
            assert_eq!(client.write(250, 10).0, 200);
        }
        faults.arm("sync", EIO, site);
        let route = match site {
            "/snapshots" => Some(("POST", "/admin/snapshots")),
            "/sources" => Some(("PUT", "/admin/sources/x")),
            _ => None,
        };
        if let Some((method, route)) = route {
            // 0 where the server no longer answers.
            let asked = || match client.agent.request(method, &format!("{}{route}", client.url)).send_json(json!({})) {
                Ok(answer) => answer.status(),
                Err(error) => error.into_response().map_or(0, |answer| answer.status()),
            };
            assert_eq!(asked(), 500, "{site}");
            let again = asked();
            assert!(again == 0 || again >= 500, "{site}: a second sync proves nothing, and the answer is {again}");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // A few rows of a segment die when their ids are written again, too few for it to be merged away.
            let again = if site == ".dead." { client.write_again(10) } else { (200, String::new()) };
            let (status, code) = if again.0 == 200 { client.write(50, 10) } else { again };
            match status {
                200 => {}
                503 => {
                    assert_eq!(code, "stopped", "{site}");
                    break;
                }
                0 => break,
                other => panic!("{site}: {other} {code}"),
            }
            assert!(Instant::now() < deadline, "{site}: the server goes on");
        }
        assert_eq!(server.wait(), DISK_FAILED, "{site}");
        faults.disarm();
        client.acknowledged.sort();
        client.acknowledged.dedup();
        let server = ServerProcess::start(&directory.path().join("data"));
        client.follow(&server);
        client.assert_nothing_is_lost();
        client.next = client.next.max(1_000_000);
        assert_eq!(client.write(10, 10).0, 200, "{site}: after a restart it goes on");
    }
}

/// A new file has its name before the old one is let go, so nothing may be missing then.
#[test]
fn too_many_open_files_do_not_stop_a_log_that_begins_a_new_file() {
    const EMFILE: i32 = 24;
    let directory = tempfile::tempdir().unwrap();
    let (faults, server, mut client) = start(directory.path());
    // Under its final name; a new file is made under another one.
    faults.arm("open", EMFILE, ".log$");
    let log = directory.path().join("data/log/00000000000000000001.log");
    assert!(comes_true(|| {
        assert_eq!(client.write(100, 10).0, 200);
        !log.exists()
    }));
    faults.disarm();
    server.kill();
    let server = ServerProcess::start(&directory.path().join("data"));
    client.follow(&server);
    client.assert_nothing_is_lost();
}

#[test]
fn a_refused_write_is_answered_so_and_reads_and_later_writes_go_on() {
    for (errno, status, code) in [(ENOSPC, 507, "storage_full"), (EIO, 503, "not_written")] {
        let directory = tempfile::tempdir().unwrap();
        let (faults, server, mut client) = start(directory.path());
        assert_eq!(client.health(), (200, String::new(), 1.0));
        faults.arm("write", errno, "/log/");
        for _ in 0..3 {
            assert_eq!(client.write(10, 10), (status, code.to_owned()));
            client.assert_nothing_is_lost();
            assert_eq!(client.read().len(), client.acknowledged.len(), "what was refused is not there");
            assert_eq!(client.health(), (503, "disk".to_owned(), 0.0));
        }
        faults.disarm();
        assert_eq!(client.health(), (200, String::new(), 1.0), "nobody has written since");
        assert_eq!(client.write(10, 10).0, 200);
        // Sealing meets the same disk, and catches up.
        faults.arm("write", errno, "/segments/");
        for _ in 0..4 {
            assert_eq!(client.write(100, 10).0, 200);
        }
        client.assert_nothing_is_lost();
        faults.disarm();
        assert_eq!(client.write(100, 10).0, 200);
        server.kill();
        let server = ServerProcess::start(&directory.path().join("data"));
        client.follow(&server);
        client.assert_nothing_is_lost();
    }
}

#[test]
fn health_checks_are_answered_while_the_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (faults, server, mut client) = start(directory.path());
    server.kill();
    faults.arm("sync", DiskFaults::HANGS, "/data");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    client.url = format!("http://127.0.0.1:{port}");
    let (data, faults) = (directory.path().join("data"), std::sync::Arc::new(faults));
    let starting = std::thread::spawn({
        let faults = faults.clone();
        move || ServerProcess::start_at(port, &data, Some(&faults))
    });
    let ask = |path: &str| -> Option<(u16, Value)> {
        match client.agent.get(&format!("{}{path}", client.url)).call() {
            Ok(answer) | Err(ureq::Error::Status(_, answer)) => Some((answer.status(), answer.into_json().unwrap())),
            // It does not listen yet.
            Err(_) => None,
        }
    };
    assert!(comes_true(|| ask("/livez") == Some((200, json!({"status": "ok"})))), "no answer");
    assert_eq!(ask("/readyz"), Some((503, json!({"status": "unavailable", "reason": "starting"}))));
    let (status, problem) = ask("/v1/collections").unwrap();
    assert_eq!((status, &problem["code"]), (503, &json!("starting")));
    faults.disarm();
    let server = starting.join().unwrap();
    assert_eq!(client.health(), (200, String::new(), 1.0));
    client.assert_nothing_is_lost();
    server.kill();
}

#[test]
fn an_import_that_a_full_disk_ends_is_gone_on_with_where_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let (faults, server, mut client) = start(directory.path());
    let line = |n: usize| {
        let document = json!({"id": format!("i{n:03}"), "text": "x".repeat(1_000), "vector": [1, 2, 3, n]});
        format!("{document}\n")
    };
    let lines: Vec<String> = (0..500).map(line).collect();
    let (begin, end) = (lines[..400].concat(), lines[400..].concat());
    let fill = Once(|| {
        // The first batch is written; the second waits for its end.
        let written = client.acknowledged.len() + 256;
        assert!(comes_true(|| client.read().len() >= written), "no batch is written");
        faults.arm("write", ENOSPC, "/log/");
    });
    let url = format!("{}/v1/collections/things/import", server.url);
    let post = || client.agent.post(&url).set("content-type", "application/x-ndjson");
    let problem: Value = match post().send(begin.as_bytes().chain(fill).chain(end.as_bytes())) {
        Err(ureq::Error::Status(507, answer)) => answer.into_json().unwrap(),
        other => panic!("{other:?}"),
    };
    let progress = &problem["progress"];
    assert_eq!((&progress["lines"], &progress["upserted"]), (&json!(500), &json!(256)), "{problem}");
    assert_eq!(progress["done_through"], 256, "{problem}");
    faults.disarm();
    let rest = lines[256..].concat();
    let report: Value = post().send(rest.as_bytes()).unwrap().into_json().unwrap();
    assert_eq!((&report["upserted"], &report["done_through"]), (&json!(244), &json!(244)), "{report}");
    client.acknowledged.extend((0..500).map(|n| format!("i{n:03}")));
    client.assert_nothing_is_lost();
}

/// Reads nothing, and does something when it is read.
struct Once<F>(F);

impl<F: FnMut()> Read for Once<F> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        (self.0)();
        Ok(0)
    }
}

/// A file system of 16 MB in memory, unmounted when dropped; `None` where this user may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(place.path()).output();
        mount.is_ok_and(|done| done.status.success()).then(|| Self(place))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_of_16_megabytes_loses_nothing_and_recovers_when_space_returns() {
    let Some(disk) = SmallDisk::mount() else {
        assert!(std::env::var_os("CI").is_none(), "this user may not mount a file system");
        eprintln!("NOT TESTED: this user may not mount a file system; the tests above fail calls instead");
        return;
    };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 6 << 20]).unwrap();
    let data = disk.0.path().join("data");
    let server = ServerProcess::start(&data);
    let mut client = Client::new(&server);
    let mut refused = 0;
    while refused < 5 {
        match client.write(20, 2_000) {
            (200, _) => {}
            (507, code) => {
                assert_eq!(code, "storage_full");
                refused += 1;
            }
            other => panic!("{other:?} after {} documents", client.acknowledged.len()),
        }
        assert!(client.acknowledged.len() < 20_000);
    }
    client.assert_nothing_is_lost();
    assert_eq!(client.read().len(), client.acknowledged.len());
    fs::remove_file(&ballast).unwrap();
    // Merges that waited for space may take some of it first.
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.write(20, 2_000).0 != 200 {
        assert!(Instant::now() < deadline, "there is room again, and writes do not go on");
        std::thread::sleep(Duration::from_millis(100));
    }
    server.kill();
    let server = ServerProcess::start(&data);
    client.follow(&server);
    client.assert_nothing_is_lost();
}
