//! What `evenkeel explain` and the session log say of a decision, beside what then happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, TcpStream};

use serde_json::Value;
use support::{Backend, Proxy, Setup, connect_from, free_address, read_line, verbs};

fn named(count: usize) -> Vec<Backend> {
    (1..=count).map(|number| Backend::named(&format!("b{number}"))).collect()
}

fn setup(backends: &[Backend]) -> Setup {
    Setup::of(&backends.iter().collect::<Vec<_>>())
}

fn client(number: u8) -> IpAddr {
    IpAddr::from(Ipv4Addr::new(127, 13, 0, number))
}

/// The backend that serves this client, and the connection.
fn visit(proxy: &Proxy, number: u8) -> std::io::Result<(String, TcpStream)> {
    let mut stream = connect_from((client(number), 0), proxy.address())?;
    Ok((read_line(&mut stream)?, stream))
}

/// The document about a client.
fn document(proxy: &Proxy, listener: &str, client: &str) -> Value {
    let path = format!("/v1/explain?listener={listener}&client={client}");
    let answer = proxy.ask("GET", &path, "");
    assert_eq!(answer.code, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn of(proxy: &Proxy, number: u8) -> Value {
    document(proxy, "front", &client(number).to_string())
}

fn skipped(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = document["pick"]["skipped"].as_array().unwrap().iter();
    all.map(|skip| (text(&skip["backend"]), text(&skip["why"]))).collect()
}

/// The line of the log about the session of this client, as JSON.
fn logged(proxy: &Proxy, number: u8) -> Value {
    let line = proxy.wait_for_line(&format!("\"client\":\"{}:", client(number)));
    serde_json::from_str(&line).unwrap()
}

// If this fails, an operator is told of another backend than the client gets, or of another slot
// than the log names.
#[test]
fn a_hashed_client_goes_where_the_answer_says() {
    let backends = named(4);
    let proxy = setup(&backends).start();
    let mut homes = std::collections::HashSet::new();
    for number in 1..=24 {
        let said = of(&proxy, number);
        assert_eq!((&said["outcome"], &said["reason"]), (&"served".into(), &Value::Null));
        let pick = &said["pick"];
        assert_eq!((&pick["by"], &pick["certain"]), (&"maglev".into(), &true.into()), "{said}");
        let (home, stream) = visit(&proxy, number).unwrap();
        drop(stream);
        assert_eq!(pick["backend"], home.as_str());
        let line = logged(&proxy, number);
        assert_eq!(line["pick"], "maglev");
        assert_eq!((&line["slot"], &line["skipped"]), (&pick["slot"], &Value::Null));
        homes.insert(home);
    }
    assert!(homes.len() > 1, "all went to {homes:?}");
}

// If this fails, neither the log nor `explain` says why a client was not served by its own
// backend, or what passed a backend over.
#[test]
fn who_is_passed_over_is_named_with_the_reason() {
    let backends = named(3);
    let text = setup(&backends).backend(1, "max_sessions = 1").text();
    let text = text.replace(
        &format!("\"{}\", name = \"b3\"", backends[2].address()),
        &format!("\"{}\", name = \"b3\"", free_address()),
    );
    let health = "[pool.back.health]\nfall = 1\ninterval = \"1h\"\n";
    let proxy = Proxy::start(&format!("{text}\n{health}"));
    proxy.wait_for_line("backend back/b3 down");
    // Full: clients at home on b1 come first.
    let first_at = |name: &str| (1..).find(|&number| of(&proxy, number)["pick"]["backend"] == name);
    let (_, _held) = visit(&proxy, first_at("b1").unwrap()).unwrap();
    let drained = verbs::evenkeel(&["drain", "back/b2", "--socket", &socket(&proxy)]);
    assert_eq!(verbs::code(&drained), 0);
    let said = of(&proxy, 200);
    assert_eq!((&said["outcome"], &said["reason"]), (&"refused".into(), &"no_backend".into()));
    let mut all = skipped(&said);
    all.sort();
    let expected = [("b1", "full"), ("b2", "drain"), ("b3", "down")];
    assert_eq!(all, expected.map(|(name, why)| (name.to_owned(), why.to_owned())));
    let reasons = said["pick"]["skipped"].to_string();
    assert!(reasons.contains("connect refused (1 of 1 probes failed)"), "{reasons}");
    // And the log of a client that tries.
    assert!(visit(&proxy, 200).is_err());
    let line = logged(&proxy, 200);
    assert_eq!((&line["pick"], &line["slot"]), (&Value::Null, &Value::Null), "{line}");
    let named = line["skipped"].as_str().unwrap();
    for one in ["b1(full)", "b2(drain)", "b3(down)"] {
        assert!(named.contains(one), "{named}");
    }
}

fn socket(proxy: &Proxy) -> String {
    proxy.admin_socket().display().to_string()
}

// If this fails, a session whose first backend refused looks in the log as if its own had served.
#[test]
fn a_backend_that_failed_the_session_is_named_in_the_log() {
    let backends = named(2);
    let text = setup(&backends).pool("balance = \"first\"").text();
    let text = text.replace(&backends[0].address().to_string(), &free_address().to_string());
    let proxy = Proxy::start(&text);
    assert_eq!(visit(&proxy, 1).unwrap().0, "b2");
    let line = logged(&proxy, 1);
    assert_eq!((&line["pick"], &line["skipped"]), (&"first".into(), &"b1(failed)".into()));
}

// If this fails, asking uses up what a client may do, or says less than what is left.
#[test]
fn asking_costs_a_client_nothing() {
    let backends = named(1);
    let limit = "rate = \"3/d\"\nburst = 3\nmax_concurrent = 2\nexempt = [\"127.13.0.9/32\"]";
    let proxy = setup(&backends).limit(limit).start();
    let mut open = Vec::new();
    for used in 0..2 {
        for _ in 0..10 {
            let limit = &of(&proxy, 1)["limits"][0];
            assert_eq!((&limit["left"], &limit["sessions"]), (&(3 - used).into(), &used.into()));
            assert_eq!(limit["over"], Value::Null);
        }
        open.push(visit(&proxy, 1).unwrap());
    }
    let said = of(&proxy, 1);
    assert_eq!((&said["outcome"], &said["reason"]), (&"refused".into(), &"concurrent".into()));
    assert_eq!((&said["limits"][0]["left"], &said["pick"]), (&1.into(), &Value::Null));
    // A refused attempt uses up nothing.
    assert!(visit(&proxy, 1).is_err());
    drop(open);
    proxy.wait_for_metric("evenkeel_sessions_active", &[], 0.0);
    assert_eq!(of(&proxy, 1)["limits"][0]["left"], 1);
    visit(&proxy, 1).unwrap();
    let said = of(&proxy, 1);
    assert_eq!(said["reason"], "limit");
    let wait = said["limits"][0]["retry_after_ms"].as_u64().unwrap();
    assert!((8 * 3_600_000 - 60_000..=8 * 3_600_000).contains(&wait), "{wait}");
    assert_eq!(of(&proxy, 2)["outcome"], "served");
    assert_eq!(of(&proxy, 9)["limits"][0]["exempt"], true);
    let decisions =
        |decision| proxy.metric("evenkeel_limit_decisions_total", &[("decision", decision)]);
    assert_eq!((decisions("allowed"), decisions("refused")), (3.0, 1.0));
}

// If this fails, asking a sticky pool remembers a client that never came, or moves one that did.
#[test]
fn asking_is_not_remembered() {
    let backends = named(2);
    let keys = "balance = \"round-robin\"\nsticky = { size = 64 }";
    let proxy = setup(&backends).pool(keys).start();
    for _ in 0..5 {
        let pick = &of(&proxy, 1)["pick"];
        assert_eq!((&pick["by"], &pick["certain"]), (&"round-robin".into(), &false.into()));
    }
    let (home, _stream) = visit(&proxy, 1).unwrap();
    let pick = &of(&proxy, 1)["pick"];
    assert_eq!((&pick["by"], &pick["certain"]), (&"sticky".into(), &true.into()));
    assert_eq!(pick["backend"], home.as_str());
}

// If this fails, an operator looks at the wrong access rule or the wrong route.
#[test]
fn rules_and_routes_are_named() {
    let backends = named(1);
    let routes = "allow = [\"127.0.0.0/8\"]\ndeny = [\"127.13.0.66/32\"]\n\
                  [[listener.front.route]]\nclient = [\"127.13.0.7/32\"]\npool = \"other\"\n\
                  [[listener.front.route]]\nsni = [\"*.example.com\"]\npool = \"other\"\n";
    let other = format!("[pool.other]\nbackends = [\"{}\"]\n", backends[0].address());
    let text = setup(&backends).also(&other).text();
    let text = text.replace("pool = \"back\"\n", &format!("pool = \"back\"\n{routes}"));
    let proxy = Proxy::start(&text);
    let said = of(&proxy, 66);
    assert_eq!((&said["outcome"], &said["reason"]), (&"refused".into(), &"access".into()));
    assert_eq!(said["access"]["rule"], "deny 127.13.0.66/32");
    let said = document(&proxy, "front", "192.0.2.1");
    assert_eq!((&said["reason"], &said["access"]["rule"]), (&"access".into(), &Value::Null));
    let route = |said: &Value| {
        let route = &said["route"];
        let is = |field: &str| route[field].as_bool().unwrap();
        (route["pool"].as_str().unwrap().to_owned(), is("routed"), is("depends_on_hello"))
    };
    assert_eq!(route(&of(&proxy, 7)), ("other".to_owned(), true, false));
    assert_eq!(route(&of(&proxy, 8)), ("back".to_owned(), false, true));
    let named = document(&proxy, "front", "127.13.0.8&sni=A.example.com");
    assert_eq!(route(&named), ("other".to_owned(), true, false));
}

// If this fails, the verb prints nothing that helps, or a mistake in the question looks like an
// answer.
#[test]
fn the_verb_prints_the_steps() {
    let backends = named(1);
    let proxy = setup(&backends).limit("rate = \"10/s\"").start();
    let socket = socket(&proxy);
    let ask = |arguments: &[&str]| {
        let all: Vec<&str> =
            ["explain", "--socket", &socket].iter().chain(arguments).copied().collect();
        let output = verbs::evenkeel(&all);
        (verbs::code(&output), verbs::text(&output.stdout), verbs::text(&output.stderr))
    };
    let (code, told, _) = ask(&["front", "192.0.2.7"]);
    assert_eq!(code, 0);
    let address = backends[0].address();
    for line in [
        "192.0.2.7 at listener front: goes to back/b1\n",
        "access   admitted: no rule is about it\n",
        "limit    10 of 10 connections left\n",
        "route    pool back\n",
        &format!("backend  b1 {address} (up, 0 sessions)\n"),
    ] {
        assert!(told.contains(line), "{line:?} is not in:\n{told}");
    }
    let (code, told, _) = ask(&["front", "[2001:db8::1]:70", "--json"]);
    let said: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &said["client"]), (0, &"[2001:db8::1]:70".into()));
    let (code, _, complaint) = ask(&["back", "192.0.2.7"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("no listener \"back\"; there are: front"), "{complaint}");
    let (code, _, complaint) = ask(&["front", "a-name"]);
    assert_eq!(code, 1);
    assert!(complaint.contains("client \"a-name\" is no address like 192.0.2.7"), "{complaint}");
}

// If this fails, an operator who leaves the port out is told a backend for sure that depends on it.
#[test]
fn a_question_without_the_port_that_is_hashed_is_not_certain() {
    let backends = named(3);
    let proxy = setup(&backends).pool("hash_key = \"client-ip-port\"").start();
    let without = of(&proxy, 1);
    assert_eq!(
        (&without["route"]["depends_on_port"], &without["pick"]["certain"]),
        (&true.into(), &false.into())
    );
    let with = document(&proxy, "front", "127.13.0.1:4711");
    assert_eq!(
        (&with["route"]["depends_on_port"], &with["pick"]["certain"]),
        (&false.into(), &true.into())
    );
    let mut stream = connect_from((client(1), 0), proxy.address()).unwrap();
    let asked = document(&proxy, "front", &stream.local_addr().unwrap().to_string());
    assert_eq!(asked["pick"]["backend"], read_line(&mut stream).unwrap().as_str());
}

// If this fails, a backend without a weight is missing among those that are passed over, or a
// client is promised one.
#[test]
fn backends_without_a_weight_are_named() {
    let backends = named(2);
    for balance in ["maglev", "round-robin", "least-connections", "random-two", "random", "first"] {
        let keys = format!("balance = \"{balance}\"");
        let proxy = setup(&backends).pool(&keys).backend(1, "weight = 0").start();
        let said = of(&proxy, 1);
        assert_eq!(said["pick"]["backend"], "b2", "{balance}: {said}");
        assert_eq!(skipped(&said), [("b1".to_owned(), "weight-0".to_owned())], "{balance}");
        assert_eq!(visit(&proxy, 1).unwrap().0, "b2", "{balance}");
        proxy.weigh("back/b2", 0);
        let said = of(&proxy, 1);
        assert_eq!(said["reason"], "no_backend", "{balance}: {said}");
        assert_eq!(skipped(&said).len(), 2, "{balance}: {said}");
    }
}

// If this fails, a client is promised a backend that it can never reach.
#[test]
fn a_client_of_the_other_family_of_a_transparent_pool_is_told() {
    let backends = named(1);
    let proxy = setup(&backends).pool("transparent = true").start();
    let said = document(&proxy, "front", "2001:db8::7");
    assert_eq!(
        (&said["outcome"], &said["reason"]),
        (&"refused".into(), &"no_backend".into()),
        "{said}"
    );
    assert_eq!(skipped(&said), [("b1".to_owned(), "failed".to_owned())]);
    assert!(said["text"].as_str().unwrap().contains("no_source"), "{said}");
    assert_eq!(document(&proxy, "front", "192.0.2.7")["outcome"], "served");
}

// If this fails, an operator is told where clients go that are no longer accepted.
#[test]
fn a_process_that_accepts_no_more_says_so() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    let _held = connect_from((client(1), 0), proxy.address()).unwrap();
    proxy.wait_for_sessions(1);
    proxy.signal(rustix::process::Signal::TERM);
    let path = format!("/v1/explain?listener=front&client={}", client(1));
    support::eventually("it accepts no more", support::PATIENCE, || {
        let answer = proxy.ask("GET", &path, "");
        (answer.code == 409 && answer.body.contains("no listener accepts")).then_some(())
    });
}
