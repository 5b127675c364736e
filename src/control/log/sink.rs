//! Where the lines of the log go: stderr, a file, a syslog server.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};

use crate::config::{KeyPath, LogTarget};

/// Takes lines.
pub(crate) trait LogSink: Write + Send + Debug {}

impl<T: Write + Send + Debug> LogSink for T {}

/// What cannot be logged to.
#[derive(Debug)]
pub(crate) struct LogFailure {
    /// Where the file names it.
    pub(crate) key: KeyPath,
    /// What happened.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
    /// Why, as the system has it.
    pub(crate) cause: io::Error,
}

/// Opens where lines are to go.
///
/// # Errors
/// When the system does not let it be opened. A syslog server that does not answer is no error:
/// it may come.
pub(crate) fn open(target: &LogTarget) -> Result<Box<dyn LogSink>, LogFailure> {
    let opened: io::Result<Box<dyn LogSink>> = match target {
        LogTarget::Stderr => Ok(Box::new(Stderr)),
        LogTarget::File(path) => open_file(path).map(|file| Box::new(file) as _),
        LogTarget::SyslogUdp(server) => Syslog::udp(*server).map(|syslog| Box::new(syslog) as _),
        LogTarget::SyslogUnix(path) => Syslog::unix(path).map(|syslog| Box::new(syslog) as _),
    };
    opened.map_err(|cause| LogFailure {
        key: KeyPath::table("global").key("log").key("to"),
        message: format!("cannot log to {target}: {cause}"),
        hint: hint(target, &cause),
        cause,
    })
}

fn hint(target: &LogTarget, cause: &io::Error) -> String {
    let hint = match (target, cause.kind()) {
        (LogTarget::File(_), io::ErrorKind::NotFound) => {
            "make the directory; under systemd, `LogsDirectory=evenkeel` makes /var/log/evenkeel"
        }
        (LogTarget::File(_), io::ErrorKind::PermissionDenied) => {
            "let the user of evenkeel write there; under systemd, only what `LogsDirectory=` makes \
             can be written"
        }
        _ => "name another place, or \"stderr\"",
    };
    hint.to_owned()
}

/// The file, to be written at its end: another process may write to it as well.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// A syslog server. What it does not take is lost: it is asked again with the next line.
#[derive(Debug)]
enum Syslog {
    Udp { socket: UdpSocket, server: SocketAddr },
    Unix { socket: UnixDatagram, path: PathBuf },
}

impl Syslog {
    fn udp(server: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        Ok(Self::Udp { socket: UdpSocket::bind(any)?, server })
    }

    fn unix(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        // Neither is connected: a server that starts again has another socket at the same address.
        match self {
            Self::Udp { socket, server } => socket.send_to(message, server)?,
            Self::Unix { socket, path } => socket.send_to(message, path)?,
        };
        Ok(())
    }
}

impl Write for Syslog {
    /// Takes one line, which is a message of its own without its end (RFC 5426, section 3.1).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let (line, rest) = bytes.split_at(length);
        if !line.is_empty() {
            self.send(line)?;
        }
        Ok(length + rest.len().min(1))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The process's stderr, also when another process made it non-blocking.
#[derive(Debug)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match io::stderr().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room()?,
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for_room() -> io::Result<()> {
    let stderr = io::stderr();
    let mut wanted = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    poll(&mut wanted, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a syslog server takes several lines for one, or one for several.
    #[test]
    fn each_line_is_a_message() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = LogTarget::SyslogUdp(server.local_addr().unwrap());
        let mut syslog = open(&target).unwrap();
        syslog.write_all(b"first\nsecond line\n").unwrap();
        let mut buffer = [0; 64];
        for expected in [&b"first"[..], b"second line"] {
            let count = server.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], expected);
        }
    }

    // If this fails, lines are lost for good once a syslog server has been started again.
    #[test]
    fn a_server_that_comes_back_is_found_again() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("log");
        let mut syslog = open(&LogTarget::SyslogUnix(path.clone())).unwrap();
        syslog.write_all(b"nobody is there\n").unwrap_err();
        for _ in 0..2 {
            let server = UnixDatagram::bind(&path).unwrap();
            syslog.write_all(b"again\n").unwrap();
            let mut buffer = [0; 64];
            assert_eq!(server.recv(&mut buffer).unwrap(), 5);
            std::fs::remove_file(&path).unwrap();
        }
    }

    // If this fails, nobody learns why there is no log.
    #[test]
    fn a_file_that_cannot_be_opened_says_what_to_do() {
        let target = LogTarget::File("/nowhere/at/all.log".into());
        let Err(failure) = open(&target) else { panic!("opened {target}") };
        assert!(failure.message.starts_with("cannot log to /nowhere/at/all.log: "), "{failure:?}");
        assert!(failure.hint.contains("make the directory"), "{failure:?}");
    }
}
