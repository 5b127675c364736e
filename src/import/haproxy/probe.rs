//! Health checks of HAProxy, as the probe of a pool.

use crate::config::escaped;
use crate::import::draft::KeyLines;
use crate::import::notes::Notes;

use super::sections::ConfigLine;
use super::words::escaped_byte;

/// Bytes of a `send` or an `expect`, and steps of a conversation.
const PAYLOAD_MAX: usize = 4096;
const STEPS_MAX: usize = 32;

/// The checks of a proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct CheckDraft {
    kind: CheckKind,
    steps: Vec<CheckStep>,
    http: KeyLines,
    /// Lines of `tcp-check` and `http-check`, for those whose kind is not in use.
    port: Option<u16>,
    speaks_tls: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum CheckKind {
    #[default]
    Connect,
    Conversation,
    Http,
    Hello,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum CheckStep {
    Send(Vec<u8>),
    Expect(Vec<u8>),
}

impl CheckDraft {
    /// Reads `option NAME ...`; whether it is one of checks.
    pub(super) fn option(&mut self, line: &ConfigLine, notes: &mut Notes) -> bool {
        let argument = |name: &str| {
            let at = line.words.iter().position(|word| word == name)?;
            line.words.get(at + 1).cloned()
        };
        match line.word(1) {
            "tcp-check" => self.begin(CheckKind::Conversation, Vec::new()),
            "httpchk" => {
                self.begin(CheckKind::Http, Vec::new());
                let words = line.from(2);
                let (method, path) = match words {
                    [] => ("OPTIONS", "/"),
                    [path] => ("OPTIONS", path.as_str()),
                    [method, path, ..] => (method.as_str(), path.as_str()),
                };
                self.set_request(line, (!method.is_empty()).then_some(method), path, notes);
                if let Some(host) = host_in_version(words) {
                    self.http.set_text("host", &host);
                }
            }
            "ssl-hello-chk" => self.begin(CheckKind::Hello, Vec::new()),
            "pgsql-check" => {
                let user = argument("user").unwrap_or_default();
                self.begin(CheckKind::Conversation, postgres(&user));
            }
            "redis-check" => {
                let steps = vec![send(b"PING\r\n"), expect(b"+PONG")];
                self.begin(CheckKind::Conversation, steps);
            }
            "smtpchk" => {
                let words = line.from(2);
                let hello = words.first().map_or("HELO", String::as_str);
                let name = words.get(1).map_or("localhost", String::as_str);
                self.begin(CheckKind::Conversation, smtp(hello, name));
            }
            "ldap-check" => self.begin(CheckKind::Conversation, ldap()),
            "mysql-check" => {
                self.begin(CheckKind::Conversation, mysql(argument("user").as_deref()));
                notes.differs(
                    line,
                    "the probe logs in with mysql_native_password and passes on OK; see \
                     docs/probes.md for servers that greet otherwise",
                );
            }
            _ => return false,
        }
        true
    }

    fn begin(&mut self, kind: CheckKind, steps: Vec<CheckStep>) {
        self.kind = kind;
        self.steps = steps;
    }

    fn set_request(
        &mut self,
        line: &ConfigLine,
        method: Option<&str>,
        path: &str,
        notes: &mut Notes,
    ) {
        match method {
            Some(method @ ("GET" | "HEAD" | "OPTIONS")) => self.http.set_text("method", method),
            Some(method) => {
                notes.lost(line, format!("`{method}`: probes use a method without a body"));
            }
            None => {}
        }
        let is_plain = |letter: char| letter.is_ascii_graphic() && !"<>#\"`".contains(letter);
        if path.starts_with('/') && path.len() <= PAYLOAD_MAX && path.chars().all(is_plain) {
            self.http.set_text("path", path);
        } else {
            notes.lost(line, format!("`{path}` is no path that a probe can ask for"));
        }
    }

    /// Reads `tcp-check ...`.
    pub(super) fn tcp(&mut self, line: &ConfigLine, notes: &mut Notes) {
        let read = match line.word(1) {
            "connect" => self.connect(line),
            "send" => Ok(Some(send(bytes_of(line.word(2)).as_slice()))),
            "send-binary" => hexadecimal(line.word(2)).map(|bytes| Some(CheckStep::Send(bytes))),
            "expect" => expectation(line.from(2)).map(Some),
            "comment" => Ok(None),
            other => Err(format!("`{other}` has no counterpart")),
        };
        match read {
            Ok(Some(CheckStep::Send(bytes) | CheckStep::Expect(bytes)))
                if bytes.is_empty() || bytes.len() > PAYLOAD_MAX =>
            {
                notes.lost(line, format!("a probe sends and expects 1 to {PAYLOAD_MAX} bytes"));
            }
            Ok(Some(_)) if self.steps.len() == STEPS_MAX => {
                notes.lost(line, format!("a probe has at most {STEPS_MAX} steps"));
            }
            Ok(step) => self.steps.extend(step),
            Err(why) => notes.lost(line, why),
        }
    }

    fn connect(&mut self, line: &ConfigLine) -> Result<Option<CheckStep>, String> {
        if !self.steps.is_empty() {
            return Err("a probe makes one connection".to_owned());
        }
        let mut rest = line.from(2).iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "ssl" => self.speaks_tls = true,
                "port" => {
                    let port = rest.next().and_then(|port| port.parse().ok());
                    self.port = port.filter(|port| *port > 0);
                }
                "sni" => {
                    if let Some(name) = rest.next() {
                        self.http.set_text("host", name);
                    }
                }
                "default" | "linger" | "send-proxy" | "comment" => {}
                other => return Err(format!("`{other}` has no counterpart")),
            }
        }
        Ok(None)
    }

    /// Reads `http-check ...`.
    pub(super) fn http(&mut self, line: &ConfigLine, notes: &mut Notes) {
        let words = line.from(2);
        let behind = |name: &str| {
            let at = words.iter().position(|word| word == name)?;
            words.get(at + 1).map(String::as_str)
        };
        match line.word(1) {
            "send" => {
                let path = behind("uri").map(str::to_owned);
                let path = path.or_else(|| self.http.get("path").map(unquoted));
                let path = path.unwrap_or_else(|| "/".to_owned());
                self.set_request(line, behind("meth"), &path, notes);
                let header = words.iter().position(|word| word == "hdr");
                let header = header.map_or(&[][..], |at| words.get(at + 1..).unwrap_or_default());
                match header {
                    [name, host, ..] if name.eq_ignore_ascii_case("host") => {
                        self.http.set_text("host", host);
                    }
                    [] => {}
                    _ => notes.lost(line, "a probe sends no header but `host`"),
                }
                if behind("body").is_some() {
                    notes.lost(line, "a probe's request has no body");
                }
            }
            "expect" => match statuses(words) {
                Ok(statuses) => self.http.set_list("status", &statuses),
                Err(why) => notes.lost(line, why),
            },
            "connect" => {
                if let Err(why) = self.connect(line) {
                    notes.lost(line, why);
                }
            }
            "disable-on-404" => notes.lost(line, "evenkeel drains a backend by `evenkeel drain`"),
            other => notes.lost(line, format!("`http-check {other}` has no counterpart")),
        }
    }

    /// The keys of `[pool.NAME.health]` that say what one probe does.
    pub(super) fn health(&self, is_tls: bool, name: Option<&str>) -> KeyLines {
        let mut keys = KeyLines::default();
        let is_tls = is_tls || self.speaks_tls;
        let mut host = name.map(str::to_owned).or_else(|| self.http.get("host").map(unquoted));
        if is_tls || self.kind == CheckKind::Hello {
            // Only a name can be asked for in a handshake.
            host = host.filter(|host| crate::import::server_name::is_server_name(host));
        }
        let expects = self.steps.iter().any(|step| matches!(step, CheckStep::Expect(_)));
        match self.kind {
            CheckKind::Http => {
                keys.set_text("probe", "http");
                for key in ["method", "path", "status"] {
                    if let Some(value) = self.http.get(key) {
                        keys.set(key, value);
                    }
                }
                if keys.get("path").is_none() {
                    keys.set_text("path", "/");
                }
                if keys.get("status").is_none() {
                    keys.set_list("status", &["200-399"]);
                }
            }
            CheckKind::Conversation if expects => self.set_conversation(&mut keys),
            CheckKind::Hello => keys.set_text("probe", "tls"),
            CheckKind::Connect | CheckKind::Conversation if is_tls => keys.set_text("probe", "tls"),
            CheckKind::Connect | CheckKind::Conversation => keys.set_text("probe", "tcp"),
        }
        let probe = keys.get("probe").unwrap_or_default();
        let is_plain = matches!(probe, "\"tcp\"");
        let has_conversation = !is_plain && probe != "\"tls\"";
        if has_conversation && is_tls {
            keys.set("tls", true);
        }
        let takes_host = !is_plain && (self.kind == CheckKind::Http || is_tls);
        let takes_host = takes_host || self.kind == CheckKind::Hello;
        if let Some(host) = host.filter(|host| takes_host && is_header(host)) {
            keys.set_text("host", &host);
        }
        if let Some(port) = self.port {
            keys.set("port", port);
        }
        keys
    }

    fn set_conversation(&self, keys: &mut KeyLines) {
        let literal = |bytes: &[u8]| format!("'{}'", escaped(bytes));
        keys.set_text("probe", "send-expect");
        match self.steps.as_slice() {
            [CheckStep::Expect(wanted)] => {
                keys.set_text("send", "");
                keys.set("expect", literal(wanted));
            }
            [CheckStep::Send(sent), CheckStep::Expect(wanted)] => {
                keys.set("send", literal(sent));
                keys.set("expect", literal(wanted));
            }
            steps => {
                let steps = steps.iter().map(|step| match step {
                    CheckStep::Send(bytes) => format!("{{ send = {} }}", literal(bytes)),
                    CheckStep::Expect(bytes) => format!("{{ expect = {} }}", literal(bytes)),
                });
                let steps: Vec<String> = steps.collect();
                keys.set("steps", format!("[\n  {},\n]", steps.join(",\n  ")));
            }
        }
    }

    /// Whether it is a conversation of several steps.
    pub(super) fn has_steps(&self) -> bool {
        self.kind == CheckKind::Conversation && self.steps.len() > 2
    }
}

fn send(bytes: &[u8]) -> CheckStep {
    CheckStep::Send(bytes.to_vec())
}

fn expect(bytes: &[u8]) -> CheckStep {
    CheckStep::Expect(bytes.to_vec())
}

/// The bytes that a word stands for.
fn bytes_of(word: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    for letter in word.chars() {
        match escaped_byte(letter) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("`{text}` is not hexadecimal");
    if !text.is_ascii() || text.len() % 2 == 1 {
        return Err(wrong());
    }
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        u8::from_str_radix(pair, 16).map_err(|_| wrong())
    });
    pairs.collect()
}

/// What `tcp-check expect` waits for.
fn expectation(words: &[String]) -> Result<CheckStep, String> {
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let value = rest.next().map(String::as_str).unwrap_or_default();
        match word.as_str() {
            "string" => return Ok(expect(&bytes_of(value))),
            "binary" => return hexadecimal(value).map(CheckStep::Expect),
            "comment" | "min-recv" | "on-success" | "on-error" | "ok-status" | "error-status"
            | "tout-status" | "status-code" => {}
            "!" => return Err("a probe cannot wait for an answer that is missing".to_owned()),
            "rstring" | "rbinary" => {
                return Err("probes know no regular expressions: expect a fixed part".to_owned());
            }
            other => return Err(format!("`expect {other}` has no counterpart")),
        }
    }
    Err("it expects nothing".to_owned())
}

/// The good answers of `http-check expect`.
fn statuses(words: &[String]) -> Result<Vec<String>, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [.., "status", list] = words.as_slice() else {
        return Err("a probe looks at the status only: use `status`".to_owned());
    };
    if words.contains(&"!") {
        return Err("write the good answers, not the bad ones".to_owned());
    }
    let is_good = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let is_short = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|code| is_short && (100..600).contains(code))
        };
        number(first).zip(number(last)).is_some_and(|(first, last)| first <= last)
    };
    let parts: Vec<String> = list.split(',').map(str::to_owned).collect();
    if parts.iter().all(|part| is_good(part)) {
        Ok(parts)
    } else {
        Err(format!("`{list}` is no list of answers"))
    }
}

/// The host of the old way to write one: `HTTP/1.1\r\nHost:\ www`.
fn host_in_version(words: &[String]) -> Option<String> {
    let rest = words.get(2..)?.join(" ");
    let (_, value) = rest.split_once("Host:").or_else(|| rest.split_once("host:"))?;
    let host = value.trim_start().split(['\r', '\n', ' ']).next()?;
    is_header(host).then(|| host.to_owned())
}

/// Whether a Host header can have this value.
fn is_header(host: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_:[]".contains(letter);
    !host.is_empty() && host.len() <= 255 && host.chars().all(is_plain)
}

/// A text without the quotes around it.
fn unquoted(text: &str) -> String {
    let inside = text.strip_prefix(['"', '\'']).and_then(|text| text.strip_suffix(['"', '\'']));
    inside.unwrap_or(text).to_owned()
}

/// The start of a session, and the question for a password (docs/probes.md).
fn postgres(user: &str) -> Vec<CheckStep> {
    let body = [b"\0\x03\0\0user\0", user.as_bytes(), b"\0\0"].concat();
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    vec![CheckStep::Send([&length.to_be_bytes()[..], &body].concat()), expect(b"R")]
}

fn smtp(hello: &str, name: &str) -> Vec<CheckStep> {
    let hello = format!("{hello} {name}\r\n");
    vec![expect(b"220"), send(hello.as_bytes()), expect(b"250"), send(b"QUIT\r\n"), expect(b"221")]
}

/// An anonymous bind, its success, and an unbind (docs/probes.md).
fn ldap() -> Vec<CheckStep> {
    vec![
        send(b"0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\0\x80\0"),
        expect(b"0\x0c\x02\x01\x01a\x07\x0a\x01\0"),
        send(b"0\x05\x02\x01\x02B\0"),
    ]
}

/// A login without a password, and OK; without a user, the greeting of protocol 10.
fn mysql(user: Option<&str>) -> Vec<CheckStep> {
    let Some(user) = user else { return vec![expect(b"\0\0\0\x0a")] };
    // Capabilities (protocol 4.1, authentication by a plugin), longest packet, character set.
    const FLAGS: &[u8] = b"\x01\x82\x08\0\0\0\0\x01!";
    // An empty answer to the greeting is a byte 0 for its length.
    let body = [FLAGS, &[0; 23], user.as_bytes(), b"\0\0mysql_native_password\0"].concat();
    let [low, middle, high, _] = u32::try_from(body.len()).unwrap_or(0).to_le_bytes();
    vec![CheckStep::Send([&[low, middle, high, 1][..], &body].concat()), expect(b"\x07\0\0\x02\0")]
}
