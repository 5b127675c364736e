//! TLS probes as operators meet them: the real binary in front of servers with certificates of
//! every kind, and their traces in the log, the status, the metrics and `check`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, Stream};
use support::verbs::{code, command, text};
use support::{Backend, PATIENCE, Proxy, Setup, eventually};
use tempfile::TempDir;

const EXPIRY: &str = "evenkeel_backend_certificate_expiry_timestamp_seconds";
const DAY: Duration = Duration::from_secs(86_400);

const HEALTH: &str = "[pool.back.health]\nprobe = \"tls\"\ninterval = \"50ms\"\n\
                      fast_interval = \"50ms\"\ntimeout = \"500ms\"\nfall = 1\nrise = 1\n\
                      down_backoff = \"50ms\"";

/// 2090-01-01T00:00:00Z.
const FAR: u64 = 3_786_912_000;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    // Without a name of its own, all would be one issuer with different keys.
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}

/// In whole seconds, as certificates have it.
fn expires(mut params: CertificateParams, at: SystemTime) -> (CertificateParams, u64) {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap().as_secs();
    params.not_after = (UNIX_EPOCH + Duration::from_secs(seconds)).into();
    (params, seconds)
}

fn server(chain: Vec<rustls::pki_types::CertificateDer<'static>>, key: &KeyPair) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

fn self_signed(params: &CertificateParams) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    server(vec![params.self_signed(&key).unwrap().der().clone()], &key)
}

impl Authority {
    fn new() -> Self {
        let mut params = params("authority.test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, directory: tempfile::tempdir().unwrap() };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    fn file(&self) -> String {
        self.directory.path().join("ca.pem").display().to_string()
    }

    fn signed(&self, params: &CertificateParams) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        server(vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()], &key)
    }

    /// The keys that have this authority's certificates checked for `a.test`.
    fn verified(&self) -> String {
        format!("{HEALTH}\nhost = \"a.test\"\nverify = true\nca = \"{}\"", self.file())
    }
}

type Changeable = Arc<Mutex<Arc<ServerConfig>>>;

/// A TLS echo server, with the certificate of the moment.
fn serving(config: &Changeable) -> Backend {
    let config = Arc::clone(config);
    Backend::serving(move |mut stream, _| {
        let config = Arc::clone(&config.lock());
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut tls = Stream::new(&mut connection, &mut stream);
        let mut bytes = [0; 1024];
        loop {
            match tls.read(&mut bytes)? {
                0 => return Ok(()),
                length => tls.write_all(&bytes[..length])?,
            }
        }
    })
}

fn changeable(config: ServerConfig) -> Changeable {
    Arc::new(Mutex::new(Arc::new(config)))
}

fn tls_backend(config: ServerConfig) -> Backend {
    serving(&changeable(config))
}

/// Answers the first bytes of any client like a web server that expects no TLS.
fn plain() -> Backend {
    Backend::serving(|mut stream, _| {
        let _hello = stream.read(&mut [0; 4096])?;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    })
}

fn state(proxy: &Proxy, backend: &str) -> (String, String) {
    let status = proxy.backend("back", backend);
    (status.state, status.reason)
}

/// Waits until the probes have spoken for this state, with these words.
#[track_caller]
fn wait_for(proxy: &Proxy, backend: &str, wanted: &str, words: &str) {
    let mut last = (String::new(), String::new());
    let found = support::within(PATIENCE, || {
        last = state(proxy, backend);
        (last.0 == wanted && last.1.contains(words)).then_some(())
    });
    assert!(found.is_some(), "{backend}: {last:?} instead of {wanted}: {words}");
}

fn expiry(proxy: &Proxy, backend: &str) -> Option<f64> {
    let (metrics, labels) = (proxy.metrics(), [("pool", "back"), ("backend", backend)]);
    (metrics.count(EXPIRY, &labels) == 1).then(|| metrics.sum(EXPIRY, &labels))
}

#[allow(clippy::cast_precision_loss, reason = "seconds fit")]
fn float(seconds: u64) -> f64 {
    seconds as f64
}

/// Good, of the wrong name, expired, by an unknown authority, no TLS, silent; with the end of the
/// third.
fn all_servers(authority: &Authority) -> (Vec<Backend>, u64) {
    let (old, end) = expires(params("a.test"), SystemTime::now() - 3 * DAY - DAY / 2);
    let backends = vec![
        tls_backend(authority.signed(&params("a.test"))),
        tls_backend(authority.signed(&params("b.test"))),
        tls_backend(authority.signed(&old)),
        tls_backend(self_signed(&params("a.test"))),
        plain(),
        Backend::silent(),
    ];
    (backends, end)
}

/// If it fails, servers keep clients that cannot trust them, or no operator is told why they do
/// not.
#[test]
fn certificates_are_checked_where_that_is_wanted() {
    let authority = Authority::new();
    let (backends, end) = all_servers(&authority);
    let backends: Vec<&Backend> = backends.iter().collect();
    let proxy = Setup::of(&backends).also(&authority.verified()).start();
    wait_for(&proxy, "b1", "up", "probe");
    wait_for(&proxy, "b2", "down", "certificate not valid for a.test, only for b.test (1 of 1");
    wait_for(&proxy, "b3", "down", "certificate expired 3 days ago (1 of 1 probes failed)");
    wait_for(&proxy, "b4", "down", "certificate not trusted: unknown issuer");
    wait_for(&proxy, "b5", "down", "not TLS: the answer began with 'HTTP/1.1 400'");
    wait_for(&proxy, "b6", "down", "no TLS answer within 500ms");
    assert!(!state(&proxy, "b1").1.contains("certificate"), "{:?}", state(&proxy, "b1"));
    proxy.wait_for_line("backend back/b3 down: certificate expired 3 days ago");
    // Known although the probe has failed, and only of servers that have shown one.
    for (backend, wanted) in [("b1", FAR), ("b2", FAR), ("b3", end), ("b4", FAR)] {
        proxy.wait_for_metric(EXPIRY, &[("pool", "back"), ("backend", backend)], float(wanted));
    }
    assert_eq!((expiry(&proxy, "b5"), expiry(&proxy, "b6")), (None, None));
}

/// If it fails, a server is taken out for a certificate that is not to be checked, or its end is
/// hidden.
#[test]
fn without_verify_any_certificate_passes_and_is_reported() {
    let authority = Authority::new();
    let (backends, end) = all_servers(&authority);
    let backends: Vec<&Backend> = backends.iter().collect();
    let proxy = Setup::of(&backends).also(HEALTH).start();
    wait_for(&proxy, "b5", "down", "not TLS");
    wait_for(&proxy, "b6", "down", "no TLS answer");
    for backend in ["b1", "b2", "b4"] {
        wait_for(&proxy, backend, "up", "probe");
    }
    wait_for(&proxy, "b3", "up", "certificate expired 3 days ago; probe passed");
    assert_eq!(expiry(&proxy, "b3"), Some(float(end)));
    let shown = |backend: &str| proxy.backend("back", backend).certificate_expires;
    assert_eq!(shown("b1").as_deref(), Some("2090-01-01T00:00:00Z"));
    let end = jiff::Timestamp::from_second(i64::try_from(end).unwrap()).unwrap();
    assert_eq!(shown("b3"), Some(end.to_string()));
    assert_eq!((shown("b5"), shown("b6")), (None, None));
}

/// If it fails, no warning precedes the end of a certificate, or the log is full of it.
#[test]
fn a_near_end_is_said_once() {
    let (soon, _) = expires(params("a.test"), SystemTime::now() + 5 * DAY + DAY / 2);
    let (sooner, _) = expires(params("a.test"), SystemTime::now() + 2 * DAY + DAY / 2);
    let config = changeable(self_signed(&soon));
    let backend = serving(&config);
    let proxy = Setup::of(&[&backend]).also(HEALTH).start();
    let warnings =
        || proxy.said().lines().filter(|line| line.contains("certificate of backend")).count();
    let probes = || proxy.metric("evenkeel_backend_probes_total", &[("result", "pass")]);
    proxy.wait_for_line("certificate of backend back/b1 expires in 5 days (20");
    let line = proxy.wait_for_line("certificate of backend");
    assert!(line.contains("\"level\":\"warn\""), "{line}");
    wait_for(&proxy, "b1", "up", "certificate expires in 5 days; ");
    // Nothing tells of a line that is not written: further probes would have written it.
    let start = probes();
    eventually("further probes", PATIENCE, || (probes() >= start + 5.0).then_some(()));
    assert_eq!(warnings(), 1, "{}", proxy.said());
    *config.lock() = Arc::new(self_signed(&sooner));
    proxy.wait_for_line("certificate of backend back/b1 expires in 2 days (20");
    *config.lock() = Arc::new(self_signed(&params("a.test")));
    wait_for(&proxy, "b1", "up", "probe");
    eventually("it is renewed", PATIENCE, || {
        (expiry(&proxy, "b1") == Some(float(FAR))).then_some(())
    });
    assert_eq!(warnings(), 2, "{}", proxy.said());
    assert!(!state(&proxy, "b1").1.contains("certificate"));
}

/// If it fails, a new authority needs a restart, or a file that is gone takes every backend out.
#[test]
fn a_reload_reads_the_authorities_again() {
    let (authority, other) = (Authority::new(), Authority::new());
    let backend = tls_backend(authority.signed(&params("a.test")));
    let setup = Setup::of(&[&backend]).also(&authority.verified());
    let proxy = setup.start();
    wait_for(&proxy, "b1", "up", "probe");
    assert_eq!(text(&proxy.reload().stdout).matches("trusts").count(), 0);
    std::fs::copy(other.file(), authority.file()).unwrap();
    let said = text(&proxy.reload().stdout);
    assert!(said.contains("pool back trusts other certificates in probes"), "{said}");
    wait_for(&proxy, "b1", "down", "certificate not trusted");
    std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
    proxy.reload();
    wait_for(&proxy, "b1", "up", "probe");
    std::fs::remove_file(authority.file()).unwrap();
    let refused = proxy.reload();
    assert_eq!(code(&refused), 78, "{}", text(&refused.stderr));
    let said = text(&refused.stderr) + &text(&refused.stdout);
    assert!(said.contains(&format!("cannot read {}: No such file", authority.file())), "{said}");
    assert!(said.contains("\nca = ") || said.contains("| ca = "), "without its place: {said}");
    assert_eq!(state(&proxy, "b1").0, "up");
    // Other probes have no certificate to speak of.
    proxy.reload_with(&Setup::of(&[&backend]).also(&HEALTH.replace("\"tls\"", "\"tcp\"")).text());
    eventually("the expiry is forgotten", PATIENCE, || {
        expiry(&proxy, "b1").is_none().then_some(())
    });
    assert_eq!(proxy.backend("back", "b1").certificate_expires, None);
}

/// What `check` says of a file that trusts this, and its exit code.
fn checked(trust: &str, roots: Option<&str>) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.toml");
    let backend = "backends = [\"127.0.0.1:1\"]";
    let health = format!("health = {{ probe = \"tls\", host = \"a.test\", {trust} }}");
    let listener = "[listener.l]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"";
    std::fs::write(&file, format!("{listener}\n[pool.p]\n{backend}\n{health}\n")).unwrap();
    let mut check = command(&["check", "-c"]);
    check.arg(&file).env("NO_COLOR", "1").env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    if let Some(roots) = roots {
        check.env("SSL_CERT_FILE", roots).env("SSL_CERT_DIR", directory.path());
    }
    let output = check.output().unwrap();
    (code(&output), text(&output.stderr))
}

/// If it fails, an operator learns only in production that certificates cannot be checked.
#[test]
fn check_reads_the_authorities() {
    let authority = Authority::new();
    let file = authority.file();
    let trust = format!("verify = true, ca = \"{file}\"");
    assert_eq!(checked(&trust, None).0, 0);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let unended = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let key = KeyPair::generate().unwrap().serialize_pem();
    let cases = [
        ("", "holds no certificate"),
        (key.as_str(), "holds no certificate"),
        (unended, "is no good PEM"),
        (broken, "holds what is no certificate, number 1"),
    ];
    for (content, words) in cases {
        std::fs::write(&file, content).unwrap();
        let (code, said) = checked(&trust, None);
        assert!(code == 78 && said.contains(&format!("{file} {words}")), "{code}: {said}");
        assert!(said.contains("BEGIN CERTIFICATE") && said.contains(":6:"), "{said}");
    }
    let directory = authority.directory.path().display();
    let (code, said) = checked(&format!("verify = true, ca = \"{directory}\""), None);
    assert!(
        code == 78 && said.contains(&format!("cannot read {directory}: it is no file")),
        "{said}"
    );
    // No authority is to be trusted, so there is nothing to read.
    assert_eq!(checked("verify = false", Some("/dev/null")).0, 0);
    let (code, said) = checked("verify = true", Some("/dev/null"));
    assert!(code == 78 && said.contains("the system has no roots"), "{code}: {said}");
    assert!(said.contains("install the package ca-certificates") && said.contains(":6:"), "{said}");
}

/// If it fails, evenkeel serves with probes that can only fail, for want of a file of its own.
#[test]
fn a_start_without_the_authorities_is_refused() {
    let authority = Authority::new();
    let backend = plain();
    let setup = Setup::of(&[&backend]).also(&authority.verified());
    std::fs::remove_file(authority.file()).unwrap();
    let (status, said) = Proxy::refused(&setup.text());
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains(&format!("cannot read {}: No such file", authority.file())), "{said}");
    assert!(said.contains("put the file there, or name another one"), "{said}");
}
