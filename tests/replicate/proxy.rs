//! A way to Postgres that breaks around COMMIT, is slow there, or says everything twice.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::LIMIT;
use crate::support::Random;

/// The simple query `commit` on the wire.
const COMMIT: &[u8] = b"Q\0\0\0\x0bcommit\0";
/// The code by which the database refuses a transaction of a connection that may not write, as an error's field.
const REFUSED: &[u8] = b"C22012\0";

/// Forwards connections, and does harm to some of them around a COMMIT.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    random: Mutex<Random>,
    /// What may be done to a COMMIT, and how often it is still to be done.
    harm: Mutex<(Vec<Harm>, u64)>,
    made: Mutex<Vec<Harm>>,
    /// What connections that ended said.
    recorded: Mutex<Vec<Vec<u8>>>,
    /// Connections are said twice, the second time this much later.
    echo: Mutex<Option<Duration>>,
    /// Second connections that still have something to say.
    speaking: AtomicU64,
    refused: AtomicU64,
    closed: AtomicBool,
}

/// What is done to a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Harm {
    /// It does not arrive, and the connection ends.
    CutBefore,
    /// It arrives, its answer does not, and the connection ends.
    CutDuring,
    /// Its answer arrives, and the connection ends.
    CutAfter,
    /// It arrives so much later.
    Late(Duration),
    /// Its answer arrives so much later.
    AnswerLate(Duration),
}

/// Cuts around a COMMIT.
pub const CUTS: [Harm; 3] = [Harm::CutBefore, Harm::CutDuring, Harm::CutAfter];

impl Proxy {
    pub fn start(upstream: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream,
            random: Mutex::new(Random(seed)),
            harm: Mutex::default(),
            made: Mutex::default(),
            recorded: Mutex::default(),
            echo: Mutex::default(),
            speaking: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.closed.load(Ordering::SeqCst) {
                    return;
                }
                let shared = serving.clone();
                std::thread::spawn(move || shared.forward(client));
            }
        });
        Self { port, shared }
    }

    /// Does one of `kinds` to every other COMMIT or so, so many times.
    pub fn harm(&self, kinds: &[Harm], times: u64) {
        *self.shared.harm.lock().unwrap() = (kinds.to_vec(), times);
    }

    /// How often it is still to be done.
    pub fn left(&self) -> u64 {
        self.shared.harm.lock().unwrap().1
    }

    /// What was done, each time.
    pub fn made(&self) -> Vec<Harm> {
        self.shared.made.lock().unwrap().clone()
    }

    /// From now on what a connection says reaches the database on a second connection too, piece by piece, this much
    /// later.
    pub fn echo(&self, later: Duration) {
        *self.shared.echo.lock().unwrap() = Some(later);
    }

    /// Says once more, each on a connection of its own, everything that the connections which ended have said, and
    /// waits until the database has answered. Returns how many there were.
    pub fn replay(&self) -> usize {
        let all = self.shared.recorded.lock().unwrap().clone();
        for bytes in &all {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", self.shared.upstream)) else { continue };
            let answers = self.shared.drain(server.try_clone().unwrap());
            let _ = server.write_all(bytes);
            // Terminate: the database works off what came before it.
            let _ = server.write_all(b"X\0\0\0\x04");
            let _ = answers.join();
        }
        all.len()
    }

    /// Waits until the second connections have said everything. The first ones must have ended.
    pub fn settle(&self) {
        let deadline = Instant::now() + LIMIT;
        while self.shared.speaking.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < deadline, "second connections still speak");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Transactions of second connections that the database refused.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that listens.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn choose(&self) -> Option<Harm> {
        let (mut harm, mut random) = (self.harm.lock().unwrap(), self.random.lock().unwrap());
        if harm.1 == 0 || random.below(2) == 0 {
            return None;
        }
        harm.1 -= 1;
        let kind = harm.0[random.below(harm.0.len() as u64) as usize];
        self.made.lock().unwrap().push(kind);
        Some(kind)
    }

    fn forward(self: Arc<Self>, mut client: TcpStream) {
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", self.upstream)) else { return };
        let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let second = self.echo.lock().unwrap().map(|later| self.clone().second(later));
        // What the answers' side is to do at its next piece.
        let order = Arc::new(Mutex::new(None::<Harm>));
        let ordered = order.clone();
        let answers = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read) = from_server.read(&mut buffer) {
                let harm = *ordered.lock().unwrap();
                if let Some(Harm::AnswerLate(by)) = harm {
                    *ordered.lock().unwrap() = None;
                    std::thread::sleep(by);
                }
                if read == 0 || harm == Some(Harm::CutDuring) || to_client.write_all(&buffer[..read]).is_err() {
                    break;
                }
                if harm == Some(Harm::CutAfter) {
                    break;
                }
            }
            let _ = to_client.shutdown(Shutdown::Both);
            let _ = from_server.shutdown(Shutdown::Both);
        });
        let mut said = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read) = client.read(&mut buffer) {
            let piece = &buffer[..read];
            if read == 0 {
                break;
            }
            said.extend_from_slice(piece);
            if piece.windows(COMMIT.len()).any(|window| window == COMMIT) {
                match self.choose() {
                    Some(Harm::CutBefore) => break,
                    // It is on its way, whether or not anybody waits for it any longer.
                    Some(Harm::Late(by)) => std::thread::sleep(by),
                    harm => *order.lock().unwrap() = harm,
                }
            }
            if server.write_all(piece).is_err() {
                break;
            }
            if let Some(second) = &second {
                let _ = second.send(piece.to_vec());
            }
        }
        self.recorded.lock().unwrap().push(said);
        let _ = client.shutdown(Shutdown::Read);
        let waits = order.lock().unwrap().is_some();
        if !waits {
            // The database reads what is on its way before it sees that nothing follows.
            let _ = server.shutdown(Shutdown::Write);
            let _ = client.shutdown(Shutdown::Both);
        }
        let _ = answers.join();
    }

    /// A connection that says what another says, later.
    fn second(self: Arc<Self>, later: Duration) -> mpsc::Sender<Vec<u8>> {
        let (pieces, said) = mpsc::channel::<Vec<u8>>();
        self.speaking.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            let mut server = TcpStream::connect(("127.0.0.1", self.upstream)).unwrap();
            let answers = self.drain(server.try_clone().unwrap());
            for piece in said {
                std::thread::sleep(later);
                if server.write_all(&piece).is_err() {
                    break;
                }
            }
            let _ = server.shutdown(Shutdown::Write);
            let _ = answers.join();
            self.speaking.fetch_sub(1, Ordering::SeqCst);
        });
        pieces
    }

    /// Reads answers that nobody waits for, and counts those that refuse.
    fn drain(self: &Arc<Self>, mut server: TcpStream) -> std::thread::JoinHandle<()> {
        let shared = self.clone();
        std::thread::spawn(move || {
            let (mut answers, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
            while let Ok(read @ 1..) = server.read(&mut buffer) {
                answers.extend_from_slice(&buffer[..read]);
            }
            let refused = answers.windows(REFUSED.len()).filter(|window| *window == REFUSED).count();
            shared.refused.fetch_add(refused as u64, Ordering::SeqCst);
        })
    }
}
