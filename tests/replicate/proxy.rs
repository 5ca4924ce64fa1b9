//! A way to Postgres that breaks around COMMIT.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::Random;

/// The simple query `commit` on the wire.
const COMMIT: &[u8] = b"Q\0\0\0\x0bcommit\0";

/// Forwards connections, and cuts some of them before, during or after a COMMIT.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    random: Mutex<Random>,
    /// Cuts that are still to be made.
    left: AtomicU64,
    made: [AtomicU64; 3],
    closed: AtomicBool,
}

#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// The COMMIT does not arrive.
    Before,
    /// It arrives, and its answer does not.
    During,
    /// Its answer arrives, and nothing after it.
    After,
}

impl Proxy {
    pub fn start(upstream: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream,
            random: Mutex::new(Random(seed)),
            left: AtomicU64::new(0),
            made: Default::default(),
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

    /// Cuts every other COMMIT or so until so many were cut.
    pub fn cut(&self, times: u64) {
        self.shared.left.store(times, Ordering::SeqCst);
    }

    pub fn left(&self) -> u64 {
        self.shared.left.load(Ordering::SeqCst)
    }

    /// Cuts made before, during and after a COMMIT.
    pub fn made(&self) -> [u64; 3] {
        [0, 1, 2].map(|n| self.shared.made[n].load(Ordering::SeqCst))
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
    fn choose(&self) -> Option<Cut> {
        let mut random = self.random.lock().unwrap();
        if self.left.load(Ordering::SeqCst) == 0 || random.below(2) == 0 {
            return None;
        }
        self.left.fetch_sub(1, Ordering::SeqCst);
        let cut = [Cut::Before, Cut::During, Cut::After][random.below(3) as usize];
        self.made[cut as usize].fetch_add(1, Ordering::SeqCst);
        Some(cut)
    }

    fn forward(&self, mut client: TcpStream) {
        let Ok(mut server) = TcpStream::connect(("127.0.0.1", self.upstream)) else { return };
        let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        // What the answers' side is to do at its next piece.
        let order = Arc::new(Mutex::new(None::<Cut>));
        let ordered = order.clone();
        let answers = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read) = from_server.read(&mut buffer) {
                let cut = *ordered.lock().unwrap();
                if read == 0 || cut == Some(Cut::During) || to_client.write_all(&buffer[..read]).is_err() {
                    break;
                }
                if cut == Some(Cut::After) {
                    break;
                }
            }
            let _ = to_client.shutdown(Shutdown::Both);
            let _ = from_server.shutdown(Shutdown::Both);
        });
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read) = client.read(&mut buffer) {
            let piece = &buffer[..read];
            if read == 0 {
                break;
            }
            if piece.windows(COMMIT.len()).any(|window| window == COMMIT) {
                match self.choose() {
                    Some(Cut::Before) => break,
                    cut => *order.lock().unwrap() = cut,
                }
            }
            if server.write_all(piece).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Read);
        let waits = order.lock().unwrap().is_some();
        if !waits {
            let _ = server.shutdown(Shutdown::Both);
            let _ = client.shutdown(Shutdown::Both);
        }
        let _ = answers.join();
    }
}
