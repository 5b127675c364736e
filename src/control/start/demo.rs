//! Something to look at without a configuration: three HTTP backends inside the process and a
//! load balancer in front of them, run from a real file that can be edited and reloaded.
//!
//! Everything lives in a private temporary directory that is removed at the end.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use axum::routing::get;

use crate::control::admin::http_server::{self, ServerSetup};
use crate::control::run_error::{RunError, failed};
use crate::control::start::run::{RunOptions, Served, run};

/// Names of the backends.
pub const BACKENDS: [&str; 3] = ["red", "green", "blue"];
/// Connections a backend serves at once.
const CONNECTIONS_MAX: usize = 4096;

/// What to show.
#[derive(Debug, Clone, Copy)]
pub struct DemoOptions {
    /// Port of the listener on 127.0.0.1; 0 lets the kernel choose.
    pub port: u16,
    /// Port of the admin page on 127.0.0.1; 0 lets the kernel choose.
    pub admin_port: u16,
    /// Stop by itself after this long.
    pub stop_after: Option<Duration>,
    /// Called once everything is served.
    pub on_ready: fn(&Served),
}

/// Runs the demonstration until asked to stop.
///
/// # Errors
/// As [`run`], and when the backends or the directory cannot be made.
pub fn demo(options: DemoOptions) -> Result<(), RunError> {
    let directory = PrivateDirectory::new().map_err(failed(format!(
        "cannot make a directory in {}",
        std::env::temp_dir().display()
    )))?;
    let backends = start_backends().map_err(failed("cannot start the backends"))?;
    let file = directory.0.join("evenkeel.toml");
    fs::write(&file, config(options, &directory.0, &backends))
        .map_err(failed(format!("cannot write {}", file.display())))?;
    let outcome = run(&RunOptions {
        file,
        can_be_replaced: false,
        stop_after: options.stop_after,
        on_ready: options.on_ready,
    });
    outcome.map_err(|error| in_terms_of_options(error, options))
}

/// The file is ours and gone at the end: what failed is told by the options that chose it.
fn in_terms_of_options(error: RunError, options: DemoOptions) -> RunError {
    let RunError::Host { key, cause: source, .. } = error else { return error };
    let (port, option) = if key.is_some_and(|key| key.as_str() == "admin.http") {
        (options.admin_port, "admin-port")
    } else {
        (options.port, "port")
    };
    RunError::Failed {
        what: format!("cannot listen on 127.0.0.1:{port}"),
        source,
        help: format!("`--{option} N` takes another port, `--{option} 0` any free one"),
    }
}

/// A directory that only this user may enter, removed on drop.
#[derive(Debug)]
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn new() -> io::Result<Self> {
        let name = format!("evenkeel-demo-{:08x}", fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // Fails if it is there already, so no other user can have prepared it.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // What cannot be removed is left to what cleans the temporary directory.
        let _left = fs::remove_dir_all(&self.0);
    }
}

fn config(options: DemoOptions, directory: &Path, backends: &[SocketAddr]) -> String {
    let DemoOptions { port, admin_port, .. } = options;
    let mut members = String::new();
    for (name, address) in BACKENDS.iter().zip(backends) {
        members.push_str(&format!("  {{ address = \"{address}\", name = \"{name}\" }},\n"));
    }
    let socket = directory.join("admin.sock");
    // The escapes of a Rust string that a path may need are those of TOML.
    let socket = socket.to_string_lossy();
    format!(
        "# The demonstration of evenkeel. Edit it, then `evenkeel reload`.\n\
         [global]\n\
         workers = 1                  # each worker takes its own turns: one shows them best\n\
         drain_timeout = \"1s\"\n\n\
         [admin]\n\
         socket = {socket:?}\n\
         http = \"127.0.0.1:{admin_port}\"\n\n\
         [listener.web]\n\
         bind = [\"127.0.0.1:{port}\"]\n\
         pool = \"colours\"\n\n\
         [pool.colours]\n\
         balance = \"round-robin\"\n\
         backends = [\n{members}]\n\n\
         [pool.colours.health]\n\
         probe = \"http\"\n\
         path = \"/health\"\n\
         interval = \"1s\"\n\
         timeout = \"500ms\"\n"
    )
}

/// Starts one thread that answers for all backends until the process ends.
fn start_backends() -> io::Result<Vec<SocketAddr>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut addresses = Vec::new();
    for name in BACKENDS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        addresses.push(listener.local_addr()?);
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let setup = ServerSetup { connections_max: CONNECTIONS_MAX, open: Arc::default() };
        runtime.spawn(http_server::serve(listener, routes(name), setup));
    }
    std::thread::Builder::new()
        .name("demo".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(addresses)
}

fn routes(name: &'static str) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .fallback(move |uri: Uri| async move { format!("{name} answers {}\n", uri.path()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, the first thing a newcomer tries is a configuration error.
    #[test]
    fn the_file_is_valid() {
        let options =
            DemoOptions { port: 8080, admin_port: 9900, stop_after: None, on_ready: |_| {} };
        let backends: Vec<SocketAddr> =
            (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let text = config(options, Path::new("/tmp/a \"quoted\" directory"), &backends);
        let parsed = crate::config::parse(&text, Path::new("demo.toml"));
        assert_eq!(parsed.problems, [], "{text}");
        assert_eq!(parsed.config.unwrap().pools[0].backends.len(), BACKENDS.len());
    }
}
