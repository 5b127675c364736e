//! What only few sessions have, and what is of no single stage. The others pay one empty pointer.

use std::net::SocketAddr;

use crate::dataplane::clock::Tick;
use crate::dataplane::stream::pacing::Pacing;
use crate::policy::first_bytes::proxy_header::Malformed;
use crate::shared::{BackendId, ConnectFailure, FirstWords, Skip, SourcePort};

use super::counted::{Counted, Observed};

/// The particulars of one session.
#[derive(Debug, Default)]
pub(crate) struct Particulars {
    /// Where it is counted beside [`Place::counted`](super::Place), when several limits concern its
    /// client.
    pub(crate) counted: Vec<Counted>,
    /// Which limit would have turned its client away if it did not only observe.
    pub(crate) observed: Option<Observed>,
    /// The hash that stands for the client instead of its address.
    pub(crate) hashed_key: Option<u64>,
    /// What it said first, where that decided its pool or its backend.
    pub(crate) first_words: Option<Box<FirstWords>>,
    /// Where the client connected to, by its PROXY header.
    pub(crate) destination: Option<SocketAddr>,
    /// The port to which it connected here, where its backend has none.
    pub(crate) reached_port: Option<u16>,
    /// The TLVs of that header.
    pub(crate) tlvs: Box<[u8]>,
    /// It is a PostgreSQL client that was promised TLS; its backend is asked for it first.
    pub(crate) is_promised_tls: bool,
    /// Why there was no header.
    pub(crate) malformed: Option<Malformed>,
    /// The bandwidth that it has taken.
    pub(crate) pacing: Option<Pacing>,
    /// Backends that were passed over for it.
    pub(crate) skipped: Vec<Skip>,
    /// Backends that failed it; forgotten once one serves.
    pub(crate) tried: Vec<BackendId>,
    /// From when on those may be tried again.
    pub(crate) repeat_at: Option<Tick>,
    /// When it joined the line for the first time: its place there, and its deadline.
    pub(crate) lined_up: Option<Tick>,
    /// How the latest of those failed.
    pub(crate) failure: Option<ConnectFailure>,
    /// The port it comes from, where the pool names its sources.
    pub(crate) source_port: Option<SourcePort>,
}
