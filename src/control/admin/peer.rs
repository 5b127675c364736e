//! The other end of a connection to the admin interface.

use std::net::IpAddr;

/// Who asks, as far as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdminPeer {
    /// Its address; `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// The user that connected, on a Unix socket (SO_PEERCRED, unix(7)).
    pub(crate) uid: Option<u32>,
    /// The process that did.
    pub(crate) pid: Option<i32>,
}

impl AdminPeer {
    /// For the log.
    pub(crate) fn words(&self) -> String {
        match *self {
            Self { uid: Some(uid), pid: Some(pid), .. } => format!("uid {uid} (pid {pid})"),
            Self { uid: Some(uid), .. } => format!("uid {uid}"),
            Self { ip: Some(ip), .. } => ip.to_string(),
            _ => "an unknown user".to_owned(),
        }
    }
}
