//! Probes against servers that behave and servers that do not, on ports the kernel chooses.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::policy::health::probe_step::ProbeStep;

const TIMEOUT: Duration = Duration::from_millis(300);

fn health(probe: Probe) -> Health {
    Health {
        probe,
        tls: None,
        port: None,
        listener_port: None,
        interval: TIMEOUT,
        fast_interval: TIMEOUT,
        timeout: TIMEOUT,
        rise: 1,
        fall: 1,
        down_backoff: TIMEOUT,
        initial_up: true,
        send_proxy: None,
        source: Vec::new(),
    }
}

fn http() -> Health {
    health(Probe::Http {
        method: "GET".into(),
        path: "/health?deep=1".into(),
        host: None,
        status: vec![(200, 299)],
    })
}

async fn probe(address: SocketAddr, health: &Health) -> Result<(), ProbeFailure> {
    let question = ProbeQuestion { address: Address::Ip(address), health, tls: None };
    super::probe(question).await.verdict
}

/// Serves one connection by `serve` while it is probed; returns what the probe found.
async fn probe_one<F>(
    health: Health,
    serve: impl FnOnce(TcpStream) -> F,
) -> Result<(), ProbeFailure>
where
    F: Future<Output = ()>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
        std::future::pending::<()>().await;
    };
    let started = Instant::now();
    let outcome = tokio::select! {
        outcome = probe(address, &health) => outcome,
        () = serving => unreachable!("serving never ends"),
    };
    assert!(started.elapsed() < TIMEOUT * 5, "a probe took {:?}", started.elapsed());
    outcome
}

/// The answer of a server that reads the request and writes `answer`, then keeps the connection.
async fn answered(answer: impl Into<Vec<u8>>) -> Result<(), ProbeFailure> {
    let answer = answer.into();
    probe_one(http(), |mut stream| async move {
        let mut request = [0; 1024];
        let length = stream.read(&mut request).await.unwrap();
        assert!(length > 0);
        // The probe may have seen enough and be gone.
        let _written = stream.write_all(&answer).await;
        std::future::pending::<()>().await;
    })
    .await
}

fn failed(words: &str) -> Result<(), ProbeFailure> {
    Err(ProbeFailure::Backend(words.into()))
}

// If this fails, every probe leaves an error in the backend's log.
#[tokio::test]
async fn a_tcp_probe_ends_with_fin_and_no_bytes() {
    for greeting in ["", "220 mail.example.com ESMTP\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting.as_bytes()).await.unwrap();
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.map(|_| read)
        };
        let health = health(Probe::Tcp);
        let (outcome, read) = tokio::join!(probe(address, &health), serving);
        assert_eq!(outcome, Ok(()));
        assert_eq!(read.unwrap(), b"");
    }
}

// If this fails, a port without a listener counts as a backend, or the log lacks the reason.
#[tokio::test]
async fn a_closed_port_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(probe(address, &health(Probe::Tcp)).await, failed("connect refused"));
}

// If this fails, a host that drops packets holds the probe for the kernel's two minutes.
#[tokio::test]
async fn a_connect_without_an_answer_ends_at_the_timeout() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    // A full accept queue: the kernel drops further SYNs.
    let _listener = socket.listen(1).unwrap();
    let mut queued = Vec::new();
    for _ in 0..8 {
        queued.push(tokio::spawn(TcpStream::connect(address)));
    }
    let mut health = health(Probe::Tcp);
    health.timeout = Duration::from_millis(1_100);
    let refused = async {
        loop {
            match probe(address, &health).await {
                Ok(()) => {}
                Err(failure) => return failure,
            }
        }
    };
    assert_eq!(Err(refused.await), failed("connect timed out after 1.1s"));
}

// If this fails, requests of probes are not what servers expect of HTTP/1.1.
#[tokio::test]
async fn the_request_is_complete() {
    let mut seen = String::new();
    let outcome = probe_one(http(), |mut stream| {
        let seen = &mut seen;
        async move {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            seen.push_str(std::str::from_utf8(&request[..length]).unwrap());
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    })
    .await;
    assert_eq!(outcome, Ok(()));
    assert!(seen.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{seen}");
    for header in ["host: 127.0.0.1:", "connection: close\r\n", "user-agent: evenkeel/"] {
        assert!(seen.contains(header), "{seen}");
    }
}

// If this fails, an HTTP answer is not judged by its status alone.
#[tokio::test]
async fn only_the_status_matters() {
    let words = |found: u16| failed(&format!("HTTP status {found}, expected 200-299"));
    assert_eq!(answered("HTTP/1.0 200 OK\r\n\r\n").await, Ok(()));
    assert_eq!(answered("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n").await, Ok(()));
    assert_eq!(answered("HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n").await, words(500));
    assert_eq!(answered("HTTP/1.1 503 Busy\r\n\r\n").await, words(503));
    let endless =
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), vec![b'1'; 1 << 20]];
    assert_eq!(answered(endless.concat()).await, Ok(()));
}

// If this fails, a backend that says when it will be back is not heard, or others are.
#[tokio::test]
async fn only_a_busy_server_may_put_off_the_next_probe() {
    let answer = |status: u16| format!("HTTP/1.1 {status} S\r\nRetry-After: 9\r\n\r\n");
    for status in [429, 503] {
        let reason = format!("HTTP status {status}, expected 200-299");
        let later = ProbeFailure::Later { reason, after: Duration::from_secs(9) };
        assert_eq!(answered(answer(status)).await, Err(later));
    }
    assert_eq!(answered(answer(500)).await, failed("HTTP status 500, expected 200-299"));
    assert_eq!(answered(answer(200)).await, Ok(()));
}

// If this fails, a backend of another protocol takes our memory, or passes.
#[tokio::test]
async fn other_protocols_than_http_fail_in_words() {
    assert_eq!(answered("SSH-2.0-OpenSSH_9.9\r\n").await, failed("the answer is not HTTP/1"));
    assert_eq!(answered(vec![0_u8; 4096]).await, failed("the answer is not HTTP/1"));
    let field = format!("X-Long: {}\r\n", "x".repeat(2_000));
    let huge = format!("HTTP/1.1 200 OK\r\n{}", field.repeat(90));
    assert_eq!(answered(huge).await, failed("HTTP head over 64 KiB or 100 fields"));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(answered(many).await, failed("HTTP head over 64 KiB or 100 fields"));
}

// If this fails, a hung backend passes, or holds its probe past the timeout.
#[tokio::test]
async fn silence_and_dribble_end_at_the_timeout() {
    let silent = probe_one(http(), |stream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    });
    assert_eq!(silent.await, failed("no HTTP answer within 300ms"));
    let dribble = probe_one(http(), |mut stream| async move {
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: yes\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(dribble.await, failed("no HTTP answer within 300ms"));
}

// If this fails, the log gives the wrong reason for a server that dies while it answers.
#[tokio::test]
async fn an_early_end_is_told_from_a_reset() {
    let closed = probe_one(http(), |mut stream| async move {
        let mut request = [0; 1024];
        let _length = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 2").await.unwrap();
    });
    assert_eq!(closed.await, failed("closed without an HTTP answer"));
    let reset = probe_one(http(), |mut stream| async move {
        let mut request = [0; 8];
        let _length = stream.read(&mut request).await.unwrap();
        // The rest of the request is unread: closing resets.
        drop(stream);
    });
    assert_eq!(reset.await, failed("reset without an HTTP answer"));
}

fn send_expect(send: &str, expect: &str) -> Health {
    let steps = vec![ProbeStep::Send(send.into()), ProbeStep::Find(expect.into())];
    health(Probe::SendExpect { steps })
}

// If this fails, a server that answers slowly or in pieces is taken down, or its log shows errors.
#[tokio::test]
async fn an_expectation_may_come_in_pieces() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 6];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"PING\r\n");
        for piece in ["-noise\r\n+P", "O", "NG\r\n"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.read_to_end(&mut Vec::new()).await
    };
    let health = send_expect("PING\r\n", "+PONG");
    let (outcome, end) = tokio::join!(probe(address, &health), serving);
    assert_eq!((outcome, end.unwrap()), (Ok(()), 0));
}

// If this fails, a server that is wrong, hung or gone passes, or the log does not say which.
#[tokio::test]
async fn an_expectation_that_is_not_met_fails_in_words() {
    let partial = probe_one(send_expect("PING\r\n", "+PONG"), |mut stream| async move {
        stream.write_all(b"+PON").await.unwrap();
        let _kept = stream;
        std::future::pending::<()>().await;
    });
    assert_eq!(partial.await, failed("only '+PON', expected '+PONG' within 300ms"));
    let silent = probe_one(send_expect("", "220 "), |stream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    });
    assert_eq!(silent.await, failed("no answer within 300ms"));
    let closed = probe_one(send_expect("", "220 "), |mut stream| async move {
        stream.write_all(b"554 no").await.unwrap();
    });
    assert_eq!(closed.await, failed("closed after '554 no', expected '220 '"));
}

// If this fails, `port` is not asked, or the log sends an operator to the wrong service.
#[tokio::test]
async fn another_port_is_asked_and_named() {
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (open_at, closed_at) = (open.local_addr().unwrap(), closed.local_addr().unwrap());
    drop(closed);
    let to = |port| Health { port: Some(port), ..health(Probe::Tcp) };
    assert_eq!(probe(closed_at, &to(open_at.port())).await, Ok(()));
    let words = format!("connect refused, asked on port {}", closed_at.port());
    assert_eq!(probe(open_at, &to(closed_at.port())).await, failed(&words));
}
