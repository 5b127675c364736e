//! HTTP/1.1 with a bound on everything: connections, the time a request head, a body, an answer or
//! a connection may take, the size of a body.
//!
//! A connection beyond the most there may be is taken nevertheless, and another one gives way: the
//! oldest of the peer that has most. A client that asks at once and reads its answer is served,
//! whatever others hold open. Runs as tasks of the runtime it is called in.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

use crate::control::admin::patience::Impatient;
use crate::control::admin::peer::AdminPeer;
use crate::control::admin::places::Places;
use crate::control::plane::doors::OpenConnection;

/// How long a request head may take, and how long a connection may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may take none of its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last, whatever it does.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(300);
/// How long to wait when accept(2) fails, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
pub(crate) trait Accept {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next one.
    fn accept_one(&self) -> impl Future<Output = io::Result<(Self::Stream, AdminPeer)>> + Send;
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept_one(&self) -> io::Result<(Self::Stream, AdminPeer)> {
        let (stream, _) = self.accept().await?;
        // Of one that is gone already there may be nothing to tell.
        let user = stream.peer_cred().ok();
        let (uid, pid) = (user.map(|user| user.uid()), user.and_then(|user| user.pid()));
        Ok((stream, AdminPeer { ip: None, uid, pid }))
    }
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept_one(&self) -> io::Result<(Self::Stream, AdminPeer)> {
        let (stream, peer) = self.accept().await?;
        Ok((stream, AdminPeer { ip: Some(peer.ip().to_canonical()), uid: None, pid: None }))
    }
}

/// What a server is given beside its listener and its routes.
#[derive(Debug, Clone)]
pub(crate) struct ServerSetup {
    /// Connections served at once.
    pub(crate) connections_max: usize,
    /// Counts the connections that are open, perhaps those of others, too.
    pub(crate) open: Arc<AtomicUsize>,
}

/// Answers all connections of a listener, for ever.
pub(crate) async fn serve(listener: impl Accept, routes: Router, setup: ServerSetup) {
    let ServerSetup { connections_max, open } = setup;
    let places = Arc::new(Mutex::new(Places::new(connections_max)));
    loop {
        match listener.accept_one().await {
            Ok((stream, peer)) => {
                let routes = routes.clone().layer(Extension(peer));
                let its_places = Arc::clone(&places);
                let mut places = places.lock();
                let number = places.next_number();
                let open = OpenConnection::new(&open);
                let answered = tokio::spawn(async move {
                    let _open = open;
                    // Ends early when another connection takes its place.
                    let _late = timeout(CONNECTION_DEADLINE, answer(stream, routes)).await;
                    its_places.lock().leave(number);
                });
                places.enter(number, peer.ip, answered.abort_handle());
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection to the admin interface");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Router) {
    let stream = Impatient::new(stream, ANSWER_PATIENCE);
    let connection = http1::Builder::new()
        // A client may say that it has asked all and still waits for the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the admin interface ended early");
    }
}

/// Routes that are asked once the whole body has been read, at most `bytes_max`.
pub(crate) fn with_bodies<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    bytes_max: usize,
) -> Router<S> {
    routes.layer(from_fn(move |request, next| read_body(request, next, bytes_max)))
}

async fn read_body(request: Request, next: Next, bytes_max: usize) -> Response {
    let (head, body) = request.into_parts();
    match timeout(BODY_DEADLINE, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => {
            let text = format!("the body is longer than {bytes_max} bytes, or broken\n");
            (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
        }
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response(),
    }
}
