//! What only few sessions have, and what is of no single stage. The others pay one empty pointer.

use std::net::SocketAddr;

use super::counted::{Counted, Observed};
use crate::dataplane::stream::pacing::Pacing;
use crate::policy::first_bytes::proxy_header::Malformed;
use crate::shared::{BackendId, ConnectFailure, Skip, SourcePort};

/// The particulars of one session.
#[derive(Debug, Default)]
pub(crate) struct Particulars {
    /// Where it is counted beside [`Place::counted`](super::Place), when several limits concern its
    /// client.
    pub(crate) counted: Vec<Counted>,
    /// Which limit would have turned its client away if it did not only observe.
    pub(crate) observed: Option<Observed>,
    /// What is hashed instead of the client's address.
    pub(crate) hashed_key: Option<u64>,
    /// Where the client connected to, by its PROXY header.
    pub(crate) destination: Option<SocketAddr>,
    /// The host name in that header.
    pub(crate) authority: Option<Box<[u8]>>,
    /// Why there was no header.
    pub(crate) malformed: Option<Malformed>,
    /// What it has taken of its bandwidth.
    pub(crate) pacing: Option<Pacing>,
    /// Backends that were passed over for it.
    pub(crate) skipped: Vec<Skip>,
    /// Backends that failed it; forgotten once one serves.
    pub(crate) tried: Vec<BackendId>,
    /// How the latest of those failed.
    pub(crate) failure: Option<ConnectFailure>,
    /// The port it comes from, where the pool names its sources.
    pub(crate) source_port: Option<SourcePort>,
}
