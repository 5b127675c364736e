//! What goes to the terminal: results to stdout, complaints to stderr.
//!
//! A reader that goes away early (`| head`) is no error, and never a panic.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel::control::wants_colour;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long last words may wait for a reader.
const LAST_WORDS: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Whether a result was lost: the disk behind stdout is full, say.
static RESULT_LOST: AtomicBool = AtomicBool::new(false);

/// Prints a result, as it is.
pub(crate) fn say(text: impl Display) {
    let written = write!(io::stdout().lock(), "{text}").and_then(|()| io::stdout().flush());
    match written {
        // A reader that closed stdout does not want it.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            RESULT_LOST.store(true, Ordering::Relaxed);
            fail(format_args!("cannot write to stdout: {error}"), "");
        }
        _ => {}
    }
}

/// Turns success into failure when a result was lost: half a result is none.
pub(crate) fn unless_lost(code: ExitCode) -> ExitCode {
    if code == ExitCode::SUCCESS && RESULT_LOST.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    code
}

/// Prints to stderr, as it is.
pub(crate) fn complain(text: impl Display) {
    let _gone = write!(io::stderr().lock(), "{text}");
}

/// Prints to stderr before the process ends, which nothing may hold up: neither a reader that does
/// not read nor a thread that holds the lock of stderr because of that.
pub(crate) fn complain_and_go(text: &str) {
    let stderr = io::stderr();
    let mut wanted = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    if poll(&mut wanted, Some(&LAST_WORDS)).is_ok_and(|ready| ready > 0) {
        let _gone = rustix::io::write(stderr.as_fd(), text.as_bytes());
    }
}

/// Prints what failed and what to do about it.
pub(crate) fn fail(what: impl Display, help: &str) {
    complain(format_args!("evenkeel: {what}\n"));
    if !help.is_empty() {
        complain(format_args!("help: {help}\n"));
    }
}

/// Whether colour helps on stdout.
pub(crate) fn stdout_has_colour() -> bool {
    io::stdout().is_terminal() && wants_colour()
}

/// Whether colour helps on stderr.
pub(crate) fn stderr_has_colour() -> bool {
    io::stderr().is_terminal() && wants_colour()
}
