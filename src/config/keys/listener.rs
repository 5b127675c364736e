//! Keys of `[listener.NAME]` and the tables in it.

use std::time::Duration;

use super::bounds::{
    CLIENTS_MAX, CLIENTS_MIN, HOUR, LONGEST, SECOND, SESSIONS_MAX, SHORTEST, U32_MAX,
};
use super::key::{Companion, IfIdle, Key, KeyTable, Shape, Values, words};
use crate::config::model::LimitAlgorithm;
use crate::config::words::{LimitMode, OnPeekTimeout, OtherPeers};
use crate::policy::terms::{LimitAction, Protocol};

/// The kernel keeps TCP_USER_TIMEOUT in milliseconds of 31 bits.
const USER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 86_400);
/// Longest time that the kernel takes for keepalive.
const KERNEL_SECONDS_MAX: Duration = Duration::from_secs(32_767);

/// Only a token bucket has a burst, and that of its rate.
const WITH_TOKEN_BUCKET: &[Companion] = &[
    Companion::new("algorithm", Values::Among(&["token-bucket"]), IfIdle::Refused),
    Companion::new("rate", Values::Any, IfIdle::Refused),
];

pub(super) const LISTENER: &[Key] = &[
    Key::new(KeyTable::Listener, "bind", Shape::List("addresses"))
        .note("at least one")
        .reload(
            "new addresses are opened before the swap; gone ones are emptied and closed \
                 after it",
        )
        .means("Where to accept."),
    Key::new(KeyTable::Listener, "pool", Shape::Text("name"))
        .note("a `[pool.NAME]`")
        .means("Where its sessions go, those that no route sends elsewhere."),
    Key::new(KeyTable::Listener, "protocol", Shape::Word(words::<Protocol>))
        .default("tcp")
        .means("What clients speak."),
    Key::new(KeyTable::Listener, "idle_timeout", Shape::Duration(SHORTEST, LONGEST))
        .default("10m")
        .reload("now, noticed within 17 s")
        .means("End a session when no byte was delivered in either direction for this long."),
    Key::new(KeyTable::Listener, "half_closed_timeout", Shape::Duration(SHORTEST, LONGEST))
        .default("1m")
        .reload("now, noticed within 17 s")
        .means(
            "End a session when no byte was delivered for this long once one side has sent EOF.",
        ),
    Key::new(KeyTable::Listener, "max_sessions", Shape::Count(1, SESSIONS_MAX))
        .or_else("no bound of its own")
        .means("Sessions of this listener at once."),
    Key::new(KeyTable::Listener, "backlog", Shape::Count(1, 65_535))
        .default("4096")
        .reload("now")
        .means(
            "Length of the kernel's accept queue, for each worker; a Unix socket has one for \
                all.",
        ),
    Key::new(KeyTable::Listener, "allow", Shape::List("networks"))
        .default("[]")
        .means("Networks that may connect; empty is all."),
    Key::new(KeyTable::Listener, "deny", Shape::List("networks"))
        .default("[]")
        .means("Networks that may not connect; wins over `allow`."),
    Key::new(KeyTable::Listener, "accept_proxy", Shape::KeyTable(KeyTable::AcceptProxy))
        .or_else("no peers")
        .means("Peers that begin with a PROXY header, see below."),
    Key::new(KeyTable::Listener, "max_lifetime", Shape::Duration(SHORTEST, LONGEST))
        .or_else("for ever")
        .reload("now, noticed within 17 s")
        .means(
            "Reset a session, both sides, once it has lasted this long, whatever it does \
                (reason `max_lifetime`).",
        ),
    Key::new(KeyTable::Listener, "keepalive", Shape::KeyTable(KeyTable::Keepalive))
        .or_else("see below")
        .means("TCP keepalive of both sockets."),
    Key::new(KeyTable::Listener, "user_timeout", Shape::Duration(SHORTEST, USER_TIMEOUT_MAX))
        .or_else("the kernel's")
        .means(
            "`TCP_USER_TIMEOUT` of both sockets: give up when sent bytes stay unacknowledged \
                for this long.",
        ),
    Key::new(KeyTable::Listener, "fast_open", Shape::Boolean)
        .default("false")
        .reload("now")
        .means("Accept data in the SYN (queue of 256)."),
    Key::new(KeyTable::Listener, "defer_accept", Shape::Boolean)
        .default("false")
        .reload("now")
        .means("`TCP_DEFER_ACCEPT`: accept only once the client has sent something."),
    Key::new(KeyTable::Listener, "mptcp", Shape::Boolean)
        .default("false")
        .reload("restart, for an address that is listened on")
        .means("Accept Multipath TCP."),
    Key::new(KeyTable::Listener, "bandwidth", Shape::TableOrFalse(KeyTable::Bandwidth))
        .or_else("no bound")
        .reload("now")
        .means("How fast the bytes of each session go, see [below](#bandwidth-of-listenername)."),
    Key::new(KeyTable::Listener, "route", Shape::Tables(KeyTable::Route))
        .or_else("none")
        .means("Other pools for some clients, see [below](#listenernameroute)."),
    Key::new(KeyTable::Listener, "peek", Shape::KeyTable(KeyTable::Peek))
        .or_else("see below")
        .means("How long to wait for what routes and hashes need."),
    Key::new(KeyTable::Listener, "limit", Shape::TableOrFalse(KeyTable::Limit))
        .or_else("no limit")
        .means("Admission per client, see [below](#listenernamelimit)."),
];

pub(super) const ACCEPT_PROXY: &[Key] = &[
    Key::new(KeyTable::AcceptProxy, "from", Shape::List("networks"))
        .means("Peers that have to send a header; `\"unix:\"` is every peer on a Unix socket."),
    Key::new(KeyTable::AcceptProxy, "others", Shape::Word(words::<OtherPeers>))
        .default("refuse")
        .means(
            "Other peers are refused at once, or served as clients without a look for a \
                header.",
        ),
    Key::new(KeyTable::AcceptProxy, "timeout", Shape::Duration(SHORTEST, HOUR))
        .default("3s")
        .means("How long the whole header may take."),
];

pub(super) const KEEPALIVE: &[Key] = &[
    Key::new(KeyTable::Keepalive, "idle", Shape::WholeSeconds(SECOND, KERNEL_SECONDS_MAX))
        .default("60s")
        .means("Silence before the first keepalive packet."),
    Key::new(KeyTable::Keepalive, "interval", Shape::WholeSeconds(SECOND, KERNEL_SECONDS_MAX))
        .default("15s")
        .means("Time between packets."),
    Key::new(KeyTable::Keepalive, "count", Shape::Count(1, 127))
        .default("4")
        .means("Unanswered packets that end the connection."),
];

pub(super) const BANDWIDTH: &[Key] = &[
    Key::new(KeyTable::Bandwidth, "up", Shape::Bandwidth(1 << 10, 64 << 30))
        .or_else("no bound")
        .reload("now, for open sessions too")
        .means("From the client to the backend."),
    Key::new(KeyTable::Bandwidth, "down", Shape::Bandwidth(1 << 10, 64 << 30))
        .or_else("no bound")
        .reload("now, for open sessions too")
        .means("From the backend to the client."),
];

pub(super) const ROUTE: &[Key] = &[
    Key::new(KeyTable::Route, "sni", Shape::List("list"))
        .or_else("any")
        .note("names, `*.` only in front")
        .means("Server names, in any case."),
    Key::new(KeyTable::Route, "alpn", Shape::List("list"))
        .or_else("any")
        .note("1 to 255 bytes each")
        .means("One of these protocols is offered."),
    Key::new(KeyTable::Route, "client", Shape::List("networks"))
        .or_else("any")
        .means("Networks of the client."),
    Key::new(KeyTable::Route, "pool", Shape::Text("name"))
        .note("a `[pool.NAME]`")
        .means("Where these sessions go."),
];

pub(super) const PEEK: &[Key] = &[
    Key::new(KeyTable::Peek, "timeout", Shape::Duration(SHORTEST, HOUR))
        .default("3s")
        .means("How long the bytes that decide may take."),
    Key::new(KeyTable::Peek, "max_bytes", Shape::Size(256, 65_536))
        .default("16KiB")
        .reload("now")
        .means("How many bytes are looked at."),
    Key::new(KeyTable::Peek, "on_timeout", Shape::Word(words::<OnPeekTimeout>))
        .default("close")
        .reload("now")
        .means(
            "When the time or the bytes are used up or the client has sent FIN, and nothing \
                is decided: reset it (reason `peek`), or let it go on to the listener's `pool`.",
        ),
];

pub(super) const LIMIT: &[Key] = &[
    Key::new(KeyTable::Limit, "algorithm", Shape::Word(words::<LimitAlgorithm>))
        .default("token-bucket")
        .means("How `rate` and `listener_rate` are measured."),
    Key::new(KeyTable::Limit, "rate", Shape::Rate)
        .or_else("no bound")
        .note("; in windows up to 100,000 in each period")
        .means("Connections per time and client."),
    Key::new(KeyTable::Limit, "burst", Shape::Count(1, U32_MAX))
        .or_else("the number of `rate`")
        .note("; the whole burst must be back within 30 days")
        .beside(WITH_TOKEN_BUCKET)
        .means("`token-bucket` only: connections a quiet client may make at once."),
    Key::new(KeyTable::Limit, "max_concurrent", Shape::Count(1, U32_MAX))
        .or_else("no bound")
        .means("Open sessions per client."),
    Key::new(KeyTable::Limit, "key", Shape::KeyTable(KeyTable::LimitKey))
        .or_else("see below")
        .means("What counts as one client."),
    Key::new(KeyTable::Limit, "action", Shape::Word(words::<LimitAction>))
        .or_else("`\"reset\"`; `\"reply\"` where `protocol` is `\"http\"`")
        .means(
            "What a client over its limit gets: RST; FIN; an HTTP answer, where `protocol` \
                is `\"tcp\"` the same as `\"close\"`; silence and then RST.",
        ),
    Key::new(KeyTable::Limit, "mode", Shape::Word(words::<LimitMode>)).default("enforce").means(
        "`\"observe\"`: count what would be refused \
                (`evenkeel_limit_decisions_total{decision=\"would_refuse\"}`) and let it \
                through.",
    ),
    Key::new(KeyTable::Limit, "exempt", Shape::List("networks"))
        .default("[]")
        .means("Never limited, never counted, by `listener_rate` neither."),
    Key::new(KeyTable::Limit, "table_size", Shape::Count(CLIENTS_MIN, CLIENTS_MAX))
        .default("65536")
        .means("Clients whose rate is remembered, 8 bytes each, rounded up to a power of two."),
    Key::new(KeyTable::Limit, "listener_rate", Shape::Rate)
        .or_else("no bound")
        .note("; in windows up to 100,000 in each period")
        .means("Connections per time of all clients together, exact over all workers."),
];

pub(super) const LIMIT_KEY: &[Key] = &[
    Key::new(KeyTable::LimitKey, "v4", Shape::Count(0, 32))
        .default("32")
        .means("Leading bits of an IPv4 address that make one client."),
    Key::new(KeyTable::LimitKey, "v6", Shape::Count(0, 128))
        .default("64")
        .means("Leading bits of an IPv6 address that make one client."),
];
