//! The HTTP part of a probe: one request, and the status line of its answer.
//!
//! HTTP/1.1 on a connection of its own, with `Connection: close`. Only the head counts, up to
//! 64 KiB of it; a body may be endless. The caller bounds the time. The answer counts whenever it
//! comes: a small responder (xinetd, `nc -c`) answers before it has read the request, and its end
//! resets the connection. Redirects are not followed: an operator who expects one lists its status.
//! `Retry-After` of a 429 or 503 is read in both forms (RFC 9110, section 10.2.3); the pace decides
//! what it is worth.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use crate::control::watch::prober::failure::{ProbeFailure, is_reset};
use crate::shared::Address;

/// A longer head of an answer, those of interim answers included, fails the probe.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// A head with more fields fails the probe.
const FIELDS_MAX: usize = 100;
const USER_AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));

/// The parts of an answer that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProbeAnswer {
    status: u16,
    /// The wait that a 429 or 503 asks for, from now.
    retry_after: Option<Duration>,
}

/// The request of a probe. `method`, `path` and `host` are as the configuration admits them: none
/// of them holds a space or a line end.
pub(super) fn request(method: &str, path: &str, host: Option<&str>, address: &Address) -> Vec<u8> {
    let own = match address {
        Address::Ip(address) => address.to_string(),
        Address::Host(host) => host.to_string(),
        // A path is no host.
        Address::Unix(_) => "localhost".to_owned(),
    };
    let host = host.unwrap_or(&own);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\n\
         connection: close\r\n\r\n"
    );
    head.into_bytes()
}

/// Sends the request; returns the parts of the answer that count.
///
/// # Errors
/// When no HTTP answer came; in words.
pub(super) async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Result<ProbeAnswer, ProbeFailure> {
    let (mut reading, mut writing) = split(stream);
    let asking = async {
        // A server that has answered may be gone already: what it sent before is still to be read.
        let outcome = match writing.write_all(request).await {
            Ok(()) => writing.flush().await,
            Err(error) => Err(error),
        };
        outcome.is_err_and(|error| is_reset(&error))
    };
    let hearing = hear(&mut reading);
    tokio::pin!(asking, hearing);
    let mut was_reset = false;
    let heard = tokio::select! {
        biased;
        heard = &mut hearing => heard,
        reset = &mut asking => {
            was_reset = reset;
            hearing.await
        }
    };
    heard.map_err(|silence| ProbeFailure::Backend(silence.words(was_reset)))
}

/// Why there is no answer.
enum Silence {
    Closed,
    Failed(io::Error),
    NotHttp,
    TooLong,
}

impl Silence {
    /// `was_reset`: the request met a reset, of which the kernel tells only once.
    fn words(&self, was_reset: bool) -> String {
        match self {
            Self::Closed if !was_reset => "closed without an HTTP answer".to_owned(),
            Self::Failed(error) if !is_reset(error) => format!("no HTTP answer: {error}"),
            Self::Closed | Self::Failed(_) => "reset without an HTTP answer".to_owned(),
            Self::NotHttp => "the answer is not HTTP/1".to_owned(),
            Self::TooLong => format!("HTTP head over 64 KiB or {FIELDS_MAX} fields"),
        }
    }
}

/// Reads until the head of an answer is complete, or cut off behind its status line: a server that
/// resets takes back what it has not sent yet.
async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProbeAnswer, Silence> {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    let mut read_before = 0;
    loop {
        let silence = match stream.read(&mut buffer).await {
            Ok(0) => Some(Silence::Closed),
            Ok(length) => {
                head.extend_from_slice(buffer.get(..length).unwrap_or_default());
                None
            }
            Err(error) => Some(Silence::Failed(error)),
        };
        if silence.is_some() {
            complete(&mut head);
        }
        while let Some((length, answer)) = parse(&head)? {
            if answer.status < 100 {
                return Err(Silence::NotHttp);
            }
            // Interim answers (RFC 9110, section 15.2); after 101 another protocol follows.
            if !(100..200).contains(&answer.status) || answer.status == 101 {
                return Ok(answer);
            }
            head.drain(..length);
            read_before += length;
        }
        if let Some(silence) = silence {
            return Err(silence);
        }
        if read_before + head.len() >= HEAD_MAX_BYTES {
            return Err(Silence::TooLong);
        }
    }
}

/// Ends a head that is cut off behind its last whole line.
fn complete(head: &mut Vec<u8>) {
    let lines = head.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if lines > 0 {
        head.truncate(lines);
        head.extend_from_slice(b"\r\n");
    }
}

/// The head that `bytes` begin with, and its length; `None` when more have to come.
fn parse(bytes: &[u8]) -> Result<Option<(usize, ProbeAnswer)>, Silence> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Ok(Some((length, read(&response)))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Silence::TooLong),
        Err(_) => Err(Silence::NotHttp),
    }
}

fn read(response: &httparse::Response<'_, '_>) -> ProbeAnswer {
    let status = response.code.unwrap_or_default();
    let mut fields = response.headers.iter().filter(|_| matches!(status, 429 | 503));
    let field = fields.find(|field| field.name.eq_ignore_ascii_case("retry-after"));
    let text = field.and_then(|field| std::str::from_utf8(field.value).ok());
    ProbeAnswer { status, retry_after: text.and_then(|text| retry_after(text, Timestamp::now())) }
}

/// Seconds, or a date that is not past.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Duration::try_from(date.duration_since(now)).ok()
}

/// Whether a status is one of those expected.
///
/// # Errors
/// When it is not; in words.
pub(super) fn compare(found: ProbeAnswer, expected: &[(u16, u16)]) -> Result<(), ProbeFailure> {
    let ProbeAnswer { status, retry_after } = found;
    if expected.iter().any(|(low, high)| (*low..=*high).contains(&status)) {
        return Ok(());
    }
    let ranges: Vec<String> = expected
        .iter()
        .map(|(low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") })
        .collect();
    let reason = format!("HTTP status {status}, expected {}", ranges.join(", "));
    Err(match retry_after {
        Some(after) => ProbeFailure::Later { reason, after },
        None => ProbeFailure::Backend(reason),
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use proptest::string::string_regex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::{self, Probe};
    use std::path::Path;
    use std::sync::Arc;

    // If this fails, a status next to a range passes, or the log does not say what was expected.
    #[test]
    fn ranges_are_inclusive_and_named() {
        let expected = [(200, 299), (418, 418)];
        let compare = |status| compare(ProbeAnswer { status, retry_after: None }, &expected);
        for good in [200, 299, 418] {
            assert_eq!(compare(good), Ok(()));
        }
        for bad in [199, 300, 417, 419] {
            let words = format!("HTTP status {bad}, expected 200-299, 418");
            assert_eq!(compare(bad), Err(ProbeFailure::Backend(words)));
        }
    }

    fn address(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    /// What a probe makes of these bytes as an answer, sent in two parts.
    fn judge(answer: &[u8], cut: usize) -> Result<u16, ProbeFailure> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (ours, mut theirs) = tokio::io::duplex(64);
        let cut = cut % (answer.len() + 1);
        let asked = request("GET", "/", None, &address("127.0.0.1:80"));
        runtime.block_on(async {
            let serve = async {
                let mut asked = [0; 64];
                assert!(theirs.read(&mut asked).await.unwrap() > 0);
                for part in [&answer[..cut], &answer[cut..]] {
                    // The probe may have heard enough.
                    let _early = theirs.write_all(part).await;
                    tokio::task::yield_now().await;
                }
                drop(theirs);
            };
            tokio::join!(super::answer(ours, &asked), serve).0.map(|answer| answer.status)
        })
    }

    fn answers() -> impl Strategy<Value = Vec<u8>> {
        let head = "HTTP/1\\.[01] [0-9]{3}( [ -~]{0,9})?\r\n([a-z-]{1,12}: [ -~]{0,20}\r\n){0,4}";
        let head = string_regex(head).unwrap();
        let whole = head.prop_map(|head| format!("{head}\r\n").into_bytes()).boxed();
        let spoilt =
            (whole.clone(), any::<Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes
            });
        prop_oneof![whole, spoilt, vec(any::<u8>(), 0..200)]
    }

    proptest! {
        // If this fails, a backend can end the process, or hang or fool its probe, by what it
        // answers or by how its answer is cut into packets.
        #[test]
        fn any_answer_is_judged_and_alike_wherever_it_is_cut(answer in answers(), cut: usize) {
            let judged = judge(&answer, cut);
            prop_assert_eq!(&judge(&answer, 0), &judged);
            if let Ok(status) = judged {
                let digits = std::str::from_utf8(&answer[9..12]).unwrap();
                prop_assert!(answer.starts_with(b"HTTP/1.") && digits == status.to_string());
            }
        }
    }

    // If this fails, a server that says when it will be back is asked at another time.
    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        let after = |text| retry_after(text, now).map(|after| after.as_secs());
        assert_eq!(after("120"), Some(120));
        assert_eq!(after(" 0 "), Some(0));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
        for nothing in ["Sun, 06 Nov 1994 08:48:37 GMT", "-5", "soon", "", "1.5"] {
            assert_eq!(after(nothing), None, "{nothing}");
        }
        assert_eq!(after("18446744073709551615"), Some(u64::MAX));
        assert_eq!(after("18446744073709551616"), None);
    }

    // If this fails, virtual hosts answer for the wrong site, or every probe fails.
    #[test]
    fn the_host_is_the_address_unless_configured() {
        let head = |address: &Address, host| {
            String::from_utf8(request("HEAD", "/h?a=1", host, address)).unwrap()
        };
        let expected = |host| {
            format!(
                "HEAD /h?a=1 HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\n\
                 connection: close\r\n\r\n"
            )
        };
        let own = address("[::1]:80");
        assert_eq!(head(&own, None), expected("[::1]:80"));
        assert_eq!(head(&own, Some("www.example.com")), expected("www.example.com"));
        let unix = Address::Unix(Arc::from(Path::new("/run/app.sock")));
        assert_eq!(head(&unix, None), expected("localhost"));
    }

    /// The probe of a file with this text for one of its keys; `None` when it is refused.
    fn configured(key: &str, text: &str) -> Option<Probe> {
        let mut health = toml::Table::new();
        health.insert("probe".to_owned(), "http".into());
        health.insert(key.to_owned(), text.into());
        let file = format!(
            "[listener.l]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n[pool.p]\n\
             backends = [\"127.0.0.1:2\"]\n[pool.p.health]\n{health}"
        );
        let parsed = config::parse(&file, Path::new("a.toml"));
        parsed.config.and_then(|config| config.pools[0].health.clone()).map(|health| health.probe)
    }

    proptest! {
        // If this fails, a value in the file makes another request than it shows, or two.
        #[test]
        fn no_configuration_breaks_the_request(
            key in prop_oneof![Just("path"), Just("method"), Just("host")],
            text in "/?[ -~\r\n\té]{0,12}",
        ) {
            if let Some(Probe::Http { method, path, host, .. }) = configured(key, &text) {
                let bytes = request(&method, &path, host.as_deref(), &address("127.0.0.1:80"));
                let mut fields = [httparse::EMPTY_HEADER; 4];
                let mut parsed = httparse::Request::new(&mut fields);
                let status = parsed.parse(&bytes);
                prop_assert_eq!(status, Ok(httparse::Status::Complete(bytes.len())));
                prop_assert_eq!(parsed.method, Some(method.as_str()));
                prop_assert_eq!(parsed.path, Some(path.as_str()));
                prop_assert_eq!(parsed.headers.len(), 3);
                let named = host.unwrap_or_else(|| "127.0.0.1:80".to_owned());
                prop_assert_eq!(parsed.headers[0].value, named.as_bytes());
            }
        }
    }
}
