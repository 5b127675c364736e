//! Which names a client may ask the page by.
//!
//! A page of another site can have its own name point to an address here (DNS rebinding), and the
//! browser then lets it read the answers. Its requests carry that name in `Host`, which is how they
//! are told. Requests without the header come from no browser.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::control::admin::context::AdminContext;
use crate::sys::process::host_name;

/// What tells nothing but yes or no is told to any name: an orchestrator may ask by one of its own.
const FOR_ANY_NAME: [&str; 2] = ["/livez", "/readyz"];

/// Answers 421 (RFC 9110, section 15.5.20) to a request by a name that is not ours.
pub(crate) async fn refuse_foreign_names(
    State(admin): State<AdminContext>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or(""));
    let Some(host) = host.filter(|_| !FOR_ANY_NAME.contains(&request.uri().path())) else {
        return next.run(request).await;
    };
    let name = without_port(host).to_ascii_lowercase();
    let named = {
        let current = admin.services.plane.current.lock();
        current.config.admin.hosts.contains(&name)
    };
    if named || is_own(&name, &host_name()) {
        return next.run(request).await;
    }
    let text = "this host is not known by that name: ask by its address, or list the name in \
                `hosts` of [admin]\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// The host of `host:port`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of a bare IPv6 address are in brackets.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// Whether a name, in lower case, cannot be another site's: an address, `localhost`, or this host's
/// own name, with or without a domain.
fn is_own(name: &str, own: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let own = own.to_ascii_lowercase();
    let short = own.split('.').next().unwrap_or("");
    bare.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || !own.is_empty() && name == own
        || !short.is_empty() && name == short
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a scraper on this host's address is turned away, or a page of another site
    // reads the metrics.
    #[test]
    fn addresses_and_own_names_are_ours() {
        let is_ours = |host: &str| is_own(without_port(host), "Node1.example.com");
        let ours = ["192.0.2.7:9900", "[2001:db8::7]:9900", "[::1]", "127.0.0.1", "localhost:9900"];
        for host in ours.into_iter().chain(["node1:9900", "node1.example.com", "node1"]) {
            assert!(is_ours(host), "{host}");
        }
        for host in
            ["evil.test:9900", "node1.evil.test", "localhost.evil.test", "", ":9900", "node"]
        {
            assert!(!is_ours(host), "{host}");
        }
        assert!(!is_own("", ""));
    }
}
