//! What systemd would hear of the program under test (sd_notify(3)), and hand to it
//! (sd_listen_fds(3)).

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{PATIENCE, Proxy};

/// What is told to it.
pub struct Notifications(pub UnixDatagram);

impl Notifications {
    pub fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next message, as its lines.
    #[track_caller]
    pub fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let received = self.0.recv(&mut buffer);
        let length = received.unwrap_or_else(|error| panic!("no notification: {error}"));
        String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect()
    }

    /// The next message that has this line; those before it are passed over.
    #[track_caller]
    pub fn wait_for(&self, wanted: &str) -> Vec<String> {
        loop {
            let lines = self.next();
            if lines.iter().any(|line| line == wanted) {
                return lines;
            }
        }
    }
}

/// Started as by a unit with `Type=notify`, and what it has sent is still to be read.
pub fn notifying(config: &str, environment: &[(&str, &str)]) -> (Proxy, Notifications) {
    let (directory, mut command) = Proxy::command(config);
    let path = directory.path().join("notify");
    let notifications = Notifications::bind(&path);
    command.env("NOTIFY_SOCKET", &path).envs(environment.iter().copied());
    (Proxy::spawn(directory, command), notifications)
}

/// Started as by a socket unit: `socket` is descriptor 3, and the environment names this process.
pub fn activated(config: &str, socket: OwnedFd, name: &str) -> Proxy {
    let (directory, run) = Proxy::command(config);
    // The shell knows its own process id, which exec keeps; std passes descriptors as stdin only.
    let mut command = Command::new("sh");
    command.arg("-c").arg("export LISTEN_PID=$$; exec \"$@\" 3<&0 0</dev/null").arg("sh");
    command.arg(run.get_program()).args(run.get_args());
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name).env("LISTEN_PID", "");
    command.stdin(Stdio::from(socket));
    Proxy::spawn(directory, command)
}
