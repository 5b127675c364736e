//! The signals that the process acts on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// All signals that are listened to.
pub(super) struct Signals {
    stop: StopSignals,
    reload: Signal,
    reopen: Signal,
    upgrade: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalRequest {
    /// TERM, INT, QUIT: end the process.
    Stop,
    /// HUP: read the file again.
    Reload,
    /// USR1: open log files again.
    Reopen,
    /// USR2: replace the program.
    Upgrade,
}

impl Signals {
    /// Listens to all of them from now on.
    ///
    /// # Errors
    /// When the kernel or the runtime refuses a handler.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            stop: StopSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                quit: signal(SignalKind::quit())?,
            },
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal of any kind. Loses none when it is cancelled.
    pub(super) async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            () = self.stop.next() => SignalRequest::Stop,
            _ = self.reload.recv() => SignalRequest::Reload,
            _ = self.reopen.recv() => SignalRequest::Reopen,
            _ = self.upgrade.recv() => SignalRequest::Upgrade,
        }
    }

    /// Waits for a signal that ends the process; leaves the others pending.
    pub(super) async fn stop(&mut self) {
        self.stop.next().await;
    }
}

/// The signals that end the process.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
