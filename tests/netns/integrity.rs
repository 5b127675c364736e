//! Every byte and every ending, over every kind of link and every way to move bytes.
//!
//! `EVENKEEL_SESSIONS=N` says how many sessions all cases play together.

use crate::books::Books;
use crate::crowd::{Stage, play_all};
use crate::net::{Keys, Link, Net};

/// Cases below.
const CASES: u64 = 12;
/// Sessions of all cases together, unless the environment says otherwise.
const SESSIONS: u64 = 100_008;

fn sessions() -> u64 {
    let given = std::env::var("EVENKEEL_SESSIONS").ok();
    given.map_or(SESSIONS, |given| given.parse().unwrap()) / CASES
}

#[track_caller]
fn whole(case: u64, link: Link, splice: &str) {
    let net = Net::new(link);
    let stage = Stage::open(&net, net.backend(1));
    let global = format!("workers = 2\nsplice = \"{splice}\"\nlog = {{ sessions = 'none' }}");
    let proxy = net.evenkeel(&[1], Keys { global: &global, ..Keys::default() });
    let books = Books::open(&proxy);
    let name = format!("{link:?}, splice {splice}");
    let first = case << 32;
    let outcome = play_all(&net, (&name, proxy.address()), &stage, (first, sessions()));
    println!(
        "injected: {} sessions of nine kinds, {name}; expected: every byte and every ending; \
         seen: {} failures",
        outcome.sessions,
        outcome.failures.len()
    );
    let shown: Vec<_> = outcome.failures.iter().take(10).collect();
    assert!(outcome.failures.is_empty(), "{} failures: {shown:#?}", outcome.failures.len());
    assert_eq!(outcome.sessions, sessions());
    books.close(&proxy);
}

const OFFLOADED: Link = Link::OFFLOADED;
const SMALL: Link = Link::Veth { mtu: 576, offloads: false };

macro_rules! cases {
    ($($name:ident: $case:literal, $link:expr, $splice:literal;)*) => {$(
        /// If it fails, a byte is lost, repeated, moved or delivered to another session, a reset
        /// looks like an end or an end like a reset, or a session hangs.
        #[test]
        fn $name() {
            whole($case, $link, $splice);
        }
    )*};
}

cases! {
    loopback_by_size: 1, Link::Loopback, "auto";
    loopback_copied: 2, Link::Loopback, "never";
    loopback_spliced: 3, Link::Loopback, "always";
    offloaded_by_size: 4, OFFLOADED, "auto";
    offloaded_copied: 5, OFFLOADED, "never";
    offloaded_spliced: 6, OFFLOADED, "always";
    plain_packets_by_size: 7, Link::PLAIN, "auto";
    plain_packets_copied: 8, Link::PLAIN, "never";
    plain_packets_spliced: 9, Link::PLAIN, "always";
    small_packets_by_size: 10, SMALL, "auto";
    small_packets_copied: 11, SMALL, "never";
    small_packets_spliced: 12, SMALL, "always";
}
