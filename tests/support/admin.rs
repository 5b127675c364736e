//! Questions to the admin socket, asked in plain HTTP so that the answer is what a stranger gets.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};

use evenkeel::control::status::{BackendStatus, Status};

use super::{PATIENCE, Proxy, eventually};

/// An answer of the admin interface.
pub struct Answer {
    pub code: u16,
    pub body: String,
}

/// What `/metrics` said at one moment.
pub struct Metrics(String);

impl Metrics {
    /// The sum of all series with this name and (at least) these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels).sum()
    }

    /// How many series there are with this name and (at least) these labels.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.series(name, labels).count()
    }

    fn series<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = f64> + 'a {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, given) = series.split_once('{').unwrap_or((series, ""));
            let has = |(key, value): &(&str, &str)| given.contains(&format!("{key}=\"{value}\""));
            (found == name && labels.iter().all(has)).then(|| value.parse().unwrap())
        })
    }
}

/// One request over a fresh connection.
pub fn http(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> Answer {
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = Vec::new();
    // A server that refuses a body resets the connection behind its answer.
    let _reset = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Answer { code, body: body.to_owned() }
}

impl Proxy {
    /// Asks the admin socket.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(self.admin_socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        http(stream, method, path, body)
    }

    /// `GET /v1/status` as a script sees it.
    pub fn document(&self) -> serde_json::Value {
        serde_json::from_str(&self.ask("GET", "/v1/status", "").body).unwrap()
    }

    /// The real address of the read-only page.
    pub fn page(&self) -> SocketAddr {
        self.document()["admin"]["http"].as_str().unwrap().parse().unwrap()
    }

    /// `GET /v1/status`.
    pub fn status(&self) -> Status {
        serde_json::from_str(&self.ask("GET", "/v1/status", "").body).unwrap()
    }

    /// One backend of `GET /v1/status`.
    pub fn backend(&self, pool: &str, backend: &str) -> BackendStatus {
        self.status().pools[pool].backends[backend].clone()
    }

    /// Sessions open now.
    pub fn sessions(&self) -> u64 {
        self.status().sessions
    }

    /// Waits until this many sessions are open.
    #[track_caller]
    pub fn wait_for_sessions(&self, count: u64) {
        eventually(&format!("{count} sessions are open"), PATIENCE, || {
            (self.sessions() == count).then_some(())
        });
    }

    /// `GET /metrics`.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.ask("GET", "/metrics", "").body)
    }

    /// The sum of all series with this name and (at least) these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until a metric has this value.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        let mut last = f64::NAN;
        let found = super::within(PATIENCE, || {
            last = self.metric(name, labels);
            is_same(last, wanted).then_some(())
        });
        assert!(found.is_some(), "{name}{labels:?} is {last}, not {wanted}");
    }

    /// `drain`, `ready` or `maint` of `pool/backend`.
    #[track_caller]
    pub fn tell(&self, backend: &str, verb: &str) {
        let answer = self.ask("POST", &format!("/v1/backends/{backend}/{verb}"), "");
        assert_eq!(answer.code, 200, "{verb} {backend}: {}", answer.body);
    }

    /// Sets the weight of `pool/backend`.
    #[track_caller]
    pub fn weigh(&self, backend: &str, weight: u32) {
        let path = format!("/v1/backends/{backend}/weight");
        let answer = self.ask("POST", &path, &format!("{{\"weight\": {weight}}}"));
        assert_eq!(answer.code, 200, "weight {weight} of {backend}: {}", answer.body);
    }

    /// Runs the `reload` verb on the file as it is.
    pub fn reload(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .arg("reload")
            .arg("--socket")
            .arg(self.admin_socket())
            .output()
            .unwrap()
    }

    /// Replaces the file and has it put in force; gives what the verb printed.
    #[track_caller]
    pub fn reload_with(&self, config: &str) -> String {
        self.rewrite(config);
        let output = self.reload();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "reload refused: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }

    /// Lines of the session log so far, each one a JSON object.
    pub fn session_lines(&self) -> Vec<serde_json::Value> {
        let said = self.said();
        let lines = said.lines().filter(|line| line.contains("\"event\":\"session\""));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for as many lines of the session log, and gives them.
    #[track_caller]
    pub fn wait_for_session_lines(&self, count: usize) -> Vec<serde_json::Value> {
        eventually(&format!("{count} sessions are logged"), PATIENCE, || {
            let lines = self.session_lines();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// Descriptors the process has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// CPU time the process has used, in clock ticks (a hundredth of a second).
    pub fn cpu_ticks(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, after) = text.rsplit_once(')').unwrap();
        let fields: Vec<&str> = after.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

/// Whether two counts, which are whole numbers, are the same.
pub fn is_same(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.5
}
