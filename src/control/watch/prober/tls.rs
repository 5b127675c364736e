//! The TLS part of a probe: a handshake, and a judgement of the certificate.
//!
//! The certificate is judged after the handshake, by its issuer, its names and its dates;
//! [`crate::control::host::trust`] has the reason. The caller bounds the time.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::escaped;
use crate::control::host::trust::{Roots, TlsProbe};
use crate::control::watch::certificate::{Validity, expiry, span};
use crate::control::watch::prober::failure::ProbeFailure;
use crate::shared::Address;

/// The part of an answer other than TLS that the words of a failure show.
const BEGINNING_BYTES: usize = 12;
/// The number of names of a certificate for other hosts that are shown, and the bytes of each.
const NAMES_SHOWN: usize = 3;
const NAME_SHOWN_BYTES: usize = 64;

/// The types of TLS records (RFC 8446, section 5.1), and the first byte of their version.
const RECORDS: std::ops::RangeInclusive<u8> = 20..=23;
const MAJOR_VERSION: u8 = 3;

/// A handshake that was not completed.
#[derive(Debug)]
pub(super) struct Unshaken {
    /// Why, in words.
    pub(super) failure: ProbeFailure,
    /// The server has spoken TLS: it wants what a probe does not have (a certificate of ours, an
    /// old version), so it serves clients that do.
    pub(super) is_answer: bool,
}

/// A stream that remembers the beginning of the answer.
pub(super) struct Heard<S> {
    stream: S,
    beginning: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Heard<S> {
    /// Nothing has been read yet.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, beginning: Vec::new() }
    }

    /// Makes the handshake.
    ///
    /// # Errors
    /// When it fails; in words.
    pub(super) async fn shake_hands(
        &mut self,
        tls: &TlsProbe,
        name: ServerName<'static>,
    ) -> Result<TlsStream<&mut Self>, Unshaken> {
        let connector = TlsConnector::from(Arc::clone(&tls.client));
        let shaken = connector.connect(name, &mut *self).into_fallible().await;
        shaken.map_err(|(error, heard)| Unshaken {
            failure: failure(&error, &heard.beginning),
            is_answer: is_answer(&error),
        })
    }

    /// Why the time was not enough, in words.
    pub(super) fn late(&self, timeout: &str) -> ProbeFailure {
        let words = if self.beginning.is_empty() {
            format!("no TLS answer within {timeout}")
        } else if is_tls(&self.beginning) {
            format!("the TLS handshake was not done within {timeout}")
        } else {
            no_tls(&self.beginning)
        };
        ProbeFailure::Backend(words)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let room = BEGINNING_BYTES.saturating_sub(self.beginning.len());
        let news = buffer.filled().get(before..).unwrap_or_default();
        self.beginning.extend(news.iter().take(room));
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The name that a certificate has to be for: `host`, or else the address, which is checked but not
/// sent as SNI.
pub(super) fn name(tls: &TlsProbe, address: &Address) -> ServerName<'static> {
    // A path is no name; `check` refuses `verify` without `host` there.
    let own = address.host_ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    tls.name.clone().unwrap_or_else(|| own.into())
}

/// The certificates that a server has shown.
pub(super) struct Shown<'a> {
    /// Its own certificate first.
    chain: &'a [CertificateDer<'static>],
    validity: Option<Validity>,
}

impl<'a> Shown<'a> {
    /// The certificates of a completed handshake.
    pub(super) fn by<S>(stream: &'a TlsStream<S>) -> Self {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let validity = chain.first().and_then(|own| Validity::of(own));
        Self { chain, validity }
    }

    /// The end of the server's certificate; `None` when it cannot be read.
    pub(super) fn not_after(&self) -> Option<u64> {
        self.validity.map(|validity| validity.not_after)
    }

    /// Checks the certificate: its dates, its name, its issuer.
    ///
    /// # Errors
    /// When a check fails; in words.
    pub(super) fn judge(
        &self,
        name: &ServerName<'_>,
        roots: &Roots,
        now: UnixTime,
    ) -> Result<(), ProbeFailure> {
        let Some((own, others)) = self.chain.split_first() else {
            return Err(ProbeFailure::Backend("no certificate was shown".to_owned()));
        };
        self.compare_dates(now.as_secs())?;
        // A certificate that the file names is trusted itself: its issuer and uses do not count.
        let judged = if self.validity.is_some() && roots.named.contains(own) {
            ParsedCertificate::try_from(own).and_then(|own| verify_server_name(&own, name))
        } else {
            roots.verifier.verify_server_cert(own, others, name, &[], now).map(drop)
        };
        judged.map_err(|error| match error {
            Error::InvalidCertificate(error) => ProbeFailure::Backend(refused(&error)),
            error => ProbeFailure::Backend(format!("certificate refused: {error}")),
        })
    }

    /// The dates come first, so that the most frequent failure has exact words.
    fn compare_dates(&self, now: u64) -> Result<(), ProbeFailure> {
        let Some(Validity { not_before, not_after }) = self.validity else { return Ok(()) };
        if now > not_after {
            return Err(ProbeFailure::Backend(format!("certificate {}", expiry(not_after, now))));
        }
        if now < not_before {
            let wait = span(not_before - now);
            return Err(ProbeFailure::Backend(format!("certificate valid only in {wait}")));
        }
        Ok(())
    }
}

/// The words for a certificate that was refused.
fn refused(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => "certificate not trusted: unknown issuer".to_owned(),
        E::Expired | E::ExpiredContext { .. } => {
            "certificate not trusted: that of its issuer has expired".to_owned()
        }
        E::NotValidForNameContext { expected, presented } => {
            format!("certificate not valid for {}, {}", expected.to_str(), only_for(presented))
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "certificate not trusted: it is not for servers".to_owned()
        }
        E::BadSignature => "certificate not trusted: wrong signature".to_owned(),
        E::BadEncoding => "certificate cannot be read".to_owned(),
        E::Other(other) => match other.0.to_string().as_str() {
            "CaUsedAsEndEntity" => "certificate not trusted: it is that of an authority".to_owned(),
            other => format!("certificate refused: {other}"),
        },
        other => format!("certificate refused: {other}"),
    }
}

/// The names of a certificate, which rustls gives as `DnsName("a.test")`; from the network.
fn only_for(presented: &[String]) -> String {
    let names: Vec<String> = presented
        .iter()
        .take(NAMES_SHOWN)
        .map(|name| {
            let name = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
            let name = name.trim_end_matches(')').trim_matches('"').as_bytes();
            escaped(name.get(..NAME_SHOWN_BYTES).unwrap_or(name))
        })
        .collect();
    match presented.len().saturating_sub(names.len()) {
        0 if names.is_empty() => "nor for any other name".to_owned(),
        0 => format!("only for {}", names.join(", ")),
        more => format!("only for {} and {more} more", names.join(", ")),
    }
}

/// The words for a handshake that failed.
fn failure(error: &io::Error, beginning: &[u8]) -> ProbeFailure {
    if !beginning.is_empty() && !is_tls(beginning) {
        return ProbeFailure::Backend(no_tls(beginning));
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let during =
        if beginning.is_empty() { "without a TLS answer" } else { "during the TLS handshake" };
    let words = match (inner, error.kind()) {
        (Some(Error::FailedToGetRandomBytes | Error::FailedToGetCurrentTime), _) => {
            return ProbeFailure::Ourselves(format!("TLS cannot be used: {error}"));
        }
        (Some(Error::AlertReceived(alert)), _) => {
            format!("TLS handshake refused: {}", spaced(&format!("{alert:?}")))
        }
        (Some(Error::InvalidCertificate(error)), _) => {
            format!("TLS handshake failed: {}", refused(error))
        }
        (_, io::ErrorKind::UnexpectedEof) => format!("closed {during}"),
        (_, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            format!("reset {during}")
        }
        _ => format!("TLS handshake failed: {error}"),
    };
    ProbeFailure::Backend(words)
}

/// Whether a failed handshake is an answer of a server that speaks TLS: it has sent an alert, or
/// has chosen what this side cannot.
fn is_answer(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(
        inner,
        Some(Error::AlertReceived(_) | Error::PeerIncompatible(_) | Error::InvalidCertificate(_))
    )
}

/// Whether an answer may be TLS, by its first bytes.
fn is_tls(beginning: &[u8]) -> bool {
    let fits =
        |at: usize, is_good: &dyn Fn(u8) -> bool| beginning.get(at).is_none_or(|b| is_good(*b));
    fits(0, &|byte| RECORDS.contains(&byte)) && fits(1, &|byte| byte == MAJOR_VERSION)
}

fn no_tls(beginning: &[u8]) -> String {
    format!("not TLS: the answer began with '{}'", escaped(beginning))
}

/// `handshake failure` of `HandshakeFailure`.
fn spaced(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod against_servers;
