//! What TLS probes need beside their keys: a client, a name to check, roots to trust.
//!
//! Made before a configuration is put in force, so that a file that cannot be read is refused with
//! its place, and read again by every reload. Roots that have not changed keep what was made of
//! them: probes that go on need not begin anew.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{Config, KeyPath, PoolConfig, ProbeTls, Trust};

/// No file of certificates is that long: those of a whole system have a quarter of a megabyte.
const CA_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The TLS probes of all pools that have them, by the pool's name.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsProbes(HashMap<String, Arc<TlsProbe>>);

/// What the TLS probes of one pool need.
#[derive(Debug)]
pub(crate) struct TlsProbe {
    /// Makes the handshake; the same for all pools.
    pub(crate) client: Arc<ClientConfig>,
    /// What `host` says; `None` is the backend's address.
    pub(crate) name: Option<ServerName<'static>>,
    /// The authorities that may have signed the certificate; `None` accepts any.
    pub(crate) roots: Option<Arc<Roots>>,
}

/// Certificates that are trusted.
#[derive(Debug)]
pub(crate) struct Roots {
    /// Checks a chain against them.
    pub(crate) verifier: Arc<WebPkiServerVerifier>,
    /// Those that a file names: a server may have one of them itself.
    pub(crate) named: Vec<CertificateDer<'static>>,
    anchors: Arc<RootCertStore>,
}

/// Why probes cannot be made, with the place in the file that it is about.
#[derive(Debug)]
pub(crate) struct Untrusted {
    pub(crate) key: KeyPath,
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

impl TlsProbes {
    /// Makes those of a configuration; reads files. `previous` are those in force.
    ///
    /// # Errors
    /// With everything that cannot be read or trusted.
    pub(crate) fn new(config: &Config, previous: &Self) -> Result<Self, Vec<Untrusted>> {
        let mut makes = Maker { previous, client: None, system: None };
        let mut probes = HashMap::new();
        let mut failures = Vec::new();
        for pool in &config.pools {
            match makes.probe(pool) {
                Ok(Some(probe)) => {
                    probes.insert(pool.name.clone(), probe);
                }
                Ok(None) => {}
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() { Ok(Self(probes)) } else { Err(failures) }
    }

    /// What the probes of a pool need, if they are of this kind.
    pub(crate) fn of(&self, pool: &str) -> Option<&Arc<TlsProbe>> {
        self.0.get(pool)
    }

    /// Pools whose probes trusted others before, though the file said the same: one line each.
    pub(crate) fn changes(&self, previous: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, probe) in &self.0 {
            let before = previous.of(name).and_then(|before| before.roots.as_ref());
            if let (Some(before), Some(after)) = (before, &probe.roots)
                && !before.is_same(after)
            {
                lines.push(format!("pool {name} trusts other certificates in probes"));
            }
        }
        lines.sort();
        lines
    }
}

/// Makes what pools can share only once.
struct Maker<'a> {
    previous: &'a TlsProbes,
    client: Option<Arc<ClientConfig>>,
    system: Option<Arc<Roots>>,
}

impl Maker<'_> {
    fn probe(&mut self, pool: &PoolConfig) -> Result<Option<Arc<TlsProbe>>, Untrusted> {
        let wanted = pool.health.as_ref().and_then(|health| health.tls.as_ref());
        let Some(ProbeTls { host, trust }) = wanted else { return Ok(None) };
        let place = |key: &str| KeyPath::pool(&pool.name).key("health").key(key);
        let name = match host.clone().map(ServerName::try_from).transpose() {
            Ok(name) => name,
            Err(_) => {
                let message = "`host` is no name that a certificate can be for".to_owned();
                let hint = "write a name such as \"www.example.com\"";
                return Err(Untrusted { key: place("host"), message, hint });
            }
        };
        let roots = match trust {
            Trust::Unchecked => Ok(None),
            Trust::System => self.system().map(Some).map_err(|wrong| (place("verify"), wrong)),
            Trust::File(file) => {
                Roots::of_file(file).map(Some).map_err(|wrong| (place("ca"), wrong))
            }
        };
        let roots = roots
            .map_err(|(key, Wrong { message, hint })| Untrusted { key, message, hint })?
            .map(|roots| self.kept(pool, roots));
        let client = self.client().map_err(|error| Untrusted {
            key: place("probe"),
            message: format!("TLS cannot be used: {error}"),
            hint: "report it; `probe = \"tcp\"` needs no TLS",
        })?;
        let before = self.previous.of(&pool.name);
        let same = before.filter(|before| {
            before.name == name
                && before.roots.as_ref().map(Arc::as_ptr) == roots.as_ref().map(Arc::as_ptr)
        });
        let probe = same.cloned();
        Ok(Some(probe.unwrap_or_else(|| Arc::new(TlsProbe { client, name, roots }))))
    }

    /// The roots as they were, if they are the same.
    fn kept(&self, pool: &PoolConfig, roots: Arc<Roots>) -> Arc<Roots> {
        let before = self.previous.of(&pool.name).and_then(|before| before.roots.as_ref());
        before.filter(|before| before.is_same(&roots)).cloned().unwrap_or(roots)
    }

    fn client(&mut self) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(client) = &self.client {
            return Ok(Arc::clone(client));
        }
        let before = self.previous.0.values().next().map(|probe| Arc::clone(&probe.client));
        let client = before.map_or_else(|| client().map(Arc::new), Ok)?;
        Ok(Arc::clone(self.client.insert(client)))
    }

    fn system(&mut self) -> Result<Arc<Roots>, Wrong> {
        if let Some(roots) = &self.system {
            return Ok(Arc::clone(roots));
        }
        let roots = Roots::of_system()?;
        Ok(Arc::clone(self.system.insert(roots)))
    }
}

/// What is wrong with roots, and what to do.
struct Wrong {
    message: String,
    hint: &'static str,
}

impl Roots {
    fn of_system() -> Result<Arc<Self>, Wrong> {
        let found = rustls_native_certs::load_native_certs();
        let mut anchors = RootCertStore::empty();
        // There are always some that cannot be parsed any more.
        anchors.add_parsable_certificates(found.certs);
        let none = || {
            let cause = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            Wrong {
                message: format!(
                    "certificates are to be checked, but the system has no roots{cause}"
                ),
                hint: "install the package ca-certificates, or name a file with `ca`",
            }
        };
        if anchors.is_empty() {
            Err(none())
        } else {
            Self::new(anchors, Vec::new()).map_err(|_| none())
        }
    }

    fn of_file(file: &Path) -> Result<Arc<Self>, Wrong> {
        let name = file.display();
        let bytes = read(file).map_err(|error| Wrong {
            message: format!("cannot read {name}: {error}"),
            hint: match error.kind() {
                io::ErrorKind::NotFound => "put the file there, or name another one",
                io::ErrorKind::PermissionDenied => {
                    "let the user evenkeel runs as read it and pass its directories"
                }
                _ => "name a file of certificates in PEM",
            },
        })?;
        let no_pem = |what: String| Wrong {
            message: format!("{name} {what}"),
            hint: "it has to hold certificates in PEM, each from `-----BEGIN CERTIFICATE-----` to \
                   `-----END CERTIFICATE-----`",
        };
        let named: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(&bytes).collect();
        let named = named.map_err(|error| no_pem(format!("is no good PEM: {error}")))?;
        if named.is_empty() {
            return Err(no_pem("holds no certificate".to_owned()));
        }
        let mut anchors = RootCertStore::empty();
        for (position, certificate) in named.iter().enumerate() {
            anchors.add(certificate.clone()).map_err(|error| {
                no_pem(format!("holds what is no certificate, number {}: {error}", position + 1))
            })?;
        }
        Self::new(anchors, named).map_err(|error| no_pem(format!("cannot be used: {error}")))
    }

    fn new(
        anchors: RootCertStore,
        named: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<Self>, rustls::client::VerifierBuilderError> {
        let anchors = Arc::new(anchors);
        let provider = Arc::new(ring::default_provider());
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(&anchors), provider);
        Ok(Arc::new(Self { verifier: builder.build()?, named, anchors }))
    }

    fn is_same(&self, other: &Self) -> bool {
        self.named == other.named && self.anchors.roots == other.anchors.roots
    }
}

/// Reads a file that is one; a pipe would keep us waiting.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(CA_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CA_BYTES_MAX {
        return Err(io::Error::other("it is too long"));
    }
    Ok(bytes)
}

/// The client of all probes. It remembers nothing: a session that is resumed shows no certificate.
fn client() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate { provider: Arc::clone(&provider) });
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    Ok(client)
}

/// Takes every certificate, as long as the server has the key to it.
///
/// What a certificate is worth is judged after the handshake, where there is one: so its expiry is
/// known in any case, and no server finds an alert in its log because we do not trust it.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if is_unreadable(cert) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if is_unreadable(cert) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// One of the first version, say, as small authorities still make: its key cannot be had, and a
/// signature by a certificate that is not checked proves nothing. Checked, it does not pass.
fn is_unreadable(certificate: &CertificateDer<'_>) -> bool {
    ParsedCertificate::try_from(certificate).is_err()
}
