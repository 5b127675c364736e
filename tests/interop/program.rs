//! Other people's programs: servers on free ports, and clients that run to their end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{free_address, within};

/// Longer than any server here takes to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// A free port may be taken by another process before the server has it.
const ATTEMPTS: usize = 5;

/// A running server; ended by its process id when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    output: Arc<Mutex<String>>,
    stop: Signal,
}

impl Server {
    /// Starts what `command` gives for an address, on another one if that was taken meanwhile.
    #[track_caller]
    pub(crate) fn start(mut command: impl FnMut(SocketAddr) -> Command) -> Self {
        let mut output = String::new();
        for _ in 0..ATTEMPTS {
            let address = free_address();
            match Self::start_on(address, command(address)) {
                Ok(server) => return server,
                Err(said) => output = said,
            }
        }
        panic!("the server does not start:\n{output}");
    }

    /// Starts a server that will listen on this very address.
    ///
    /// # Errors
    /// With what it said, when it ends instead.
    pub(crate) fn start_on(address: SocketAddr, mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let output = Arc::new(Mutex::new(String::new()));
        capture(child.stdout.take().unwrap(), &output);
        capture(child.stderr.take().unwrap(), &output);
        let mut server = Self { child, address, output, stop: Signal::KILL };
        let listens = within(PATIENCE, || match server.child.try_wait().unwrap() {
            Some(_) => Some(false),
            None => listens(address).then_some(true),
        });
        if listens == Some(true) { Ok(server) } else { Err(server.output.lock().clone()) }
    }

    /// The signal that ends it with all of its children; KILL unless said.
    pub(crate) fn stopped_by(mut self, signal: Signal) -> Self {
        self.stop = signal;
        self
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has printed up to now.
    pub(crate) fn said(&self) -> String {
        self.output.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = kill_process(Pid::from_child(&self.child), self.stop);
        let ended = within(PATIENCE, || self.child.try_wait().unwrap());
        if ended.is_none() {
            let _gone_already = self.child.kill();
            let _reaped = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server at {} said:\n{}", self.address, self.output.lock());
        }
    }
}

/// Whether a program listens there, without connecting: some servers take that for a client.
fn listens(address: SocketAddr) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        local.ends_with(&port) && fields.nth(1) == Some(LISTEN)
    })
}

fn capture(stream: impl Read + Send + 'static, output: &Arc<Mutex<String>>) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut output = output.lock();
            output.push_str(&line);
            output.push('\n');
        }
    });
}

/// Runs a program that must succeed, with `input` as its stdin, and gives its stdout and stderr.
#[track_caller]
pub(crate) fn succeed(command: &mut Command, input: &[u8]) -> (Vec<u8>, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Beside reading its output, or both wait for ever once the pipes are full.
    let writer = std::thread::spawn(move || {
        let _it_need_not_read_all = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    (output.stdout, stderr)
}

/// As [`succeed`], without input and with text as output.
#[track_caller]
pub(crate) fn text_of(command: &mut Command) -> String {
    String::from_utf8(succeed(command, b"").0).unwrap()
}

/// A program that may be outside of PATH, as Debian's nginx is for a plain user.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = directories.map(|directory| directory.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("no {name}: scripts/install-test-tools.sh installs it"))
}

/// nginx in one process, so that its process id is all there is to kill.
pub(crate) struct Nginx {
    directory: tempfile::TempDir,
    server: Option<Server>,
    address: SocketAddr,
}

impl Nginx {
    /// Answers every path with its name and a newline, and `/files/` from a directory.
    #[track_caller]
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, |_| String::new())
    }

    /// The same, with more lines for the server. They may begin with ` ssl;`: that of `listen`.
    #[track_caller]
    pub(crate) fn start_with(name: &str, more: impl Fn(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir(path.join("files")).unwrap();
        let more = more(path);
        let server = Server::start(|address| {
            std::fs::write(path.join("nginx.conf"), nginx_config(name, path, address, &more))
                .unwrap();
            nginx_command(path)
        });
        let address = server.address();
        Self { directory, server: Some(server), address }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its directory; what is in `files` of it is served.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has logged up to now.
    pub(crate) fn said(&self) -> String {
        self.server.as_ref().map(Server::said).unwrap_or_default()
    }

    /// Kills it; its connections break.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it again on the same address.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let command = nginx_command(self.directory.path());
        self.server = Some(Server::start_on(self.address, command).unwrap());
    }
}

fn nginx_command(directory: &Path) -> Command {
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf"));
    command.arg("-e").arg("stderr");
    command
}

fn nginx_config(name: &str, directory: &Path, address: SocketAddr, more: &str) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", directory.display()))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {0}/nginx.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 100000000;\n{temporary}  \
         server {{\n    listen {address}{more};\n    \
         location / {{ return 200 \"{name}\\n\"; }}\n    \
         location /files/ {{ root {0}; }}\n  }}\n}}\n",
        directory.display()
    )
}
