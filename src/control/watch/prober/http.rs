//! The HTTP part of a probe: one request, and the status line of its answer.
//!
//! HTTP/1.1 on a connection of its own, with `Connection: close`. Only the head counts, up to
//! 64 KiB of it; a body may be endless. The caller bounds the time. Redirects are not followed: an
//! operator who expects one lists its status. `Retry-After` of a 429 or 503 is read in both forms
//! (RFC 9110, section 10.2.3); the pace decides what it is worth.

use std::error::Error;
use std::io;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::control::watch::prober::failure::ProbeFailure;
use crate::shared::Address;

/// A longer head of an answer fails the probe.
const HEAD_MAX_BYTES: usize = 64 * 1024;
const USER_AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));

/// The parts of an answer that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProbeAnswer {
    status: u16,
    /// The wait that a 429 or 503 asks for, from now.
    retry_after: Option<Duration>,
}

/// The request of a probe.
///
/// # Errors
/// When hyper does not take what the configuration let through.
pub(super) fn request(
    method: &str,
    path: &str,
    host: Option<&str>,
    address: &Address,
) -> Result<Request<Empty<Bytes>>, ProbeFailure> {
    let own = match address {
        Address::Ip(address) => address.to_string(),
        // A path is no host.
        Address::Unix(_) => "localhost".to_owned(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host.unwrap_or(&own))
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| ProbeFailure::Ourselves(format!("the request cannot be made: {error}")))
}

/// Sends the request; returns the parts of the answer that count.
///
/// # Errors
/// When no HTTP answer came; in words.
pub(super) async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> Result<ProbeAnswer, ProbeFailure> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX_BYTES);
    let shaken = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| failure(&error))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The connection may end in the very turn that brings the answer.
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    answered.map(|response| read(&response)).map_err(|error| failure(&error))
}

fn read<B>(response: &Response<B>) -> ProbeAnswer {
    let status = response.status().as_u16();
    let field = response.headers().get(header::RETRY_AFTER).filter(|_| matches!(status, 429 | 503));
    let text = field.and_then(|value| value.to_str().ok());
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

fn failure(error: &hyper::Error) -> ProbeFailure {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let words = if error.is_parse_too_large() {
        "HTTP head over 64 KiB or 100 fields".to_owned()
    } else if error.is_parse() {
        "the answer is not HTTP/1".to_owned()
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        "closed without an HTTP answer".to_owned()
    } else if let Some(cause) = cause {
        match cause.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "reset without an HTTP answer".to_owned()
            }
            _ => format!("no HTTP answer: {cause}"),
        }
    } else {
        format!("no HTTP answer: {error}")
    };
    ProbeFailure::Backend(words)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use proptest::string::string_regex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
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
        let asked = request("GET", "/", None, &address("127.0.0.1:80")).unwrap();
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
            tokio::join!(super::answer(ours, asked), serve).0.map(|answer| answer.status)
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
        let host_of = |address: &Address, host| {
            let request = request("HEAD", "/h?a=1", host, address).unwrap();
            assert_eq!(
                (request.method().as_str(), request.uri().to_string()),
                ("HEAD", "/h?a=1".into())
            );
            request.headers()[header::HOST].to_str().unwrap().to_owned()
        };
        let host = |host| host_of(&address("[::1]:80"), host);
        assert_eq!(host(None), "[::1]:80");
        assert_eq!(host(Some("www.example.com")), "www.example.com");
        let unix = Address::Unix(Arc::from(Path::new("/run/app.sock")));
        assert_eq!(host_of(&unix, None), "localhost");
    }

    // If this fails, a path in our configuration takes every backend of its pool down.
    #[test]
    fn a_path_no_request_can_have_is_our_fault() {
        let refused = request("GET", "/a<b", None, &address("127.0.0.1:80"));
        assert!(matches!(refused, Err(ProbeFailure::Ourselves(_))));
    }
}
