//! Clients that lists and bans do not admit are refused by the kernel exactly as workers would
//! refuse them, from the moment on at which the reload or the verb has answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::kernel_refusal::{Met, visit_from};
use crate::net::{Link, Net, Side};
use crate::support::admin::is_same;
use crate::support::verbs::{code, evenkeel, text};
use crate::support::{Backend, PATIENCE, Proxy, Setup, eventually};

fn visit(to: SocketAddr, host: u8) -> Met {
    visit_from(Ipv4Addr::new(127, 0, 0, host).into(), to)
}

/// Runs a verb that succeeds; gives what it says.
#[track_caller]
fn said(proxy: &Proxy, arguments: &[&str]) -> String {
    let socket = proxy.admin_socket().display().to_string();
    let output = evenkeel(&[arguments, &["--socket", &socket]].concat());
    assert_eq!(code(&output), 0, "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Every series about refused connections, as it has to be after these of the kernel, by reason,
/// and after those of workers for a list.
#[track_caller]
fn assert_refused(proxy: &Proxy, [access, ban, limit]: [u32; 3], by_workers: u32) {
    let all = "evenkeel_listener_refused_total";
    let by_kernel = "evenkeel_listener_kernel_refusals_total";
    for (name, reason, count) in [
        (by_kernel, "access", access),
        (by_kernel, "ban", ban),
        (by_kernel, "limit", limit),
        (all, "access", access + by_workers),
        (all, "ban", ban),
    ] {
        let found = proxy.metric(name, &[("reason", reason)]);
        assert!(is_same(found, count.into()), "{name} {reason}: {found}, not {count}");
    }
    let access_said = &proxy.status().listeners["front"].access;
    assert_eq!(access_said.refused_in_kernel, u64::from(access + ban));
    assert_eq!(access_said.refused, u64::from(access + ban + by_workers));
}

/// A listener with these keys and its backend, which serves until it is dropped.
fn listening(keys: &str) -> (Backend, Setup) {
    let backend = Backend::named("hello");
    let setup = Setup::of(&[&backend]).global("workers = 2").listener(keys);
    (backend, setup)
}

// If this fails, a denied client costs the workers an accept for each connection, gets in, or is
// counted for something else; or a reload that lets it in comes into force late.
#[test]
fn a_denied_client_is_refused_before_it_is_accepted() {
    let (_backend, setup) = listening("deny = [\"127.0.0.2\", \"127.0.0.16/28\"]");
    let required = setup.clone().listener("kernel_refusal = \"require\"");
    let proxy = required.start();
    let to = proxy.address();
    for host in [2, 2, 2, 17, 31] {
        assert_eq!(visit(to, host), Met::RefusedByKernel, "{host}");
    }
    assert_eq!([3, 15, 32].map(|host| visit(to, host)), [Met::Served; 3]);
    assert_refused(&proxy, [5, 0, 0], 0);
    assert!(is_same(proxy.metric("evenkeel_listener_accepted_total", &[]), 8.0));
    let status = proxy.status().listeners["front"].access.clone();
    assert_eq!((&*status.refused_by, &*status.why, status.has_lists), ("kernel", "", true));
    let line = proxy.wait_for_line("3 times, by the kernel");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["client"], "127.0.0.2");
    assert_eq!(line["reason"], "client address not admitted (3 times, by the kernel)");
    let explained = said(&proxy, &["explain", "front", "127.0.0.2"]);
    assert!(explained.contains("refusal  by the kernel\n"), "{explained}");

    // At once: the reload answers when it is so.
    let narrower = required.text().replace("\"127.0.0.2\", ", "");
    proxy.reload_with(&narrower);
    assert_eq!((visit(to, 2), visit(to, 17)), (Met::Served, Met::RefusedByKernel));
    proxy.reload_with(&setup.clone().listener("kernel_refusal = \"off\"").text());
    assert_eq!([2, 17].map(|host| visit(to, host)), [Met::RefusedByWorker; 2]);
    assert_refused(&proxy, [6, 0, 0], 2);
    let allowing = narrower.replace("deny = ", "allow = ");
    proxy.reload_with(&allowing);
    assert_eq!([2, 16, 31].map(|host| visit(to, host)), {
        [Met::RefusedByKernel, Met::Served, Met::Served]
    });
    assert_refused(&proxy, [7, 0, 0], 2);
}

// If this fails, a ban lets the next client through, is forgotten by a reload, or lasts for longer
// than it was meant.
#[test]
fn bans_hold_in_the_kernel_from_the_answer_to_their_end() {
    let (_backend, setup) = listening("");
    let proxy = setup.start();
    let to = proxy.address();
    for _ in 0..20 {
        said(&proxy, &["ban", "127.0.0.2"]);
        assert_eq!(visit(to, 2), Met::RefusedByKernel);
        said(&proxy, &["unban", "127.0.0.2"]);
        assert_eq!(visit(to, 2), Met::Served);
    }
    // The wider one lasts longer, and a narrower one that is lifted does not lift it.
    said(&proxy, &["ban", "127.0.0.0/28", "--for", "1h"]);
    said(&proxy, &["ban", "127.0.0.2", "127.0.0.64/26", "--for", "1s"]);
    proxy.reload_with(&setup.clone().listener("idle_timeout = \"77s\"").text());
    assert_eq!(visit(to, 2), Met::RefusedByKernel);
    eventually("the end of a ban", PATIENCE, || (visit(to, 65) == Met::Served).then_some(()));
    assert_eq!(visit(to, 2), Met::RefusedByKernel);
    said(&proxy, &["unban", "127.0.0.2"]);
    assert_eq!([2, 15, 16].map(|host| visit(to, host)), {
        [Met::RefusedByKernel, Met::RefusedByKernel, Met::Served]
    });
    let line = proxy.wait_for_line("by the kernel");
    assert!(line.contains("client banned by an operator ("), "{line}");
    said(&proxy, &["unban", "--all"]);
    assert_eq!(visit(to, 2), Met::Served);
    let banned = proxy.metric("evenkeel_listener_refused_total", &[("reason", "ban")]);
    assert!(banned >= 24.0, "{banned}");
    // Bans that come before the first gate are in it.
    proxy.reload_with(&setup.clone().listener("kernel_refusal = \"off\"").text());
    said(&proxy, &["ban", "127.0.0.2"]);
    assert_eq!(visit(to, 2), Met::RefusedByWorker);
    proxy.reload_with(&setup.text());
    assert_eq!(visit(to, 2), Met::RefusedByKernel);
}

// If this fails, a client that the kernel refuses already is counted for its limit although it may
// not connect at all, or is not told apart in the log.
#[test]
fn what_refuses_a_client_is_asked_in_the_order_of_workers() {
    let (_backend, setup) = listening("");
    let setup = setup.limit("rate = \"1/h\"");
    let proxy = setup.start();
    let to = proxy.address();
    let met = [0; 4].map(|_| visit(to, 2));
    let [first, second, third, fourth] = met;
    assert_eq!((first, second), (Met::Served, Met::RefusedByWorker));
    assert_eq!([third, fourth], [Met::RefusedByKernel; 2]);
    said(&proxy, &["ban", "127.0.0.2"]);
    assert_eq!(visit(to, 2), Met::RefusedByKernel);
    assert_refused(&proxy, [0, 1, 2], 0);
    proxy.reload_with(&setup.clone().listener("deny = [\"127.0.0.0/8\"]").text());
    assert_eq!(visit(to, 2), Met::RefusedByKernel);
    assert_refused(&proxy, [0, 2, 2], 0);
    said(&proxy, &["unban", "127.0.0.2"]);
    assert_eq!(visit(to, 2), Met::RefusedByKernel);
    assert_refused(&proxy, [1, 2, 2], 0);
}

// If this fails, clients over IPv6 or behind a translator get past a list or a ban, or are refused
// for what it says of others.
#[test]
fn ipv6_and_translated_clients_are_seen_as_workers_see_them() {
    let net = Net::new(Link::Loopback);
    for prefix in ["fd00::/16", "64:ff9b::/96", "2001:db8:1::/48"] {
        net.run(Side::Client, "ip", &["-6", "route", "add", "local", prefix, "dev", "lo"]);
    }
    net.run(Side::Client, "sysctl", &["-q", "-w", "net.ipv6.ip_nonlocal_bind=1"]);
    let config = |switch: &str| {
        format!(
            "[global]\nnat64 = [\"64:ff9b::/96\", \"2001:db8:1::/48\"]\n[listener.front]\n\
             bind = [\"[::1]:7000\"]\npool = \"back\"\nkernel_refusal = \"{switch}\"\n\
             deny = [\"fd00:0:0:1::/64\", \"192.0.2.0/25\", \"fd00::7\"]\n\
             allow = [\"fd00::/16\", \"192.0.2.0/24\", \"64:ff9b::198.51.100.0/120\"]\n\
             [pool.back]\nretries = 0\nbackends = [\"{}\"]\n",
            net.backend(1)
        )
    };
    let proxy = net.evenkeel_under(&[], &config("require"));
    let to = proxy.address();
    said(&proxy, &["ban", "fd00:0:0:2::/64", "192.0.2.200", "--for", "1h"]);
    // The address behind the /48 is around the octet that is skipped (RFC 6052).
    let clients = [
        ("fd00::1", true),
        ("fd00::7", false),
        ("fd00:0:0:1::1", false),
        ("fd00:0:0:2::1", false),
        ("fd00:0:0:3::1", true),
        ("64:ff9b::192.0.2.7", false),
        ("64:ff9b::192.0.2.199", true),
        ("64:ff9b::192.0.2.200", false),
        ("64:ff9b::198.51.100.7", true),
        ("64:ff9b::203.0.113.7", false),
        ("2001:db8:1:c000:2:c700::", true),
        ("2001:db8:1:c000:2:c800::", false),
        ("2001:db8:1:c000:2:700::", false),
        ("2001:db8:1:c633:64:700::", false),
    ];
    let visits = |refused| {
        for (client, is_in) in clients {
            let client: IpAddr = client.parse().unwrap();
            let met = net.on(Side::Client, || visit_from(client, to));
            // There is no backend: a client that is let in is turned away by a worker, later.
            let expected = if is_in { Met::RefusedByWorker } else { refused };
            assert_eq!(met, expected, "{client}");
        }
    };
    visits(Met::RefusedByKernel);
    assert_refused(&proxy, [6, 3, 0], 0);
    proxy.reload_with(&config("off"));
    visits(Met::RefusedByWorker);
    let by_workers = proxy.metric("evenkeel_listener_refused_total", &[("reason", "access")]);
    let bans = proxy.metric("evenkeel_listener_refused_total", &[("reason", "ban")]);
    assert!(is_same(by_workers, 12.0) && is_same(bans, 6.0), "{by_workers} {bans}");
}
