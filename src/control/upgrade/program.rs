//! The program that an upgrade starts: which file, and with what it is started.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::control::upgrade::packets::CALLED_BY;

/// Variables by which systemd hands sockets and its watchdog to one process: the successor has
/// another number.
const OF_ONE_PROCESS: &[&str] = &["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// Where the running program came from, as it was at the start: a package may put another file
/// there, and that is the one to start.
///
/// The name by which it was called is kept where it is a path, so that a symbolic link to the
/// newest version leads to that.
///
/// # Errors
/// As readlink(2) on /proc/self/exe.
pub(crate) fn of_this_process() -> io::Result<PathBuf> {
    let real = std::env::current_exe()?;
    let called = std::env::args_os().next().unwrap_or_default();
    Ok(called_as(called)
        .filter(|path| path.canonicalize().ok().as_ref() == Some(&real))
        .unwrap_or(real))
}

fn called_as(name: OsString) -> Option<PathBuf> {
    let path = PathBuf::from(name);
    if path.components().count() > 1 { std::path::absolute(path).ok() } else { None }
}

/// Starts a program on a file, with its end of the channel as standard input.
///
/// # Errors
/// As fork(2) and execve(2): `NotFound`, `PermissionDenied`, ENOEXEC for one of another
/// architecture.
pub(crate) fn start(program: &Path, file: &Path, channel: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("run").arg("-c").arg(file).stdin(Stdio::from(channel));
    for name in OF_ONE_PROCESS {
        command.env_remove(name);
    }
    if sd_notify::watchdog_enabled().is_none() {
        // It was meant for another process, or there is none.
        command.env_remove("WATCHDOG_USEC");
    }
    command.env(CALLED_BY, std::process::id().to_string()).spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, an upgrade starts the version that a link led to when the process began.
    #[test]
    fn a_path_is_kept_as_it_was_called() {
        assert_eq!(called_as("/opt/now/evenkeel".into()), Some("/opt/now/evenkeel".into()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(called_as("target/evenkeel".into()), Some(here.join("target/evenkeel")));
        assert_eq!(called_as("evenkeel".into()), None);
    }
}
