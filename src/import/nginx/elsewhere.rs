//! Why a directive of nginx has no counterpart, and what to do instead.

/// Directives, or their beginnings, with the reason; the first that fits counts.
const REASONS: &[(&str, &str)] = &[
    (
        "http",
        "evenkeel balances connections: leave nginx for requests, behind evenkeel or beside it",
    ),
    ("mail", "evenkeel knows nothing of mail: leave nginx for it, behind evenkeel or beside it"),
    ("events", "evenkeel needs none of it: `max_sessions` is what descriptors and memory allow"),
    ("user", "the systemd unit gives evenkeel a user of its own"),
    ("pid", "systemd knows the process"),
    ("daemon", "evenkeel runs in the foreground: configs/evenkeel.service is a unit for systemd"),
    (
        "error_log",
        "`to` and `level` of `log` in [global] are the place and the least level of the log",
    ),
    (
        "access_log",
        "a session has a line of the log: see `to` and `sessions` of `log`, for all listeners",
    ),
    ("log_format", "the line of a session has fields of its own; `format = \"json\"` of `log`"),
    ("open_log_file_cache", "evenkeel has no such knob"),
    ("load_module", "evenkeel has no modules"),
    (
        "worker_rlimit_nofile",
        "evenkeel raises its limit of descriptors to the hard one; see LimitNOFILE= of the unit",
    ),
    ("worker_cpu_affinity", "`pin_workers` in [global] binds each worker to a CPU"),
    ("worker_", "evenkeel has no such knob"),
    ("resolver", "evenkeel asks no resolver: backends are addresses"),
    (
        "split_clients",
        "a share of clients by chance has no counterpart: give backends of one pool a `weight`",
    ),
    ("ssl_preread", "write `on` or `off`"),
    ("ssl", "evenkeel terminates no TLS"),
    ("proxy_ssl", "evenkeel does not encrypt what it passes on"),
    ("js_", "evenkeel runs no scripts"),
    ("health_check", "probes have a table of their own, [pool.NAME.health]"),
    ("match", "probes have a table of their own, [pool.NAME.health]"),
    ("return", "evenkeel answers nothing itself; `refusal` of a listener is for refused clients"),
    ("proxy_buffer_size", "evenkeel has no such knob"),
    ("limit_conn_log_level", "evenkeel logs each refused connection like any other"),
    ("zone_sync", "each process counts and remembers by itself"),
    ("sticky", "evenkeel writes no cookies: see `sticky` of the pool"),
    ("status_zone", "each listener and pool has metrics: docs/metrics.md"),
    ("state", "`evenkeel upgrade` keeps verdicts and states"),
    ("variables_hash", "evenkeel has no variables"),
    ("map_hash", "evenkeel has no variables"),
    ("set", "evenkeel has no variables"),
    ("geoip", "evenkeel knows no countries: write networks into `allow` and `deny`"),
    ("keyval", "evenkeel has no variables"),
    ("env", "evenkeel's file has no variables"),
    ("thread_pool", "workers wait for no disk"),
    ("timer_resolution", "evenkeel has no such knob"),
    ("proxy_requests", "evenkeel has no UDP"),
    ("proxy_responses", "evenkeel has no UDP"),
    ("server_name", "`sni` of a route asks for the name in the hello"),
    ("pass", "make it a pool, and routes to it"),
];

/// The reason for a directive.
pub(super) fn reason(name: &str) -> &'static str {
    let found = REASONS.iter().find(|(start, _)| name.starts_with(start));
    found.map_or("it has no counterpart, or is not known to this import", |(_, reason)| reason)
}
