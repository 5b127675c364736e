//! The admin interface of the real binary: status, metrics, verbs, reload, the page, the log.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "support/exposition.rs"]
mod exposition;
#[path = "support/operator.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use support::{Backend, PATIENCE, Proxy, evenkeel, eventually, http, terminate, text, visit};

/// One listener `web`, one pool `pool` with these backends.
fn config(backends: &[&Backend]) -> String {
    let list: Vec<String> = backends.iter().map(|b| format!("\"{}\"", b.address)).collect();
    format!(
        "[global]\nworkers = 2\n[listener.web]\nbind = [\"127.0.0.1:0\"]\npool = \"pool\"\n\
         [pool.pool]\nbalance = \"round-robin\"\nbackends = [{}]\n\
         [admin]\nhttp = \"127.0.0.1:0\"\n",
        list.join(", ")
    )
}

// If this fails, scripts that read `status --json` break.
#[test]
fn status_has_what_it_promises_and_counts() {
    let backend = Backend::start("one");
    let proxy = Proxy::start(&config(&[&backend]));
    assert_eq!(visit(proxy.address("web")), "one");
    assert!(eventually(PATIENCE, || proxy.status()["listeners"]["web"]["sessions"] == 0));
    let status = proxy.status();
    assert_eq!(status["ready"], true);
    assert_eq!(status["generation"], 1);
    let listener = &status["listeners"]["web"];
    assert_eq!((&listener["accepted"], &listener["refused"]), (&1.into(), &0.into()));
    let one = &status["pools"]["pool"]["backends"][backend.address.to_string()];
    assert_eq!(one["state"], "up");
    assert!(one["reason"].is_string());
    assert_eq!((&one["weight"], &one["sessions"]), (&1.into(), &0.into()));
    assert_eq!(one["sessions_total"], 1);
    assert_eq!(status["workers"].as_array().unwrap().len(), 2);
}

// If this fails, a scraper refuses the metrics, or a series is missing until something happens.
#[test]
fn metrics_parse_and_are_complete_from_the_start() {
    let backend = Backend::start("one");
    let proxy = Proxy::start(&config(&[&backend]));
    let (code, body) = proxy.http("GET", "/metrics", "");
    assert_eq!(code, 200);
    let families = exposition::read(&body);
    let series = |family: &str| families.get(family).map_or(0, |family| family.samples.len());
    let expected = [
        ("evenkeel_build", 1),
        ("evenkeel_config_generation", 1),
        ("evenkeel_config_reloads", 2),
        ("evenkeel_config_last_reload_successful", 1),
        ("evenkeel_config_last_reload_success_timestamp_seconds", 1),
        ("evenkeel_listener_accepted", 1),
        ("evenkeel_listener_refused", 6),
        ("evenkeel_sessions_active", 1),
        ("evenkeel_backend_sessions_active", 1),
        ("evenkeel_backend_sessions", 1),
        ("evenkeel_backend_connect_failures", 6),
        ("evenkeel_backend_connect_seconds", 14),
        ("evenkeel_backend_up", 1),
        ("evenkeel_backend_probes", 2),
        ("evenkeel_bytes", 4),
        ("evenkeel_session_seconds", 14),
        ("evenkeel_sessions_closed", 8),
        ("evenkeel_limit_decisions", 3),
        ("evenkeel_limit_evictions", 1),
        ("evenkeel_limit_overflows", 1),
        ("evenkeel_worker_busy_seconds", 2),
        ("evenkeel_pipes_in_use", 2),
        ("evenkeel_log_dropped", 1),
        ("process_resident_memory_bytes", 1),
        ("process_open_fds", 1),
        ("process_start_time_seconds", 1),
    ];
    for (family, number) in expected {
        assert_eq!(series(family), number, "{family}\n{body}");
    }
    assert_eq!(visit(proxy.address("web")), "one");
    let accepted = "evenkeel_listener_accepted_total{listener=\"web\"}";
    let scraped = || exposition::read(&proxy.http("GET", "/v1/metrics", "").1);
    assert!(eventually(PATIENCE, || {
        scraped()["evenkeel_listener_accepted"].samples[accepted] == 1.0
    }));
}

// If this fails, an operator cannot take a backend out, or cannot bring it back.
#[test]
fn verbs_move_sessions_and_readiness() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let proxy = Proxy::start(&config(&[&one, &two]));
    let web = proxy.address("web");
    let path = |backend: &Backend, verb: &str| {
        format!("/v1/backends/pool/{}/{verb}", backend.address.to_string().replace(':', "%3A"))
    };
    assert_eq!(proxy.http("POST", &path(&one, "drain"), "").0, 200);
    assert!((0..4).all(|_| visit(web) == "two"));
    assert_eq!(proxy.http("GET", "/readyz", "").0, 200);
    let (code, body) = proxy.http("POST", &path(&two, "maint"), "");
    assert_eq!(code, 200);
    assert!(body.contains("no healthy backend"), "{body}");
    assert_eq!(proxy.http("GET", "/readyz", "").0, 503);
    assert_eq!(proxy.http("GET", "/livez", "").0, 200);
    assert_eq!(visit(web), "");
    let status = proxy.status();
    let state = |backend: &Backend| {
        status["pools"]["pool"]["backends"][backend.address.to_string()]["state"].clone()
    };
    assert_eq!((state(&one), state(&two)), ("drain".into(), "maint".into()));
    assert_eq!(proxy.http("POST", &path(&one, "ready"), "").0, 200);
    assert_eq!(visit(web), "one");
    assert_eq!(proxy.http("POST", &path(&one, "weight"), "{\"weight\": 7}").0, 200);
    let weight =
        proxy.status()["pools"]["pool"]["backends"][one.address.to_string()]["weight"].clone();
    assert_eq!(weight, 7);
}

// If this fails, a typo in a request does something, or tells nothing.
#[test]
fn bad_requests_are_named() {
    let one = Backend::start("one");
    let proxy = Proxy::start(&config(&[&one]));
    let name = one.address.to_string();
    let cases = [
        ("POST", "/v1/backends/pool/nobody/drain".to_owned(), "", 404, name.as_str()),
        ("POST", format!("/v1/backends/poll/{name}/drain"), "", 404, "pool"),
        ("POST", format!("/v1/backends/pool/{name}/explode"), "", 404, "drain, ready"),
        ("POST", format!("/v1/backends/pool/{name}/weight"), "{\"weight\": -1}", 400, "weight"),
        ("POST", format!("/v1/backends/pool/{name}/weight"), "{\"weight\": 70000}", 400, "65535"),
        ("POST", format!("/v1/backends/pool/{name}/weight"), "", 400, "weight"),
        ("POST", "/v1/backends/pool/%ff/drain".to_owned(), "", 400, ""),
        ("POST", "/v1/reload?dry_run=perhaps".to_owned(), "", 400, ""),
        ("POST", "/v1/status".to_owned(), "", 405, ""),
        ("GET", "/v1/nothing".to_owned(), "", 404, "/v1/nothing"),
    ];
    for (method, path, body, expected, word) in cases {
        let (code, answer) = proxy.http(method, &path, body);
        assert_eq!(code, expected, "{method} {path}: {answer}");
        assert!(answer.contains(word), "{method} {path}: {answer}");
    }
    let (code, _) = proxy.http("POST", "/v1/reload", &"x".repeat(65 * 1024));
    assert_eq!(code, 413);
    assert_eq!(proxy.status()["generation"], 1);
}

// If this fails, whoever may connect can stop the process with a few bytes.
#[test]
fn garbage_does_no_harm() {
    let one = Backend::start("one");
    let proxy = Proxy::start(&config(&[&one]));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(600_000));
    let garbage: [&[u8]; 5] = [
        b"\0\xff\xfe\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        long.as_bytes(),
    ];
    for bytes in garbage {
        let mut unix = UnixStream::connect(proxy.socket()).unwrap();
        unix.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may have hung up before everything was sent.
        let _early = unix.write_all(bytes).and_then(|()| unix.shutdown(std::net::Shutdown::Write));
        let _reset = unix.read_to_end(&mut Vec::new());
        let mut tcp = TcpStream::connect(proxy.page()).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let _early = tcp.write_all(bytes).and_then(|()| tcp.shutdown(std::net::Shutdown::Write));
        let _reset = tcp.read_to_end(&mut Vec::new());
    }
    assert_eq!(proxy.http("GET", "/livez", "").0, 200);
    assert_eq!(proxy.status()["generation"], 1);
}

// If this fails, a refused file changes something, or a good one does not get in force.
#[test]
fn reload_is_all_or_nothing() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let proxy = Proxy::start(&config(&[&one]));
    let web = proxy.address("web");
    proxy.rewrite(&config(&[&two]));
    let (code, body) = proxy.http("POST", "/v1/reload?dry_run=true", "");
    assert_eq!(code, 200, "{body}");
    assert!(body.contains("added"), "{body}");
    assert_eq!((proxy.status()["generation"].clone(), visit(web)), (1.into(), "one".into()));

    assert_eq!(proxy.http("POST", "/v1/reload", "").0, 200);
    assert_eq!((proxy.status()["generation"].clone(), visit(web)), (2.into(), "two".into()));

    proxy.rewrite(&config(&[&one]).replace("round-robin", "round-robn"));
    let (code, body) = proxy.http("POST", "/v1/reload", "");
    assert_eq!(code, 422);
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["result"], "refused");
    assert_eq!(answer["generation"], 2);
    assert_eq!(answer["problems"][0]["key"], "pool.pool.balance");
    assert!(answer["text"].as_str().unwrap().contains("round-robin"), "{body}");
    let status = proxy.status();
    assert_eq!((&status["generation"], visit(web).as_str()), (&2.into(), "two"));
    assert_eq!(status["config"]["last_reload_ok"], false);
    let families = exposition::read(&proxy.http("GET", "/metrics", "").1);
    let reloads = &families["evenkeel_config_reloads"].samples;
    assert_eq!(reloads["evenkeel_config_reloads_total{result=\"ok\"}"], 1.0);
    assert_eq!(reloads["evenkeel_config_reloads_total{result=\"refused\"}"], 1.0);
}

// If this fails, whoever reaches the page can change something, or sees the configuration.
#[test]
fn the_page_only_shows() {
    let one = Backend::start("one");
    let proxy = Proxy::start(&config(&[&one]));
    let page = proxy.page();
    let ask = |method: &str, path: &str| http(TcpStream::connect(page).unwrap(), method, path, "");
    let (code, body) = ask("GET", "/");
    assert_eq!(code, 200);
    assert!(
        body.contains(&one.address.to_string()) && body.contains("<tr class=\"up\">"),
        "{body}"
    );
    for path in ["/metrics", "/livez", "/readyz", "/v1/status"] {
        assert_eq!(ask("GET", path).0, 200, "{path}");
    }
    let drain = format!("/v1/backends/pool/{}/drain", one.address);
    for (method, path) in
        [("POST", "/v1/reload"), ("POST", drain.as_str()), ("GET", "/v1/config"), ("POST", "/")]
    {
        let (code, body) = ask(method, path);
        assert!(code == 404 || code == 405, "{method} {path}: {code} {body}");
    }
    assert_eq!(proxy.status()["pools"]["pool"]["healthy"], 1);
}

// If this fails, others on the host control the process, or a second one steals its socket.
#[test]
fn the_socket_is_private_and_stays_with_its_process() {
    let one = Backend::start("one");
    let mut proxy = Proxy::start(&config(&[&one]));
    let mode = std::fs::metadata(proxy.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = evenkeel(&["run", "-c", proxy.file().to_str().unwrap()]);
    assert_eq!(support::code(&second), 1);
    let said = text(&second.stderr);
    assert!(said.contains("another process answers there") && said.contains("help:"), "{said}");
    assert_eq!(proxy.http("GET", "/livez", "").0, 200);
    terminate(&proxy.child);
    assert!(proxy.child.wait().unwrap().success());
    assert!(!proxy.socket().exists());
}

// If this fails, the session log lacks a session, or cannot be switched off while running.
#[test]
fn sessions_are_logged_while_asked_for() {
    let one = Backend::start("one");
    let proxy = Proxy::start(&config(&[&one]));
    let web = proxy.address("web");
    visit(web);
    let sessions = || proxy.lines(|line| line["event"] == "session");
    assert!(eventually(PATIENCE, || sessions().len() == 1), "{}", proxy.log());
    let line = &sessions()[0];
    assert_eq!(line["listener"], "web");
    assert_eq!(line["backend"], one.address.to_string());
    assert_eq!(line["bytes_to_client"], 3);
    assert_eq!(line["term"], "--");
    proxy.rewrite(
        &config(&[&one]).replace("workers = 2", "workers = 2\nlog = { sessions = false }"),
    );
    assert_eq!(proxy.http("POST", "/v1/reload", "").0, 200);
    visit(web);
    let closed = "evenkeel_sessions_closed_total{listener=\"web\",reason=\"done\"}";
    assert!(eventually(PATIENCE, || {
        let families = exposition::read(&proxy.http("GET", "/metrics", "").1);
        families["evenkeel_sessions_closed"].samples[closed] == 2.0
    }));
    // A line that comes later has passed the queue in which a second session would have been.
    proxy.http("POST", "/v1/reload", "");
    let reloads = || proxy.lines(|line| line["message"].to_string().contains("reloaded")).len();
    assert!(eventually(PATIENCE, || reloads() == 2), "{}", proxy.log());
    assert_eq!(sessions().len(), 1);
}

// If this fails, a log reader that stops stops the load balancer, or its end.
#[test]
fn a_blocked_stderr_blocks_nothing() {
    let one = Backend::start("one");
    let mut proxy = Proxy::start_with_stderr(&config(&[&one]), Stdio::piped());
    let path = format!("/v1/backends/pool/{}/ready", one.address);
    let overflows = (0..20_000).any(|round| {
        assert_eq!(proxy.http("POST", &path, "").0, 200);
        round % 100 == 0 && proxy.status()["log_dropped"].as_u64().unwrap() > 0
    });
    assert!(overflows, "no line was ever dropped");
    assert_eq!(visit(proxy.address("web")), "one");
    terminate(&proxy.child);
    let mut ended = None;
    assert!(eventually(PATIENCE, || {
        ended = proxy.child.try_wait().unwrap();
        ended.is_some()
    }));
    assert!(ended.unwrap().success());
}
