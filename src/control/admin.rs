//! How operators and tools reach the process: HTTP with JSON over a Unix socket, and, if asked for,
//! a read-only page over TCP.
//!
//! Both are opened at start, before anything is served, and answered by the thread `control`.
//! A user who may open the socket (mode 0600) controls the process; TCP can change nothing.

mod audit;
pub mod ban_list;
mod bans;
pub mod client;
mod context;
mod host_header;
pub(crate) mod http_server;
mod page;
mod patience;
mod peer;
mod places;
mod routes;
mod sessions;
mod socket;
pub(crate) mod verbs;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use tokio::task::AbortHandle;

use crate::config::KeyPath;
use crate::control::admin::audit::audit;
use crate::control::admin::bans::{ban, bans, unban, unban_all};
use crate::control::admin::context::AdminContext;
use crate::control::admin::host_header::refuse_foreign_names;
use crate::control::admin::http_server::{ServerSetup, with_bodies};
use crate::control::admin::page::page;
use crate::control::admin::routes::{
    backend, candidate, config, explain, livez, metrics, no_such_route, readyz, reload, status,
    upgrade, wrong_method,
};
use crate::control::admin::sessions::{kill_many, kill_one, sessions, stop_kills};
use crate::control::host::listeners::ListenFailure;
use crate::control::host::socket_file::SocketFile;
use crate::control::plane::doors::{Door, DoorKind};
use crate::control::reload::services::Services;
use crate::control::run_error::RunError;
use crate::control::tell::status::document::AdminAddresses;
use crate::control::upgrade::successor::PassedDoors;

/// Connections served at once, on each of the two.
const CONNECTIONS_MAX: usize = 64;
/// Longest body of a request.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest candidate for the configuration: as long as its file may be.
const CANDIDATE_BYTES_MAX: usize = 128 << 20;

/// Sockets that are open and not yet answered.
#[derive(Debug)]
pub(crate) struct AdminSockets {
    unix: Option<ControlDoor>,
    http: Option<PageDoor>,
    addresses: AdminAddresses,
    /// Said once there is a log.
    warning: Option<String>,
}

/// The control socket, open.
#[derive(Debug)]
struct ControlDoor {
    listener: UnixListener,
    file: Arc<SocketFile>,
    /// As the file names it.
    path: PathBuf,
    is_passed: bool,
}

/// The read-only page, open.
#[derive(Debug)]
pub(crate) struct PageDoor {
    listener: TcpListener,
    /// As the file names it.
    asked: SocketAddr,
    real: SocketAddr,
}

impl AdminSockets {
    /// Where they are, real ports.
    pub(crate) fn addresses(&self) -> &AdminAddresses {
        &self.addresses
    }

    /// The file of the control socket, if the process before this one has passed that on.
    pub(crate) fn passed_file(&self) -> Option<Arc<SocketFile>> {
        let control = self.unix.as_ref().filter(|control| control.is_passed);
        control.map(|control| Arc::clone(&control.file))
    }
}

/// Opens the socket, or takes it over, beside the page that is open already.
///
/// # Errors
/// When the socket is one that the file names and cannot be opened.
pub(crate) fn open(
    admin: &crate::config::Admin,
    http: Option<PageDoor>,
    passed: &mut PassedDoors,
) -> Result<AdminSockets, RunError> {
    let mut warning = None;
    let unix = match control_door(admin, passed) {
        Ok(bound) => Some(bound),
        Err(failure) if admin.socket_required => return Err(failure.into()),
        Err(failure) => {
            let failure = RunError::from(failure).to_string().replace('\n', "; ");
            warning = Some(format!("{failure}; going on without it"));
            None
        }
    };
    let socket = unix.as_ref().map(|_| admin.socket.display().to_string());
    let addresses = AdminAddresses { socket, http: http.as_ref().map(|page| page.real) };
    Ok(AdminSockets { unix, http, addresses, warning })
}

fn control_door(
    admin: &crate::config::Admin,
    passed: &mut PassedDoors,
) -> Result<ControlDoor, socket::SocketError> {
    let path = admin.socket.clone();
    if let Some((described, listener)) = passed.control.take_if(|(it, _)| it.path == path) {
        let file = Arc::new(SocketFile::passed(&path, described.file));
        if file.is_there() {
            return Ok(ControlDoor { listener: listener.into(), file, path, is_passed: true });
        }
    }
    let (listener, file) = socket::bind(&path)?;
    Ok(ControlDoor { listener, file: Arc::new(file), path, is_passed: false })
}

/// Opens the page, or takes it over, if there is to be one.
///
/// # Errors
/// When it cannot be listened on.
pub(crate) fn open_http(
    admin: &crate::config::Admin,
    passed: &mut PassedDoors,
) -> Result<Option<PageDoor>, ListenFailure> {
    let Some(address) = admin.http else { return Ok(None) };
    let passed = passed.page.take_if(|(it, _)| it.asked == address);
    let open = || {
        let listener = match passed {
            Some((_, listener)) => TcpListener::from(listener),
            None => TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        let real = listener.local_addr()?;
        Ok(Some(PageDoor { listener, asked: address, real }))
    };
    open().map_err(|cause| ListenFailure::new(KeyPath::table("admin").key("http"), address, cause))
}

/// Answers requests from now on; must be called within the runtime.
pub(crate) fn serve(sockets: AdminSockets, services: Services) {
    let AdminSockets { unix, http, addresses, warning } = sockets;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    let plane = Arc::clone(&services.plane);
    let admin = AdminContext { services, addresses };
    let setup = ServerSetup { connections_max: CONNECTIONS_MAX, open: plane.doors.connections() };
    let opened = |kind, socket: std::io::Result<OwnedFd>, accepting: AbortHandle| match socket {
        Ok(socket) => plane.doors.opened(Door { kind, socket: Arc::new(socket), accepting }),
        Err(error) => tracing::error!(%error, "no descriptor for an admin socket"),
    };
    if let Some(ControlDoor { listener, file, path, .. }) = unix {
        let routes = control_routes(admin.clone());
        let (copy, setup) = (listener.as_fd().try_clone_to_owned(), setup.clone());
        let answering = tokio::spawn(async move {
            match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => http_server::serve(listener, routes, setup).await,
                Err(error) => tracing::error!(%error, "cannot serve the admin socket"),
            }
        });
        opened(DoorKind::Control(path, file), copy, answering.abort_handle());
    }
    if let Some(PageDoor { listener, asked, .. }) = http {
        let routes = read_only_routes(admin);
        let copy = listener.as_fd().try_clone_to_owned();
        let answering = tokio::spawn(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => http_server::serve(listener, routes, setup).await,
                Err(error) => tracing::error!(%error, "cannot serve the admin page"),
            }
        });
        opened(DoorKind::Page(asked), copy, answering.abort_handle());
    }
}

/// What both answer.
fn shared_routes() -> Router<AdminContext> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
}

/// Over the Unix socket: everything.
fn control_routes(admin: AdminContext) -> Router {
    let candidate = Router::new().route("/v1/reload/candidate", post(candidate));
    let routes = shared_routes()
        .route("/v1/metrics", get(metrics))
        .route("/v1/config", get(config))
        .route("/v1/explain", get(explain))
        .route("/v1/sessions", get(sessions))
        .route("/v1/sessions/{id}", delete(kill_one))
        .route("/v1/sessions/kill", post(kill_many))
        .route("/v1/sessions/kill/stop", post(stop_kills))
        .route("/v1/bans", get(bans).post(ban).delete(unban_all))
        .route("/v1/bans/{network}", delete(unban))
        .route("/v1/reload", post(reload))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/backends/{pool}/{backend}/{verb}", post(backend));
    with_bodies(routes.layer(from_fn(audit)), BODY_BYTES_MAX)
        // A body has a limit of axum's own unless it is taken away.
        .merge(with_bodies(candidate.layer(DefaultBodyLimit::disable()), CANDIDATE_BYTES_MAX))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(admin)
}

/// Over TCP: only what changes nothing and tells no configuration.
fn read_only_routes(admin: AdminContext) -> Router {
    let is_for_us = from_fn_with_state(admin.clone(), refuse_foreign_names);
    with_bodies(shared_routes().route("/", get(page)), BODY_BYTES_MAX)
        .layer(is_for_us)
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(admin)
}
