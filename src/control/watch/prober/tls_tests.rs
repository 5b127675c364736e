//! TLS probes against servers of this process, with certificates made for each test.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{self, Health};
use crate::control::host::trust::TlsProbes;
use crate::control::watch::prober::probe::{ProbeQuestion, ProbeResult, probe};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority, its file, and servers with certificates by it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate with its key.
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pem: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    // Without a name of its own, all would be one issuer with different keys.
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}

/// 2090-01-01.
const NOT_AFTER: u64 = 3_786_912_000;

fn self_signed(params: CertificateParams) -> Own {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Own {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        pem: certificate.pem(),
    }
}

impl Authority {
    fn new() -> Self {
        let mut params = params("authority.test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    fn sign(&self, params: CertificateParams) -> Own {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Own {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            pem: certificate.pem(),
        }
    }

    /// Keys that have certificates checked by this authority.
    fn verified(&self, more: &str) -> String {
        format!("verify = true\nca = \"{}/ca.pem\"\n{more}", self.directory.path().display())
    }
}

/// The health table and what it needs, of a pool with a probe like this.
fn prepared(keys: &str) -> (Health, TlsProbes) {
    let probe = if keys.contains("probe = ") { "" } else { "probe = \"tls\"\n" };
    let text = format!(
        "[listener.l]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n[pool.p]\n\
         backends = [\"127.0.0.1:1\"]\n[pool.p.health]\n{probe}timeout = \"2s\"\n{keys}"
    );
    let parsed = config::parse(&text, std::path::Path::new("a.toml"));
    let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.problems));
    let tls = TlsProbes::new(&config, &TlsProbes::default()).unwrap();
    (config.pools[0].health.clone().unwrap(), tls)
}

async fn probe_with(keys: &str, address: SocketAddr) -> ProbeResult {
    let (health, tls) = prepared(keys);
    let tls = tls.of("p").unwrap();
    let address = Address::Ip(address);
    probe(ProbeQuestion { address, health: &health, tls: Some(tls) }).await
}

fn server(own: &Own, versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(own.chain.clone(), own.key.clone_key())
        .unwrap()
}

/// Probes a server with this certificate; what it found, and how the connection ended there.
async fn probed(keys: &str, own: &Own) -> (ProbeResult, io::Result<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server(own, &[&TLS13, &TLS12])));
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await?;
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await?;
        stream.shutdown().await?;
        Ok(read)
    };
    tokio::join!(probe_with(keys, address), serving)
}

async fn verdict(keys: &str, own: &Own) -> Result<(), ProbeFailure> {
    probed(keys, own).await.0.verdict
}

fn failed(words: &str) -> Result<(), ProbeFailure> {
    Err(ProbeFailure::Backend(words.into()))
}

// If this fails, a good certificate takes its server out, or every probe is an error in its log.
#[tokio::test]
async fn a_good_certificate_passes_and_the_end_is_orderly() {
    let authority = Authority::new();
    let own = authority.sign(params("a.test"));
    for keys in [authority.verified("host = \"a.test\"\n"), String::new()] {
        let (found, end) = probed(&keys, &own).await;
        assert_eq!(found, ProbeResult { verdict: Ok(()), not_after: Some(NOT_AFTER) }, "{keys}");
        // Without close_notify this would be an error.
        assert_eq!(end.unwrap(), b"", "{keys}");
    }
}

// If this fails, servers of one of the two versions are taken out.
#[tokio::test]
async fn both_versions_pass() {
    let own = self_signed(params("a.test"));
    for version in [&TLS12, &TLS13] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server(&own, &[version])));
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            assert_eq!(stream.get_ref().1.server_name(), None, "no name was given");
            stream.read_to_end(&mut Vec::new()).await.unwrap()
        };
        let (found, _) = tokio::join!(probe_with("", address), serving);
        assert_eq!(found.verdict, Ok(()), "{version:?}");
    }
}

// If this fails, a server that clients cannot trust keeps its clients, or the log does not say why.
#[tokio::test]
async fn every_fault_of_a_certificate_has_its_words() {
    let authority = Authority::new();
    let keys = authority.verified("host = \"a.test\"\n");
    let stranger = self_signed(params("a.test"));
    let unknown = failed("certificate not trusted: unknown issuer");
    assert_eq!(verdict(&keys, &stranger).await, unknown);
    assert_eq!(verdict("", &stranger).await, Ok(()));
    let other = authority.sign(params("b.test"));
    let words = "certificate not valid for a.test, only for b.test";
    assert_eq!(verdict(&keys, &other).await, failed(words));
    let mut many = params("b.test");
    for name in ["c.test", "d.test", "*.e.test"] {
        many.subject_alt_names.push(rcgen::SanType::DnsName(name.try_into().unwrap()));
    }
    let words = "certificate not valid for a.test, only for b.test, c.test, d.test and 1 more";
    assert_eq!(verdict(&keys, &authority.sign(many)).await, failed(words));
    let mut nameless = params("a.test");
    nameless.subject_alt_names.clear();
    let words = "certificate not valid for a.test, nor for any other name";
    assert_eq!(verdict(&keys, &authority.sign(nameless)).await, failed(words));
    let mut ca = params("a.test");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let words = "certificate not trusted: it is that of an authority";
    assert_eq!(verdict(&keys, &self_signed(ca)).await, failed(words));
}

// If this fails, expiry is reported wrong, or a certificate takes a server out without `verify`.
#[tokio::test]
async fn expiry_counts_where_certificates_are_checked() {
    let authority = Authority::new();
    let keys = authority.verified("host = \"a.test\"\n");
    let mut old = params("a.test");
    old.not_after = (SystemTime::now() - 3 * DAY - DAY / 2).into();
    let old = authority.sign(old);
    let (found, end) = probed(&keys, &old).await;
    assert_eq!(found.verdict, failed("certificate expired 3 days ago"));
    assert!(found.not_after.is_some(), "known although it failed");
    assert_eq!(end.unwrap(), b"", "the server has nothing to complain of");
    assert_eq!(verdict("", &old).await, Ok(()));
    let mut early = params("a.test");
    early.not_before = (SystemTime::now() + 2 * DAY + DAY / 2).into();
    let words = "certificate valid only in 2 days";
    assert_eq!(verdict(&keys, &authority.sign(early)).await, failed(words));
}

// If this fails, a server that is trusted by its own certificate, as small ones are, is taken out.
#[tokio::test]
async fn a_certificate_that_the_file_names_is_trusted_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("own.pem");
    let keys =
        |name: &str| format!("verify = true\nca = \"{}\"\nhost = \"{name}\"\n", file.display());
    let mut ca = params("a.test");
    // As `openssl req -x509` makes them.
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for params in [ca, params("a.test")] {
        let own = self_signed(params);
        std::fs::write(&file, &own.pem).unwrap();
        assert_eq!(verdict(&keys("a.test"), &own).await, Ok(()));
        let words = "certificate not valid for b.test, only for a.test";
        assert_eq!(verdict(&keys("b.test"), &own).await, failed(words));
    }
}

// If this fails, a backend without a name cannot be checked, or is checked for another name.
#[tokio::test]
async fn without_a_host_the_certificate_is_for_the_address() {
    let authority = Authority::new();
    let keys = authority.verified("");
    assert_eq!(verdict(&keys, &authority.sign(params("127.0.0.1"))).await, Ok(()));
    let words = "certificate not valid for 127.0.0.1, only for 127.0.0.2";
    assert_eq!(verdict(&keys, &authority.sign(params("127.0.0.2"))).await, failed(words));
}

// If this fails, servers that choose a certificate by the name show another one than clients see.
#[tokio::test]
async fn the_host_is_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = self_signed(params("a.test"));
    let acceptor = TlsAcceptor::from(Arc::new(server(&own, &[&TLS13])));
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        stream.get_ref().1.server_name().map(str::to_owned)
    };
    let (_, asked) = tokio::join!(probe_with("host = \"www.a.test\"\n", address), serving);
    assert_eq!(asked.as_deref(), Some("www.a.test"));
}

// If this fails, backends on Unix sockets cannot be probed.
#[tokio::test]
async fn a_unix_socket_is_asked_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let own = self_signed(params("a.test"));
    let acceptor = TlsAcceptor::from(Arc::new(server(&own, &[&TLS13])));
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.unwrap().read_to_end(&mut Vec::new()).await.unwrap()
    };
    let (health, tls) = prepared("");
    let address = Address::Unix(path.as_path().into());
    let question = ProbeQuestion { address, health: &health, tls: tls.of("p").map(|tls| &**tls) };
    let (found, read) = tokio::join!(probe(question), serving);
    assert_eq!((found.verdict, read), (Ok(()), 0));
}

// If this fails, servers that expect a PROXY header or another port are taken out.
#[tokio::test]
async fn a_header_goes_first_and_the_port_is_the_one_that_is_given() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = self_signed(params("a.test"));
    let acceptor = TlsAcceptor::from(Arc::new(server(&own, &[&TLS13])));
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let own = stream.peer_addr().unwrap().port();
        let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {}\r\n", address.port());
        let mut received = vec![0; header.len()];
        stream.read_exact(&mut received).await.unwrap();
        acceptor.accept(stream).await.unwrap().read_to_end(&mut Vec::new()).await.unwrap();
        (header, String::from_utf8(received).unwrap())
    };
    let (mut health, tls) = prepared(&format!("port = {}\n", address.port()));
    health.send_proxy = Some(config::ProxyVersion::V1);
    let address = Address::Ip(SocketAddr::new(address.ip(), 9));
    let question = ProbeQuestion { address, health: &health, tls: tls.of("p").map(|tls| &**tls) };
    let (found, (header, received)) = tokio::join!(probe(question), serving);
    assert_eq!((found.verdict, received), (Ok(()), header));
}

/// What a probe makes of a server that reads the hello and does this.
async fn answered<F>(timeout: &str, answer: impl FnOnce(TcpStream) -> F) -> Result<(), ProbeFailure>
where
    F: Future<Output = ()>,
{
    answered_with("", timeout, answer).await
}

/// The verdict of a probe with these keys.
async fn answered_with<F>(
    keys: &str,
    timeout: &str,
    answer: impl FnOnce(TcpStream) -> F,
) -> Result<(), ProbeFailure>
where
    F: Future<Output = ()>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 4096];
        assert!(stream.read(&mut hello).await.unwrap() > 0);
        answer(stream).await;
        std::future::pending::<()>().await;
    };
    let (mut health, tls) = prepared(keys);
    health.timeout = config::units::duration(timeout).unwrap();
    let tls = tls.of("p").map(|tls| &**tls);
    let question = ProbeQuestion { address: Address::Ip(address), health: &health, tls };
    tokio::select! {
        found = probe(question) => {
            assert_eq!(found.not_after, None);
            found.verdict
        }
        () = serving => unreachable!("serving never ends"),
    }
}

async fn kept(stream: TcpStream) {
    let _kept = stream;
    std::future::pending::<()>().await;
}

// If this fails, a server that is not TLS, hung or gone passes, or the log does not say which.
#[tokio::test]
async fn every_failed_handshake_has_its_words() {
    let plain = answered("2s", |mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert_eq!(plain.await, failed("not TLS: the answer began with 'HTTP/1.1 400'"));
    let slow = answered("200ms", |mut stream| async move {
        stream.write_all(b"220 ").await.unwrap();
        kept(stream).await;
    });
    assert_eq!(slow.await, failed("not TLS: the answer began with '220 '"));
    let closed = answered("2s", |stream| async move { drop(stream) });
    assert_eq!(closed.await, failed("closed without a TLS answer"));
    let silent = answered("200ms", kept);
    assert_eq!(silent.await, failed("no TLS answer within 200ms"));
    let stuck = answered("200ms", |mut stream| async move {
        stream.write_all(&[22, 3, 3, 0, 80, 2]).await.unwrap();
        kept(stream).await;
    });
    assert_eq!(stuck.await, failed("the TLS handshake was not done within 200ms"));
    let halfway = answered("2s", |mut stream| async move {
        stream.write_all(&[22, 3, 3, 0, 80, 2]).await.unwrap();
    });
    assert_eq!(halfway.await, failed("closed during the TLS handshake"));
}

// If this fails, servers that ask for a client certificate, or speak only what rustls does not, are
// down; or they pass where their certificate had to be checked.
#[tokio::test]
async fn an_alert_is_an_answer_unless_the_certificate_counts() {
    let authority = Authority::new();
    let verified = authority.verified("host = \"a.test\"\n");
    for alert in [70, 116] {
        let refuses = |mut stream: TcpStream| async move {
            stream.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.unwrap();
            kept(stream).await;
        };
        assert_eq!(answered("2s", refuses).await, Ok(()));
        let words = ["protocol version", "certificate required"][usize::from(alert == 116)];
        let words = format!("TLS handshake refused: {words}");
        assert_eq!(answered_with(&verified, "2s", refuses).await, failed(&words));
    }
    // A ServerHello that chooses TLS 1.0.
    let old = answered("2s", |mut stream| async move {
        let mut hello = vec![22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
        hello.extend([7; 32]);
        hello.extend([0, 0, 47, 0]);
        stream.write_all(&hello).await.unwrap();
        kept(stream).await;
    });
    assert_eq!(old.await, Ok(()));
}

// If this fails, HTTPS and other servers inside TLS cannot be asked, or are asked before their
// certificate is known to be good.
#[tokio::test]
async fn probes_speak_inside_tls_once_the_certificate_is_good() {
    let authority = Authority::new();
    let own = authority.sign(params("a.test"));
    let inside = |kind: &str, name: &str| {
        authority.verified(&format!("host = \"{name}\"\nprobe = \"{kind}\"\ntls = true\n"))
    };
    let steps = "steps = [{ expect = \"HTTP/1.0 2\" }, { send = \"bye\" }]\n";
    for (keys, wanted) in [
        (inside("http", "a.test"), Ok("GET /health HTTP/1.1\r\nhost: a.test\r\n")),
        (inside("send-expect", "a.test") + steps, Ok("bye")),
        (inside("http", "b.test"), Err("certificate not valid for b.test, only for a.test")),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server(&own, &[&TLS13])));
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap();
            String::from_utf8(said).unwrap()
        };
        let (found, said) = tokio::join!(probe_with(&keys, address), serving);
        assert_eq!(found.not_after, Some(NOT_AFTER));
        match wanted {
            Ok(beginning) => {
                assert_eq!(found.verdict, Ok(()));
                assert!(said.starts_with(beginning), "{said}");
            }
            Err(words) => assert_eq!((found.verdict, said.as_str()), (failed(words), "")),
        }
    }
}

// If this fails, a name in a stranger's certificate can write into our log.
#[test]
fn names_of_others_are_short_and_plain() {
    let names = ["DnsName(\"a\n.test\")".to_owned(), "IpAddress(10.0.0.1)".to_owned()];
    assert_eq!(only_for(&names), "only for a\\n.test, 10.0.0.1");
    let long = [format!("DnsName(\"{}\")", "x".repeat(300))];
    assert_eq!(only_for(&long), format!("only for {}", "x".repeat(64)));
}
