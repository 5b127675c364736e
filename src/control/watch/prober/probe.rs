//! One probe: is this backend serving right now?
//!
//! A TCP probe connects and ends with an orderly FIN, so that it leaves no error in the backend's
//! log. An HTTP probe makes one request and reads the head of the answer. A send-expect probe waits
//! until the answer holds the expectation. A TLS probe makes a handshake and may judge the
//! certificate. Every step is bounded in time and memory. Failures on our side are told apart from
//! failures of the backend: a lack of descriptors here says nothing about a server. This file keeps
//! no state; verdicts are the prober's.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use rustix::io::Errno;
use rustls::pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use crate::config::{Health, Probe};
use crate::policy::first_bytes::proxy_header::{Ends, encode_own};
use crate::shared::{Address, HostAddress};

use crate::control::host::trust::TlsProbe;
use crate::control::watch::prober::failure::{ProbeFailure, is_reset};
use crate::control::watch::prober::http;
use crate::control::watch::prober::send_expect::Conversation;
use crate::control::watch::prober::source::{self, Connected};
use crate::control::watch::prober::tls::{Heard, Shown, name};

/// A timeout is counted in this many ticks, see [`Budget`].
const TICKS_MAX: u32 = 10;
/// No tick is shorter: the timer knows no less than a millisecond.
const TICK_MIN_MS: u128 = 5;
/// The wait of a passed probe for the backend's FIN.
const QUIET_END: Duration = Duration::from_millis(100);
/// The bytes that it reads meanwhile.
const GREETING_MAX_BYTES: u64 = 64 * 1024;

/// One probe to make.
#[derive(Debug, Clone)]
pub(super) struct ProbeQuestion<'a> {
    /// The address of the backend.
    pub(super) address: Address,
    /// The kind of the probe and its settings.
    pub(super) health: &'a Health,
    /// Names, roots and client of a TLS probe.
    pub(super) tls: Option<&'a TlsProbe>,
}

/// The result of one probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProbeResult {
    /// Whether the probe has passed; if not, why.
    pub(super) verdict: Result<(), ProbeFailure>,
    /// The end of the certificate that the backend has shown, in seconds since the epoch.
    pub(super) not_after: Option<u64>,
}

/// Probes a backend once, by its own port or the one that is configured.
pub(super) async fn probe(mut question: ProbeQuestion<'_>) -> ProbeResult {
    let mut not_after = None;
    let Health { port, listener_port, .. } = *question.health;
    let asked = match &question.address {
        Address::Ip(own) => port.map(|port| HostAddress::of(*own).at(port)),
        Address::Host(host) => port.or(listener_port).map(|port| host.at(port)),
        Address::Unix(_) => None,
    };
    if let Some(asked) = asked {
        question.address = Address::Ip(asked);
    }
    let (Some(port), Some(_)) = (port, asked) else {
        let verdict = ask(&question, &mut not_after).await;
        return ProbeResult { verdict, not_after };
    };
    // Sessions use another port: the line has to name the service that was asked.
    let named = |reason: String| format!("{reason}, asked on port {port}");
    let verdict = ask(&question, &mut not_after).await.map_err(|failure| match failure {
        ProbeFailure::Backend(reason) => ProbeFailure::Backend(named(reason)),
        ProbeFailure::Later { reason, after } => {
            ProbeFailure::Later { reason: named(reason), after }
        }
        ProbeFailure::Ourselves(_) => failure,
    });
    ProbeResult { verdict, not_after }
}

async fn ask(
    question: &ProbeQuestion<'_>,
    not_after: &mut Option<u64>,
) -> Result<(), ProbeFailure> {
    let mut budget = Budget::new(question.health.timeout);
    match &question.address {
        Address::Ip(address) => {
            let mut stream = connect(*address, question.health, &mut budget).await?;
            if let Some(version) = question.health.send_proxy {
                let source = stream.local_addr().map_err(|error| connect_failure(&error))?;
                let own = Ends { source, destination: *address };
                introduce(&mut stream, &encode_own(version, Some(own)), &mut budget).await?;
            }
            converse(stream, question, budget, not_after).await
        }
        // `check` refuses probes that know no port.
        Address::Host(_) => Err(ourselves("no port is known to ask")),
        Address::Unix(path) => {
            let mut stream = in_time(UnixStream::connect(path), &mut budget).await?;
            if let Some(version) = question.health.send_proxy {
                introduce(&mut stream, &encode_own(version, None), &mut budget).await?;
            }
            converse(stream, question, budget, not_after).await
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &ProbeQuestion<'_>,
    mut budget: Budget,
    not_after: &mut Option<u64>,
) -> Result<(), ProbeFailure> {
    let ProbeQuestion { address, health, .. } = question;
    if health.tls.is_none() {
        return speak(stream, question, budget).await;
    }
    let tls = question.tls.ok_or_else(|| ourselves("its certificates are not loaded"))?;
    let name = name(tls, address);
    let mut heard = Heard::new(stream);
    let shaken = match budget.run(heard.shake_hands(tls, name.clone())).await {
        Some(Ok(shaken)) => shaken,
        Some(Err(unshaken)) => {
            let is_enough = health.probe == Probe::Tls && tls.roots.is_none() && unshaken.is_answer;
            return if is_enough { Ok(()) } else { Err(unshaken.failure) };
        }
        None => return Err(heard.late(&seconds(health.timeout))),
    };
    let shown = Shown::by(&shaken);
    *not_after = shown.not_after();
    let verdict = match &tls.roots {
        Some(roots) => shown.judge(&name, roots, UnixTime::now()),
        None => Ok(()),
    };
    if verdict.is_err() {
        end_quietly(shaken).await;
        return verdict;
    }
    speak(shaken, question, budget).await
}

/// What is said once the connection, or the TLS in it, is established.
async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &ProbeQuestion<'_>,
    mut budget: Budget,
) -> Result<(), ProbeFailure> {
    let ProbeQuestion { address, health, .. } = question;
    let timeout = seconds(health.timeout);
    let verdict = match &health.probe {
        Probe::Tcp | Probe::Tls => Ok(()),
        Probe::Http { method, path, host, status } => {
            let request = http::request(method, path, host.as_deref(), address);
            match budget.run(http::answer(&mut stream, &request)).await {
                Some(answer) => answer.and_then(|answer| http::compare(answer, status)),
                None => Err(ProbeFailure::Backend(format!("no HTTP answer within {timeout}"))),
            }
        }
        Probe::SendExpect { steps } => {
            let mut conversation = Conversation::new(steps);
            match budget.run(conversation.run(&mut stream)).await {
                Some(outcome) => outcome,
                None => Err(conversation.late(&timeout)),
            }
        }
    };
    if verdict.is_ok() {
        end_quietly(stream).await;
    }
    verdict
}

async fn connect(
    address: SocketAddr,
    health: &Health,
    budget: &mut Budget,
) -> Result<TcpStream, ProbeFailure> {
    let Connected { stream, reset } =
        in_time(source::connect(address, &health.source), budget).await?;
    if let (Probe::Tcp, Some(error)) = (&health.probe, reset) {
        return Err(connect_failure(&error));
    }
    // On this host, the kernel may choose a port without a listener as our own: the socket is then
    // connected to itself.
    if stream.local_addr().is_ok_and(|own| own == address) {
        return Err(ProbeFailure::Backend("connect refused".into()));
    }
    Ok(stream)
}

async fn in_time<S>(
    connecting: impl Future<Output = io::Result<S>>,
    budget: &mut Budget,
) -> Result<S, ProbeFailure> {
    match budget.run(connecting).await {
        Some(connected) => connected.map_err(|error| connect_failure(&error)),
        None => {
            let timeout = seconds(budget.total);
            Err(ProbeFailure::Backend(format!("connect timed out after {timeout}")))
        }
    }
}

/// Sends the PROXY header that the backend waits for.
async fn introduce(
    stream: &mut (impl AsyncWrite + Unpin),
    header: &[u8],
    budget: &mut Budget,
) -> Result<(), ProbeFailure> {
    match budget.run(stream.write_all(header)).await {
        // A server that has answered and gone is judged by its answer.
        Some(Err(error)) if is_reset(&error) => Ok(()),
        Some(written) => written.map_err(|error| connect_failure(&error)),
        None => {
            let timeout = seconds(budget.total);
            Err(ProbeFailure::Backend(format!("no PROXY header taken within {timeout}")))
        }
    }
}

/// Ends with FIN instead of RST: unread bytes of a greeting would turn close(2) into a reset. A TLS
/// stream sends close_notify before it.
async fn end_quietly(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let ending = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(GREETING_MAX_BYTES), &mut tokio::io::sink()).await
    };
    // The verdict stands already; the backend's end of the connection does not change it.
    let _ended = tokio::time::timeout(QUIET_END, ending).await;
}

fn connect_failure(error: &io::Error) -> ProbeFailure {
    let words = match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => "connect refused",
        Some(Errno::CONNRESET) => "connect reset",
        // These three are of Unix sockets.
        Some(Errno::NOENT) => "connect failed: no such socket",
        Some(Errno::AGAIN) => "connect failed: its accept queue is full",
        Some(Errno::ACCESS) => "connect failed: permission denied",
        // The kernel gave up before our own timeout.
        Some(Errno::TIMEDOUT) => "connect timed out",
        Some(Errno::HOSTUNREACH) => "connect failed: host unreachable",
        Some(Errno::NETUNREACH) => "connect failed: network unreachable",
        Some(Errno::MFILE | Errno::NFILE) => return ourselves("no file descriptor is free"),
        Some(Errno::ADDRNOTAVAIL) => return ourselves("no local port is free"),
        Some(Errno::NOBUFS | Errno::NOMEM) => return ourselves("no memory for a socket"),
        _ => return ProbeFailure::Backend(format!("connect failed: {error}")),
    };
    ProbeFailure::Backend(words.to_owned())
}

fn ourselves(words: &str) -> ProbeFailure {
    ProbeFailure::Ourselves(words.to_owned())
}

/// A duration as the log shows it.
pub(super) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{:.1}s", duration.as_secs_f64())
    }
}

/// The time that one probe may take, without the time in which this process did not run.
///
/// A process starved of CPU reads an early answer late, and one timer over the whole timeout would
/// blame the backend. So the timeout is cut into ticks that are set one after the other: a stall,
/// however long, costs the backend one of them.
struct Budget {
    total: Duration,
    tick: Duration,
    left: u32,
    timer: Pin<Box<Sleep>>,
}

impl Budget {
    fn new(total: Duration) -> Self {
        let fit = u32::try_from(total.as_millis() / TICK_MIN_MS).unwrap_or(u32::MAX);
        let left = fit.clamp(1, TICKS_MAX);
        let tick = total / left;
        Self { total, tick, left, timer: Box::pin(tokio::time::sleep(tick)) }
    }

    /// Runs one step; `None` when the time is used up.
    async fn run<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(step);
        while self.left > 0 {
            // The answer first: when both are ready, it came in time and was read late.
            tokio::select! {
                biased;
                done = &mut step => return Some(done),
                () = &mut self.timer => {
                    self.left -= 1;
                    self.timer.as_mut().reset(Instant::now() + self.tick);
                }
            }
        }
        // The runtime collects the kernel's events before the last look.
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            done = &mut step => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocking_pause(pause: Duration) {
        std::thread::park_timeout(pause);
    }

    // If this fails, a live backend is taken down because this host was busy.
    #[tokio::test]
    async fn a_stall_of_this_host_does_not_use_up_the_timeout() {
        let timeout = Duration::from_millis(100);
        let mut budget = Budget::new(timeout);
        let answer = async {
            blocking_pause(timeout * 3);
            tokio::time::sleep(Duration::from_millis(20)).await;
            blocking_pause(timeout * 3);
            tokio::time::sleep(Duration::from_millis(20)).await;
            "answer"
        };
        assert_eq!(budget.run(answer).await, Some("answer"));
    }

    // If this fails, a silent backend holds its probe for ever or for less than it was promised.
    #[tokio::test(start_paused = true)]
    async fn a_budget_spans_its_steps_and_ends() {
        let start = Instant::now();
        let mut budget = Budget::new(Duration::from_secs(2));
        let first = tokio::time::sleep(Duration::from_millis(1_500));
        assert_eq!(budget.run(first).await, Some(()));
        assert_eq!(budget.run(std::future::pending::<()>()).await, None);
        let took = start.elapsed();
        assert!((1_950..2_100).contains(&took.as_millis()), "{took:?}");
    }

    // If this fails, an operator reads nonsense in the one line about an outage.
    #[test]
    fn words_are_short_and_blame_the_side_that_failed() {
        let words = |errno: Errno| connect_failure(&errno.into());
        let backend = |text: &str| ProbeFailure::Backend(text.into());
        assert_eq!(words(Errno::CONNREFUSED), backend("connect refused"));
        assert_eq!(words(Errno::HOSTUNREACH), backend("connect failed: host unreachable"));
        assert!(matches!(words(Errno::MFILE), ProbeFailure::Ourselves(_)));
        assert!(matches!(words(Errno::ADDRNOTAVAIL), ProbeFailure::Ourselves(_)));
        assert_eq!(seconds(Duration::from_secs(2)), "2.0s");
        assert_eq!(seconds(Duration::from_millis(250)), "250ms");
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod against_servers;
