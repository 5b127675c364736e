//! The list of sessions, as programs read it.

use serde::{Deserialize, Serialize};

/// One page of `GET /v1/sessions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionsPage {
    /// Sessions that are meant, on this page or not.
    pub total: u64,
    /// Those of this page, in the order that was asked for.
    pub sessions: Vec<SessionRow>,
    /// What `after` of the next request has to be; `null` on the last page.
    pub next: Option<String>,
}

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionRow {
    /// Unique within the process: `session` of its line in the log.
    pub id: u64,
    /// The worker that has it.
    pub worker: usize,
    /// Where its client connected.
    pub listener: String,
    /// Where it goes; `null` while that is not known.
    pub pool: Option<String>,
    /// The backend on which it has a place; `null` while it has none.
    pub backend: Option<String>,
    /// `reading`, `waiting`, `resting`, `connecting`, `greeting`, `moving`, `lingering` or
    /// `ending`.
    pub stage: String,
    /// The client, as limits and the log know it; `unix` on a Unix socket.
    pub client: String,
    /// The peer that connected, which is not the client where a PROXY header names that; `null` on
    /// a Unix socket.
    pub client_peer: Option<String>,
    /// Where it connected to; `null` on a Unix socket.
    pub client_local: Option<String>,
    /// Where the backend sees it come from; `null` without a connection, or on a Unix socket.
    pub backend_local: Option<String>,
    /// Where the backend is connected, or being connected.
    pub backend_peer: Option<String>,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Milliseconds since a byte last moved.
    pub idle_ms: u64,
    /// Bytes delivered to the backend.
    pub bytes_to_backend: u64,
    /// Bytes delivered to the client.
    pub bytes_to_client: u64,
    /// Bytes delivered in a second, both ways; `null` when that was not asked for.
    pub bytes_per_second: Option<u64>,
}
