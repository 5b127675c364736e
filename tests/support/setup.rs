//! A configuration with one listener, `front`, and one pool, `back`, of backends `b1`, `b2`, ...

use std::net::SocketAddr;

use super::{Backend, Proxy};

/// What most tests configure; further keys are added as text.
#[derive(Clone, Default)]
pub struct Setup {
    global: String,
    listener: String,
    limit: Option<String>,
    pool: String,
    backends: Vec<(SocketAddr, String)>,
    also: String,
}

impl Setup {
    /// One worker, port 0 of 127.0.0.1, everything else by default.
    pub fn of(backends: &[&Backend]) -> Self {
        let backends = backends.iter().map(|backend| (backend.address(), String::new())).collect();
        Self { backends, ..Self::default() }
    }

    /// Further keys of `[global]`.
    #[must_use]
    pub fn global(mut self, keys: &str) -> Self {
        self.global.push_str(&format!("{keys}\n"));
        self
    }

    /// Further keys of the listener.
    #[must_use]
    pub fn listener(mut self, keys: &str) -> Self {
        self.listener.push_str(&format!("{keys}\n"));
        self
    }

    /// Keys of the listener's limit.
    #[must_use]
    pub fn limit(mut self, keys: &str) -> Self {
        self.limit = Some(keys.to_owned());
        self
    }

    /// Further keys of the pool.
    #[must_use]
    pub fn pool(mut self, keys: &str) -> Self {
        self.pool.push_str(&format!("{keys}\n"));
        self
    }

    /// Further keys of backend `b{number}`.
    #[must_use]
    pub fn backend(mut self, number: usize, keys: &str) -> Self {
        self.backends[number - 1].1 = format!(", {keys}");
        self
    }

    /// Another table.
    #[must_use]
    pub fn also(mut self, tables: &str) -> Self {
        self.also.push_str(&format!("{tables}\n"));
        self
    }

    /// As TOML.
    pub fn text(&self) -> String {
        let unless = |text: &str, key: &str, line: &str| {
            if text.contains(key) { String::new() } else { format!("{line}\n") }
        };
        let backends: Vec<String> = (1..)
            .zip(&self.backends)
            .map(|(number, (address, keys))| {
                format!("{{ address = \"{address}\", name = \"b{number}\"{keys} }}")
            })
            .collect();
        let limit = self.limit.iter().map(|keys| format!("[listener.front.limit]\n{keys}\n"));
        format!(
            "[global]\n{}{}[listener.front]\n{}pool = \"back\"\n{}{}\
             [pool.back]\nbackends = [{}]\n{}{}",
            unless(&self.global, "workers", "workers = 1"),
            self.global,
            unless(&self.listener, "bind", "bind = [\"127.0.0.1:0\"]"),
            self.listener,
            limit.collect::<String>(),
            backends.join(", "),
            self.pool,
            self.also,
        )
    }

    /// Runs it.
    #[track_caller]
    pub fn start(&self) -> Proxy {
        Proxy::start(&self.text())
    }
}
