//! A new configuration replaces the old one whole or not at all, and no connection notices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, eventually, read_line, served_by, stream,
    try_connect, verbs,
};

/// Sends a byte through an echoing session and waits for it to come back.
#[track_caller]
fn assert_alive(client: &mut TcpStream) {
    client.write_all(b"?").unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"?");
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The workers take a new listener up a moment after the reload has answered.
fn connect_when_open(address: SocketAddr) -> TcpStream {
    eventually("the new listener accepts", PATIENCE, || try_connect(address).ok())
}

fn reloads(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric("evenkeel_config_reloads_total", &[("result", result)])
}

/// Replaces the file and has it refused; gives what the verb said.
#[track_caller]
fn refuse(proxy: &Proxy, config: &str) -> String {
    let (before, generation) = (reloads(proxy, "refused"), proxy.status().generation);
    proxy.rewrite(config);
    let output = proxy.reload();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(reloads(proxy, "refused") > before + 0.5);
    assert_eq!(proxy.status().generation, generation);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The pool alone: `front` is the listener's table.
fn with_listeners(setup: &Setup, listeners: &[(&str, &str)]) -> String {
    let text = setup.text();
    let (start, end) = (text.find("[listener.front]").unwrap(), text.find("[pool.back]").unwrap());
    let tables = listeners
        .iter()
        .map(|(name, bind)| format!("[listener.{name}]\nbind = [\"{bind}\"]\npool = \"back\"\n"));
    format!("{}{}{}", &text[..start], tables.collect::<String>(), &text[end..])
}

// If this fails, changing the servers of a pool cuts sessions, or the change has no effect.
#[test]
fn backends_come_and_go_under_sessions() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let proxy = Setup::of(&[&one]).start();
    let mut old = connect(proxy.address());
    assert_eq!(read_line(&mut old).unwrap(), "one");
    // The names differ from before by position: what was b1 is another server now.
    let said = proxy.reload_with(&Setup::of(&[&two]).text());
    assert!(said.contains("back/b1"), "{said}");
    assert_eq!(served_by(proxy.address()).unwrap(), "two");
    assert_alive(&mut old);
    let both = Setup::of(&[&two, &one]).pool("balance = \"round-robin\"");
    let said = proxy.reload_with(&both.text());
    assert!(said.contains("backend back/b2 added"), "{said}");
    let mut served: Vec<_> = (0..4).map(|_| served_by(proxy.address()).unwrap()).collect();
    served.sort();
    assert_eq!(served, ["one", "one", "two", "two"]);
    for _ in 0..3 {
        proxy.reload_with(&Setup::of(&[&two]).text());
        assert_alive(&mut old);
    }
    assert_eq!(proxy.sessions(), 1);
    // The session's backend is gone; its name is another's now, so it has no series.
    assert_eq!(proxy.metrics().count("evenkeel_backend_sessions_active", &[]), 1);
    let renamed = Setup::of(&[&two]).text().replace("\"b1\"", "\"other\"");
    proxy.reload_with(&renamed);
    let of_b1 = proxy.metric("evenkeel_backend_sessions_active", &[("backend", "b1")]);
    assert!(support::admin::is_same(of_b1, 1.0), "{of_b1}");
    old.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(support::read_all(&mut old).unwrap().is_empty());
    proxy.wait_for_sessions(0);
}

// If this fails, a listener that is taken out cuts its sessions, or its port stays open.
#[test]
fn listeners_come_and_go() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]).global("workers = 2");
    let proxy = setup.start();
    let mut first = connect(proxy.address());
    let both = with_listeners(&setup, &[("front", "127.0.0.1:0"), ("side", "127.0.0.2:0")]);
    assert!(proxy.reload_with(&both).contains("listener side added"));
    let side = proxy.status().listeners["side"].addresses[0].parse().unwrap();
    let mut second = connect_when_open(side);
    assert_alive(&mut second);
    assert!(proxy.reload_with(&setup.text()).contains("listener side removed"));
    eventually("its port is closed", PATIENCE, || is_refused(side).then_some(()));
    // The connect that asked whether the port is closed may have been a session of it.
    proxy.wait_for_sessions(2);
    let gone = proxy.status().listeners["side"].clone();
    assert!(gone.retired && gone.sessions == 1 && !proxy.status().listeners["front"].retired);
    assert!(support::admin::is_same(proxy.metric("evenkeel_sessions_active", &[]), 2.0));
    assert_alive(&mut second);
    assert_alive(&mut first);
    assert_alive(&mut connect(proxy.address()));
    second.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(support::read_all(&mut second).unwrap().is_empty());
    proxy.wait_for_sessions(1);
    assert!(!proxy.status().listeners.contains_key("side"));
    let series = proxy.metrics().count("evenkeel_listener_accepted_total", &[]);
    assert_eq!(series, 1);
}

// If this fails, sessions and nodes look as if they had different configurations, and have one.
#[test]
fn a_reload_of_the_same_is_no_new_generation() {
    let backends = [Backend::named("b1"), Backend::named("b2")];
    let setup = Setup::of(&[&backends[0], &backends[1]]);
    let proxy = setup.start();
    let said = proxy.reload_with(&format!("# a comment\n{}", setup.text()));
    assert!(said.contains("nothing changed"), "{said}");
    proxy.tell("back/b1", "drain");
    let said = proxy.reload_with(&setup.text());
    assert!(said.contains("back/b1 stays drain"), "{said}");
    assert_eq!(proxy.status().generation, 1);
    assert_eq!(served_by(proxy.address()).unwrap(), "b2");
    proxy.reload_with(&setup.pool("retries = 1").text());
    assert_eq!(proxy.status().generation, 2);
    assert!(support::admin::is_same(reloads(&proxy, "ok"), 3.0));
}

// If this fails, renaming a listener closes its port for a moment.
#[test]
fn a_renamed_listener_keeps_its_socket() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let proxy = setup.start();
    let mut client = connect(proxy.address());
    // Accepted, and counted, under the old name.
    assert_alive(&mut client);
    proxy.reload_with(&with_listeners(&setup, &[("entrance", "127.0.0.1:0")]));
    let status = proxy.status();
    assert_eq!(status.listeners["entrance"].addresses, [proxy.address().to_string()]);
    assert_alive(&mut client);
    assert_alive(&mut connect(proxy.address()));
    proxy.wait_for_metric("evenkeel_listener_accepted_total", &[("listener", "entrance")], 1.0);
}

// If this fails, an address that moves to another listener is closed for a moment.
#[test]
fn listeners_may_swap_their_addresses() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]).global("workers = 2");
    let binds = ["127.0.0.1:0", "127.0.0.2:0"];
    let text = |one, two| with_listeners(&setup, &[("front", one), ("side", two)]);
    let proxy = Proxy::start(&text(binds[0], binds[1]));
    let [first, second] = *proxy.addresses() else { panic!("two addresses") };
    let mut clients = [connect(first), connect(second)];
    clients.iter_mut().for_each(assert_alive);
    proxy.reload_with(&text(binds[1], binds[0]));
    let status = proxy.status();
    assert_eq!(status.listeners["front"].addresses, [second.to_string()]);
    assert_eq!(status.listeners["side"].addresses, [first.to_string()]);
    clients.iter_mut().for_each(assert_alive);
    assert_alive(&mut connect(second));
    proxy.wait_for_metric("evenkeel_listener_accepted_total", &[("listener", "front")], 2.0);
}

// If this fails, clients whose handshake was done when their listener was taken out are reset.
#[test]
fn clients_that_had_connected_are_served() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]).global("workers = 2");
    let both = with_listeners(&setup, &[("front", "127.0.0.1:0"), ("side", "127.0.0.2:0")]);
    let proxy = setup.start();
    for _ in 0..5 {
        proxy.reload_with(&both);
        let side = proxy.status().listeners["side"].addresses[0].parse().unwrap();
        connect_when_open(side);
        proxy.rewrite(&setup.text());
        let mut clients: Vec<_> = (0..40).map(|_| connect(side)).collect();
        assert_eq!(proxy.ask("POST", "/v1/reload", "").code, 200);
        for (key, client) in (0..).zip(&mut clients) {
            stream::exchange(client, (key, 2000));
        }
    }
}

// If this fails, a listener that was taken out cannot be put back at once.
#[test]
fn a_listener_may_come_back_at_once() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]).global("workers = 2");
    let own = support::free_address();
    let own = SocketAddr::from(([127, 0, 0, 4], own.port())).to_string();
    let both = with_listeners(&setup, &[("front", "127.0.0.1:0"), ("side", &own)]);
    let proxy = setup.start();
    for turn in 0..20 {
        for text in [&both, &setup.text()] {
            proxy.rewrite(text);
            let answer = proxy.ask("POST", "/v1/reload", "");
            assert_eq!(answer.code, 200, "turn {turn}: {}", answer.body);
        }
    }
}

// If this fails, port 0 given twice, which is two ports, becomes one at the first reload.
#[test]
fn two_chosen_ports_stay_two() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let text = with_listeners(&setup, &[("front", "127.0.0.1:0"), ("side", "127.0.0.1:0")]);
    let proxy = Proxy::start(&text);
    let [first, second] = *proxy.addresses() else { panic!("two addresses") };
    assert_ne!(first, second);
    proxy.reload_with(&text);
    assert_alive(&mut connect(first));
    assert_alive(&mut connect(second));
}

// If this fails, a reload silently undoes what an operator has set.
#[test]
fn what_was_set_at_run_time_survives() {
    let backends = [Backend::named("b1"), Backend::named("b2"), Backend::named("b3")];
    let setup =
        Setup::of(&[&backends[0], &backends[1], &backends[2]]).pool("balance = \"round-robin\"");
    let proxy = setup.start();
    proxy.tell("back/b1", "drain");
    proxy.tell("back/b2", "maint");
    proxy.weigh("back/b3", 7);
    let said = proxy.reload_with(&setup.clone().listener("idle_timeout = \"5m\"").text());
    for words in ["back/b1 stays drain", "back/b2 stays maint", "back/b3 keeps weight 7"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert_eq!(proxy.backend("back", "b1").state, "drain");
    assert_eq!(proxy.backend("back", "b2").state, "maint");
    assert_eq!(proxy.backend("back", "b3").weight, 7);
    assert_eq!(served_by(proxy.address()).unwrap(), "b3");
    proxy.tell("back/b1", "ready");
    proxy.reload_with(&setup.text());
    assert_eq!(proxy.backend("back", "b1").state, "up");
}

// If this fails, a mistake in the file, or in what it asks for, harms what runs.
#[test]
fn a_bad_file_changes_nothing() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let proxy = setup.start();
    let mut client = connect(proxy.address());
    assert_alive(&mut client);
    let descriptors = proxy.descriptors();
    let said = refuse(&proxy, &format!("{}\n[oops", setup.text()));
    assert!(said.contains("evenkeel.toml:"), "{said}");
    let said = refuse(&proxy, &setup.clone().global("workers = 2").text());
    assert!(said.contains("workers"), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let bind = taken.1.to_string();
    let listeners = [("front", "127.0.0.1:0"), ("fresh", "127.0.0.3:0"), ("side", &*bind)];
    proxy.rewrite(&with_listeners(&setup, &listeners));
    let answer = proxy.ask("POST", "/v1/reload?dry_run=true", "");
    assert!(answer.code == 422 && answer.body.contains(&bind), "{}", answer.body);
    // The file may be right, and the address free a moment later.
    let output = proxy.reload();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&bind), "{output:?}");
    std::fs::remove_file(proxy.config_file()).unwrap();
    assert_eq!(proxy.reload().status.code(), Some(78));
    // It has no writer.
    mknodat(CWD, proxy.config_file(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let output = proxy.reload();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no regular file"), "{output:?}");
    std::fs::remove_file(proxy.config_file()).unwrap();
    assert_alive(&mut client);
    assert_alive(&mut connect(proxy.address()));
    assert_eq!(proxy.status().listeners.len(), 1);
    proxy.wait_for_sessions(1);
    eventually("nothing stays open", PATIENCE, || {
        (proxy.descriptors() <= descriptors).then_some(())
    });
    proxy.reload_with(&setup.text());
    assert!(support::admin::is_same(reloads(&proxy, "ok"), 1.0));
    assert!(support::admin::is_same(reloads(&proxy, "refused"), 5.0));
}

// If this fails, an operator looks for another program where evenkeel is in its own way.
#[test]
fn an_address_in_the_way_of_its_successor_is_named() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let proxy = setup.clone().listener("bind = [\"0.0.0.0:0\"]").start();
    let port = proxy.address().port();
    proxy.rewrite(&with_listeners(&setup, &[("front", &format!("127.0.0.1:{port}"))]));
    let said = String::from_utf8_lossy(&proxy.reload().stderr).into_owned();
    assert!(said.contains(&format!("evenkeel itself listens on 0.0.0.0:{port}")), "{said}");
    assert_alive(&mut connect(SocketAddr::from(([127, 0, 0, 1], port))));
}

// If this fails, `--dry-run` changes something, or `kill -HUP` does nothing.
#[test]
fn a_hangup_reloads_and_a_dry_run_does_not() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let proxy = Setup::of(&[&one]).start();
    let more = "bind = [\"127.0.0.1:0\", \"127.0.0.2:0\"]";
    proxy.rewrite(&Setup::of(&[&two]).listener(more).text());
    let descriptors = proxy.descriptors();
    assert_eq!(proxy.ask("POST", "/v1/reload?dry_run=true", "").code, 200);
    eventually("what was opened is closed", PATIENCE, || {
        (proxy.descriptors() <= descriptors).then_some(())
    });
    proxy.rewrite(&Setup::of(&[&two]).text());
    assert_eq!(served_by(proxy.address()).unwrap(), "one");
    proxy.signal(Signal::HUP);
    proxy.wait_for_metric("evenkeel_config_reloads_total", &[("result", "ok")], 1.0);
    assert_eq!(served_by(proxy.address()).unwrap(), "two");
    proxy.rewrite("nonsense");
    proxy.signal(Signal::HUP);
    proxy.wait_for_metric("evenkeel_config_reloads_total", &[("result", "refused")], 1.0);
    assert_eq!(served_by(proxy.address()).unwrap(), "two");
}

// If this fails, every reload gives every client a fresh budget.
#[test]
fn limits_remember_their_clients() {
    let backend = Backend::named("one");
    let setup = Setup::of(&[&backend]).limit("rate = \"1/min\"\nburst = 2\nmax_concurrent = 2");
    let proxy = setup.start();
    let held = connect(proxy.address());
    assert_eq!(served_by(proxy.address()).unwrap(), "one");
    proxy.reload_with(&setup.clone().listener("idle_timeout = \"5m\"").text());
    assert!(served_by(proxy.address()).map_or(true, |name| name.is_empty()));
    proxy.reload_with(&setup.limit("rate = \"1000/s\"\nmax_concurrent = 2").text());
    proxy.wait_for_sessions(1);
    let second = connect(proxy.address());
    proxy.wait_for_sessions(2);
    // The session that was opened before the reloads still counts.
    assert!(served_by(proxy.address()).map_or(true, |name| name.is_empty()));
    drop((held, second));
}

// If this fails, counters start again at every reload and rates are nonsense.
#[test]
fn counters_and_sessions_survive() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let proxy = setup.start();
    for key in 0..5 {
        stream::exchange(&mut connect(proxy.address()), (key, 1000));
    }
    let mut client = connect(proxy.address());
    assert_alive(&mut client);
    proxy.reload_with(&setup.listener("backlog = 1000\nidle_timeout = \"5m\"").text());
    proxy.wait_for_sessions(1);
    let metrics = proxy.metrics();
    for (name, wanted) in [
        ("evenkeel_listener_accepted_total", 6.0),
        ("evenkeel_backend_sessions_total", 6.0),
        ("evenkeel_sessions_active", 1.0),
        ("evenkeel_backend_sessions_active", 1.0),
        ("evenkeel_sessions_closed_total", 5.0),
        ("evenkeel_bytes_total", 10_002.0),
    ] {
        let found = metrics.sum(name, &[]);
        assert!(support::admin::is_same(found, wanted), "{name} is {found}, not {wanted}");
    }
}

/// Two listeners that route to two pools, in the order that is asked for.
fn routed(backends: [&Backend; 2], pools: [&str; 2]) -> String {
    let table = |name: &str| {
        let backend = backends[usize::from(name == "q")].address();
        format!("[pool.{name}]\nbackends = [\"{backend}\"]\n")
    };
    format!(
        "[global]\nworkers = 1\n[listener.a]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n\
         [[listener.a.route]]\nclient = [\"127.0.0.0/8\"]\npool = \"q\"\n\
         [listener.b]\nbind = [\"127.0.0.2:0\"]\npool = \"q\"\n{}{}",
        table(pools[0]),
        table(pools[1]),
    )
}

// If this fails, an operator reads "nothing changed" after traffic has moved to other servers, or
// "changed" after the file was only sorted.
#[test]
fn a_reload_tells_what_moved_and_not_what_was_sorted() {
    let (p, q) = (Backend::named("p"), Backend::named("q"));
    let proxy = Proxy::start(&routed([&p, &q], ["p", "q"]));
    assert_eq!(served_by(proxy.address()).unwrap(), "q");
    let said = proxy.reload_with(&routed([&p, &q], ["q", "p"]));
    assert!(said.contains("nothing changed"), "{said}");
    assert_eq!(proxy.status().generation, 1);
    // By position the route leads where it led.
    let moved = routed([&p, &q], ["p", "q"]).replace("/8\"]\npool = \"q\"", "/8\"]\npool = \"p\"");
    let said = proxy.reload_with(&moved);
    assert!(said.contains("listener a: route[0].pool = \"p\" (was \"q\")"), "{said}");
    assert!(said.contains(proxy.config_file().to_str().unwrap()), "{said}");
    assert_eq!(served_by(proxy.address()).unwrap(), "p");
    proxy.wait_for_line("route[0].pool");
}

// If this fails, two listeners change their ports and no message says so.
#[test]
fn ports_that_the_kernel_chose_move_with_a_word() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let names = |one, two| with_listeners(&setup, &[(one, "127.0.0.1:0"), (two, "127.0.0.1:0")]);
    let proxy = Proxy::start(&names("front", "side"));
    let [first, second] = *proxy.addresses() else { panic!("two addresses") };
    let said = proxy.reload_with(&names("side", "front"));
    let words = format!("listener front: real address = {second} (was {first})");
    assert!(said.contains(&words), "{said}");
    assert_eq!(proxy.status().listeners["front"].addresses, [second.to_string()]);
}

// If this fails, a warning about the new file is lost, or taken for a change.
#[test]
fn warnings_of_the_new_file_are_told_as_warnings() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let proxy = setup.start();
    proxy.rewrite(&setup.clone().also("[pool.idle]\nbackends = [\"127.0.0.1:1\"]").text());
    let output = proxy.reload();
    let (said, warned) = (verbs::text(&output.stdout), verbs::text(&output.stderr));
    assert!(said.contains("pool idle added") && !said.contains("no listener uses"), "{said}");
    assert!(warned.contains("warning: no listener uses pool `idle`"), "{warned}");
    let line = proxy.wait_for_line("no listener uses pool `idle`");
    assert!(line.contains("warn"), "{line}");
}

// If this fails, a candidate cannot be judged by the process before it is installed, or changes it.
#[test]
fn a_candidate_is_judged_and_not_put_in_force() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let setup = Setup::of(&[&one]);
    let proxy = setup.start();
    let place = tempfile::tempdir().unwrap();
    let candidate = place.path().join("new.toml");
    let socket = format!("[admin]\nsocket = {:?}\n", proxy.admin_socket());
    let judge = |text: &str| {
        std::fs::write(&candidate, format!("{text}{socket}")).unwrap();
        let own = proxy.admin_socket();
        let arguments = ["reload", "--dry-run", candidate.to_str().unwrap(), "--socket"];
        verbs::command(&arguments).arg(own).output().unwrap()
    };
    // Longer than other requests may be.
    let long = format!("{}{}", "# a long comment\n".repeat(10_000), Setup::of(&[&two]).text());
    let output = judge(&long);
    let said = verbs::text(&output.stdout);
    assert_eq!(verbs::code(&output), 0, "{output:?}");
    assert!(said.contains("new.toml is good") && said.contains("back/b1"), "{said}");
    let output = judge("[listener.front]\nbnid = 1\n");
    assert_eq!(verbs::code(&output), 78, "{output:?}");
    assert!(verbs::text(&output.stderr).contains("new.toml:2:"), "{output:?}");
    assert_eq!(served_by(proxy.address()).unwrap(), "one");
    assert!(support::admin::is_same(reloads(&proxy, "ok") + reloads(&proxy, "refused"), 0.0));
    let lone = verbs::command(&["reload", "x.toml"]).output().unwrap();
    assert_eq!(verbs::code(&lone), 2, "a candidate without --dry-run");
}

// If this fails, an operator cannot see what was set at run time, or it outlives its reason.
#[test]
fn what_operators_have_set_is_shown_and_ends() {
    let backends = [Backend::named("b1"), Backend::named("b2")];
    let setup = Setup::of(&[&backends[0], &backends[1]]);
    let proxy = setup.start();
    proxy.tell("back/b1", "drain");
    proxy.weigh("back/b2", 7);
    let set = |name: &str| proxy.backend("back", name).set_by_operator;
    assert_eq!(set("b1").unwrap().state.as_deref(), Some("drain"));
    let weighed = set("b2").unwrap();
    assert_eq!((weighed.weight, weighed.file_weight), (Some(7), 1));
    let reason = proxy.backend("back", "b2").reason;
    assert!(reason.contains("weight 7 by an operator (file: 1)"), "{reason}");
    proxy.tell("back/b2", "forget");
    assert_eq!((set("b2"), proxy.backend("back", "b2").weight), (None, 1));
    // The file says the same now, and takes it back later: nothing of the operator's is left.
    let said = proxy.reload_with(&setup.clone().backend(1, "drain = true").text());
    assert!(said.contains("back/b1: the file says drain, as an operator did"), "{said}");
    assert_eq!((set("b1"), proxy.backend("back", "b1").state.as_str()), (None, "drain"));
    proxy.reload_with(&setup.text());
    assert_eq!(proxy.backend("back", "b1").state, "up");
    let output =
        verbs::command(&["forget", "back/b1", "--socket"]).arg(proxy.admin_socket()).output();
    assert!(output.unwrap().status.success());
}

// If this fails, health checks of the process fail, and operators wait, while it reads a long file.
#[test]
fn questions_are_answered_while_a_long_file_is_read() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let proxy = setup.start();
    let networks: Vec<String> = (0..200_000_u32)
        .map(|number| format!("\"{}/32\"", std::net::Ipv4Addr::from(0x0a00_0000 + number * 2)))
        .collect();
    let allow = format!("allow = [\"127.0.0.0/8\", {}]", networks.join(", "));
    proxy.rewrite(&setup.listener(&allow).text());
    let done = std::sync::atomic::AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let reload = scope.spawn(|| {
            let output = proxy.reload();
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            output
        });
        let mut answered = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            assert_eq!(proxy.ask("GET", "/livez", "").code, 200);
            answered += 1;
        }
        let output = reload.join().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("allow has 200001 entries (was 0)"), "{said}");
        answered
    });
    // A process that is deaf meanwhile answers the first one at the end.
    assert!(answered > 5, "{answered}");
    assert_alive(&mut connect(proxy.address()));
}
