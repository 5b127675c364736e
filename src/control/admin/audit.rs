//! A line in the log for each request that may change something: whose it was, and what came of it.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

use crate::control::admin::peer::AdminPeer;

/// Bytes of a body that are shown; a verb has fewer.
const BODY_SHOWN: usize = 300;

/// Answers, and writes the line. To be asked once the whole body has been read.
pub(crate) async fn audit(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let who = head.extensions.get::<AdminPeer>().map_or_else(String::new, AdminPeer::words);
    let asked = format!("{} {}", head.method, head.uri);
    // It lies in memory, so that nothing can fail or be missing.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let shown = String::from_utf8_lossy(body.get(..BODY_SHOWN).unwrap_or(&body)).into_owned();
    let response = next.run(Request::from_parts(head, Body::from(body))).await;
    let space = if shown.is_empty() { "" } else { " " };
    tracing::info!("asked by {who}: {asked}{space}{shown}: {}", response.status().as_u16());
    response
}
