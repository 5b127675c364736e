//! A gate that refuses no client and remembers which it would refuse.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use evenkeel::shared::GateKernel;
use parking_lot::Mutex;

/// Until when, by client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered(Arc<Mutex<HashMap<IpAddr, u64>>>);

impl Remembered {
    /// Clients that would be refused at this time.
    pub(crate) fn refused(&self, now_us: u64) -> Vec<IpAddr> {
        let entries = self.0.lock();
        entries.iter().filter(|(_, until)| now_us < **until).map(|(client, _)| *client).collect()
    }
}

impl GateKernel for Remembered {
    fn put_before(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn enter(&self, _: u32, client: IpAddr, until_us: u64) {
        self.0.lock().insert(client, until_us);
    }

    fn forget(&self, _: u32, client: IpAddr) {
        self.0.lock().remove(&client);
    }
}
