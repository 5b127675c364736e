//! The other end of the admin socket: what `reload`, `status`, `drain` and others talk through.
//!
//! One request, one connection, bounded in time. Which socket is meant is told by the operator, or
//! by a configuration file that may be broken: that is when `reload` is asked for.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use tokio::net::UnixStream;

use crate::config::{self, Admin};
use crate::policy::glob;

/// How long the process may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What the process answered.
#[derive(Debug, Clone)]
pub struct AdminReply {
    /// HTTP status code.
    pub code: u16,
    /// The body.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct ClientError {
    what: String,
    source: io::Error,
    /// What is wrong with the file that was to name the socket.
    problems: String,
    is_of_the_file: bool,
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl ClientError {
    fn new(what: String, source: io::Error) -> Self {
        Self { what, source, problems: String::new(), is_of_the_file: false }
    }

    fn of_file(what: String, source: io::Error) -> Self {
        Self { is_of_the_file: true, ..Self::new(what, source) }
    }

    /// Whether a configuration file is to blame, and no process was asked.
    #[must_use]
    pub fn is_of_the_file(&self) -> bool {
        self.is_of_the_file
    }

    /// What is wrong in the file, with places; empty when that is not it.
    #[must_use]
    pub fn problems(&self) -> &str {
        &self.problems
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::NotFound if self.is_of_the_file => {
                "name another file with `-c FILE`, or the socket with `--socket PATH`"
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "is evenkeel running? name its socket with `--socket PATH`, or its file with \
                 `-c FILE`"
            }
            io::ErrorKind::InvalidInput => {
                "mend the file, or name the socket with `--socket PATH`, which needs no file"
            }
            io::ErrorKind::PermissionDenied => "become the user evenkeel runs as, or root",
            _ => "`evenkeel status` tells whether the process answers at all",
        }
    }
}

/// The admin socket that a configuration file names, or the default one. A file that is broken
/// elsewhere still tells, if it names one.
///
/// # Errors
/// When the file cannot be read, or may mean a socket and does not tell which.
pub fn socket_of(file: &Path) -> Result<PathBuf, ClientError> {
    let text = read_file(file)?;
    let named = config::admin_socket(&text).map_err(|reason| {
        let what = format!("{} does not tell the admin socket", file.display());
        let source = io::Error::new(io::ErrorKind::InvalidInput, reason);
        let problems = config::parse(&text, file).problems;
        let problems = config::render(&problems, &text, false);
        ClientError { problems, ..ClientError::of_file(what, source) }
    })?;
    Ok(named.unwrap_or_else(default_socket))
}

/// The text of a configuration file.
///
/// # Errors
/// When it cannot be read.
pub fn read_file(file: &Path) -> Result<String, ClientError> {
    std::fs::read_to_string(file)
        .map_err(|source| ClientError::of_file(format!("cannot read {}", file.display()), source))
}

/// The admin socket when the operator names neither it nor a file: what `default_file` says, if
/// there is such a file.
///
/// # Errors
/// When there is one and it cannot be read.
pub fn socket_by_default(default_file: &Path) -> Result<PathBuf, ClientError> {
    match socket_of(default_file) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(default_socket()),
        outcome => outcome,
    }
}

/// Where the admin socket is unless a file says otherwise.
fn default_socket() -> PathBuf {
    Admin::default().socket
}

/// The path of a verb on one backend.
#[must_use]
pub fn backend_path(pool: &str, backend: &str, verb: &str) -> String {
    format!("/v1/backends/{}/{}/{verb}", encoded(pool), encoded(backend))
}

/// Whether a name stands for others than itself: it has `*` or `?`.
#[must_use]
pub fn is_pattern(name: &str) -> bool {
    glob::is_pattern(name)
}

/// Whether a pattern stands for a name.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    glob::matches(pattern, name)
}

/// The path of the ban of a network.
#[must_use]
pub fn ban_path(network: &str) -> String {
    format!("/v1/bans/{}", encoded(network))
}

/// The path that asks for sessions: `query` has names and values.
#[must_use]
pub fn sessions_path(query: &[(&str, &str)]) -> String {
    let query = query.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    format!("/v1/sessions?{}", query.collect::<Vec<_>>().join("&"))
}

/// The path that asks what a candidate would change.
#[must_use]
pub fn candidate_path(file: &Path) -> String {
    format!("/v1/reload/candidate?file={}", encoded(&file.to_string_lossy()))
}

/// The path that asks what would become of a client.
#[must_use]
pub fn explain_path(listener: &str, client: &str, sni: Option<&str>) -> String {
    let sni = sni.map(|name| format!("&sni={}", encoded(name))).unwrap_or_default();
    format!("/v1/explain?listener={}&client={}{sni}", encoded(listener), encoded(client))
}

fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Of HTTP.
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    /// JSON, or nothing.
    pub body: String,
}

/// Sends one request and waits for its answer, 30 s at most.
///
/// # Errors
/// As [`request_within`].
pub fn request(
    socket: &Path,
    method: &str,
    path: &str,
    body: String,
) -> Result<AdminReply, ClientError> {
    request_within(ANSWER_DEADLINE, socket, Request { method, path, body })
}

/// Sends one request and waits for its answer.
///
/// # Errors
/// When the process cannot be reached, or does not answer in time.
pub fn request_within(
    deadline: Duration,
    socket: &Path,
    request: Request<'_>,
) -> Result<AdminReply, ClientError> {
    let failed = |source: io::Error| {
        ClientError::new(format!("cannot talk to evenkeel at {}", socket.display()), source)
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        match tokio::time::timeout(deadline, exchange(socket, request)).await {
            Ok(outcome) => outcome.map_err(failed),
            Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))),
        }
    })
}

async fn exchange(socket: &Path, request: Request<'_>) -> io::Result<AdminReply> {
    let Request { method, path, body } = request;
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // The request fails as well when the connection does.
    tokio::spawn(async move { drop(connection.await) });
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "evenkeel")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(AdminReply { code, body: String::from_utf8_lossy(&bytes).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, `drain` cannot name a backend by an IPv6 address.
    #[test]
    fn any_name_fits_into_a_path() {
        assert_eq!(
            backend_path("p", "[::1]:80", "drain"),
            "/v1/backends/p/%5B%3A%3A1%5D%3A80/drain"
        );
    }

    // If this fails, verbs without arguments reach no process although the service's own file says
    // where it listens.
    #[test]
    fn the_default_file_tells_where_the_socket_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("evenkeel.toml");
        assert_eq!(socket_by_default(&file).unwrap(), default_socket());
        std::fs::write(&file, "[admin]\nsocket = \"/a.sock\"\n").unwrap();
        assert_eq!(socket_by_default(&file).unwrap(), Path::new("/a.sock"));
        std::fs::write(&file, "[listener.x]\n").unwrap();
        assert_eq!(socket_by_default(&file).unwrap(), default_socket());
        assert!(socket_by_default(directory.path()).is_err());
    }
}
