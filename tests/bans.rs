//! Clients that an operator bans: turned away at once, in every worker, until the end of the ban.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Output};

use evenkeel::control::admin::ban_list::BanList;
use support::switched::echoes;
use support::verbs::{code, evenkeel, text};
use support::{Backend, PATIENCE, Proxy, Setup, connect_from, eventually};

const REFUSED: &str = "evenkeel_listener_refused_total";
const BAN: (&str, &str) = ("reason", "ban");

fn run(proxy: &Proxy, arguments: &[&str]) -> Output {
    let socket = proxy.admin_socket();
    evenkeel(&[arguments, &["--socket", socket.to_str().unwrap()]].concat())
}

/// Runs a verb that succeeds; gives what it says.
#[track_caller]
fn said(proxy: &Proxy, arguments: &[&str]) -> String {
    let output = run(proxy, arguments);
    assert_eq!(code(&output), 0, "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A client from 127.0.1.N that has had an echo; `None` when it is turned away.
fn from(host: u8, address: SocketAddr) -> Option<TcpStream> {
    let mut client = connect_from((IpAddr::from([127, 0, 1, host]), 0), address).ok()?;
    echoes(&mut client).then_some(client)
}

fn listed(proxy: &Proxy) -> BanList {
    let answer = proxy.ask("GET", "/v1/bans", "");
    assert_eq!(answer.code, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

// If this fails, an abuser gets in through the one worker that has not heard of the ban, loses what
// it was to keep, or stays out for ever.
#[test]
fn a_ban_turns_clients_away_until_it_is_taken_back() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]).global("workers = 2");
    // That the kernel does the same is seen in tests/netns.
    let proxy = setup.listener("kernel_refusal = \"off\"").start();
    let web = proxy.address();
    let mut before = from(7, web).unwrap();
    let words = said(&proxy, &["ban", "127.0.1.4/30", "--reason", "floods"]);
    assert_eq!(words, "banned 127.0.1.4/30 until unbanned: floods\n");
    // Each connection goes to a worker that the kernel draws.
    assert!((0..20).all(|_| from(7, web).is_none()));
    assert!(from(8, web).is_some());
    assert!(echoes(&mut before), "its sessions stay");
    proxy.wait_for_metric(REFUSED, &[BAN], 20.0);
    let line = &proxy.wait_for_session_lines(20)[0];
    assert_eq!(line["reason"], "client banned by an operator");
    let explained = said(&proxy, &["explain", "front", "127.0.1.7"]);
    assert!(explained.contains("not admitted: ban 127.0.1.4/30"), "{explained}");
    assert!(explained.contains("refused, client banned by an operator"), "{explained}");
    assert_eq!(said(&proxy, &["unban", "127.0.1.4/30"]), "unbanned 127.0.1.4/30\n");
    assert!(from(7, web).is_some());
}

// If this fails, an operator who wants a client gone has it for hours.
#[test]
fn a_ban_can_end_what_its_clients_have() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    let [mut one, mut two, mut other] = [1, 2, 9].map(|host| from(host, proxy.address()).unwrap());
    let words = said(&proxy, &["ban", "127.0.1.1", "127.0.1.2", "--kill"]);
    let expected = "banned 127.0.1.1 and 1 other until unbanned; killing 2 sessions\n";
    assert_eq!(words, expected);
    assert!(!echoes(&mut one) && !echoes(&mut two) && echoes(&mut other));
    assert!(from(1, proxy.address()).is_none());
}

// If this fails, a ban holds for ever or not at all, or a reload forgives.
#[test]
fn a_ban_ends_at_its_time_and_outlasts_a_reload() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let proxy = setup.start();
    said(&proxy, &["ban", "127.0.1.1", "--for", "1h"]);
    said(&proxy, &["ban", "127.0.1.2", "--for", "1s"]);
    proxy.reload_with(&setup.clone().listener("idle_timeout = \"77s\"").text());
    assert!(from(1, proxy.address()).is_none());
    eventually("the short one is over", PATIENCE, || from(2, proxy.address()));
    assert!(from(1, proxy.address()).is_none());
    let list = listed(&proxy);
    assert_eq!((list.bans.len(), list.max), (1, 65_536));
    let ban = &list.bans[0];
    assert_eq!(ban.network, "127.0.1.1");
    assert!(ban.until.as_ref().unwrap() > &ban.since, "{ban:?}");
    let table = said(&proxy, &["bans"]);
    assert!(table.starts_with("BANNED") && table.contains("127.0.1.1"), "{table}");
    assert_eq!(said(&proxy, &["unban", "--all"]), "1 ban ended\n");
    assert_eq!(listed(&proxy).bans, []);
}

// If this fails, a banned client comes in through a trusted proxy, by a header that was begun
// before the ban.
#[test]
fn a_client_that_a_header_names_is_banned() {
    let backend = Backend::echo();
    let trusting = "accept_proxy = { from = [\"127.0.0.0/8\"] }";
    let proxy = Setup::of(&[&backend]).listener(trusting).start();
    let mut client = support::connect(proxy.address());
    client.write_all(b"PROXY TCP4 203.0.113.7 ").unwrap();
    proxy.wait_for_sessions(1);
    said(&proxy, &["ban", "203.0.113.0/24"]);
    client.write_all(b"192.0.2.1 4711 80\r\n").unwrap();
    assert!(!echoes(&mut client));
    proxy.wait_for_metric(REFUSED, &[BAN], 1.0);
}

// If this fails, a slip bans everybody, or is taken for a ban that it is not.
#[test]
fn what_is_no_ban_is_refused() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    let long = "x".repeat(257);
    for (arguments, words) in [
        (&["ban", "0.0.0.0/0"][..], "is every client"),
        (&["ban", "localhost"], "is no network like 192.0.2.0/24"),
        (&["ban", "192.0.2.1", "--for", "10"], "is no time"),
        (&["ban", "192.0.2.1", "--for", "1ms"], "a ban lasts from 1s to"),
        (&["ban", "192.0.2.1", "--reason", &long], "at most 256 bytes"),
        (&["ban", "192.0.2.1", "--reason", "a\nb"], "no control characters"),
        // Nothing of a request is in force when a part of it is refused.
        (&["ban", "192.0.2.1", "192.0.2.300"], "is no network"),
        (&["unban", "192.0.2"], "is no network"),
    ] {
        let output = run(&proxy, arguments);
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{arguments:?}: {}", text(&output.stderr));
    }
    assert_eq!(code(&run(&proxy, &["ban"])), 2);
    assert_eq!(code(&run(&proxy, &["unban"])), 2);
    assert_eq!(proxy.ask("POST", "/v1/bans", "{\"bans\": []}").code, 400);
    assert_eq!(listed(&proxy).bans, []);
    assert_eq!(said(&proxy, &["unban", "192.0.2.1"]), "192.0.2.1 was not banned\n");
    said(&proxy, &["ban", "192.0.2.0/24"]);
    let output = run(&proxy, &["unban", "192.0.2.1"]);
    assert_eq!(text(&output.stderr), "warning: banned still, by 192.0.2.0/24\n");
}

/// The command of an action of fail2ban, with its tags replaced as fail2ban does.
fn action(name: &str, proxy: &Proxy) -> String {
    let file = include_str!("../configs/fail2ban/evenkeel.conf");
    let command = file.lines().find_map(|line| line.strip_prefix(&format!("{name} = "))).unwrap();
    let socket = proxy.admin_socket();
    let tags = [
        ("<evenkeel>", env!("CARGO_BIN_EXE_evenkeel")),
        ("<socket>", socket.to_str().unwrap()),
        ("<ip>", "127.0.1.5"),
        ("<bantime>", "600"),
        ("<name>", "sshd"),
    ];
    let filled =
        tags.iter().fold(command.to_owned(), |filled, (tag, value)| filled.replace(tag, value));
    assert!(!filled.contains('<'), "{filled}");
    filled
}

// If this fails, the action that is shipped for fail2ban bans nobody.
#[test]
fn the_action_for_fail2ban_bans_and_unbans() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    let run = |name: &str| {
        let status = Command::new("sh").arg("-c").arg(action(name, &proxy)).status().unwrap();
        assert!(status.success(), "{name}");
    };
    run("actioncheck");
    run("actionban");
    assert!(from(5, proxy.address()).is_none());
    assert_eq!(listed(&proxy).bans[0].reason, "fail2ban sshd");
    run("actionunban");
    assert!(from(5, proxy.address()).is_some());
    run("actionunban");
}
