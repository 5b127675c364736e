//! Keys of `[global]` and `[admin]`.

use super::bounds::{LONGEST, SECOND, SESSIONS_MAX, ZERO};
use super::key::{Key, KeyTable, Shape, words};
use crate::config::model::{LogFormat, LogLevel};
use crate::policy::terms::SpliceMode;

/// Largest seed that every TOML reader understands.
const SEED_MAX: u64 = i64::MAX as u64;

pub(super) const GLOBAL: &[Key] = &[
    Key::new(KeyTable::Global, "workers", Shape::AutoOrCount(1, 256))
        .default("auto")
        .reload("restart")
        .means("Threads that move bytes."),
    Key::new(KeyTable::Global, "max_sessions", Shape::AutoOrCount(1, SESSIONS_MAX))
        .default("auto")
        .means("Sessions the process holds at once; more are refused (`max_sessions`)."),
    Key::new(KeyTable::Global, "pin_workers", Shape::Boolean)
        .default("false")
        .reload("restart")
        .means("Bind worker N to the N-th CPU it may use."),
    Key::new(KeyTable::Global, "drain_timeout", Shape::Duration(ZERO, LONGEST))
        .default("5m")
        .reload("now")
        .means("When stopping: how long sessions may go on before they are reset."),
    Key::new(KeyTable::Global, "shutdown_delay", Shape::Duration(ZERO, LONGEST))
        .default("0s")
        .reload("now")
        .means(
            "When stopping: `/readyz` says 503 but connections are still accepted for this \
                long, so that whatever routes here can notice.",
        ),
    Key::new(KeyTable::Global, "splice", Shape::Word(words::<SpliceMode>))
        .default("auto")
        .reload("now; `\"always\"` new")
        .means("Move bytes through a kernel pipe instead of a buffer."),
    Key::new(KeyTable::Global, "spin", Shape::Duration(ZERO, SECOND))
        .default("0us")
        .reload("restart")
        .means(
            "Wait busily for up to this long before sleeping, while recent waits were about \
                as short: lower latency for a client that talks all the time (try `\"50us\"`).",
        ),
    Key::new(KeyTable::Global, "hash_seed", Shape::Count(0, SEED_MAX))
        .default("0")
        .means("Seed of the Maglev hash."),
    Key::new(KeyTable::Global, "log", Shape::KeyTable(KeyTable::Log))
        .or_else("see below")
        .reload("now")
        .means("What is logged."),
];

pub(super) const LOG: &[Key] = &[
    Key::new(KeyTable::Log, "level", Shape::Word(words::<LogLevel>))
        .default("info")
        .reload("now")
        .means("Least important event that is written."),
    Key::new(KeyTable::Log, "format", Shape::Word(words::<LogFormat>))
        .default("auto")
        .reload("now")
        .means("How a line looks."),
    Key::new(KeyTable::Log, "sessions", Shape::Boolean)
        .default("true")
        .reload("now")
        .means("One line for each session when it ends, and for each refused connection."),
];

pub(super) const ADMIN: &[Key] = &[
    Key::new(KeyTable::Admin, "socket", Shape::Text("absolute path"))
        .default("/run/evenkeel/admin.sock")
        .note("at most 107 bytes")
        .reload("restart")
        .means("Control socket, mode 0600: whoever may open it controls the process."),
    Key::new(KeyTable::Admin, "http", Shape::Text("IP address"))
        .or_else("off")
        .reload("restart")
        .means("Read-only page over TCP: `/`, `/metrics`, `/v1/status`, `/livez`, `/readyz`."),
];
