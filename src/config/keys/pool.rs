//! Keys of `[pool.NAME]` and the tables in it.

use super::bounds::{CLIENTS_MAX, CLIENTS_MIN, LONGEST, SECOND, SESSIONS_MAX, SHORTEST, ZERO};
use super::key::{Argument, Companion, IfIdle, Key, KeyTable, Shape, Values, words};
use crate::config::words::{HashKeyForm, InitialVerdict, OnDownForm, ProbeKind};
use crate::policy::balance::BalanceAlgorithm;
use crate::policy::balance::maglev::TABLE_SIZE_MAX;
use crate::policy::first_bytes::proxy_header::ProxyVersion;
use crate::policy::health::outlier::EJECT_MAX;

/// What of a client is hashed: for the table of maglev, or to know the client again.
const WITH_HASH: &[Companion] =
    &[Companion::new("balance", MAGLEV, IfIdle::Kept).or_beside("sticky")];
const WITH_MAGLEV_TABLE: &[Companion] = &[Companion::new("balance", MAGLEV, IfIdle::Kept)];
const WITH_MAGLEV: &[Companion] = &[Companion::new("balance", MAGLEV, IfIdle::Refused)];
const NOT_WITH_FIRST: &[Companion] =
    &[Companion::new("balance", Values::Except(&["first"]), IfIdle::Refused)];
const WITH_HTTP: &[Companion] = &[with_probe(&["http"])];
const WITH_HTTP_OR_TLS: &[Companion] = &[with_probe(&["http", "tls"])];
const WITH_SEND_EXPECT: &[Companion] = &[with_probe(&["send-expect"])];
const WITH_TLS: &[Companion] = &[with_probe(&["tls"])];
const WITH_VERIFY: &[Companion] =
    &[with_probe(&["tls"]), Companion::new("verify", Values::Among(&["true"]), IfIdle::Warned)];

const MAGLEV: Values = Values::Among(&["maglev"]);

const fn with_probe(kinds: &'static [&'static str]) -> Companion {
    Companion::new("probe", Values::Among(kinds), IfIdle::Warned)
}

pub(super) const POOL: &[Key] = &[
    Key::new(KeyTable::Pool, "balance", Shape::Word(words::<BalanceAlgorithm>))
        .default("maglev")
        .means("How a backend is chosen."),
    Key::new(KeyTable::Pool, "hash_key", Shape::WordWith(words::<HashKeyForm>, Argument::Name))
        .default("client-ip")
        .beside(WITH_HASH)
        .means("What `maglev` hashes."),
    Key::new(KeyTable::Pool, "hash_prefix", Shape::KeyTable(KeyTable::HashPrefix))
        .or_else("see below")
        .beside(WITH_HASH)
        .means("How much of the address is hashed, with `maglev` and for `sticky`."),
    Key::new(KeyTable::Pool, "table_size", Shape::Count(2, TABLE_SIZE_MAX as u64))
        .default("65537")
        .note("; a prime above the number of backends")
        .beside(WITH_MAGLEV_TABLE)
        .means("Slots of the `maglev` table, 2 bytes each."),
    Key::new(KeyTable::Pool, "load_factor", Shape::Factor(1_000, 100_000))
        .or_else("no bound")
        .beside(WITH_MAGLEV)
        .means(
            "`maglev` only: pass over a backend that has more than this times its share, by \
                weight, of the sessions of all that could serve, rounded up.",
        ),
    Key::new(KeyTable::Pool, "sticky", Shape::TableOrFalse(KeyTable::Sticky))
        .or_else("nothing is remembered")
        .means("Send a client where it was sent before, see [below](#sticky-of-poolname)."),
    Key::new(KeyTable::Pool, "backends", Shape::Backends)
        .note("at least one; names and addresses once each")
        .reload("new ones serve at once; sessions of gone ones go on")
        .means("Addresses, or tables as below."),
    Key::new(KeyTable::Pool, "connect_timeout", Shape::Duration(SHORTEST, LONGEST))
        .default("3s")
        .reload("now")
        .means("How long one attempt to connect may take."),
    Key::new(KeyTable::Pool, "retries", Shape::Count(0, 100)).default("2").reload("now").means(
        "Further attempts after a failed one, each on another backend while there is \
                one, then again on those tried.",
    ),
    Key::new(KeyTable::Pool, "queue", Shape::KeyTable(KeyTable::Queue))
        .or_else("no client waits")
        .reload("new; a longer or shorter `timeout` now")
        .means(
            "What a client does while every backend is full, see \
                [below](#queue-of-poolname).",
        ),
    Key::new(KeyTable::Pool, "send_proxy", Shape::Word(words::<ProxyVersion>))
        .or_else("none")
        .reload("new; the next probe")
        .means(
            "Begin each connection to a backend with a PROXY protocol header that names the \
                client and where it connected to.",
        ),
    Key::new(KeyTable::Pool, "source", Shape::List("list"))
        .or_else("the kernel chooses")
        .note(
            "up to 64 IP addresses of this host, without ports; not with `transparent` or \
               Unix sockets",
        )
        .reload("new; the next probe")
        .means(
            "Connect to backends from these addresses, in turn, see \
                [below](#source-and-transparent).",
        ),
    Key::new(KeyTable::Pool, "transparent", Shape::Boolean)
        .default("false")
        .note("not with `source` or Unix sockets")
        .means(
            "Connect to backends from the client's own address, so that they see it without \
                a header.",
        ),
    Key::new(KeyTable::Pool, "slow_start", Shape::Duration(ZERO, LONGEST))
        .default("0s")
        .reload("now")
        .beside(NOT_WITH_FIRST)
        .means(
            "The share of a backend that comes up, or that a reload adds, grows along a line \
                over this time, in 256 steps from nearly nothing.",
        ),
    Key::new(KeyTable::Pool, "panic_threshold", Shape::Percent).default("0%").reload("now").means(
        "When at most this share of the pool's backends is healthy, those that probes or \
                sessions took out are tried again.",
    ),
    Key::new(KeyTable::Pool, "on_down", Shape::WordWith(words::<OnDownForm>, Argument::Rate))
        .default("keep")
        .note(" (any rate)")
        .reload("now")
        .means("What happens to sessions of a backend that its probes take down."),
    Key::new(KeyTable::Pool, "health", Shape::TableOrFalse(KeyTable::Health))
        .or_else("no probes")
        .reload("now")
        .means("Active probes, see [below](#poolnamehealth)."),
    Key::new(KeyTable::Pool, "outlier", Shape::TableOrFalse(KeyTable::Outlier))
        .or_else("no ejections")
        .reload("now")
        .means("Ejection by what sessions meet, see [below](#poolnameoutlier)."),
];

pub(super) const HASH_PREFIX: &[Key] = &[
    Key::new(KeyTable::HashPrefix, "v4", Shape::Count(0, 32))
        .default("32")
        .means("Leading bits of an IPv4 address that are hashed."),
    Key::new(KeyTable::HashPrefix, "v6", Shape::Count(0, 128))
        .default("128")
        .means("Leading bits of an IPv6 address that are hashed."),
];

pub(super) const STICKY: &[Key] = &[
    Key::new(KeyTable::Sticky, "for", Shape::WholeSeconds(SECOND, LONGEST))
        .default("1h")
        .reload("new; a shorter one forgets what would last longer")
        .means(
            "How long a choice is remembered after the client's latest session began; \
                renewed when an eighth of it has passed.",
        ),
    Key::new(KeyTable::Sticky, "size", Shape::Count(CLIENTS_MIN, CLIENTS_MAX))
        .default("65536")
        .reload("new; starts empty")
        .means("Clients that are remembered, rounded up to a power of two, 8 bytes each."),
];

pub(super) const QUEUE: &[Key] = &[
    Key::new(KeyTable::Queue, "max", Shape::Count(0, 65_535)).default("0").means(
        "Clients that wait at once, over all workers; one more is turned away \
                (`no_backend`).",
    ),
    Key::new(KeyTable::Queue, "timeout", Shape::Duration(ZERO, LONGEST))
        .default("0s")
        .note("; above 0s when `max` is")
        .reload("now")
        .means(
            "How long each waits; then it is turned away (`no_backend`, in the session log \
                `sQ` and \"no place at a backend in time\").",
        ),
];

pub(super) const BACKEND: &[Key] = &[
    Key::new(KeyTable::Backend, "address", Shape::Text("address"))
        .note("no port 0, no wildcard")
        .means("Where it listens, `\"unix:/path\"` too."),
    Key::new(KeyTable::Backend, "name", Shape::Text("text"))
        .or_else("the address as written")
        .note("1 to 128 bytes without `/` (but for that address), spaces, control characters")
        .means("For commands, logs and metrics."),
    Key::new(KeyTable::Backend, "weight", Shape::Count(0, 65_535))
        .default("1")
        .means("Share relative to the others."),
    Key::new(KeyTable::Backend, "backup", Shape::Boolean)
        .default("false")
        .means("Serves only when no other can: down, drained, full, or failed for this session."),
    Key::new(KeyTable::Backend, "max_sessions", Shape::Count(1, SESSIONS_MAX))
        .or_else("no bound")
        .means("Sessions at once, those being connected too."),
    Key::new(KeyTable::Backend, "drain", Shape::Boolean)
        .default("false")
        .reload("now")
        .means("Takes no new sessions."),
];

pub(super) const HEALTH: &[Key] = &[
    Key::new(KeyTable::Health, "probe", Shape::Word(words::<ProbeKind>))
        .default("tcp")
        .reload("now")
        .means("What one probe does."),
    Key::new(KeyTable::Health, "path", Shape::Text("text"))
        .default("/health")
        .note(
            "begins with `/`, at most 4096 bytes; spaces, `<`, `>`, `#` and what is not ASCII \
               percent-encoded, the backtick before `?` and `\"` after it too",
        )
        .reload("now")
        .beside(WITH_HTTP)
        .means("http: path and query to ask for."),
    Key::new(KeyTable::Health, "host", Shape::Text("text"))
        .or_else("the backend's address; `localhost` on a Unix socket")
        .note("tls: a name, or an IP address")
        .reload("now")
        .beside(WITH_HTTP_OR_TLS)
        .means("http: Host header."),
    Key::new(KeyTable::Health, "method", Shape::Text("text"))
        .default("GET")
        .note("a method without a body, not CONNECT")
        .reload("now")
        .beside(WITH_HTTP)
        .means("http: the method of the request."),
    Key::new(KeyTable::Health, "status", Shape::List("list"))
        .default("[\"200\"]")
        .note("`\"100\"` to `\"599\"`, or ranges such as `\"200-299\"`")
        .reload("now")
        .beside(WITH_HTTP)
        .means("http: good answers."),
    Key::new(KeyTable::Health, "send", Shape::Text("bytes"))
        .default("PING\\r\\n")
        .note("at most 4,096 bytes")
        .reload("now")
        .beside(WITH_SEND_EXPECT)
        .means("send-expect: what is sent first; `\"\"` for servers that speak first."),
    Key::new(KeyTable::Health, "expect", Shape::Text("bytes"))
        .default("+PONG")
        .note("1 to 4,096 bytes")
        .reload("now")
        .beside(WITH_SEND_EXPECT)
        .means("send-expect: what the answer has to hold, anywhere in its first 64 KiB."),
    Key::new(KeyTable::Health, "verify", Shape::Boolean)
        .default("false")
        .reload("now")
        .beside(WITH_TLS)
        .means("tls: whether the certificate is checked."),
    Key::new(KeyTable::Health, "ca", Shape::Text("path"))
        .or_else("the system's roots")
        .note("absolute")
        .reload("now")
        .beside(WITH_VERIFY)
        .means(
            "tls, with `verify`: a PEM file of the certificates to trust instead: of \
                authorities, or the servers' own.",
        ),
    Key::new(KeyTable::Health, "port", Shape::Count(1, 65_535))
        .or_else("the backend's port")
        .reload("now")
        .means("Which port is asked, by every kind of probe."),
    Key::new(KeyTable::Health, "interval", Shape::Duration(SHORTEST, LONGEST))
        .default("5s")
        .reload("now")
        .means(
            "From the start of one probe to the start of the next, ±10 %, while the verdict \
                is settled.",
        ),
    Key::new(KeyTable::Health, "fast_interval", Shape::Duration(SHORTEST, LONGEST))
        .default("1s")
        .reload("now")
        .means("Time between probes while a verdict is changing; never longer than `interval`."),
    Key::new(KeyTable::Health, "timeout", Shape::Duration(SHORTEST, LONGEST))
        .default("2s")
        .reload("now")
        .means("How long one probe may take."),
    Key::new(KeyTable::Health, "rise", Shape::Count(1, 1_000))
        .default("2")
        .reload("now")
        .means("Passes in a row until a backend is up."),
    Key::new(KeyTable::Health, "fall", Shape::Count(1, 1_000))
        .default("3")
        .reload("now")
        .means("Failures in a row until it is down."),
    Key::new(KeyTable::Health, "down_backoff", Shape::Duration(SHORTEST, LONGEST))
        .default("30s")
        .reload("now")
        .means(
            "Longest time between probes of a backend that is down: from `fast_interval` \
                upwards, at random, doubling.",
        ),
    Key::new(KeyTable::Health, "initial", Shape::Word(words::<InitialVerdict>))
        .default("up")
        .reload("new backends")
        .means("Verdict before the first probe has ended."),
];

pub(super) const OUTLIER: &[Key] = &[
    Key::new(KeyTable::Outlier, "consecutive_failures", Shape::Count(1, 1_000))
        .default("5")
        .reload("now")
        .means("Failures in a row, over all workers, that eject a backend."),
    Key::new(KeyTable::Outlier, "eject", Shape::Duration(SHORTEST, EJECT_MAX))
        .default("30s")
        .reload("next ejection")
        .means(
            "How long it is out: this times the number of ejections so far, at most 5 \
                minutes.",
        ),
    Key::new(KeyTable::Outlier, "max_ejected", Shape::Percent)
        .default("50%")
        .reload("next ejection")
        .means(
            "Most of the pool's backends out at once, the new one counted: one of three at \
                50%.",
        ),
];
