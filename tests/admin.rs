//! The admin interface of the real binary: status, metrics, verbs, reload, the page, the log.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "support/exposition.rs"]
mod exposition;
mod support;

use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use support::admin::{Answer, http};
use support::verbs::{code, evenkeel, text};
use support::{Backend, PATIENCE, Proxy, eventually, visit};

/// One listener `web`, one pool `pool` with these backends.
fn config(backends: &[&Backend]) -> String {
    let list: Vec<String> = backends.iter().map(|b| format!("\"{}\"", b.address())).collect();
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
    let backend = Backend::named("one");
    let proxy = Proxy::start(&config(&[&backend]));
    assert_eq!(visit(proxy.address()), "one");
    proxy.wait_for_sessions(0);
    let status = proxy.document();
    assert_eq!(status["ready"], true);
    assert_eq!(status["generation"], 1);
    let listener = &status["listeners"]["web"];
    assert_eq!((&listener["accepted"], &listener["refused"]), (&1.into(), &0.into()));
    let one = &status["pools"]["pool"]["backends"][backend.address().to_string()];
    assert_eq!(one["state"], "up");
    assert!(one["reason"].is_string());
    assert_eq!((&one["weight"], &one["sessions"]), (&1.into(), &0.into()));
    assert_eq!(one["sessions_total"], 1);
    assert_eq!(status["workers"].as_array().unwrap().len(), 2);
}

// If this fails, a scraper refuses the metrics, or a series is missing until something happens.
#[test]
fn metrics_parse_and_are_complete_from_the_start() {
    let backend = Backend::named("one");
    let limit = "[listener.web.limit]\nrate = \"1000/s\"\n";
    let proxy = Proxy::start(&format!("{}{limit}", config(&[&backend])));
    let Answer { code, body } = proxy.ask("GET", "/metrics", "");
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
        ("evenkeel_listener_refused", 10),
        ("evenkeel_sessions_active", 1),
        ("evenkeel_bans", 1),
        ("evenkeel_backend_sessions_active", 1),
        ("evenkeel_backend_sessions", 1),
        ("evenkeel_backend_connect_failures", 11),
        ("evenkeel_backend_connect_seconds", 14),
        ("evenkeel_backend_latency_seconds", 1),
        ("evenkeel_pool_waiting", 1),
        ("evenkeel_sticky_evictions", 1),
        ("evenkeel_backend_up", 1),
        ("evenkeel_backend_probes", 2),
        ("evenkeel_bytes", 4),
        ("evenkeel_session_seconds", 14),
        ("evenkeel_sessions_closed", 15),
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
    assert_eq!(visit(proxy.address()), "one");
    let accepted = "evenkeel_listener_accepted_total{listener=\"web\"}";
    let scraped = || exposition::read(&proxy.ask("GET", "/v1/metrics", "").body);
    assert_eq!(scraped()["evenkeel_listener_accepted"].samples[accepted], 1.0);
}

// If this fails, an operator cannot take a backend out, or cannot bring it back.
#[test]
fn verbs_move_sessions_and_readiness() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let proxy = Proxy::start(&config(&[&one, &two]));
    let web = proxy.address();
    let path = |backend: &Backend, verb: &str| {
        format!("/v1/backends/pool/{}/{verb}", backend.address().to_string().replace(':', "%3A"))
    };
    assert_eq!(proxy.ask("POST", &path(&one, "drain"), "").code, 200);
    assert!((0..4).all(|_| visit(web) == "two"));
    assert_eq!(proxy.ask("GET", "/readyz", "").code, 200);
    let Answer { code, body } = proxy.ask("POST", &path(&two, "maint"), "");
    assert_eq!(code, 200);
    assert!(body.contains("no healthy backend"), "{body}");
    assert_eq!(proxy.ask("GET", "/readyz", "").code, 503);
    assert_eq!(proxy.ask("GET", "/livez", "").code, 200);
    assert_eq!(visit(web), "");
    let status = proxy.document();
    let state = |backend: &Backend| {
        status["pools"]["pool"]["backends"][backend.address().to_string()]["state"].clone()
    };
    assert_eq!((state(&one), state(&two)), ("drain".into(), "maint".into()));
    assert_eq!(proxy.ask("POST", &path(&one, "ready"), "").code, 200);
    assert_eq!(visit(web), "one");
    assert_eq!(proxy.ask("POST", &path(&one, "weight"), "{\"weight\": 7}").code, 200);
    let weight =
        proxy.document()["pools"]["pool"]["backends"][one.address().to_string()]["weight"].clone();
    assert_eq!(weight, 7);
}

// If this fails, a typo in a request does something, or tells nothing.
#[test]
fn bad_requests_are_named() {
    let one = Backend::named("one");
    let proxy = Proxy::start(&config(&[&one]));
    let name = one.address().to_string();
    let cases = [
        ("POST", "/v1/backends/pool/absent/drain".to_owned(), "", 404, name.as_str()),
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
        let Answer { code, body: answer } = proxy.ask(method, &path, body);
        assert_eq!(code, expected, "{method} {path}: {answer}");
        assert!(answer.contains(word), "{method} {path}: {answer}");
    }
    let Answer { code, .. } = proxy.ask("POST", "/v1/reload", &"x".repeat(65 * 1024));
    assert_eq!(code, 413);
    assert_eq!(proxy.document()["generation"], 1);
}

// If this fails, a client that closes its sending side (`socat`, `nc -N`) sometimes gets no answer.
#[test]
fn an_end_after_the_question_does_not_cost_the_answer() {
    let one = Backend::named("one");
    let proxy = Proxy::start(&config(&[&one]));
    for number in 0..300 {
        let mut unix = UnixStream::connect(proxy.admin_socket()).unwrap();
        unix.set_read_timeout(Some(PATIENCE)).unwrap();
        unix.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        unix.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        unix.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "question {number}: {answer:?}");
    }
}

// If this fails, any client that may connect can stop the process with a few bytes.
#[test]
fn garbage_does_no_harm() {
    let one = Backend::named("one");
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
        let mut unix = UnixStream::connect(proxy.admin_socket()).unwrap();
        unix.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may have hung up before everything was sent.
        let _early = unix.write_all(bytes).and_then(|()| unix.shutdown(std::net::Shutdown::Write));
        let _reset = unix.read_to_end(&mut Vec::new());
        let mut tcp = TcpStream::connect(proxy.page()).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let _early = tcp.write_all(bytes).and_then(|()| tcp.shutdown(std::net::Shutdown::Write));
        let _reset = tcp.read_to_end(&mut Vec::new());
    }
    assert_eq!(proxy.ask("GET", "/livez", "").code, 200);
    assert_eq!(proxy.document()["generation"], 1);
}

// If this fails, a refused file changes something, or a good one does not get in force.
#[test]
fn reload_is_all_or_nothing() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let proxy = Proxy::start(&config(&[&one]));
    let web = proxy.address();
    proxy.rewrite(&config(&[&two]));
    let Answer { code, body } = proxy.ask("POST", "/v1/reload?dry_run=true", "");
    assert_eq!(code, 200, "{body}");
    assert!(body.contains("added"), "{body}");
    assert_eq!((proxy.document()["generation"].clone(), visit(web)), (1.into(), "one".into()));

    assert_eq!(proxy.ask("POST", "/v1/reload", "").code, 200);
    assert_eq!((proxy.document()["generation"].clone(), visit(web)), (2.into(), "two".into()));

    proxy.rewrite(&config(&[&one]).replace("round-robin", "round-robn"));
    let Answer { code, body } = proxy.ask("POST", "/v1/reload", "");
    assert_eq!(code, 422);
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["result"], "refused");
    assert_eq!(answer["generation"], 2);
    assert_eq!(answer["problems"][0]["key"], "pool.pool.balance");
    assert!(answer["text"].as_str().unwrap().contains("round-robin"), "{body}");
    let status = proxy.document();
    assert_eq!((&status["generation"], visit(web).as_str()), (&2.into(), "two"));
    assert_eq!(status["config"]["last_reload_ok"], false);
    let families = exposition::read(&proxy.ask("GET", "/metrics", "").body);
    let reloads = &families["evenkeel_config_reloads"].samples;
    assert_eq!(reloads["evenkeel_config_reloads_total{result=\"ok\"}"], 1.0);
    assert_eq!(reloads["evenkeel_config_reloads_total{result=\"refused\"}"], 1.0);
}

// If this fails, a visitor of the page can change something, or sees the configuration.
#[test]
fn the_page_only_shows() {
    let one = Backend::named("one");
    let proxy = Proxy::start(&config(&[&one]));
    let page = proxy.page();
    let ask = |method: &str, path: &str| http(TcpStream::connect(page).unwrap(), method, path, "");
    let Answer { code, body } = ask("GET", "/");
    assert_eq!(code, 200);
    assert!(
        body.contains(&one.address().to_string()) && body.contains("<tr class=\"up\">"),
        "{body}"
    );
    for path in ["/metrics", "/livez", "/readyz", "/v1/status"] {
        assert_eq!(ask("GET", path).code, 200, "{path}");
    }
    let drain = format!("/v1/backends/pool/{}/drain", one.address());
    for (method, path) in
        [("POST", "/v1/reload"), ("POST", drain.as_str()), ("GET", "/v1/config"), ("POST", "/")]
    {
        let Answer { code, body } = ask(method, path);
        assert!(code == 404 || code == 405, "{method} {path}: {code} {body}");
    }
    assert_eq!(proxy.document()["pools"]["pool"]["healthy"], 1);
}

// If this fails, others on the host control the process, or a second one steals its socket.
#[test]
fn the_socket_is_private_and_stays_with_its_process() {
    let one = Backend::named("one");
    let mut proxy = Proxy::start(&config(&[&one]));
    let mode = std::fs::metadata(proxy.admin_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = evenkeel(&["run", "-c", proxy.config_file().to_str().unwrap()]);
    assert_eq!(code(&second), 1);
    let said = text(&second.stderr);
    assert!(said.contains("another process answers there") && said.contains("help:"), "{said}");
    assert_eq!(proxy.ask("GET", "/livez", "").code, 200);
    assert!(proxy.stop().success());
    assert!(!proxy.admin_socket().exists());
}

// If this fails, the session log lacks a session, or cannot be switched off while running.
#[test]
fn sessions_are_logged_while_asked_for() {
    let one = Backend::named("one");
    let proxy = Proxy::start(&config(&[&one]));
    let web = proxy.address();
    visit(web);
    let line = &proxy.wait_for_session_lines(1)[0];
    assert_eq!(line["listener"], "web");
    assert_eq!(line["backend"], one.address().to_string());
    assert_eq!(line["bytes_to_client"], 4);
    assert_eq!(line["term"], "--");
    proxy.rewrite(
        &config(&[&one]).replace("workers = 2", "workers = 2\nlog = { sessions = 'none' }"),
    );
    assert_eq!(proxy.ask("POST", "/v1/reload", "").code, 200);
    visit(web);
    let closed = [("listener", "web"), ("reason", "done")];
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &closed, 2.0);
    // A line that comes later has passed the queue in which a second session would have been.
    assert_eq!(proxy.ask("POST", "/v1/reload", "").code, 200);
    eventually("both reloads are logged", PATIENCE, || {
        (proxy.said().matches("reloaded").count() == 2).then_some(())
    });
    assert_eq!(proxy.session_lines().len(), 1);
}

// If this fails, a log reader that stops stops the load balancer, or its end.
#[test]
fn a_blocked_stderr_blocks_nothing() {
    let one = Backend::named("one");
    let (mut proxy, _unread) = Proxy::start_unread(&config(&[&one]));
    let path = format!("/v1/backends/pool/{}/ready", one.address());
    let overflows = (0..20_000).any(|round| {
        assert_eq!(proxy.ask("POST", &path, "").code, 200);
        round % 100 == 0 && proxy.document()["log_dropped"].as_u64().unwrap() > 0
    });
    assert!(overflows, "no line was ever dropped");
    assert_eq!(visit(proxy.address()), "one");
    proxy.signal(Signal::TERM);
    assert!(proxy.wait_for_exit().success());
}

/// Asks the page in plain HTTP, and gives the whole answer.
fn ask_page(page: std::net::SocketAddr, head: &str) -> String {
    let mut stream = support::connect(page);
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

// If this fails, clients that hold connections open take health checks and metrics away from an
// orchestrator.
#[test]
fn silent_and_deaf_clients_do_not_take_the_page_away() {
    let one = Backend::named("one");
    let proxy = Proxy::start(&config(&[&one]));
    let page = proxy.page();
    let from = |last: u8| (std::net::IpAddr::from([127, 0, 0, last]), 0);
    // More than are served at once: silent ones, and ones that ask on and on and read no answer.
    let held: Vec<TcpStream> = (0..200_u32)
        .map(|number| {
            let mut stream = support::connect_from(from(9), page).unwrap();
            if number % 2 == 0 {
                let questions = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
                // It may have had to give way meanwhile.
                let _reset = stream.write_all(questions.as_bytes());
            }
            stream
        })
        .collect();
    for path in ["/livez", "/readyz", "/metrics", "/v1/status"].into_iter().cycle().take(40) {
        let stream = support::connect_from(from(1), page).unwrap();
        assert_eq!(http(stream, "GET", path, "").code, 200, "{path}");
    }
    // Those of the control socket are others.
    assert_eq!(proxy.ask("GET", "/livez", "").code, 200);
    drop(held);
}

// If this fails, a page in an operator's browser reads the metrics (DNS rebinding), or an
// orchestrator's question is refused.
#[test]
fn the_page_answers_to_its_own_names() {
    let one = Backend::named("one");
    let text = config(&[&one]).replace("[admin]\n", "[admin]\nhosts = [\"lb.example.com\"]\n");
    let proxy = Proxy::start(&text);
    let page = proxy.page();
    let code = |path: &str, host: &str| {
        let answer = ask_page(page, &format!("GET {path} HTTP/1.1\r\nHost: {host}"));
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for path in ["/", "/metrics", "/v1/status"] {
        assert_eq!(code(path, "evil.test"), "421", "{path}");
        for host in [&*page.to_string(), "localhost:1", "LB.example.com:9900", "[::1]:9900"] {
            assert_eq!(code(path, host), "200", "{path} {host}");
        }
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(code(path, "probe.test"), "200", "{path}");
    }
    proxy.rewrite(&config(&[&one]));
    assert_eq!(proxy.ask("POST", "/v1/reload", "").code, 200);
    assert_eq!(code("/metrics", "lb.example.com"), "421", "a reload takes the name away");
}

// If this fails, agents that read the older text format lose the type of every counter, or a
// restart is seen that was none.
#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let one = Backend::named("one");
    let proxy = Proxy::start(&config(&[&one]));
    let page = proxy.page();
    let ask = |accept: &str| {
        let answer = ask_page(page, &format!("GET /metrics HTTP/1.1\r\nHost: localhost{accept}"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    };
    let (head, body) = ask("\r\nAccept: text/plain;version=0.0.4");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("# TYPE evenkeel_listener_accepted_total counter\n"), "{body}");
    assert!(body.contains("# TYPE evenkeel_build_info gauge\n"), "{body}");
    assert!(!body.contains("# EOF"), "{body}");
    let (head, open) = ask("");
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    let samples = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(samples(&body), samples(&open));
    let started = |text: &str| {
        let found = text.lines().find(|line| line.starts_with("process_start_time_seconds"));
        found.unwrap().to_owned()
    };
    let first = started(&body);
    // The time since the start passes whole seconds meanwhile.
    let turned = |proxy: &Proxy| proxy.document()["uptime_seconds"].as_f64().unwrap() > 1.5;
    eventually("a second has passed", PATIENCE, || {
        assert_eq!(started(&ask("").1), first);
        turned(&proxy).then_some(())
    });
}
