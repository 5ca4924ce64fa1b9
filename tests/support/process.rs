//! The `pannier` program as a process of its own: started, killed, and with a disk that fails when a test says so.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A server process on a port of the system's choice; killed when dropped.
pub struct ServerProcess {
    process: Child,
    pub url: String,
}

impl ServerProcess {
    /// Starts a server over a data directory and waits until it says where it is.
    pub fn start(data: &Path) -> Self {
        Self::start_on(data, None)
    }

    /// As [`ServerProcess::start`], on a disk that fails by `faults`.
    pub fn start_on(data: &Path, faults: Option<&DiskFaults>) -> Self {
        Self::start_at(0, data, faults)
    }

    /// As [`ServerProcess::start_on`], at a port that is known before.
    pub fn start_at(port: u16, data: &Path, faults: Option<&DiskFaults>) -> Self {
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pannier"));
        command
            .args(["serve", "--addr", &address, "--memtable-documents", "150", "--data"])
            .arg(data)
            .env("PANNIER_LOG", "warn")
            .stdout(Stdio::piped());
        if let Some(faults) = faults {
            faults.attach(&mut command);
        }
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| {
                let start = line.find("http://127.0.0.1:")?;
                Some(line[start..].split_whitespace().next().unwrap().trim_end_matches(['/', '.']).to_owned())
            })
            .expect("the server prints its address");
        Self { process, url }
    }

    /// Its process id.
    #[cfg(target_os = "linux")]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it as the kernel does when memory runs out.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits until it ends by itself; its exit code.
    pub fn wait(mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "the server still runs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Makes system calls of a server fail, by a small library that stands before the C library.
pub struct DiskFaults {
    library: PathBuf,
    control: PathBuf,
}

/// Reads the control file at each call: the calls that fail, the error's number, and a part of the path.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails_at(const char *call, const char *path) {
    const char *control = getenv("FAULT_FILE");
    int file = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    char text[256] = {0}, calls[64], part[128];
    int error = 0;
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    if (got <= 0 || sscanf(text, "%63s %d %127s", calls, &error, part) != 3) return 0;
    size_t length = strlen(path), tail = strlen(part) - 1;
    int here = part[tail] == '$' ? length >= tail && !strncmp(path + length - tail, part, tail) : !!strstr(path, part);
    return here && strstr(calls, call) ? error : 0;
}

static int fails(const char *call, int fd) {
    char link[64], path[512] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) < 0 ? 0 : fails_at(call, path);
}

#define INTERPOSE(result, name, arguments, values, call, fd) \
    result name arguments { \
        static result (*next) arguments; \
        if (!next) next = dlsym(RTLD_NEXT, #name); \
        int error; \
        while ((error = fails(call, fd)) == 9999) usleep(10000); \
        if (error) { errno = error; return -1; } \
        return next values; \
    }

INTERPOSE(int, fsync, (int fd), (fd), "sync", fd)
INTERPOSE(int, fdatasync, (int fd), (fd), "sync", fd)
INTERPOSE(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), "write", fd)
/* The name that Rust's library calls; the one above is another. */
int open64(const char *path, int flags, ...) {
    static int (*next)(const char *, int, ...);
    if (!next) next = dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    int error = fails_at("open", path);
    if (error) { errno = error; return -1; }
    return next(path, flags, mode);
}
INTERPOSE(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), "write", fd)
"#;

impl DiskFaults {
    /// Compiles the library; the linker that builds this program needs the same C compiler.
    pub fn new(directory: &Path) -> Self {
        static LIBRARY_FILE: OnceLock<tempfile::TempDir> = OnceLock::new();
        let place = LIBRARY_FILE.get_or_init(|| {
            let place = tempfile::tempdir().unwrap();
            fs::write(place.path().join("faults.c"), LIBRARY).unwrap();
            let compile = Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-o"])
                .arg(place.path().join("faults.so"))
                .arg(place.path().join("faults.c"))
                .arg("-ldl")
                .status();
            assert!(compile.unwrap().success());
            place
        });
        Self { library: place.path().join("faults.so"), control: directory.join("faults") }
    }

    /// Lets a command that is to be started fail as the tests say.
    pub fn attach(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAULT_FILE", &self.control);
    }

    /// The number of an error that is none: such calls wait until they are told otherwise.
    pub const HANGS: i32 = 9_999;

    /// From now on these calls ("open", "sync", "write", "sync,write") fail on files with `part` in their path, or at
    /// its end where `part` ends with a dollar.
    pub fn arm(&self, calls: &str, errno: i32, part: &str) {
        let new = self.control.with_extension("new");
        fs::write(&new, format!("{calls} {errno} {part}")).unwrap();
        fs::rename(new, &self.control).unwrap();
    }

    /// Nothing fails any more.
    pub fn disarm(&self) {
        fs::remove_file(&self.control).unwrap();
    }
}
