//! The signals that the process acts on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// All signals that are listened to.
pub(super) struct Signals {
    stop: [Signal; 3],
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
            stop: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ],
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal of any kind. Loses none when it is cancelled.
    pub(super) async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            () = stop_signal(&mut self.stop) => SignalRequest::Stop,
            _ = self.reload.recv() => SignalRequest::Reload,
            _ = self.reopen.recv() => SignalRequest::Reopen,
            _ = self.upgrade.recv() => SignalRequest::Upgrade,
        }
    }

    /// Waits for a signal that ends the process; leaves the others pending.
    pub(super) async fn stop(&mut self) {
        stop_signal(&mut self.stop).await;
    }
}

async fn stop_signal([terminate, interrupt, quit]: &mut [Signal; 3]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
    }
}
