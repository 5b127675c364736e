//! HTTP/1.1 for few and trusted clients, with a bound on everything: connections, the time a
//! request head or body may take, the size of a body.
//!
//! Runs as tasks of the runtime it is called in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// How long a request head may take, and how long a connection may be idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Largest body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long to wait when accept(2) fails, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
pub(crate) trait Accept {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next one.
    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept_one(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept_one(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

/// Answers all connections of a listener, for ever, `connections_max` at once; further ones wait in
/// the accept queue.
pub(crate) async fn serve(listener: impl Accept, routes: Router, connections_max: usize) {
    let routes = routes.layer(from_fn(read_body));
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept_one().await {
            Ok(stream) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    answer(stream, routes).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection to the admin interface");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Router) {
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

/// Reads the whole body before any route sees the request.
async fn read_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(BODY_DEADLINE, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => {
            let text = format!("the body is longer than {BODY_BYTES_MAX} bytes, or broken\n");
            (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
        }
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response(),
    }
}
