//! What behaviour tests are made of: the real binary on free ports, tiny backends, HTTP by hand.
//!
//! Nothing here sleeps but [`eventually`], which is bounded; everything that was started ends when
//! its value is dropped.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a slow machine, short enough to notice a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` holds, at most `deadline`; returns whether it does.
#[allow(clippy::disallowed_methods, reason = "the one bounded wait of the tests")]
pub(crate) fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The binary with these arguments, not started.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(arguments).env_remove("EVENKEEL_CONFIG").env_remove("JOURNAL_STREAM");
    command
}

/// Runs the binary to its end.
pub(crate) fn evenkeel(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// What a process printed.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code; -1 when a signal ended it.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// Asks a process to stop.
pub(crate) fn terminate(child: &Child) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
}

/// A running load balancer with a control socket of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) child: Child,
    pub(crate) directory: TempDir,
    stderr: PathBuf,
}

impl Proxy {
    /// Starts it from a configuration without `[admin] socket`, which is added; returns once it
    /// serves. What it logs goes to a file, see [`Self::log`].
    pub(crate) fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stderr = directory.path().join("stderr");
        let file = std::fs::File::create(&stderr).unwrap();
        Self::start_in(directory, config, file.into())
    }

    /// Starts it with another stderr.
    pub(crate) fn start_with_stderr(config: &str, stderr: Stdio) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config, stderr)
    }

    fn start_in(directory: TempDir, config: &str, stderr: Stdio) -> Self {
        let file = directory.path().join("evenkeel.toml");
        std::fs::write(&file, with_socket(config, directory.path())).unwrap();
        let child = command(&["run", "-c", file.to_str().unwrap()]).stderr(stderr).spawn().unwrap();
        let stderr = directory.path().join("stderr");
        let proxy = Self { child, directory, stderr };
        let serves = eventually(PATIENCE, || {
            UnixStream::connect(proxy.socket()).is_ok() && proxy.status()["phase"] == "serving"
        });
        assert!(serves, "it does not serve: {}", proxy.log());
        proxy
    }

    /// Its control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("evenkeel.toml")
    }

    /// Replaces its configuration file; it does not notice before a reload.
    pub(crate) fn rewrite(&self, config: &str) {
        std::fs::write(self.file(), with_socket(config, self.directory.path())).unwrap();
    }

    /// One request over the control socket: status code and body.
    pub(crate) fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http(UnixStream::connect(self.socket()).unwrap(), method, path, body)
    }

    /// The status document.
    pub(crate) fn status(&self) -> Value {
        let (code, body) = self.http("GET", "/v1/status", "");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The first real address of a listener.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let status = self.status();
        status["listeners"][listener]["addresses"][0].as_str().unwrap().parse().unwrap()
    }

    /// The real address of the read-only page.
    pub(crate) fn page(&self) -> SocketAddr {
        self.status()["admin"]["http"].as_str().unwrap().parse().unwrap()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Lines of its log that are JSON and satisfy a condition.
    pub(crate) fn lines(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(|line| wanted(line)).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn with_socket(config: &str, directory: &Path) -> String {
    let socket = format!("socket = {:?}\n", directory.join("admin.sock"));
    match config.split_once("[admin]\n") {
        Some((before, after)) => format!("{before}[admin]\n{socket}{after}"),
        None => format!("{config}\n[admin]\n{socket}"),
    }
}

/// One request over a fresh connection: status code and body.
pub(crate) fn http(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = Vec::new();
    // A server that refuses a body resets the connection behind its answer.
    let _reset = stream.read_to_end(&mut answer);
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (code, body.to_owned())
}

/// A backend that says its name to whoever connects, until the client leaves.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
}

impl Backend {
    /// Starts one; its thread ends with the test.
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || greet(stream, name));
            }
        });
        Self { address }
    }
}

fn greet(mut stream: TcpStream, name: &str) {
    let _gone = stream.write_all(name.as_bytes());
    let _gone = stream.read_to_end(&mut Vec::new());
}

/// What a backend says through a listener; empty when the client is turned away.
pub(crate) fn visit(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _gone = stream.shutdown(std::net::Shutdown::Write);
    let mut said = Vec::new();
    let _reset = stream.read_to_end(&mut said);
    text(&said)
}
