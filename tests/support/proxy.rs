//! The program under test, as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{PATIENCE, eventually, within};

/// What a parent may have left in the environment and evenkeel would act on.
pub const FOREIGN: &[&str] = &[
    "EVENKEEL_CONFIG",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "STATE_DIRECTORY",
];

/// A running evenkeel; killed when dropped.
pub struct Proxy {
    child: Child,
    stderr: Arc<Mutex<Vec<String>>>,
    addresses: Vec<SocketAddr>,
    directory: TempDir,
}

impl Proxy {
    /// Runs with this configuration, which listens on port 0; returns when it serves.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        let (directory, command) = Self::command(config);
        let mut proxy = Self::spawn(directory, command);
        proxy.wait_until_serving();
        proxy
    }

    /// The command that would run this configuration, and the directory the file is in. Unless it
    /// names a socket it gets one in that directory.
    pub fn command(config: &str) -> (TempDir, Command) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.arg("run").arg("-c").arg(directory.path().join("evenkeel.toml"));
        (directory, command)
    }

    /// Starts a command made of [`Proxy::command`]; does not wait until it serves.
    pub fn spawn(directory: TempDir, mut command: Command) -> Self {
        let given: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
        for name in FOREIGN.iter().filter(|name| !given.iter().any(|given| given == **name)) {
            command.env_remove(name);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = capture(child.stderr.take().unwrap());
        Self { child, stderr, addresses: Vec::new(), directory }
    }

    /// Runs with this configuration and a stderr without a reader; returns when it serves.
    #[track_caller]
    pub fn start_unread(config: &str) -> (Self, ChildStderr) {
        let (directory, mut command) = Self::command(config);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let unread = child.stderr.take().unwrap();
        let mut proxy = Self { child, stderr: Arc::default(), addresses: Vec::new(), directory };
        eventually("it serves", PATIENCE, || {
            std::os::unix::net::UnixStream::connect(proxy.admin_socket()).ok()
        });
        let addresses = &proxy.document()["listeners"]["web"]["addresses"];
        proxy.addresses = serde_json::from_value(addresses.clone()).unwrap();
        (proxy, unread)
    }

    /// Runs a configuration that must not serve, and gives how it ended and what it said.
    #[track_caller]
    pub fn refused(config: &str) -> (ExitStatus, String) {
        let (directory, command) = Self::command(config);
        let mut proxy = Self::spawn(directory, command);
        let status = proxy.wait_for_exit();
        (status, proxy.said())
    }

    /// Waits for the line that names the addresses.
    #[track_caller]
    pub fn wait_until_serving(&mut self) {
        let addresses = within(PATIENCE, || {
            let found = self.stderr.lock().iter().find_map(|line| served_addresses(line));
            // Nothing will come any more from a process that has ended.
            found.map(Some).or_else(|| self.child.try_wait().unwrap().map(|_| None))
        });
        let addresses = addresses.flatten();
        assert!(addresses.is_some(), "does not serve:\n{}", self.said());
        self.addresses = addresses.unwrap_or_default();
    }

    /// The first IP address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All IP addresses it listens on, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its configuration is.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("evenkeel.toml")
    }

    /// Where its admin socket is, unless the configuration says otherwise.
    pub fn admin_socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// Replaces its configuration file.
    pub fn rewrite(&self, config: &str) {
        write(self.directory.path(), config);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has written to stderr so far.
    pub fn said(&self) -> String {
        self.stderr.lock().join("\n")
    }

    /// Waits until a line of stderr contains `words`, and gives the line.
    #[track_caller]
    pub fn wait_for_line(&self, words: &str) -> String {
        let found = within(PATIENCE, || {
            self.stderr.lock().iter().find(|line| line.contains(words)).cloned()
        });
        found.unwrap_or_else(|| panic!("no line with \"{words}\" in:\n{}", self.said()))
    }

    /// Waits until it has ended; another process may still have its stderr.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        eventually("evenkeel ends", PATIENCE, || self.child.try_wait().unwrap())
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        self.wait_for_exit_within(PATIENCE)
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait_for_exit_within(&mut self, deadline: Duration) -> ExitStatus {
        let status = eventually("evenkeel ends", deadline, || self.child.try_wait().unwrap());
        // The reader of stderr may be a moment behind; it holds the other reference until EOF.
        within(PATIENCE, || (Arc::strong_count(&self.stderr) == 1).then_some(()));
        status
    }

    /// Asks it to stop and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_exit()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "what a failing test shows")]
            let () = eprintln!("--- evenkeel said:\n{}", self.said());
        }
    }
}

fn write(directory: &Path, config: &str) {
    let socket = format!("socket = {:?}\n", directory.join("admin.sock"));
    let config = match config.split_once("[admin]\n") {
        Some((before, after)) if !after.contains("socket = ") => {
            format!("{before}[admin]\n{socket}{after}")
        }
        Some(_) => config.to_owned(),
        None => format!("{config}\n[admin]\n{socket}"),
    };
    std::fs::write(directory.join("evenkeel.toml"), config).unwrap();
}

/// The addresses in `... evenkeel 1.2.3 serves ADDR ADDR with 1 worker ...`, but Unix sockets.
fn served_addresses(line: &str) -> Option<Vec<SocketAddr>> {
    let (_, after) = line.split_once(" serves ")?;
    let (addresses, _) = after.split_once(" with ")?;
    Some(addresses.split_whitespace().flat_map(addresses_of).collect())
}

/// The addresses that are shown as one, or as the ports of one from the first to the last.
pub fn addresses_of(shown: &str) -> Vec<SocketAddr> {
    let parts = shown.rsplit_once('-');
    let (first, last) = parts.map_or((shown, None), |(first, last)| (first, last.parse().ok()));
    let Ok(first) = first.parse::<SocketAddr>() else { return Vec::new() };
    let ports = first.port()..=last.unwrap_or(first.port());
    ports.map(|port| SocketAddr::new(first.ip(), port)).collect()
}

fn capture(stderr: ChildStderr) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            kept.lock().push(line);
        }
    });
    lines
}
